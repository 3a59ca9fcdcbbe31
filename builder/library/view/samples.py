"""What the page shows of a dataset: which samples there are, what is known of one, and its voxels."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import MissingExtra, SpecError
from builder.model.classes import is_class
from builder.model.geometry import Affine
from builder.model.samples import PLACE_COLUMNS, SAMPLE_COLUMNS
from builder.reader.dataset import Dataset
from builder.reader.frameworks import ras_affine
from builder.reader.overlay import Overlay, overlay_of

WINDOWS: Mapping[str, Mapping[str, tuple[float, float] | None]] = {
    "HU": {
        "soft tissue": (-160, 240),
        "lung": (-1350, 150),
        "bone": (-500, 1300),
        "brain": (0, 80),
        "whole range": None,
    },
    "SUVbw": {"0 to 5": (0, 5), "0 to 10": (0, 10), "0 to 20": (0, 20), "whole range": None},
}
"""Presets by unit: lowest and highest value shown, in the unit; None: of the image itself."""

OTHERWISE: Mapping[str, tuple[float, float] | None] = {"automatic": None, "whole range": None}

COLOURS = ((255, 196, 0), (0, 200, 255), (255, 90, 120), (90, 220, 110), (190, 130, 255), (255, 140, 40),
           (60, 130, 255), (240, 240, 90), (0, 220, 180), (255, 120, 220))  # fmt: skip
"""Colours of what is drawn over an image, in turn."""

THICKER = 600
"""Pixels of the longer edge for which the outlines on a picture are one pixel thicker on each side."""

FIRST = ("split", "modality", "sex", "age_years", "site", "vendor")
_TECHNICAL = frozenset(column.name for column in (*PLACE_COLUMNS, *SAMPLE_COLUMNS))
_LONGEST = 200


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

    def about(self, position: int) -> dict[str, Any]:
        """Return what is known of a sample, and how to draw it."""
        overlay = self._overlay(position, self._images[0])
        counts = np.bincount(overlay.numbers.reshape(-1), minlength=len(overlay.names) + 1)
        item = replace(self.dataset, fields=())[position]
        row = item.row
        place = item.geometry.affine @ np.array([*_centre(overlay), 1.0])
        return {
            "position": position,
            **{name: row.get(name) for name in ("sample_key", "case_key", "person_key", "split")},
            "shape": list(overlay.numbers.shape),
            "flat": overlay.numbers.shape[0] == 1,
            "focus_mm": [-float(place[0]), -float(place[1]), float(place[2])],  # LPS to RAS, which the page draws in
            "legend": [
                {"name": name, "colour": COLOURS[n % len(COLOURS)], "voxels": int(counts[n + 1])}
                for n, name in enumerate(overlay.names)
            ],
            "facts": _shown(self.dataset, row),
        }

    def volume(self, position: int, field: str, channel: int) -> bytes:
        """Return one image of a sample as a NIfTI file. Raises SpecError for an unknown one."""
        voxels, affine = self._voxels(position, field, channel)
        return _nifti(voxels, affine)

    def overlay(self, position: int, field: str) -> bytes:
        """Return what is drawn over an image as a NIfTI file. Raises SpecError as ``volume``."""
        return _nifti(self._overlay(position, field).numbers, self._voxels(position, field, 0)[1])

    def picture(self, position: int, field: str, channel: int, *, window: Sequence[float], masks: bool) -> bytes:
        """Return an image of one slice as PNG, with the outlines of masks if they are wanted.

        Parameters
        ----------
        window
            Lowest and highest value shown; empty: the 1st and 99.5th percentile.
        """
        from PIL import Image

        layout = self.dataset.layout(field)
        coloured = layout.channels == 3 and not layout.channel_names
        planes = [self._voxels(position, field, c)[0][0] for c in (range(3) if coloured else [channel])]
        if not coloured:
            low, high = window or np.percentile(planes[0], (1, 99.5))
            planes = [(planes[0].astype(np.float32) - low) / max(high - low, 1e-6) * 255] * 3
        rgb = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
        if masks:
            rgb = _with_outlines(rgb, self._overlay(position, field).numbers[0])
        sink = io.BytesIO()
        Image.fromarray(rgb).save(sink, format="PNG", compress_level=1)
        return sink.getvalue()

    @property
    def _images(self) -> tuple[str, ...]:
        return tuple(name for name in self.dataset.image_fields if name in self.dataset.fields)

    def _channels(self, field: str) -> list[dict[str, Any]]:
        """Return the images in a field: one for each channel that has a name, else one for all."""
        layout = self.dataset.layout(field)
        names, units = layout.channel_names, layout.channel_units
        found = []
        for channel in range(len(names) or 1):
            unit = units[channel] if channel < len(units) else layout.unit
            windows = WINDOWS.get(unit, OTHERWISE)
            shown = [{"name": name, "limits": limits} for name, limits in windows.items()]
            title = names[channel] if names else field
            found.append({"field": field, "channel": channel, "title": title, "unit": unit, "windows": shown})
        return found

    def _check(self, position: int, field: str, channel: int = 0) -> None:
        if not 0 <= position < len(self.dataset) or field not in self._images:
            raise SpecError("view: found a sample or image that the dataset does not have, expected one of the list")
        if not 0 <= channel < self.dataset.layout(field).channels:
            raise SpecError("view: found a channel that the image does not have, expected one of the list")

    def _voxels(self, position: int, field: str, channel: int) -> tuple[NDArray[Any], Affine]:
        self._check(position, field, channel)
        channels, affine = self._decoded(position, field)
        voxels = channels[channel]
        small = voxels.dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32)
        return voxels if small else voxels.astype(np.float32), affine

    def _overlay(self, position: int, field: str) -> Overlay:
        self._check(position, field)
        return self._drawn(position, field)

    @cached_property
    def _decoded(self) -> Callable[[int, str], tuple[NDArray[Any], Affine]]:
        """The channels of an image and its affine: the last one is kept, for what lies over it is asked for next."""
        return lru_cache(maxsize=1)(self._decode)

    @cached_property
    def _drawn(self) -> Callable[[int, str], Overlay]:
        """What lies over an image: the last ones are kept, which are counted first and sent afterwards."""
        return lru_cache(maxsize=2)(partial(overlay_of, self.dataset))

    def _decode(self, position: int, field: str) -> tuple[NDArray[Any], Affine]:
        item = replace(self.dataset, fields=(field,))[position]
        return item[field], ras_affine(item.geometry_of(field))


def _nifti(voxels: NDArray[Any], affine: Affine) -> bytes:
    """Return a NIfTI file of (slice, row, column) voxels; ``affine`` maps them to RAS mm.

    It is not compressed: on one machine, that took longer than all else together.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra("nibabel") from error
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])
    image.header.set_xyzt_units("mm")
    data: bytes = image.to_bytes()
    return data


