"""Datasets as files that other tools expect: NIfTI, nnU-Net's raw layout, and MONAI's data list."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import MissingExtra, SpecError
from builder.model.geometry import Affine
from builder.model.layout import canonical_json
from builder.reader.dataset import Dataset, Item
from builder.reader.frameworks import nifti_arrays


def export_nifti(dataset: Dataset, folder: str | Path) -> list[dict[str, str]]:
    """Write every field of every sample as ``<field>/<sample_key>.nii.gz``, and the rows as ``samples.json``.

    Returns
    -------
    list
        For each sample its ``sample_key`` and the path of every field, relative to ``folder``.
    """
    root, entries, rows = Path(folder), [], []
    for item in dataset:
        row = item.row
        entry = {"sample_key": row["sample_key"]}
        for name in dataset.fields:
            entry[name] = f"{name}/{row['sample_key']}.nii.gz"
            _write(root / entry[name], *nifti_arrays(item, name))
        entries.append(entry)
        rows.append(row)
    (root / "samples.json").write_text(json.dumps(rows, indent=1, sort_keys=True, default=str) + "\n")
    return entries


def export_datalist(dataset: Dataset, folder: str | Path, *, label: str) -> Path:
    """NIfTI files and MONAI's ``datalist.json``: ``training``, ``validation`` and ``test`` lists by split.

    Raises
    ------
    SpecError
        For a label the dataset does not have.
    """
    dataset.layout(label)
    lists: dict[str, list[dict[str, str]]] = {}
    splits = dataset.table.column("split").to_pylist()
    for split, entry in zip(splits, export_nifti(dataset, folder), strict=True):
        named = {"train": "training"}.get(split, split)
        lists.setdefault(named, []).append({"image": entry["image"], "label": entry[label]})
    path = Path(folder) / "datalist.json"
    path.write_bytes(canonical_json(lists))
    return path


def export_nnunet(
    dataset: Dataset, folder: str | Path, *, number: int, label: str, test_splits: Sequence[str] = ("test",)
) -> Path:
    """nnU-Net v2's raw layout: ``Dataset<number>_<name>`` with imagesTr, labelsTr, imagesTs and dataset.json.

    Each channel of ``image`` is a file ``_0000``, ``_0001``, ...; the segments of ``label`` become consecutive classes
    from 1 in the order of their values. Samples of ``test_splits`` go to imagesTs, their labels to labelsTs.
    Source: nnU-Net v2, documentation/dataset_format.md.

    Raises
    ------
    SpecError
        For a label that is no label map of one channel with stated segments.
    """
    layout = dataset.layout(label)
    if layout.channels != 1 or not layout.segments:
        raise SpecError(f"label: found {label!r} with {layout.channels} channels, expected one channel with segments")
    ordered = sorted(layout.segments.items(), key=lambda segment: segment[1][1])
    classes = {value: number for number, (_, (_, value)) in enumerate(ordered, start=1)}
    root = Path(folder) / f"Dataset{number:03d}_{dataset.manifest.name}"
    if root.exists():
        shutil.rmtree(root)
    training = 0
    for item in dataset:
        row = item.row
        suffix = "Ts" if row["split"] in test_splits else "Tr"
        training += suffix == "Tr"
        _write_nnunet(item, label, root=root, suffix=suffix, classes=classes)
    document = {
        "channel_names": {str(c): _channel_name(layout_unit) for c, layout_unit in enumerate(_units(dataset))},
        "labels": {"background": 0, **{name: classes[value] for name, (_, value) in ordered}},
        "numTraining": training,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(document, indent=1) + "\n")
    return root


def _write_nnunet(item: Item, label: str, *, root: Path, suffix: str, classes: Mapping[int, int]) -> None:
    key = item.row["sample_key"]
    image, affine = nifti_arrays(item, "image")
    for channel in range(item["image"].shape[0]):
        part = image if image.ndim == 3 else np.ascontiguousarray(image[..., channel])
        _write(root / f"images{suffix}" / f"{key}_{channel:04d}.nii.gz", part, affine)
    mask, affine = nifti_arrays(item, label)
    mapped = np.zeros(mask.shape, np.uint8)
    for value, number in classes.items():
        mapped[mask == value] = number
    _write(root / f"labels{suffix}" / f"{key}.nii.gz", mapped, affine)


def _units(dataset: Dataset) -> list[str]:
    layout = dataset.layout("image")
    return [layout.unit] * layout.channels


def _channel_name(unit: str) -> str:
    """nnU-Net normalises by this name: CT for Hounsfield units, anything else by z-score."""
    return "CT" if unit == "HU" else "image"


def _write(path: Path, array: NDArray[Any], affine: Affine) -> None:
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("nibabel", "export") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, path)
