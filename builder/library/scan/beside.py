"""What lies beside the images: label objects, tables, file formats, and files that nobody can read."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from builder.clinical import Sheet, read_sheet, sheets_of, text_of
from builder.errors import BuilderError, Reason
from builder.files import PICTURES, VOLUMES
from builder.headers.sniff import TABLES
from builder.library.scan.groups import Names, short
from builder.model.places import place_of, suffix_of
from builder.persons import normal_id
from builder.planning.inventory import Inventory
from builder.planning.layouts import count_formats, unread_lines
from builder.sources import AnySource
from builder.stages.listed import Listed

MOST_NAMES: Final = 10_000
"""Names of structures that are counted for each kind of label object; further ones are counted as one."""

TABLE_BYTES: Final = 64 << 20
"""A larger table is listed without being opened."""

MOST_TABLES: Final = 500
MORE: Final = "(further names)"


@dataclass
class Objects:
    """Label objects of one kind."""

    modality: str
    objects: int = 0
    linked: int = 0
    """Objects that refer to a series of an image in the archive."""
    names: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """Return them as JSON-able data."""
        names = [{"name": name, "objects": count} for name, count in self.names.most_common()]
        return {"modality": self.modality, "objects": self.objects, "linked": self.linked, "names": names}


@dataclass(frozen=True)
class Table:
    """One table: its headings and how many of a column's values are names of images here.

    Parameters
    ----------
    columns
        Heading to the fact it shares with the images (person, study, series, accession, file) and how many distinct
        values are shared, of how many; only for columns that share any.
    problem
        Why it could not be opened; empty if it could.
    paths
        For columns with paths of image files, taken from the table's folder: how many lead to a file here, how many out
        of the archive, and how many distinct values there are.
    whole
        Columns whose values are whole paths of image files below the scanned folder.
    """

    path: str
    rows: int = 0
    headings: tuple[str, ...] = ()
    shared: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    problem: str = ""
    paths: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    def facts(self) -> dict[str, Any]:
        """Return the table as JSON-able data."""
        shared = {
            heading: {"names": fact, "shared": count, "distinct": distinct}
            for heading, (fact, count, distinct) in self.shared.items()
        }
        found = {"path": self.path, "rows": self.rows, "headings": list(self.headings), "shared": shared}
        if self.paths:
            found["paths"] = {
                h: {"here": here, "outside": out, "distinct": n} for h, (here, out, n) in self.paths.items()
            }
        return {**found, "problem": self.problem} if self.problem else found


def label_objects(inventory: Inventory, names: Names) -> list[Objects]:
    """Return the objects that are no images, by modality, with the structures they name."""
    found: dict[str, Objects] = {}
    columns = ["status", "modality", "label_names", "referenced_series_uids"]
    for row in inventory.annotations(columns=columns).to_pylist():
        if row["status"] != "instance":
            continue
        objects = found.setdefault(row["modality"] or "none", Objects(row["modality"] or "none"))
        objects.objects += 1
        objects.linked += any(short(uid) in names.series for uid in row["referenced_series_uids"] or ())
        for name in {*(row["label_names"] or ())}:
            objects.names[name if name in objects.names or len(objects.names) < MOST_NAMES else MORE] += 1
    return sorted(found.values(), key=lambda objects: (-objects.objects, objects.modality))


def tables(inventory: Inventory, sources: Sequence[AnySource], names: Names) -> list[Table]:
    """Open every table of the archive, one after the other; each sheet of a workbook is a table.

    A table that lies in several places is opened once. A line of text with commas, such as a README, is no table.
    """
    columns = ["status", "format", "source", "path", "member", "size", "stamp", "header_sha256"]
    rows = inventory.annotations(columns=columns).to_pylist()
    for row in rows:
        if row["format"] in VOLUMES | PICTURES:
            names.add_file(place_of(row["path"], row["member"] or ""))
    files = [(Listed.of(row), row["header_sha256"]) for row in rows if row["status"] == "file"]
    files = [(file, digest) for file, digest in files if file.format in TABLES]
    files.sort(key=lambda item: (item[0].source, item[0].path, item[0].member))
    opened: dict[str, tuple[str, list[Table]]] = {}
    found = []
    for file, digest in files:
        if digest not in opened:
            opened[digest] = (file.place, list(_tables(file, sources, names, opened=len(opened) < MOST_TABLES)))
        first, sheets = opened[digest]
        known = [sheet for sheet in sheets if sheet.rows or sheet.problem or PurePosixPath(file.path).suffix]
        found += [replace(sheet, path=file.place + sheet.path.removeprefix(first)) for sheet in known]
    return found


def formats(inventory: Inventory) -> tuple[dict[str, int], list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Count all files by format.

    Returns
    -------
    tuple
        Files by format; damaged files and duplicates by reason and format, with the path of one of them; and a line
        for every kind of image file that nothing reads without a layout.
    """
    counted: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for number in range(len(inventory.chunks)):
        counted.update(f or "unknown" for f in inventory.chunk(number, columns=["format"])["format"].to_pylist())
    beside = inventory.annotations(columns=["format", "status"])
    counted.update(form or "unknown" for form in beside["format"].to_pylist())
    unread += count_formats(beside)
    damaged: dict[tuple[str, str], list[Any]] = {}
    duplicates: dict[tuple[str, str], list[Any]] = {}
    left = inventory.leftovers(columns=["status", "reason", "format", "path", "member", "stamp", "detail"])
    unread += count_formats(left)
    for row in left.to_pylist():
        if row["reason"] != Reason.SOURCE_MISSING or row["stamp"]:  # without a stamp nothing was listed
            counted[row["format"] or "unknown"] += 1
        into = duplicates if row["status"] == "duplicate" else damaged
        place = f"{row['path']}!{row['member']}" if row["member"] else row["path"]
        entry = into.setdefault((row["reason"] or "", row["format"] or "unknown"), [0, place, row["detail"] or ""])
        entry[0] += 1
    ordered = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    return ordered, _listed(damaged), _listed(duplicates), list(unread_lines(unread))


