"""PS3.15 Table E.1-1 as data: what the Basic Profile and each option do to an attribute.

The basic column is that of edition 2026c; the option columns are those in force on 2024-09-19 (edition 2024d). Both
were compared with editions 2020b and 2024b. Attributes that entered the table since have the options of edition 2026c,
but for Unformatted Text Value (0070,0006): 2026c lets Clean Descriptors clean what people wrote over a picture, and it
is replaced here, which is the careful reading. docs/privacy-rules.md lists them all.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

EDITION = "2026c"
"""Edition of PS3.15 of the basic column, and of the options of what entered the table after ``OPTIONS_EDITION``."""
OPTIONS_EDITION = "2024d"


class Action(StrEnum):
    """What to do with an attribute (PS3.15 E.3.1, Table E.1-1a)."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    KEEP = "K"
    CLEAN = "C"


class Option(StrEnum):
    """The options of PS3.15 E.3, named after their columns in Table E.1-1."""

    RETAIN_SAFE_PRIVATE = "retain_safe_private"
    RETAIN_UIDS = "retain_uids"
    RETAIN_DEVICE_IDENTITY = "retain_device_identity"
    RETAIN_INSTITUTION_IDENTITY = "retain_institution_identity"
    RETAIN_PATIENT_CHARACTERISTICS = "retain_patient_characteristics"
    RETAIN_FULL_DATES = "retain_longitudinal_full_dates"
    RETAIN_MODIFIED_DATES = "retain_longitudinal_modified_dates"
    CLEAN_DESCRIPTORS = "clean_descriptors"
    CLEAN_STRUCTURED_CONTENT = "clean_structured_content"
    CLEAN_GRAPHICS = "clean_graphics"


METHOD_CODES: Mapping[Option, str] = MappingProxyType(
    {
        Option.CLEAN_GRAPHICS: "113103",
        Option.CLEAN_STRUCTURED_CONTENT: "113104",
        Option.CLEAN_DESCRIPTORS: "113105",
        Option.RETAIN_FULL_DATES: "113106",
        Option.RETAIN_MODIFIED_DATES: "113107",
        Option.RETAIN_PATIENT_CHARACTERISTICS: "113108",
        Option.RETAIN_DEVICE_IDENTITY: "113109",
        Option.RETAIN_UIDS: "113110",
        Option.RETAIN_SAFE_PRIVATE: "113111",
        Option.RETAIN_INSTITUTION_IDENTITY: "113112",
    }
)
"""DCM codes of the options (PS3.16 CID 7050); the Basic Profile itself is 113100."""

_COLUMNS = {
    "safe_private": Option.RETAIN_SAFE_PRIVATE,
    "uids": Option.RETAIN_UIDS,
    "device": Option.RETAIN_DEVICE_IDENTITY,
    "institution": Option.RETAIN_INSTITUTION_IDENTITY,
    "patient": Option.RETAIN_PATIENT_CHARACTERISTICS,
    "full_dates": Option.RETAIN_FULL_DATES,
    "modified_dates": Option.RETAIN_MODIFIED_DATES,
    "descriptors": Option.CLEAN_DESCRIPTORS,
    "structured": Option.CLEAN_STRUCTURED_CONTENT,
    "graphics": Option.CLEAN_GRAPHICS,
}

_BASIC = {
    "X": Action.REMOVE,
    "Z": Action.EMPTY,
    "D": Action.DUMMY,
    "U": Action.UID,
    "X/Z": Action.REMOVE,
    "X/D": Action.REMOVE,
    "X/Z/D": Action.REMOVE,
    "Z/D": Action.EMPTY,
    "X/Z/U*": Action.UID,
}
"""A compound action leaves a choice by the object's type; this project takes the one that leaves least, except that a
sequence of references (X/Z/U*) is kept with mapped UIDs, because images and labels find each other by it."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    pattern
        Eight hexadecimal digits of the tag, ``x`` for any digit (``50xxxxxx``), or ``private``.
    basic
        The action code of the Basic Profile as printed, e.g. ``X/Z/D``.
    options
        Maps each option that changes the attribute to its action.
    """

    pattern: str
    basic: str
    options: Mapping[Option, Action]

    @property
    def tag(self) -> int | None:
        """Return the tag as a number; None for repeating groups and private attributes."""
        return None if "x" in self.pattern or self.pattern == "private" else int(self.pattern, 16)


DEFAULT_OPTIONS = frozenset(
    {
        Option.RETAIN_SAFE_PRIVATE,
        Option.RETAIN_PATIENT_CHARACTERISTICS,
        Option.RETAIN_MODIFIED_DATES,
        Option.CLEAN_DESCRIPTORS,
        Option.CLEAN_STRUCTURED_CONTENT,
        Option.CLEAN_GRAPHICS,
    }
)
"""What a build needs in memory: weight and times for SUV, ROI names for labels, the content tree of reports, the
coordinates of drawn annotations (their texts go; overlays and curves are cleaned away altogether)."""


@dataclass(frozen=True)
class Profile:
    """The Basic Profile with a set of options. Retained full dates and modified dates exclude each other."""

    options: frozenset[Option] = DEFAULT_OPTIONS

    def __post_init__(self) -> None:
        if {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES} <= self.options:
            raise ValueError("options: found full and modified dates retained, expected at most one of the two")

    def action(self, row: Row) -> Action:
        """Return the action for one line: a retaining option beats a cleaning one, and any option the Basic Profile."""
        chosen = {action for option, action in row.options.items() if option in self.options}
        if Action.KEEP in chosen:
            return Action.KEEP
        return Action.CLEAN if chosen else _BASIC[row.basic]

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the values of De-identification Method (0012,0063): the DCM codes of the profile and its options.

        One value each, because a value holds 64 characters.
        """
        return ("DCM:113100", *sorted(f"DCM:{METHOD_CODES[o]}" for o in self.options))


@lru_cache(maxsize=1)
def table() -> Mapping[int, Row]:
    """Return every line of the table that names one public attribute, by tag."""
    return MappingProxyType({row.tag: row for row in rows() if row.tag is not None})


def rows() -> Iterator[Row]:
    """Return all lines of the table in order of tag, repeating groups and private attributes included."""
    text = (files("builder.deid") / "table_e1_1.csv").read_text(encoding="ascii")
    for line in csv.DictReader(text.splitlines()):
        options = {_COLUMNS[name]: Action(code) for name, code in line.items() if name in _COLUMNS and code}
        yield Row(line["tag"], line["basic"], MappingProxyType(options))
