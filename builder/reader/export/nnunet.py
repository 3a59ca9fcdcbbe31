"""Export to nnU-Net v2: to its raw layout, and to the preprocessed layout that its trainer reads.

Source: nnU-Net v2, documentation/dataset_format.md; nnunetv2/training/dataloading/nnunet_dataset.py.
"""

import json
import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import LayoutError, MissingExtra, SpecError
from builder.model.fields import FieldLayout
from builder.model.layout import EXPORTS, stored_object, version_path
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present, one_image_field
from builder.reader.export.nifti import write_nifti
from builder.reader.frameworks import nifti_arrays
from builder.reader.item import Item

SPLITS_FINAL = "splits_final.json"
CONFIGURATION = "nnUNetPlans_3d_fullres"
MOST_LOCATIONS = 10_000
"""Largest number of voxels per class that are kept as centres of patches, as in nnU-Net's own preprocessing."""


def export_nnunet(
    dataset: Dataset,
    folder: str | Path | ExportFolder,
    *,
    number: int,
    label: str,
    test_splits: Sequence[str] = ("test",),
    missing: Missing = "refuse",
    track: Track = silently,
) -> Path:
    """Write nnU-Net v2's raw layout: ``Dataset<number>_<name>`` with imagesTr, labelsTr, imagesTs and dataset.json.

    ``splits_final.json`` beside them holds the dataset's own folds, or train and validation as the only fold. nnU-Net
    makes folds that part no person's cases only if told so: copy the file to the dataset's folder in
    ``nnUNet_preprocessed`` before training.

    Each channel of ``image`` becomes a file ``_0000``, ``_0001``, ... The segments of ``label`` become consecutive
    classes from 1 in the order of their values. Samples of ``test_splits`` go to imagesTs and their labels to labelsTs.

    Parameters
    ----------
    missing
        ``fill`` exports samples that lack an optional image with the value that fills its channel.

    Raises
    ------
    SpecError
        If the label is not a label map with one channel and named segments, if images lie on several grids, or if a
        sample lacks an image.
    """
    one_image_field(dataset)
    check_present(dataset, missing)
    classes = _classes(dataset, label)
    target = _fresh_folder(dataset, folder, number)
    keys, splits = (dataset.table.column(name).to_pylist() for name in ("sample_key", "split"))

    def write(position: int) -> None:
        suffix = "Ts" if splits[position] in test_splits else "Tr"
        if not target.holds(f"labels{suffix}", f"{keys[position]}.nii.gz"):  # the label is written last
            _write_raw(dataset[position], label, target=target, suffix=suffix, classes=classes)

    target.each(write, range(len(dataset)), track)
    trained = [key for key, split in zip(keys, splits, strict=True) if split not in test_splits]
    folds = json.dumps(own_folds(dataset, trained), indent=1) + "\n"
    target.write(folds.encode(), SPLITS_FINAL)
    _write_about(dataset, target, label, classes, training=len(trained))
    return target.root


def export_nnunet_preprocessed(
    dataset: Dataset,
    folder: str | Path | ExportFolder,
    *,
    number: int,
    label: str,
    patch: tuple[int, int, int] = (64, 128, 128),
    test_splits: Sequence[str] = ("test",),
    track: Track = silently,
) -> Path:
    """Write nnU-Net v2's preprocessed layout, which its trainer reads, with the dataset's own folds.

    ``Dataset<number>_<name>/nnUNetPlans_3d_fullres`` gets ``<sample_key>.b2nd``, ``_seg.b2nd`` and ``.pkl``. Next to it
    are dataset.json, splits_final.json (as in ``export_nnunet``) and gt_segmentations. Voxels are converted to float32
    and not changed otherwise, because the spec has already resampled and scaled them. Plans are not written; nnU-Net
    makes them (``nnUNetv2_plan_experiment`` on the output of ``export_nnunet``). Samples of ``test_splits`` are left
    out.

    Parameters
    ----------
    patch
        (slice, row, column) of the patches that training will cut. The block shape is chosen for them.

    Raises
    ------
    SpecError
        As ``export_nnunet``; samples that lack an image are always refused.
    MissingExtra
        If blosc2 is not installed.
    """
    one_image_field(dataset)
    check_present(dataset, "refuse")
    classes = _classes(dataset, label)
    target = _fresh_folder(dataset, folder, number)
    keys, splits = (dataset.table.column(name).to_pylist() for name in ("sample_key", "split"))
    places = [n for n, split in enumerate(splits) if split not in test_splits]

    def write(position: int) -> None:
        key = str(keys[position])
        if not target.holds(CONFIGURATION, f"{key}.pkl"):  # the pickle is written last
            item = dataset[position]
            mask, affine = nifti_arrays(item, label)
            with target.replacing("gt_segmentations", f"{key}.nii.gz") as place:
                write_nifti(place, _mapped(mask, classes), affine)
            _write_preprocessed(item, label, target=target, classes=classes, patch=patch)

    target.each(write, places, track)
    folds = json.dumps(own_folds(dataset, [keys[n] for n in places]), indent=1) + "\n"
    target.write(folds.encode(), SPLITS_FINAL)
    _write_about(dataset, target, label, classes, training=len(places))
    return target.root


def _classes(dataset: Dataset, label: str) -> dict[int, int]:
    """Return nnU-Net's consecutive class for the stored value of each segment."""
    layout = dataset.layout(label)
    if layout.channels != 1 or not layout.segments:
        raise SpecError(
            f"label: found {label!r} with a channel for each structure, expected one channel with a number for each; "
            "add `layout: map` to the label in the spec and build again"
        )
    return {value: number for number, value in enumerate(sorted(v for _, v in layout.segments.values()), start=1)}


