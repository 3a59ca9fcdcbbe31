"""COCO object detection JSON (cocodataset.org): annotations as rows, outlines as polygons or run lengths."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError, Reason

SUFFIXES = (".dcm", ".png", ".jpg", ".jpeg")
MAX_SIDE = 2**16
ABSENT = "absent"
"""Placeholder for a missing box or outline, so that an annotated image does not look like one without findings."""

Polygon: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outline:
    """What a segmentation covers on one slice: polygons of (k, 2) vertices (x, y), or (row, column) bool pixels."""

    polygons: tuple[Polygon, ...] = ()
    pixels: NDArray[np.bool_] | None = None


def coco_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per annotation, and one row without coordinates per image that has no annotation.

    A row has ``file_name`` and ``file_stem`` (without folders and suffix), ``x``, ``y``, ``width`` and ``height`` of
    the box, ``category``, ``score`` and ``segmentation``. Other scalars of the annotation keep their names; scalars of
    the image become ``image_<name>``. Raises KeyError, TypeError or ValueError for a document of another form.
    """
    images = {image["id"]: _image_facts(image) for image in document["images"]}
    categories = {category["id"]: str(category["name"]) for category in document["categories"]}
    nothing = dict.fromkeys(("x", "y", "width", "height", "category", "score", "segmentation"))
    rows = []
    bare = dict(images)
    for item in document["annotations"]:
        bare.pop(item["image_id"], None)
        box = [float(v) for v in item["bbox"]] if item.get("bbox") else [ABSENT] * 4
        row = {**nothing, **_scalars(item), **images[item["image_id"]]}
        row |= dict(zip(("x", "y", "width", "height"), box, strict=True))
        row |= {"category": categories[item["category_id"]], "segmentation": item.get("segmentation") or ABSENT}
        rows.append(row)
    rows += [{**nothing, **facts} for facts in bare.values()]
    return rows


def read_outline(cell: Any, shape: tuple[int, int]) -> Outline:
    """Read the outline in a cell.

    A cell holds COCO polygons ``[[x, y, x, y, ...], ...]``, points ``[[x, y], ...]`` (also under ``vertices``), a flat
    list, run lengths ``{"size": [rows, columns], "counts": ...}``, or any of these as JSON text.

    Parameters
    ----------
    shape
        Rows and columns of the image. Run lengths must have the same size.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE, or LABEL_OFF_GRID for run lengths made for an image of another size.
    """
    try:
        value = json.loads(cell) if isinstance(cell, str) else cell
        if isinstance(value, Mapping) and "counts" in value:
            return Outline(pixels=decode_runs(value, shape))
        if isinstance(value, Mapping):
            value = value["vertices"]
        return Outline(tuple(_polygons(value)))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CaseError(
            Reason.LABEL_UNREADABLE, "found a cell that is no outline, expected COCO polygons or run lengths"
        ) from error


def decode_runs(runs: Mapping[str, Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode COCO run lengths, listed or packed as text, to (row, column) bool.

    Runs go down the columns and begin with background.
    """
    rows, columns = (int(n) for n in runs["size"])
    if (rows, columns) != shape:
        found = f"{rows} x {columns}" if max(rows, columns) < MAX_SIDE else "a larger image"
        raise CaseError(
            Reason.LABEL_OFF_GRID, f"found run lengths of {found}, expected the image's {shape[0]} x {shape[1]} pixels"
        )
    counts = runs["counts"]
    lengths = np.asarray(_unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != rows * columns:
        raise ValueError("counts")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape((rows, columns), order="F")


def _unpacked(text: str) -> list[int]:
    """Decode packed run lengths.

    Each character holds five bits, counted from ``0``, and a sixth bit that says whether more characters follow. The
    last character of a number carries the sign. From the fourth number on, each is the difference to the number two
    places before it.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("counts")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts")
    return lengths


def _polygons(value: Any) -> list[Polygon]:
    if not isinstance(value, Sequence) or not value:
        raise ValueError("outline")
    nested = [isinstance(part, Sequence) for part in value]
    if not any(nested):
        parts = [value]
    elif all(nested) and all(len(part) == 2 for part in value):
        parts = [[number for point in value for number in point]]
    else:
        parts = list(value)
    polygons = [np.array(part, dtype=np.float64).reshape(-1, 2) for part in parts]
    if not all(np.isfinite(polygon).all() for polygon in polygons):
        raise ValueError("outline")
    return polygons


def _image_facts(image: Mapping[str, Any]) -> dict[str, Any]:
    name = str(image["file_name"])
    stem = name.rsplit("/", 1)[-1]
    stem = stem.rsplit(".", 1)[0] if stem.lower().endswith(SUFFIXES) else stem
    return {"file_name": name, "file_stem": stem, **{f"image_{k}": v for k, v in _scalars(image).items()}}


def _scalars(item: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): v for k, v in item.items() if v is None or isinstance(v, str | int | float | bool)}
