"""Other libraries see each voxel at the place we say: shown with their own transforms and readers."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from builder.errors import SpecError
from builder.reader import open_dataset
from builder.reader.export import (
    export_datalist,
    export_nifti,
    export_nnunet,
    export_nnunet_preprocessed,
    export_webdataset,
)
from builder.reader.frameworks import to_monai, to_numpy, to_torchio

ROOT = Path(__file__).resolve().parents[2]
PEERS = "BUILDER_PEERS_PYTHON"
"""Names a Python that has nnU-Net: ``make test-peers`` makes one and sets it."""


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
    from monai import transforms

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
    import torchio

    item = open_dataset(patches.root)[5]
    world, value = brightest(item)
    subject = to_torchio(item)
    turned = torchio.ToCanonical()(subject)["image"]
    voxel = np.argwhere(turned.numpy()[0] == value)[0]
    np.testing.assert_allclose((turned.affine @ [*voxel, 1])[:3] * [-1, -1, 1], world, atol=1e-4)
    assert isinstance(subject["tumor"], torchio.LabelMap)


def test_monai_reads_the_datalist(patches: Any, tmp_path: Path) -> None:
    from monai import data

    path = export_datalist(open_dataset(patches.root), tmp_path, label="tumor")
    for key, split in (("training", "train"), ("validation", "validation"), ("test", "test")):
        found = data.load_decathlon_datalist(str(path), True, key)
        assert len(found) == patches.splits.count(split)
        assert all(Path(entry["image"]).is_file() and Path(entry["label"]).is_file() for entry in found)


@pytest.mark.filterwarnings("ignore:NvImgCodec")  # MONAI 1.6 tells that an optional decoder is missing
def test_monai_loads_and_crops_what_the_datalist_names(patches: Any, tmp_path: Path) -> None:
    from monai import data, transforms

    dataset = open_dataset(patches.root)
    path = export_datalist(dataset, tmp_path, label="tumor")
    load = transforms.Compose(
        [
            transforms.LoadImaged(keys=("image", "label"), reader="NibabelReader", ensure_channel_first=True),
            transforms.RandSpatialCropd(keys=("image", "label"), roi_size=(4, 4, 4), random_size=False),
        ]
    )
    entry = data.load_decathlon_datalist(str(path), True, "training")[0]
    loaded = transforms.LoadImaged(keys="image", reader="NibabelReader")(entry)["image"]
    item = dataset.split("train")[0]
    np.testing.assert_array_equal(loaded.numpy().transpose(2, 1, 0), item["image"][0])
    world = (loaded.affine.numpy() @ [3, 2, 1, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(world, item.geometry.to_world([[1, 2, 3]])[0], atol=1e-4)
    assert load(entry)["label"].shape == (1, 4, 4, 4)


@pytest.mark.filterwarnings("ignore:NvImgCodec")
def test_the_recipe_for_monai_works_as_it_stands(patches: Any) -> None:
    from torch.utils.data import DataLoader

    page = (ROOT / "docs" / "reading.md").read_text()
    code = page.partition("### MONAI")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"train": open_dataset(patches.root).split("train")}
    exec(code, names)
    samples = names["samples"]
    (batch, *_) = DataLoader(samples, batch_size=3, collate_fn=samples.collate)
    assert batch["image"].shape == batch["tumor"].shape == (3, 1, 4, 4, 4)
    assert 0 <= float(batch["image"].min()) <= float(batch["image"].max()) <= 1


def test_torchio_samples_patches_of_a_subject(patches: Any) -> None:
    import torchio

    subject = to_torchio(open_dataset(patches.root)[3])
    patch = next(iter(torchio.UniformSampler((3, 4, 5))(subject, 1)))
    assert patch["image"].shape == patch["tumor"].shape == (1, 3, 4, 5)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # WebDataset 1.0 leaves them to the collector
def test_webdataset_reads_the_tar_files(patches: Any, tmp_path: Path) -> None:
    import webdataset

    dataset = open_dataset(patches.root)
    paths = export_webdataset(dataset, tmp_path / "a", samples_per_file=6)
    assert [path.name for path in paths] == ["made-000000.tar", "made-000001.tar", "made-000002.tar"]
    stream = webdataset.WebDataset([str(path) for path in paths], shardshuffle=False).decode()
    found = list(stream)
    gc.collect()
    assert [sample["__key__"] for sample in found] == [item.row["sample_key"] for item in dataset]
    for sample, made in zip(found, patches.samples, strict=True):
        np.testing.assert_array_equal(sample["image.npy"], made.arrays["image"])
        np.testing.assert_array_equal(sample["tumor.npy"], made.arrays["tumor"])
        assert sample["json"]["sex"] == made.row["sex"]
    again = export_webdataset(dataset, tmp_path / "b", samples_per_file=6)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    with pytest.raises(ValueError, match="samples_per_file"):
        export_webdataset(dataset, tmp_path, samples_per_file=0)


def test_batches_as_plain_arrays(patches: Any) -> None:
    batch = open_dataset(patches.root).get([6, 2])
    found = to_numpy(batch, ["age_years", "sex", "slices"])
    assert found["index"].tolist() == [6, 2]
    assert np.isnan(found["age_years"][0])
    assert found["age_years"][1] == 2.0
    assert found["sex"].tolist() == ["F", "F"]
    assert found["slices"].tolist() == [6, 6]
    assert found["image"] is batch["image"]


JAX = """
import sys
import jax
import numpy as np
from builder.reader import open_dataset
from builder.reader.frameworks import to_jax
dataset = open_dataset(sys.argv[1])
kept = [to_jax(batch, ["age_years"]) for batch in dataset.batches(3, order="shuffled", threads=2)]
mean = jax.jit(lambda batch: batch["image"].astype("float32").mean(axis=(1, 2, 3, 4)))
for batch in kept:  # kept while later batches were decoded: buffers were not used again too early
    expected = dataset.get(batch["index"])["image"]
    np.testing.assert_array_equal(np.asarray(batch["image"]), expected)
    np.testing.assert_allclose(np.asarray(mean(batch)), expected.mean(axis=(1, 2, 3, 4)), rtol=1e-5)
