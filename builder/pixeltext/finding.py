"""Find the text of a frame: every view is read by every engine, and what is surely text becomes a rectangle."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builder.pixeltext.engines import Box, Engine, Reading
from builder.pixeltext.views import Picture, ends_of, tiles_of, views_of

VERSION = 2
"""Increased when the same frame would give other rectangles."""

SURE = ((2, 0.5), (4, 0.25))
"""How many different letters or digits a piece of text has at least, and how sure an engine must then be of it. Round
organs are read as 0, edges as 1."""

SURER = ((2, 0.5),)
"""The same for views of the brightest and darkest values alone."""

THICK, OF_THICK = 0.25, 5
"""Pieces thicker than this part of the picture's shorter side have at least so many different letters or digits: whole
sections of a body were read as two."""

WANTED_SIDE = 640
"""Small pictures are enlarged until their shorter side has about so many pixels, at most ``MOST_ENLARGED`` times."""
MOST_ENLARGED = 2.0
LARGEST_TILE, OVERLAP = 960, 160
MARGIN = 2
"""Pixels around a piece of text that go with it, and a tenth of its height."""


@dataclass(frozen=True)
class Found:
    """A rectangle with text: where, how sure the surest reading was, and by which engine."""

    box: Box
    score: float
    source: str


def find_text(
    frame: NDArray[Any], engines: Sequence[Engine], *, window: tuple[float, float] | None = None
) -> list[Found]:
    """Return rectangles around the text of a frame, sorted by place; those that overlap are one.

    Parameters
    ----------
    frame, window
        As ``views_of`` takes them.
    """
    size = frame.shape[:2]
    thick = THICK * min(size)
    views = chain(((view, SURE) for view in views_of(frame, window=window)), ((view, SURER) for view in ends_of(frame)))
    found: list[Found] = []
    for picture, sure in views:
        for engine in engines:
            readings = [r for r in _read(picture, engine) if _thickness(r.box) <= thick or r.characters >= OF_THICK]
            found += [Found(_widened(r.box, size), r.score, engine.name) for r in _accepted(readings, sure)]
    return merged(found)


def _read(picture: Picture, engine: Engine) -> Iterable[Reading]:
    """Yield what an engine reads in a picture, in pixels of the picture."""
    for top, left, tile in tiles_of(picture, largest=LARGEST_TILE, overlap=OVERLAP):
        scale = min(MOST_ENLARGED, max(1.0, WANTED_SIDE / min(tile.shape)))
        rows, columns = (max(32, round(n * scale)) for n in tile.shape)
        enlarged = (
            tile if scale == 1 else np.asarray(Image.fromarray(tile).resize((columns, rows), Image.Resampling.BICUBIC))
        )
        across, down = tile.shape[1] / enlarged.shape[1], tile.shape[0] / enlarged.shape[0]
        for reading in engine.read(enlarged):
            row_from, row_to, column_from, column_to = reading.box
            box = (
                top + floor(row_from * down), top + ceil(row_to * down),
                left + floor(column_from * across), left + ceil(column_to * across),
            )  # fmt: skip
            yield Reading(box, reading.score, reading.characters)


def _accepted(readings: Sequence[Reading], least: Sequence[tuple[int, float]]) -> list[Reading]:
    """Return the pieces that are text, and unsure ones of about their height right beside them."""
    sure = [r for r in readings if any(r.characters >= n and r.score >= score for n, score in least)]
    rest = [r for r in readings if r not in sure and r.characters]
    return sure + [r for r in rest if any(_continues(r.box, other.box) for other in sure)]


def _continues(one: Box, other: Box) -> bool:
    high = _thickness(other)
    near = 1.5 * high
    rows = min(one[1], other[1]) - max(one[0], other[0])
    columns = min(one[3], other[3]) - max(one[2], other[2])
    return 0.4 * high <= _thickness(one) <= 1.6 * high and min(rows, columns) > -near


def _thickness(box: Box) -> int:
    return min(box[1] - box[0], box[3] - box[2])


def _widened(box: Box, size: tuple[int, ...]) -> Box:
    top, bottom, left, right = box
    margin = MARGIN + min(bottom - top, right - left) // 10
    return max(top - margin, 0), min(bottom + margin, size[0]), max(left - margin, 0), min(right + margin, size[1])


def merged(found: Sequence[Found]) -> list[Found]:
    """Return the rectangles, those that share half of the smaller one as one around both, with the surest score."""
    left = sorted((f for f in found if f.box[0] < f.box[1] and f.box[2] < f.box[3]), key=lambda f: (f.box, -f.score))
    done: list[Found] = []
    while left:
        one = left.pop(0)
        others = [f for f in left if _overlap(one.box, f.box)]
        if not others:
            done.append(one)
            continue
        left = [f for f in left if f not in others]
        group = [one, *others]
        surest = max(group, key=lambda f: (f.score, f.source))
        boxes = np.array([f.box for f in group])
        top, bottom, start, stop = boxes[:, 0].min(), boxes[:, 1].max(), boxes[:, 2].min(), boxes[:, 3].max()
        left.insert(0, Found((int(top), int(bottom), int(start), int(stop)), surest.score, surest.source))
    return sorted(done, key=lambda f: f.box)


def _overlap(one: Box, other: Box) -> bool:
    rows = min(one[1], other[1]) - max(one[0], other[0])
    columns = min(one[3], other[3]) - max(one[2], other[2])
    smaller = min((b[1] - b[0]) * (b[3] - b[2]) for b in (one, other))
    return rows > 0 and columns > 0 and 2 * rows * columns >= smaller