def _listed(found: Mapping[tuple[str, str], Sequence[Any]]) -> list[dict[str, Any]]:
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        {"reason": reason, "format": form, "files": count, "example": place, "detail": detail}
        for (reason, form), (count, place, detail) in ordered
    ]


def _tables(file: Listed, sources: Sequence[AnySource], names: Names, *, opened: bool) -> Iterator[Table]:
    path = file.place
    if not opened or file.size > TABLE_BYTES or file.format == "sqlite":
        why = "a database" if file.format == "sqlite" else "too large" if opened else f"beyond {MOST_TABLES} tables"
        yield Table(path, problem=f"not opened: {why}")
        return
    try:
        data = sources[file.source].read(file.entry)
        sheets = sheets_of(data)
    except BuilderError as error:
        yield Table(path, problem=str(error).removeprefix("clinical: "))
        return
    for name in sheets if len(sheets) > 1 else (None,):
        place = path if name is None else f"{path}, sheet {name}"
        try:
            yield _table(place, read_sheet(data, name), names)
        except BuilderError as error:
            yield Table(place, problem=str(error).removeprefix("clinical: "))


def _table(path: str, sheet: Sheet, names: Names) -> Table:
    shared: dict[str, tuple[str, int, int]] = {}
    paths: dict[str, tuple[int, int, int]] = {}
    whole: set[str] = set()
    for place, heading in enumerate(sheet.headings):
        values = {*_texts(line.cells[place] for line in sheet.rows)}
        best = max(_shares(values, names), key=lambda share: share[1])
        if heading and best[1]:
            shared[heading] = (*best, len(values))
            if best[0] == "file" and any("/" in value and names.has_place(value) for value in values):
                whole.add(heading)
        told = [names.place_from(path, value) for value in values if suffix_of(value)]
        if heading and told:
            paths[heading] = (told.count("here"), told.count("outside"), len(values))
    return Table(
        path, len(sheet.rows), tuple(filter(None, sheet.headings)), shared, paths=paths, whole=frozenset(whole)
    )


def _texts(cells: Iterator[Any]) -> Iterator[str]:
    for cell in cells:
        try:
            text = text_of(cell)
        except ValueError:
            continue
        if text:
            yield text


def _shares(values: set[str], names: Names) -> Iterator[tuple[str, int]]:
    hashes = {*map(short, values)}
    yield "person", sum(short(name) in names.patients for name in {*map(normal_id, values)}) if names.patients else 0
    yield "study", len(hashes & names.studies)
    yield "series", len(hashes & names.series)
    yield "accession", len(hashes & names.accessions)
    yield "file", sum(map(names.has_file, values)) if names.files else 0
