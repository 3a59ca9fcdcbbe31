"""Combining dates, times of day and UTC offsets into comparable moments, which give the order of time points."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from builder.imaging.rows import Row

CLOCKS = {
    "acquisition_time": ("acquisition_date", "content_date", "series_date", "study_date"),
    "content_time": ("content_date", "acquisition_date", "series_date", "study_date"),
    "series_time": ("series_date", "study_date"),
    "acquisition_datetime": (),
}
"""Each time of day with the dates that may complete it, its own date first. A date and time needs none."""

OF_THE_START = ("", "series_date", "study_date")
"""Dates that say when a series began, not when one of its slices was made."""

HALF_DAY = 12 * 3600.0
DAY = 24 * 3600.0
EPOCH = datetime(1970, 1, 1)


def with_moments(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with times of day replaced by seconds since 1970, so that scans past midnight stay in order.

    A time takes its own date (AcquisitionDate for AcquisitionTime, ...), else another date of the row. If that date
    only says when the series began, a time more than half a day before Series Time is taken to be on the next day.
    UTC offsets are applied when all rows state one. A column that any row lacks, or that cannot be read in any row, is
    left unchanged in all rows.
    """
    changes: list[dict[str, Any]] = [{} for _ in rows]
    for column, dates in CLOCKS.items():
        found = []
        for row in rows:
            found.append(_moment(row, column, dates))
            if found[-1] is None:
                break
        if not found or found[-1] is None:
            continue
        zoned = all(moment is not None and moment[1] is not None for moment in found)
        for change, moment in zip(changes, found, strict=True):
            assert moment is not None
            change[column] = moment[0] - (moment[1] or 0.0) * zoned
    return [row._replace(**change) if change else row for row, change in zip(rows, changes, strict=True)]


def _moment(row: Row, column: str, dates: Sequence[str]) -> tuple[float, float | None] | None:
    """Return seconds since 1970 by the row's own clock, and the UTC offset of that clock in seconds if stated."""
    text = getattr(row, column)
    if text is None:
        return None
    zone = _offset(row.timezone_offset)
    if isinstance(text, str) and len(text) >= 12 and text[:12].isdigit():
        own = _offset(text.strip()[len(_without_offset(text)) :])
        seconds = _stamp(text)
        return None if seconds is None else (seconds, zone if own is None else own)
    clock = _clock(text)
    if clock is None or not dates:
        return None
    name, day = _dated(row, dates)
    if name in OF_THE_START and column != "series_time":
        start = _clock(row.series_time)
        if start is not None and clock < start - HALF_DAY:
            day += DAY
    return day + clock, zone


def _dated(row: Row, dates: Sequence[str]) -> tuple[str, float]:
    """Return the first column that holds a date, and that date in seconds since 1970; ("", 0.0) without any."""
    for name in dates:
        day = _day(getattr(row, name))
        if day is not None:
            return name, day
    return "", 0.0


def _without_offset(text: str) -> str:
    """Return a DT value (PS3.5 6.2) without its UTC offset."""
    return text.split("+")[0].split("-")[0].strip()


def _stamp(text: str) -> float | None:
    """Convert a DT value with at least a day and a time to seconds since 1970."""
    plain = _without_offset(text)
    day, clock = _day(plain[:8]), _clock(plain[8:])
    return None if day is None or clock is None else day + clock


@lru_cache(maxsize=4096)  # the slices of a series share a few dates
def _day(text: Any) -> float | None:
    """Convert a date (DA, also with the dots of ACR-NEMA) to seconds since 1970."""
    try:
        found = datetime.strptime(str(text or "").strip().replace(".", ""), "%Y%m%d")
    except ValueError:
        return None
    return (found - EPOCH).total_seconds()


def _clock(text: Any) -> float | None:
    """Convert a time of day (TM, also with colons) to seconds."""
    return _seconds(str(text or ""))


@lru_cache(maxsize=4096)  # the slices of a series share their Series Time, and each time is asked for several times
def _seconds(text: str) -> float | None:
    whole, _, fraction = text.strip().replace(":", "").partition(".")
    if not whole.isdigit() or len(whole) not in (2, 4, 6) or (fraction and not fraction.isdigit()):
        return None
    parts = [int(whole[i : i + 2]) for i in range(0, len(whole), 2)] + [0, 0]
    if parts[0] > 23 or parts[1] > 59 or parts[2] > 60:
        return None
    return parts[0] * 3600.0 + parts[1] * 60.0 + parts[2] + (float(f"0.{fraction}") if fraction else 0.0)


@lru_cache(maxsize=4096)
def _offset(text: Any) -> float | None:
    """Convert a UTC offset (``&ZZXX``, PS3.5 6.2) to seconds."""
    text = str(text or "").strip()
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return None
    span = timedelta(hours=int(text[1:3]), minutes=int(text[3:])).total_seconds()
    return span if text[0] == "+" else -span
