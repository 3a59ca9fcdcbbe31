"""Groups of like series: what a person would call one kind of image, with how many there are of it."""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from builder.model.places import stem_of
from builder.persons import Naming, normal_id
from builder.planning.inventory import Inventory, Survey

HEADER: Final = (
    "series_uid", "study_uid", "patient_id", "issuer_of_patient_id", "source", "series_description", "protocol_name",
    "study_date", "format",
)  # fmt: skip
"""Columns of INSTANCES of which a series' first instance gives the values."""

KIND: Final = ("modality", "series_type", "plane", "phase", "vendor", "body_part", "image")
"""Columns of a stack by which groups differ, beside description and protocol; those that the survey has."""

MOST_GROUPS: Final = 5000
"""Groups beyond this number, by order of appearance, are counted as one: descriptions may be free text."""

MOST_GRIDS: Final = 2000
"""Different grids of a group that are kept, by order of appearance."""

Kind = tuple[tuple[str, str], ...]
Grid = tuple[tuple[float, float, float], tuple[int, int, int]]
"""Distances in mm and number of voxels along z, y and x of the patient, as ``orient`` to LPS would have them."""

REST: Final[Kind] = (("modality", "(further groups)"),)


@dataclass
class Span:
    """Least and largest value of a number; nothing while none was seen."""

    least: float | None = None
    most: float | None = None

    def add(self, value: float | None) -> None:
        if value is not None:
            self.least = value if self.least is None else min(self.least, value)
            self.most = value if self.most is None else max(self.most, value)

    def pair(self) -> list[float] | None:
        """Return both as a list."""
        return None if self.least is None or self.most is None else [round(self.least, 4), round(self.most, 4)]


@dataclass
class Group:
    """Series of one kind. Persons and studies are kept as short hashes, so that memory does not grow with names."""

    kind: Mapping[str, str]
    persons: set[int] = field(default_factory=set)
    studies: set[int] = field(default_factory=set)
    series: set[int] = field(default_factory=set)
    instances: int = 0
    stacks: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    matrices: Counter[tuple[int, int]] = field(default_factory=Counter)
    slices: Span = field(default_factory=Span)
    spacing_slice_mm: Span = field(default_factory=Span)
    spacing_row_mm: Span = field(default_factory=Span)
    years: Span = field(default_factory=Span)
    grids: Counter[Grid] = field(default_factory=Counter)
    """Of the usable stacks."""
    example: tuple[int, str, int] | None = None
    """Chunk, series and holder of a stack to show; one that is usable where there is one."""
    usable: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the group as JSON-able data."""
        return {
            **self.kind,
            "persons": len(self.persons),
            "studies": len(self.studies),
            "series": len(self.series),
            "stacks": self.stacks,
            "usable_stacks": self.usable,
            "instances": self.instances,
            "verdicts": dict(self.verdicts.most_common()),
            "matrix": [{"rows": r, "columns": c, "stacks": n} for (r, c), n in self.matrices.most_common(5)],
            "matrices": len(self.matrices),
            "slices": self.slices.pair(),
            "spacing_slice_mm": self.spacing_slice_mm.pair(),
            "spacing_row_mm": self.spacing_row_mm.pair(),
            "years": self.years.pair(),
        }


@dataclass
class Names:
    """Hashes of the names of the images, by which tables and label objects are told to belong to them."""

    patients: set[int] = field(default_factory=set)
    persons: set[int] = field(default_factory=set)
    studies: set[int] = field(default_factory=set)
    series: set[int] = field(default_factory=set)
    accessions: set[int] = field(default_factory=set)
    files: set[int] = field(default_factory=set)
    """Names of image files that are not DICOM: alone, without their suffix, and with the folders above them."""
    places: set[int] = field(default_factory=set)
    """Whole paths of these files."""

    def add_file(self, place: str) -> None:
        """Add the names by which a table may call a file."""
        parts = place.split("/")
        self.files.update(short("/".join(parts[start:])) for start in range(len(parts)))
        self.files.add(short(stem_of(parts[-1])))
        self.places.add(short(place))

    def place_from(self, table: str, value: str) -> str:
        """Return what a path in a table leads to: a file that is ``here``, a place ``outside``, or ``nothing``.

        A path that begins with the name of a folder above this one, and goes on to a file here, counts as ``outside``.
        """
        place = posixpath.normpath(posixpath.join(posixpath.dirname(table), value.replace("\\", "/")))
        if place.startswith(("../", "/")):
            return "outside"
        if short(place) in self.places:
            return "here"
        return "outside" if self._from_above(value.replace("\\", "/").removeprefix("./").split("/")) else "nothing"

    def has_file(self, value: str) -> bool:
        """Return whether a value is the name of a file, the end of its path, or its path below some other folder."""
        parts = value.replace("\\", "/").removeprefix("./").split("/")
        return short("/".join(parts)) in self.files or self._from_above(parts)

    def has_place(self, value: str) -> bool:
        """Return whether a value is the whole path of a file below its source."""
        return short(value) in self.places

    def _from_above(self, parts: Sequence[str]) -> bool:
        return any(short("/".join(parts[start:])) in self.places for start in range(1, len(parts)))


def group_series(inventory: Inventory, survey: Survey, names: Names) -> tuple[list[Group], Counter[tuple[str, str]]]:
    """Group every stack of the archive, reading one chunk after the other, and collect the names of the images.

    Returns
    -------
    tuple
        The groups, largest first, and how many stacks are left out by default, by verdict and reason.
    """
    groups: dict[Kind, Group] = {}
    excluded: Counter[tuple[str, str]] = Counter()
    rules = Naming()
    for number in range(len(inventory.chunks)):
        headers = _headers(inventory, number, names)
        for stack in survey.stacks_of(number).to_pylist():
            header = headers.get(stack["series_uid"], {})
            kind = _kind(stack, header)
            if kind not in groups and len(groups) >= MOST_GROUPS:
                kind = REST
            group = groups.setdefault(kind, Group(dict(kind)))
            person = rules.identity(stack["patient_id"], stack["issuer_of_patient_id"], stack["study_uid"])
            _add(group, stack, header, person=short("\0".join(person)))
            names.persons.add(short("\0".join(person)))
            if stack["usable_reason"] is not None:
                excluded[stack["verdict"] or "", stack["usable_reason"]] += 1
    ordered = sorted(groups.values(), key=lambda g: (-len(g.series), sorted(g.kind.items())))
    return ordered, excluded


def short(text: str) -> int:
    """Return 64 bits of a hash of ``text``."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def pattern(text: str | None) -> str:
    """Return a description without what differs between series of one kind: case, spaces, numbers."""
    folded = re.sub(r"[\s_]+", " ", (text or "").casefold()).strip()
    return re.sub(r"\d+(?:[.,]\d+)*", "#", folded)[:80]