try:
    to_jax(dataset.get([0]), ["sex"])
except ValueError as error:
    assert "sex" in str(error)
else:
    raise AssertionError
print(sum(len(batch["index"]) for batch in kept))
"""


def test_jax_takes_batches(patches: Any) -> None:
    """In a process of its own: JAX warns of every later fork."""
    command = [sys.executable, "-c", JAX, str(patches.root)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "17"


def test_nnunet_layout(patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(patches.root)
    with pytest.raises(SpecError, match=r"one channel with a number for each; add `layout: map`"):
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


def test_nnunet_preprocessed_blocks(labelled: Any, tmp_path: Path) -> None:
    import blosc2

    root = export_nnunet_preprocessed(open_dataset(labelled.root), tmp_path, number=7, label="tumor", patch=(4, 4, 4))
    fold = json.loads((root / "splits_final.json").read_text())[0]
    splits = {f"s{number:05d}": split for number, split in enumerate(labelled.splits)}
    assert fold == {
        "train": [key for key, split in splits.items() if split == "train"],
        "val": [key for key, split in splits.items() if split == "validation"],
    }
    for key in fold["train"] + fold["val"]:
        made = labelled.samples[int(key[1:])]
        data = blosc2.open(str(root / "nnUNetPlans_3d_fullres" / f"{key}.b2nd"), mode="r")
        mask = blosc2.open(str(root / "nnUNetPlans_3d_fullres" / f"{key}_seg.b2nd"), mode="r")
        assert (data.dtype, mask.dtype) == (np.float32, np.int16)
        np.testing.assert_array_equal(data[:], made.arrays["image"])
        stored = made.arrays["tumor"]
        np.testing.assert_array_equal(mask[:], np.where(stored == 3, 1, np.where(stored == 5, 2, 0)))


NNUNET = """
import json, sys, warnings
from pathlib import Path
import numpy as np
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json  # noqa: F401  (it is nnU-Net)
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
raw, ready = Path(sys.argv[1]), Path(sys.argv[2])
verify_dataset_integrity(str(raw), num_processes=1)
about = json.loads((ready / "dataset.json").read_text())
folder = str(ready / "nnUNetPlans_3d_fullres")
fold = json.loads((ready / "splits_final.json").read_text())[0]
dataset = infer_dataset_class(folder)(folder, identifiers=list(fold["train"]))
for key in fold["train"]:
    data, mask, _, about_case = dataset[key]
    image, read = SimpleITKIO().read_images([str(raw / "imagesTr" / f"{key}_0000.nii.gz")])
    assert np.array_equal(image, data[:]), key
    assert np.allclose(read["spacing"], about_case["spacing"]), key
    truth, _ = SimpleITKIO().read_seg(str(ready / "gt_segmentations" / f"{key}.nii.gz"))
    assert np.array_equal(truth, mask[:]), key
    for number, places in about_case["class_locations"].items():
        assert len(places) and (mask[:][tuple(places.T)] == number).all(), key
labels = LabelManager(about["labels"], None)
loader = nnUNetDataLoader(dataset, 2, (4, 4, 4), (4, 4, 4), labels, 1.0)
batch = next(loader)
assert tuple(batch["data"].shape) == (2, 1, 4, 4, 4)
assert (np.asarray(batch["target"]) > 0).any()
print("read")
"""


@pytest.mark.skipif(PEERS not in os.environ, reason="nnU-Net needs another PyTorch: make test-peers")
def test_nnunet_reads_both_layouts(labelled: Any, tmp_path: Path) -> None:
    dataset = open_dataset(labelled.root)
    raw = export_nnunet(dataset, tmp_path / "raw", number=7, label="tumor")
    ready = export_nnunet_preprocessed(dataset, tmp_path / "ready", number=7, label="tumor", patch=(4, 4, 4))
    environment = {**os.environ, "nnUNet_raw": str(tmp_path), "nnUNet_preprocessed": "", "nnUNet_results": ""}
    environment.pop("PYTHONPATH", None)
    command = [os.environ[PEERS], "-c", NNUNET, str(raw), str(ready)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.endswith("read\n")
