"""What the page shows of a dataset: which samples there are, what is known of one, and its voxels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import MissingExtra, SpecError
from builder.library.view.drawing import COLOURS, grey, png, with_fills, with_outlines
from builder.library.view.planes import PLANES, Planes, Three
from builder.model.classes import is_class
from builder.model.geometry import Geometry
from builder.model.samples import PLACE_COLUMNS, SAMPLE_COLUMNS
from builder.reader.dataset import Dataset
from builder.reader.overlay import Overlay, overlay_of

WHOLE = "whole range"

WINDOWS: Mapping[str, Mapping[str, tuple[float, float] | None]] = {
    "HU": {
        "soft tissue": (-160, 240),
        "lung": (-1350, 150),
        "bone": (-500, 1300),
        "brain": (0, 80),
        WHOLE: None,
    },
    "SUVbw": {"0 to 5": (0, 5), "0 to 10": (0, 10), "0 to 20": (0, 20), WHOLE: None},
}
"""Presets by unit: lowest and highest value shown, in the unit; None: of the slice that is shown first."""

OTHERWISE: Mapping[str, tuple[float, float] | None] = {"automatic": None, WHOLE: None}
"""Of other units. Automatic: the 1st and 99.5th percentile."""

KEPT = 8
"""Samples of which the slices that were shown are kept: the one in view, those made ready, and a few."""

FIRST = ("split", "modality", "sex", "age_years", "site", "vendor")
_TECHNICAL = frozenset(column.name for column in (*PLACE_COLUMNS, *SAMPLE_COLUMNS))
_LONGEST = 200


@dataclass(frozen=True)
class Look:
    """How a picture is drawn.

    Parameters
    ----------
    window
        Its name.
    opacity
        Of what lies over the image, 0 to 1.
    number
        Of the slice, along the turned axis of ``Planes``; None: the one to look at first.
    """

    plane: str = "axial"
    window: str = "automatic"
    opacity: float = 0.5
    number: int | None = None


@dataclass(frozen=True, eq=False)
class Glance:
    """What a person sees first over an image.

    Parameters
    ----------
    drawn
        Names and numbers of voxels.
    focus
        (slice, row, column) of the voxel through which slices are shown first.
    numbers
        Those of the overlay by plane, as (row, column) of a picture.
    """

    drawn: tuple[tuple[str, int], ...]
    focus: Three
    numbers: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Samples:
    """The samples of a dataset, one of which is shown at a time."""

    dataset: Dataset

    @cached_property
    def names(self) -> frozenset[str]:
        """The keyed names of all cases and persons: only these may be marked."""
        table = self.dataset.table
        columns = [c for c in ("case_key", "person_key") if c in table.column_names]
        return frozenset(name for column in columns for name in table[column].unique().to_pylist() if name)

    def facts(self) -> dict[str, Any]:
        """Return what the page needs to begin with."""
        dataset, manifest = self.dataset, self.dataset.manifest
        splits = dataset.table["split"].unique().to_pylist()
        return {
            "name": manifest.name,
            "version": manifest.version,
            "samples": len(dataset),
            "cases": len(dataset.table["case_key"].unique()),
            "splits": sorted(s for s in splits if s),
            "columns": sorted(n for n in dataset.schema.names if n not in ("shard", "row")),
            "images": [image for name in self._images for image in self._channels(name)],
        }

    def chosen(self, where: str = "", split: str = "", *, per_case: bool) -> list[int]:
        """Return the positions of the samples that an expression selects, by case. Raises SpecError as ``where``."""
        part = self.dataset.split(split) if split else self.dataset
        part = part.where(where) if where.strip() else part
        if not len(part):
            return []
        keys = self.dataset.table.select(["case_key", "sample_key"])
        cases, samples = (keys[name].to_pylist() for name in keys.column_names)
        ordered = sorted((int(row) for row in part.rows), key=lambda row: (cases[row], samples[row]))
        if not per_case:
            return ordered
        return list({cases[row]: row for row in reversed(ordered)}.values())[::-1]

    def about(self, position: int, field: str) -> dict[str, Any]:
        """Return what is known of a sample, and where to look first in one of its images, which is not read.

        Places are along the axes of ``Planes``: superior, anterior, right. Raises SpecError for an unknown image.
        """
        self._check(position, field)
        glance, planes = self._glances(position, field), self._planes(position, field)
        row = replace(self.dataset, fields=())[position].row
        return {
            "position": position,
            **{name: row.get(name) for name in ("sample_key", "case_key", "person_key", "split")},
            "shape": list(planes.geometry.shape),
            "flat": planes.flat,
            "size": list(planes.size),
            "focus": list(planes.turned_place(glance.focus)),
            "legend": [
                {"name": name, "colour": COLOURS[n % len(COLOURS)], "voxels": voxels}
                for n, (name, voxels) in enumerate(glance.drawn)
            ],
            "facts": _shown(self.dataset, row),
        }

    def volume(self, position: int, field: str, channel: int) -> bytes:
        """Return an image of a sample as a NIfTI file, turned by ``Planes``. Raises SpecError for an unknown one."""
        self._check(position, field, channel)
        voxels = replace(self.dataset, fields=(field,))[position][field][channel]
        small = voxels.dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32)
        return _nifti(voxels if small else voxels.astype(np.float32), self._planes(position, field))

    def overlay(self, position: int, field: str) -> bytes:
        """Return what is drawn over an image as a NIfTI file, turned likewise. Raises SpecError as ``volume``."""
        self._check(position, field)
        return _nifti(overlay_of(self.dataset, position, field).numbers, self._planes(position, field))

    def picture(self, position: int, field: str, channel: int, look: Look) -> tuple[bytes, tuple[float, float]]:
        """Return a slice as PNG, and the lowest and highest value shown, which are those of the one to look at first.

        Of an image of one slice, masks are drawn as outlines. Raises SpecError for an unknown image, window or slice.
        """
        self._check(position, field, channel)
        planes, glance = self._planes(position, field), self._glances(position, field)
        voxel = _voxel(planes, glance.focus, look)
        layout = self.dataset.layout(field)
        channels = self._slices(position, field, look.plane, voxel)
        if voxel == glance.focus:
            numbers = glance.numbers[look.plane]
        else:
            numbers = planes.seen(self._overlays(position, field).numbers[planes.part(voxel, look.plane)], look.plane)
        if layout.channels == 3 and not layout.channel_names:
            low, high = 0.0, 255.0
            rgb = np.clip(np.moveaxis(channels, 0, -1), 0, 255).astype(np.uint8)
        else:
            first = self._slices(position, field, look.plane, glance.focus)[channel]
            low, high = _limits(first, self._windows(field, channel), look.window)
            rgb = grey(channels[channel], low, high)
        if planes.flat:
            return png(with_outlines(rgb, numbers) if look.opacity else rgb), (low, high)
        rgb = with_fills(rgb, numbers, look.opacity) if look.opacity else rgb
        return png(planes.squared(rgb, look.plane)), (low, high)

    @property
    def _images(self) -> tuple[str, ...]:
        return tuple(name for name in self.dataset.image_fields if name in self.dataset.fields)

    def _channels(self, field: str) -> list[dict[str, Any]]:
        """Return the images in a field: one for each channel that has a name, else one for all."""
        names = self.dataset.layout(field).channel_names
        found = []
        for channel in range(len(names) or 1):
            title = names[channel] if names else field
            unit, windows = self._unit(field, channel), list(self._windows(field, channel))
            found.append({"field": field, "channel": channel, "title": title, "unit": unit, "windows": windows})
        return found

    def _unit(self, field: str, channel: int) -> str:
        layout = self.dataset.layout(field)
        return layout.channel_units[channel] if channel < len(layout.channel_units) else layout.unit

    def _windows(self, field: str, channel: int) -> Mapping[str, tuple[float, float] | None]:
        return WINDOWS.get(self._unit(field, channel), OTHERWISE)

    def _check(self, position: int, field: str, channel: int = 0) -> None:
        if not 0 <= position < len(self.dataset) or field not in self._images:
            raise SpecError("view: found a sample or image that the dataset does not have, expected one of the list")
        if not 0 <= channel < self.dataset.layout(field).channels:
            raise SpecError("view: found a channel that the image does not have, expected one of the list")

    @cached_property
    def _glances(self) -> Callable[[int, str], Glance]:
        """What lies over an image, of the samples near the one in view: small, and their masks are read once."""
        return lru_cache(maxsize=KEPT)(self._glance)

    @cached_property
    def _overlays(self) -> Callable[[int, str], Overlay]:
        """All that lies over the image in view, once another slice of it was asked for."""
        return lru_cache(maxsize=1)(partial(overlay_of, self.dataset))

    @cached_property
    def _slices(self) -> Callable[[int, str, str, Three], NDArray[Any]]:
        """The slice of an image through a voxel, as (channel, row, column), of the samples near the one in view."""
        return lru_cache(maxsize=KEPT)(self._slice)

    def _glance(self, position: int, field: str) -> Glance:
        overlay, planes = overlay_of(self.dataset, position, field), self._planes(position, field)
        voxels = overlay.voxels()
        focus = _centre(overlay)
        if not any(voxels) and field != self._images[0]:  # look where one looks in the first image
            first = self._glances(position, self._images[0])
            place = planes.geometry.to_voxel(self._planes(position, self._images[0]).geometry.to_world(first.focus))
            s, r, c = np.clip(np.rint(place[0]), 0, np.array(planes.geometry.shape) - 1).astype(int).tolist()
            focus = (s, r, c)
        numbers = {}
        for plane in PLANES:
            numbers[plane] = planes.seen(overlay.numbers[planes.part(focus, plane)], plane).copy()  # a view keeps all
        return Glance(tuple(zip(overlay.names, voxels, strict=True)), focus, numbers)

    def _slice(self, position: int, field: str, plane: str, voxel: Three) -> NDArray[Any]:
        planes = self._planes(position, field)
        start, shape = planes.box(voxel, plane)
        channels = replace(self.dataset, fields=(field,)).crop(position, start, shape)[field]
        return np.stack([planes.seen(box, plane) for box in channels])

    def _planes(self, position: int, field: str) -> Planes:
        grid = self.dataset.layout(field).grid
        column = f"grid.{grid}.affine" if grid else "affine"
        affine = replace(self.dataset, fields=())[position].values([column])[column]
        s, r, c = self.dataset.shape(int(self.dataset.rows[position]), field)[1:]
        return Planes(Geometry((s, r, c), np.reshape(affine, (4, 4))))


def _nifti(voxels: NDArray[Any], planes: Planes) -> bytes:
    """Return a NIfTI file of (slice, row, column) voxels, turned, and with a matrix that only scales.

    It is not compressed: on one machine, that took longer than all else together.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("nibabel") from error
    image = nibabel.Nifti1Image(planes.turned(voxels).transpose(2, 1, 0), planes.affine)
    image.header.set_xyzt_units("mm")
    data: bytes = image.to_bytes()
    return data