def _headers(inventory: Inventory, number: int, names: Names) -> dict[str, dict[str, Any]]:
    """Return the first instance of every series of a chunk."""
    table = inventory.chunk(number, columns=[*HEADER, "accession_number"])
    first: dict[str, int] = {}
    for position, uid in enumerate(table["series_uid"].to_pylist()):
        first.setdefault(uid, position)
    rows = table.take(list(first.values())).to_pylist()
    for row in rows:
        names.series.add(short(row["series_uid"] or ""))
        names.studies.add(short(row["study_uid"] or ""))
        if (row["patient_id"] or "").strip():
            names.patients.add(short(normal_id(row["patient_id"])))
        if (row["accession_number"] or "").strip():
            names.accessions.add(short(row["accession_number"].strip()))
    return {row["series_uid"]: row for row in rows}


def _kind(stack: Mapping[str, Any], header: Mapping[str, Any]) -> Kind:
    told = [(name, str(stack[name])) for name in KIND if stack.get(name) not in (None, "")]
    columns = (("description", "series_description"), ("protocol", "protocol_name"))
    texts = [(name, pattern(header.get(column))) for name, column in columns]
    form = header.get("format") or ""
    return (*told, *((n, t) for n, t in texts if t), *([("format", form)] if form not in ("", "dicom") else []))


def _add(group: Group, stack: Mapping[str, Any], header: Mapping[str, Any], *, person: int) -> None:
    group.persons.add(person)
    group.studies.add(short(stack["study_uid"] or ""))
    group.series.add(short(stack["series_uid"] or ""))
    group.stacks += 1
    group.instances += stack["instances"] or 0
    usable = stack["usable_reason"] is None
    group.verdicts[stack["verdict"] or "unknown"] += 1
    if stack["rows"] and stack["columns"]:
        group.matrices[stack["rows"], stack["columns"]] += 1
    for name in ("slices", "spacing_slice_mm", "spacing_row_mm"):
        getattr(group, name).add(stack[name])
    grid = _grid(stack) if usable else None
    if grid and (grid in group.grids or len(group.grids) < MOST_GRIDS):
        group.grids[grid] += 1
    year = (header.get("study_date") or "")[:4]
    if year.isdigit() and 1900 <= int(year) <= 2200:
        group.years.add(int(year))
    if (group.example is None or (usable and not group.usable)) and stack["holders"]:
        group.example = (stack["chunk"], stack["series_uid"], stack["holders"][len(stack["holders"]) // 2])
    group.usable += usable


def _grid(stack: Mapping[str, Any]) -> Grid | None:
    """Return the grid of a stack in the order of its slices, rows and columns after ``orient`` to LPS."""
    spacing = [stack[f"spacing_{axis}_mm"] for axis in ("slice", "row", "column")]
    size = [stack[name] for name in ("slices", "rows", "columns")]
    letters = stack["orientation"] or ""
    axes = [[n for n, letter in enumerate(letters) if letter in pair] for pair in ("SI", "PA", "LR")]
    if any(len(axis) != 1 for axis in axes) or not all(spacing) or not all(size):
        return None
    (z,), (y,), (x,) = axes
    rounded = [float(f"{value:.3g}") for value in spacing]
    return (rounded[z], rounded[y], rounded[x]), (size[z], size[y], size[x])
