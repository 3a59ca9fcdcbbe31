"""Export to NIfTI files, with or without MONAI's datalist."""

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from builder.errors import MissingExtra
from builder.model.canonical import canonical_json
from builder.model.geometry import Affine
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder
from builder.reader.frameworks import nifti_arrays


def export_nifti(dataset: Dataset, folder: str | Path) -> list[dict[str, str]]:
    """Write every field of every sample as ``<field>/<sample_key>.nii.gz``, and the rows as ``samples.json``.

    Returns
    -------
    list
        For each sample, its ``sample_key`` and the path of every field relative to ``folder``.
    """
    target, entries, rows = ExportFolder(Path(folder)), [], []
    for item in dataset:
        row = item.row
        entry = {"sample_key": row["sample_key"]}
        for name in dataset.fields:
            entry[name] = f"{name}/{row['sample_key']}.nii.gz"
            write_nifti(target.path(entry[name]), *nifti_arrays(item, name))
        entries.append(entry)
        rows.append(row)
    target.write((json.dumps(rows, indent=1, sort_keys=True, default=str) + "\n").encode(), "samples.json")
    return entries


def export_datalist(dataset: Dataset, folder: str | Path, *, label: str) -> Path:
    """Write NIfTI files and MONAI's ``datalist.json``, with the lists ``training``, ``validation`` and ``test``.

    Raises
    ------
    SpecError
        If the dataset does not have the label.
    """
    dataset.layout(label)
    lists: dict[str, list[dict[str, str]]] = {}
    splits = dataset.table.column("split").to_pylist()
    for split, entry in zip(splits, export_nifti(dataset, folder), strict=True):
        named = {"train": "training"}.get(split, split)
        lists.setdefault(named, []).append({"image": entry["image"], "label": entry[label]})
    return ExportFolder(Path(folder)).write(canonical_json(lists), "datalist.json")


def write_nifti(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write an array from ``nifti_arrays`` to a file, with the affine as sform and qform. Raises MissingExtra."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("nibabel") from error
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, path)
