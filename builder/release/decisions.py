"""What people decided about images that may show text: a private table of rectangles, by the archive's own UIDs."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.deid import MaskRegion
from builder.errors import SpecError
from builder.storage import read_at

COLUMNS = ("uid", "row_from", "row_to", "column_from", "column_to")
"""``uid`` is a SOP or Series Instance UID of the archive. The numbers are half-open ranges of pixel indices. A row
without numbers says that somebody looked at these images and that they show no text."""

UNDECIDED = "undecided.csv"
"""Private list of the images that nobody decided about, in the form of the table, with what makes each doubtful."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Decisions:
    """Rectangles by UID, and the sha256 of the table; empty without a table."""

    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict, repr=False)
    sha256: str = ""

    def of(self, row: Mapping[str, Any]) -> list[Box] | None:
        """Return the rectangles of an image, sorted; None if nobody decided about it or its series."""
        uids = (row["sop_instance_uid"], row["series_uid"])
        if not any(uid in self.boxes for uid in uids):
            return None
        return sorted({box for uid in uids for box in self.boxes.get(uid, ())})

    @property
    def lock(self) -> Mapping[str, str]:
        """Return what the manifest says of the table; nothing without one."""
        return {"decisions": self.sha256} if self.sha256 else {}


def read_decisions(url: str | None) -> Decisions:
    """Read the table that the spec names as ``release.decisions``.

    Raises
    ------
    SpecError
        If there is none, or a line is no decision. The message numbers the line and does not quote it.
    """
    if url is None:
        return Decisions()
    try:
        data = read_at(url)
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError(
            "release.decisions: found no file there, expected a table of decisions; check the path"
        ) from None
    boxes: dict[str, tuple[Box, ...]] = {}
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise SpecError("release.decisions: found a file that is no CSV in UTF-8, expected one") from None
    if not rows or tuple(rows[0][: len(COLUMNS)]) != COLUMNS:
        raise SpecError(f"release.decisions: found another first line, expected the headings {','.join(COLUMNS)}")
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row):
            uid, box = _decision(row, number)
            boxes[uid] = (*boxes.get(uid, ()), *box)
    return Decisions(boxes, hashlib.sha256(data).hexdigest())


def _decision(row: Sequence[str], number: int) -> tuple[str, tuple[Box, ...]]:
    uid, *numbers = (cell.strip() for cell in row[: len(COLUMNS)])
    where = f"release.decisions, line {number}"
    if not uid or not set(uid) <= set("0123456789."):
        raise SpecError(f"{where}: found no UID in the first column (not shown), expected one of an image or series")
    if not any(numbers):
        return uid, ()
    if len(numbers) != 4 or not all(n.isdigit() for n in numbers):
        raise SpecError(f"{where}: found a range that is no four whole numbers, expected rows and columns, or none")
    top, bottom, left, right = map(int, numbers)
    if not (top < bottom and left < right):
        raise SpecError(f"{where}: found rows {top} to {bottom}, columns {left} to {right}, expected from < to in both")
    return uid, ((top, bottom, left, right),)


def regions_of(boxes: Iterable[Sequence[int]], size: tuple[int, int]) -> tuple[MaskRegion, ...]:
    """Return the rectangles as regions of an image of ``size``, cut at its edges; those beyond them are left out."""
    found = []
    for top, bottom, left, right in boxes:
        rows, columns = (top, min(bottom, size[0])), (left, min(right, size[1]))
        if rows[0] < rows[1] and columns[0] < columns[1]:
            found.append(MaskRegion(rows=rows, columns=columns, size=size))
    return tuple(found)


def undecided_table(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """Return the list of undecided images, given as (series, instance, detail), in the form of a table of decisions."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "series", "why"])
    for series, uid, why in sorted(rows):
        writer.writerow([uid, "", "", "", "", series, why])
    return text.getvalue().encode()