def _centre(overlay: Overlay) -> tuple[float, float, float]:
    """Return the (slice, row, column) to look at first: the middle of what is drawn in its fullest slice."""
    level = overlay.fullest
    drawn = np.argwhere(overlay.numbers[level])
    if not len(drawn):
        _, rows, columns = overlay.numbers.shape
        return float(level), (rows - 1) / 2, (columns - 1) / 2
    row, column = drawn.mean(axis=0)
    return float(level), float(row), float(column)


def _with_outlines(rgb: NDArray[np.uint8], numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the outline of each region of a number in its colour."""
    padded = np.pad(numbers, 1, mode="edge")
    same = (padded[:-2, 1:-1] == numbers) & (padded[2:, 1:-1] == numbers)
    border = (numbers > 0) & ~(same & (padded[1:-1, :-2] == numbers) & (padded[1:-1, 2:] == numbers))
    lines = np.where(border, numbers, 0)
    for _ in range(max(rgb.shape) // THICKER):  # one pixel of a radiograph is too thin a line on a screen
        around = np.pad(lines, 1)
        beside = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        lines = np.maximum.reduce([lines, *beside])
    drawn, border = rgb.copy(), lines > 0
    drawn[border] = np.array(COLOURS, np.uint8)[(lines[border].astype(int) - 1) % len(COLOURS)]
    return drawn


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
