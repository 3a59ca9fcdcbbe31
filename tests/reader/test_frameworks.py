"""Other libraries see each voxel at the place we say: shown with their own transforms and readers."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from builder.errors import SpecError
from builder.reader import open_dataset
from builder.reader.export import export_datalist, export_nifti, export_nnunet
from builder.reader.frameworks import to_monai, to_torchio


def brightest(item: Any) -> tuple[np.ndarray[Any, Any], int]:
    """A voxel no other equals, and its value: marked in place."""
    item["image"][0, 2, 3, 4] = 3000
    return np.asarray(item.geometry.to_world([[2, 3, 4]])[0]), 3000


def test_simpleitk_finds_every_voxel_where_we_say(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root)
    entries = export_nifti(dataset.select([4, 9]), tmp_path)
    for position, entry in zip([4, 9], entries, strict=True):
        item = dataset[position]
        image = sitk.ReadImage(str(tmp_path / entry["image"]))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), item["image"][0])
        for voxel in ([0, 0, 0], [5, 6, 7], [1, 2, 3]):
            world = image.TransformIndexToPhysicalPoint([int(n) for n in reversed(voxel)])
            np.testing.assert_allclose(world, item.geometry.to_world([voxel])[0], atol=1e-4)
    assert json.loads((tmp_path / "samples.json").read_text())[0]["sample_key"] == "s00004"


def test_exports_are_the_same_bytes_again(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root).select([1, 2])
    for folder in ("a", "b"):
        export_nifti(dataset, tmp_path / folder)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_monai_reorients_to_the_same_place(patches: Any) -> None:
    transforms = pytest.importorskip("monai.transforms")
    item = open_dataset(patches.root)[5]
    world, value = brightest(item)
    sample = to_monai(item)
    labels = (("L", "R"), ("P", "A"), ("I", "S"))
    turned = transforms.Orientation("LAS", labels=labels)(sample["image"])
    voxel = np.argwhere(turned.numpy()[0] == value)[0]
    ras = (turned.affine.numpy() @ [*voxel, 1])[:3]
    np.testing.assert_allclose(ras * [-1, -1, 1], world, atol=1e-4)
    assert sample["row"]["sample_key"] == "s00005"


def test_torchio_reorients_to_the_same_place(patches: Any) -> None:
    torchio = pytest.importorskip("torchio")
    item = open_dataset(patches.root)[5]
    world, value = brightest(item)
    subject = to_torchio(item)
    turned = torchio.ToCanonical()(subject)["image"]
    voxel = np.argwhere(turned.numpy()[0] == value)[0]
    np.testing.assert_allclose((turned.affine @ [*voxel, 1])[:3] * [-1, -1, 1], world, atol=1e-4)
    assert isinstance(subject["tumor"], torchio.LabelMap)


def test_monai_reads_the_datalist(patches: Any, tmp_path: Path) -> None:
    data = pytest.importorskip("monai.data")
    path = export_datalist(open_dataset(patches.root), tmp_path, label="tumor")
    for key, split in (("training", "train"), ("validation", "validation"), ("test", "test")):
        found = data.load_decathlon_datalist(str(path), True, key)
        assert len(found) == patches.splits.count(split)
        assert all(Path(entry["image"]).is_file() and Path(entry["label"]).is_file() for entry in found)


def test_nnunet_layout(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root)
    with pytest.raises(SpecError, match="segments"):
        export_nnunet(dataset, tmp_path, number=7, label="tumor")


def test_nnunet_layout_of_a_labelled_set(labelled: Any, tmp_path: Path) -> None:
    dataset = open_dataset(labelled.root)
    root = export_nnunet(dataset, tmp_path, number=7, label="tumor")
    assert root.name == "Dataset007_made"
    document = json.loads((root / "dataset.json").read_text())
    assert document["labels"] == {"background": 0, "core": 1, "edema": 2}
    assert document["channel_names"] == {"0": "CT"}
    names = sorted(p.name for p in (root / "imagesTr").iterdir())
    assert len(names) == document["numTraining"] == sum(split != "test" for split in labelled.splits)
    for name in names:
        key = name.removesuffix("_0000.nii.gz")
        image = nibabel.load(root / "imagesTr" / name)
        mask = nibabel.load(root / "labelsTr" / f"{key}.nii.gz")
        np.testing.assert_array_equal(image.affine, mask.affine)
        stored = labelled.samples[int(key[1:])].arrays["tumor"][0]
        expected = np.where(stored == 3, 1, np.where(stored == 5, 2, 0)).transpose(2, 1, 0)
        np.testing.assert_array_equal(np.asarray(mask.dataobj), expected)
    assert len(list((root / "imagesTs").iterdir())) == labelled.splits.count("test")
