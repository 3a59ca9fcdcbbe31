"""Export to OME-Zarr: an image pyramid per sample with its labels, for viewers that read Zarr.

Source: Next-generation file formats (NGFF) 0.5, "multiscales", "omero" and "labels" metadata; Zarr v3 core.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from builder.model.fields import FieldLayout
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present, one_image_field
from builder.reader.item import Item

VERSION: Final = "0.5"
CHUNK: Final = 64
"""Voxels of a chunk along each axis of space; a chunk holds one channel."""

LEAST: Final = 128
"""A pyramid ends with the level whose longest axis has no more voxels."""

LEVEL: Final = 5
_AXES: Final = [
    {"name": "c", "type": "channel"},
    *({"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"),
]
_COLOURS: Final = ((230, 60, 60), (60, 160, 230), (80, 200, 90), (240, 180, 40), (170, 90, 220), (60, 200, 190))


def export_omezarr(
    dataset: Dataset, folder: str | Path | ExportFolder, *, missing: Missing = "refuse", track: Track = silently
) -> list[Path]:
    """Write each sample as ``<sample_key>.ome.zarr``: the image, and under ``labels`` one image a label map.

    Axes are (c, z, y, x) = (channel, slice, row, column) in mm. Coarser levels take every second voxel, so that no
    value is new. OME-Zarr has no rotation: the attribute ``builder`` of the group holds the affine to LPS mm, and the
    row of the sample. A label of several channels becomes a label image for each structure, called ``LABEL.STRUCTURE``.

    Returns
    -------
    list
        The groups, in the order of the samples.

    Raises
    ------
    SpecError
        If images lie on several grids, or a sample lacks an image.
    """
    one_image_field(dataset)
    check_present(dataset, missing)
    target, keys = ExportFolder.of(folder), dataset.table.column("sample_key").to_pylist()

    def write(position: int) -> Path:
        place = f"{keys[position]}.ome.zarr"
        if not target.holds(place, "zarr.json"):  # the group's own metadata are written last
            _write_sample(dataset, dataset[position], target=target, place=place)
        return target.path(place, "zarr.json").parent

    return target.each(write, range(len(dataset)), track)


def _write_sample(dataset: Dataset, item: Item, *, target: ExportFolder, place: str) -> None:
    layouts = {name: dataset.layout(name) for name in dataset.fields}
    spacing = item.geometry.spacing_mm
    names = []
    for name, voxels, segments in _label_images(item, layouts):
        names.append(name)
        inside = f"{place}/labels/{name}"
        attributes = _pyramid(voxels[None], spacing, name=name, target=target, place=inside)
        attributes["image-label"] = {
            "version": VERSION,
            "colors": [
                {"label-value": value, "rgba": [*_COLOURS[n % len(_COLOURS)], 255]} for n, value in enumerate(segments)
            ],
            "properties": [{"label-value": value, "name": segment} for value, segment in segments.items()],
            "source": {"image": "../../"},
        }
        _group(target, inside, {"ome": {"version": VERSION, **attributes}})
    if names:
        _group(target, f"{place}/labels", {"ome": {"version": VERSION, "labels": names}})
    image = layouts["image"]
    attributes = _pyramid(item["image"], spacing, name=item.row["sample_key"], target=target, place=place)
    attributes["omero"] = {"version": VERSION, "channels": _channels(item["image"], image)}
    own = {"affine_lps_mm": item.geometry.affine.tolist(), "unit": image.unit, "row": _plain(item.row)}
    _group(target, place, {"ome": {"version": VERSION, **attributes}, "builder": own})


def _label_images(item: Item, layouts: Mapping[str, FieldLayout]) -> Iterator[tuple[str, NDArray[Any], dict[int, str]]]:
    """Yield the name, the (slice, row, column) values and the names of values of each label image of a sample."""
    for name, layout in layouts.items():
        if name == "image":
            continue
        voxels = item[name]
        if layout.channels == 1:
            yield name, voxels[0], {value: segment for segment, (_, value) in layout.segments.items()}
            continue
        for segment, (channel, value) in layout.segments.items():
            yield f"{name}.{segment}", (voxels[channel] == value).astype(np.uint8), {1: segment}


def _pyramid(
    voxels: NDArray[Any], spacing: tuple[float, float, float], *, name: str, target: ExportFolder, place: str
) -> dict[str, Any]:
    """Write the levels of an image and return what NGFF states of them."""
    levels: list[dict[str, Any]] = []
    step = 1
    while True:
        _write_array(voxels[:, ::step, ::step, ::step], target=target, place=f"{place}/{len(levels)}")
        scale = [1.0, *(step * mm for mm in spacing)]
        levels.append({"path": str(len(levels)), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        if max(voxels.shape[1:]) <= LEAST * step:
            return {"multiscales": [{"name": name, "axes": _AXES, "datasets": levels, "type": "nearest"}]}
        step *= 2


def _write_array(voxels: NDArray[Any], *, target: ExportFolder, place: str) -> None:
    """Write a (channel, slice, row, column) array as Zarr v3, a file a chunk."""
    chunk = (1, *(min(n, CHUNK) for n in voxels.shape[1:]))
    little = voxels.dtype.newbyteorder("<")
    codec = Zstd(level=LEVEL)
    for index in np.ndindex(*(-(-n // c) for n, c in zip(voxels.shape, chunk, strict=True))):
        part = voxels[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))]
        block = np.zeros(chunk, little)
        block[tuple(slice(0, n) for n in part.shape)] = part
        target.write(codec.encode(block), place, "c", *map(str, index))
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(voxels.shape),
        "data_type": voxels.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": LEVEL, "checksum": False}},
        ],
        "dimension_names": list("czyx"),
        "attributes": {},
    }
    target.write(_json(document), place, "zarr.json")


def _group(target: ExportFolder, place: str, attributes: Mapping[str, Any]) -> None:
    target.write(_json({"zarr_format": 3, "node_type": "group", "attributes": attributes}), place, "zarr.json")


def _channels(voxels: NDArray[Any], layout: FieldLayout) -> list[dict[str, Any]]:
    """Return the name and the display window of each channel."""
    names = layout.channel_names or ("image",) * layout.channels
    found = []
    for name, channel in zip(names, voxels, strict=True):
        low, start, end, high = (float(v) for v in np.percentile(channel, (0, 1, 99, 100)))
        window = {"min": low, "start": start, "end": end, "max": high}
        found.append({"label": name, "color": "FFFFFF", "active": True, "window": window})
    return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a sample as JSON-able data."""
    found = {}
    for name, value in row.items():
        missing = value is None or (isinstance(value, float) and not math.isfinite(value))  # JSON has no NaN
        if not missing:
            found[name] = value if isinstance(value, (bool, int, float, list)) else str(value)
    return found


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, default=str) + "\n").encode()
