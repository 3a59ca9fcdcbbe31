"""Export to NIfTI files, with or without MONAI's datalist."""

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from builder.errors import MissingExtra
from builder.model.canonical import canonical_json
from builder.model.geometry import Affine
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present
from builder.reader.frameworks import nifti_arrays
from builder.reader.item import Item


def export_nifti(
    dataset: Dataset, folder: str | Path | ExportFolder, *, missing: Missing = "refuse", track: Track = silently
) -> list[dict[str, str]]:
    """Write every field of every sample as ``<field>/<sample_key>.nii.gz``, and the rows as ``samples.json``.

    Images of several channels become one file with four axes. ``missing: fill`` also writes samples that lack an
    optional image, with the value that fills its channel; SpecError refuses them otherwise.

    Returns
    -------
    list
        For each sample, its ``sample_key`` and the path of every field relative to ``folder``.
    """
    check_present(dataset, missing)
    target, rows = ExportFolder.of(folder), dataset.table.to_pylist()

    def write(position: int) -> dict[str, str]:
        key = rows[position]["sample_key"]
        paths = {name: f"{name}/{key}.nii.gz" for name in dataset.fields}
        if not all(target.holds(path) for path in paths.values()):
            item = dataset[position]
            for name, path in paths.items():
                with target.replacing(path) as place:
                    write_nifti(place, *nifti_arrays(item, name))
        return {"sample_key": key, **paths}

    entries = target.each(write, range(len(dataset)), track)
    target.write((json.dumps(rows, indent=1, sort_keys=True, default=str) + "\n").encode(), "samples.json")
    return entries


def export_datalist(
    dataset: Dataset,
    folder: str | Path | ExportFolder,
    *,
    label: str,
    missing: Missing = "refuse",
    track: Track = silently,
) -> Path:
    """Write NIfTI files and MONAI's ``datalist.json``, with the lists ``training``, ``validation`` and ``test``.

    An entry has ``label`` and ``image``, or every field of images under its name where they are several.
    ``channel_names`` maps the fields of several images to the names of their channels.

    Raises
    ------
    SpecError
        If the dataset does not have the label, or if a sample lacks an image, unless ``missing`` is ``fill``.
    """
    dataset.layout(label)
    lists: dict[str, Any] = {}
    splits = dataset.table.column("split").to_pylist()
    for split, entry in zip(splits, export_nifti(dataset, folder, missing=missing, track=track), strict=True):
        named = {"train": "training"}.get(split, split)
        lists.setdefault(named, []).append(
            {**{field: entry[field] for field in dataset.image_fields}, "label": entry[label]}
        )
    names = {n: [*dataset.channels(n)] for n in dataset.image_fields if dataset.layout(n).channel_names}
    lists |= {"channel_names": names} if names else {}
    return ExportFolder.of(folder).write(canonical_json(lists), "datalist.json")


def write_nifti(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write an array from ``nifti_arrays`` to a file, with the affine as sform and qform. Raises MissingExtra."""
    nibabel = _nibabel()
    nibabel.save(_image(nibabel, array, affine), path)


def nifti_image(item: Item, name: str) -> Any:
    """Return a field as nibabel's image. Raises MissingExtra."""
    return _image(_nibabel(), *nifti_arrays(item, name))


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("nibabel") from error
    return nibabel


def _image(nibabel: Any, array: NDArray[Any], affine: Affine) -> Any:
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image
