"""The private table of text that was found in pixels: rectangles by the archive's own UIDs, and never what they say."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.errors import LayoutError
from builder.release.decisions import Box

TEXT = "text"
"""Folder of a private workspace with what concerns text in pixels."""
FOUND = "text/found.csv"
DECISIONS = "text/decisions.csv"
"""Where ``builder view`` writes decisions if the spec names no table of its own."""
SEARCH = "text/search.json"
"""Which plan the last search had, and which of its parts."""
COLUMNS = ("uid", "row_from", "row_to", "column_from", "column_to", "score", "source", "series", "why")
"""The first five as in a table of decisions. ``why`` says what in the header raises doubt; "" if nothing does."""


@dataclass(frozen=True)
class Seen:
    """One image that was searched: its rectangles with score and engine, and what its header raises."""

    uid: str
    series: str
    why: str
    found: tuple[tuple[Box, float, str], ...] = ()

    def rows(self) -> list[tuple[Any, ...]]:
        """Return its lines of the table; one without numbers if nothing was found."""
        if not self.found:
            return [(self.uid, "", "", "", "", "", "", self.series, self.why)]
        return [(self.uid, *box, f"{score:.3f}", name, self.series, self.why) for box, score, name in self.found]


def found_table(images: Iterable[Seen]) -> bytes:
    """Return the table, sorted by UID."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in sorted(images, key=lambda one: one.uid):
        writer.writerows(image.rows())
    return text.getvalue().encode()


@dataclass(frozen=True)
class FoundText:
    """The images that were searched, by UID, and the sha256 of the table; empty without a table."""

    images: Mapping[str, Seen] = field(default_factory=dict, repr=False)
    sha256: str = ""

    @property
    def boxes(self) -> dict[str, tuple[Box, ...]]:
        """The rectangles of each image that was searched."""
        return {uid: tuple(box for box, _, _ in seen.found) for uid, seen in self.images.items()}

    @property
    def lock(self) -> Mapping[str, str]:
        """Return what the manifest says of the table; nothing without one."""
        return {"found_text": self.sha256} if self.sha256 else {}


def parse_found(data: bytes) -> FoundText:
    """Read a table that ``found_table`` wrote. Raises LayoutError for anything else, and quotes nothing of it."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8", "replace"), newline="")))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise LayoutError(
            f"{FOUND}: found another first line, expected {','.join(COLUMNS)}; run builder find-text again"
        )
    images: dict[str, Seen] = {}
    for number, row in enumerate(rows[1:], start=2):
        uid, found = _line(row, number)
        before = images.get(uid, Seen(uid, row[7], row[8]))
        images[uid] = Seen(uid, row[7], row[8], (*before.found, *found))
    return FoundText(images, hashlib.sha256(data).hexdigest())


def _line(row: Sequence[str], number: int) -> tuple[str, tuple[tuple[Box, float, str], ...]]:
    try:
        uid, *numbers, score, name, _, _ = row
        if not any(numbers):
            return uid, ()
        top, bottom, left, right = map(int, numbers)
        return uid, (((top, bottom, left, right), float(score), name),)
    except ValueError:
        raise LayoutError(
            f"{FOUND}, line {number}: found no rectangle, expected one; run builder find-text again"
        ) from None
