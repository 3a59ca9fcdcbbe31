"""Read a script of CTP's DicomPixelAnonymizer: signatures in braces, each with regions (x, y, width, height) after it.

Text outside of both is a comment, and the first signature that fits an image counts (RSNA CTP: PixelScript, Regions).
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from builder.release.conditions import parse_condition
from builder.release.devices import COLUMNS

_SIGNATURE = re.compile(r"\{([^}]*)\}")
_REGION = re.compile(r"\(([^)]*)\)")


@dataclass(frozen=True)
class Imported:
    """A table of rules, how many signatures and regions it holds, and what of the script has no equivalent."""

    table: bytes
    signatures: int
    regions: int
    left_out: tuple[str, ...]


def import_pixel_script(text: str, *, source: str) -> Imported:
    """Turn a script into a table of rules that ``release.text.devices`` takes.

    ``source`` stands in each line. A region reaches one pixel further right and down than it says, because CTP blanks
    that row, too.
    """
    lines: list[list[object]] = []
    left_out: list[str] = []
    signatures = 0
    for line, condition, regions in _signatures(text):
        where = f"line {line}"
        when = " ".join(condition.split())
        try:
            parse_condition(when)
        except ValueError as error:
            left_out.append(f"{where}: signature: {error}")
            continue
        ranges = []
        for region in regions:
            found = _ranges(region)
            if found is None:
                left_out.append(f"{where}: region ({region.strip()}): expected four whole numbers x, y, width, height")
            else:
                ranges.append(found)
        if not ranges:
            left_out.append(f"{where}: signature without a region: CTP blanks nothing; the image is looked at")
            lines.append([when, "look", "", "", "", "", f"{source}, {where}"])
        lines += [[when, "blank", *numbers, f"{source}, {where}"] for numbers in ranges]
        signatures += 1
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return Imported(sink.getvalue().encode(), signatures, sum(line[1] == "blank" for line in lines), tuple(left_out))


def _signatures(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, condition, regions) of each signature; its regions stand before the next one."""
    found = list(_SIGNATURE.finditer(text))
    for match, following in zip(found, [*found[1:], None], strict=True):
        rest = text[match.end() : following.start() if following else len(text)]
        yield text.count("\n", 0, match.start()) + 1, match[1], _REGION.findall(rest)


def _ranges(region: str) -> tuple[int, int | str, int, int | str] | None:
    """Return (row_from, row_to, column_from, column_to) of a region; None if it is no four whole numbers."""
    try:
        x, y, width, height = (int(number) for number in region.split(","))
    except ValueError:
        return None
    if width < 0 or height < 0:
        return None
    return y, _end(y, height), x, _end(x, width)


def _end(start: int, length: int) -> int | str:
    """Return the end of a range, "" for the far edge: a negative start counts from there."""
    end = start + length + 1
    return "" if start < 0 <= end else end