def _voxel(planes: Planes, focus: Three, look: Look) -> Three:
    """Return a voxel of the slice that is asked for. Raises SpecError if there is none."""
    if look.plane not in PLANES:
        raise SpecError("view: found a plane that is none, expected axial, coronal or sagittal")
    if look.number is None or planes.flat:
        return focus
    if not 0 <= look.number < planes.size[PLANES[look.plane]]:
        raise SpecError("view: found a slice that the image does not have, expected one of its slices")
    return planes.moved(focus, look.plane, look.number)


def _limits(
    values: NDArray[Any], windows: Mapping[str, tuple[float, float] | None], window: str
) -> tuple[float, float]:
    """Return the lowest and highest value shown in a window. Raises SpecError for one that the image does not have."""
    if window not in windows:
        raise SpecError(f"view: found a window that the image does not have, expected one of {', '.join(windows)}")
    found = windows[window]
    if found is not None:
        return found
    low, high = (values.min(), values.max()) if window == WHOLE else np.percentile(values, (1, 99.5))
    return float(low), float(high)


def _centre(overlay: Overlay) -> Three:
    """Return the (slice, row, column) to look at first: the middle of what is drawn in its fullest slice."""
    level = overlay.fullest
    drawn = np.argwhere(overlay.numbers[level])
    if not len(drawn):
        _, rows, columns = overlay.numbers.shape
        return level, rows // 2, columns // 2
    row, column = np.rint(drawn.mean(axis=0)).astype(int).tolist()
    return level, row, column


def _shown(dataset: Dataset, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cells of a row that a person reads: classes and clinical values first, then what else is known."""
    classes = [field.name for field in dataset.schema if is_class(field)]
    usual = [*FIRST, *classes]
    others = [n for n in row if n not in usual and n not in _TECHNICAL and not n.endswith("_key")]
    found = []
    for name in (*usual, *others):
        text = _text(row.get(name))
        if text:
            found.append({"name": name, "value": text, "first": name in usual})
    return found


def _text(value: Any) -> str:
    if value is None or value == [] or value == "":
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