def own_folds(dataset: Dataset, keys: Collection[str]) -> list[dict[str, list[str]]]:
    """Return the folds of a dataset's version, of the samples ``keys``: no person is on both sides of one.

    A version without folds has train and validation as its only one.
    """
    chosen = set(keys)
    path = f"{EXPORTS}/{SPLITS_FINAL}"
    stated = next((f for f in dataset.manifest.files if f.path == path), None)
    if stated is None:
        rows = dataset.table.select(["sample_key", "split"]).to_pylist()
        sides = {"train": "train", "val": "validation"}
        found = [{ours: [r["sample_key"] for r in rows if r["split"] == theirs] for ours, theirs in sides.items()}]
    else:
        data = dataset.store.read(version_path(dataset.manifest.version, path))
        if stored_object(path, data) != stated:
            raise LayoutError(f"{path}: found another file than the manifest states; restore it, see builder verify")
        found = json.loads(data)
    return [{side: sorted(chosen.intersection(fold[side])) for side in ("train", "val")} for fold in found]


def _fresh_folder(dataset: Dataset, folder: str | Path | ExportFolder, number: int) -> ExportFolder:
    target, name = ExportFolder.of(folder), f"Dataset{number:03d}_{dataset.manifest.name}"
    return target.inside(name) if target.continues else target.fresh(name)


def _write_about(
    dataset: Dataset, target: ExportFolder, label: str, classes: Mapping[int, int], *, training: int
) -> None:
    segments = sorted(dataset.layout(label).segments.items(), key=lambda segment: segment[1][1])
    image = dataset.layout("image")
    document = {
        "channel_names": {str(channel): name for channel, name in enumerate(_channel_names(image))},
        "labels": {"background": 0, **{name: classes[value] for name, (_, value) in segments}},
        "numTraining": training,
        "file_ending": ".nii.gz",
    }
    target.write((json.dumps(document, indent=1) + "\n").encode(), "dataset.json")


def _write_raw(item: Item, label: str, *, target: ExportFolder, suffix: str, classes: Mapping[int, int]) -> None:
    key = item.row["sample_key"]
    image, affine = nifti_arrays(item, "image")
    for channel in range(item["image"].shape[0]):
        part = image if image.ndim == 3 else np.ascontiguousarray(image[..., channel])
        with target.replacing(f"images{suffix}", f"{key}_{channel:04d}.nii.gz") as place:
            write_nifti(place, part, affine)
    mask, affine = nifti_arrays(item, label)
    with target.replacing(f"labels{suffix}", f"{key}.nii.gz") as place:
        write_nifti(place, _mapped(mask, classes), affine)


def _write_preprocessed(
    item: Item, label: str, *, target: ExportFolder, classes: Mapping[int, int], patch: tuple[int, int, int]
) -> None:
    try:
        import blosc2
    except ImportError as error:
        raise MissingExtra("blosc2", "nnunet") from error
    key = item.row["sample_key"]
    mask = _mapped(item[label], classes).astype(np.int16)
    for suffix, array in (("", item["image"].astype(np.float32)), ("_seg", mask)):
        blocks, chunks = _block_shapes(array, patch)
        params = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
        with target.replacing(CONFIGURATION, f"{key}{suffix}.b2nd") as place:
            place.unlink(missing_ok=True)  # what a stopped export left, which blosc2 would open
            blosc2.asarray(
                np.ascontiguousarray(array), urlpath=str(place), chunks=chunks, blocks=blocks, cparams=params
            )
    shape = tuple(int(n) for n in mask.shape[1:])
    properties = {
        "spacing": [float(n) for n in item.geometry.spacing_mm],
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
        "class_locations": {number: _locations(mask, number) for number in sorted(classes.values())},
    }
    # nnU-Net's trainer expects a pickle here; it holds only plain numbers, lists and arrays
    target.write(pickle.dumps(properties, protocol=4), CONFIGURATION, f"{key}.pkl")


def _block_shapes(array: NDArray[Any], patch: tuple[int, int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return blocks of at most 128 KiB, shaped like the patch, and chunks of at most two blocks along an axis."""
    block = [min(n, 1 << max(p - 1, 0).bit_length()) for n, p in zip(array.shape[1:], patch, strict=True)]
    while np.prod(block) * array.itemsize > 128 << 10:
        longest = int(np.argmax(block))
        block[longest] = -(-block[longest] // 2)
    return (1, *block), (1, *(min(n, 2 * b) for n, b in zip(array.shape[1:], block, strict=True)))


def _locations(mask: NDArray[Any], number: int) -> NDArray[np.int64]:
    """Return (n, 4) voxels (channel, slice, row, column) of a class, evenly sampled if there are many."""
    found = np.argwhere(mask == number)
    if len(found) > MOST_LOCATIONS:
        found = found[np.linspace(0, len(found) - 1, MOST_LOCATIONS).astype(np.int64)]
    return np.asarray(found, dtype=np.int64)


def _mapped(mask: NDArray[Any], classes: Mapping[int, int]) -> NDArray[np.uint8]:
    mapped = np.zeros(mask.shape, np.uint8)
    for value, number in classes.items():
        mapped[mask == value] = number
    return mapped


def _channel_names(image: FieldLayout) -> list[str]:
    """Return the channel names, by which nnU-Net chooses normalisation: CT for HU, z-score for any other name."""
    names = image.channel_names or ("image",) * image.channels
    units = image.channel_units or (image.unit,) * image.channels
    pairs = zip(names, units, strict=True)
    return ["CT" if unit == "HU" else "image" if name.lower() == "ct" else name for name, unit in pairs]
