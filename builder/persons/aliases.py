"""Alias tables: rows of PatientIDs that are one person's."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from builder.errors import SpecError, counted
from builder.persons.forest import Forest
from builder.persons.naming import ALIAS, STUDY, Identity, Naming, Seen, normal_id, without_zeros

_ID_HEADINGS: Final = frozenset(
    ("id", "ids", "pid", "patid", "patient", "patientid", "mrn", "oldid", "newid", "otherid", "formerid", "previousid")
)


class Aliases(BaseModel):
    """An alias table of the spec.

    Parameters
    ----------
    url
        A table in any of the formats of a clinical table, with a row of headings.
    columns
        Headings of the columns that hold PatientIDs. Without it both columns of a table of two, and of a wider one
        those whose heading says so (``id``, ``patient_id``, ``mrn``, ``alias``, ``alias2``, ...).
    site
        The site whose PatientIDs the table lists; without it an id that several persons have stops the plan.
    sheet
        Name of an XLSX sheet. Without it, the first sheet that is not hidden.
    encoding
        Encoding of a text table, such as ``cp1250``; without it UTF-8, UTF-16 or Windows-1252, told by the bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1)
    columns: tuple[str, ...] = ()
    site: str | None = None
    sheet: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class AliasIds:
    """What an alias table says; private.

    Parameters
    ----------
    site
        Whose PatientIDs they are; None for any.
    rows
        Number of the row in the file, and the ids it joins, as they are written; two or more.
    lone
        Numbers of the rows that name fewer than two ids, and so join nothing.
    columns_left
        Headings of the columns that are not read.
    file
        Name of the table's file, for messages.
    """

    site: str | None
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    lone: tuple[int, ...] = ()
    columns_left: tuple[str, ...] = ()
    file: str = ""


def alias_ids(
    headings: Sequence[str],
    rows: Iterable[tuple[int, Sequence[str]]],
    *,
    options: Aliases,
    placeholders: Collection[str],
    known: Collection[str],
) -> AliasIds:
    """Return the ids of an alias table.

    Parameters
    ----------
    placeholders
        Ids that name nobody, in normal form: they join nothing.
    known
        Normal forms of the ids that the archive has. A first row that holds one of them is no heading.

    Raises
    ------
    SpecError
        When it is not certain which columns hold PatientIDs.
    """
    written = list(rows)
    bare = any(normal_id(cell) in known for cell in headings)
    if bare:
        written.insert(0, (min((number for number, _ in written), default=2) - 1, headings))
    places = list(range(len(headings))) if bare and not options.columns else _places(headings, options)
    found: list[tuple[int, tuple[str, ...]]] = []
    lone = []
    for number, cells in written:
        texts = [(cells[place] or "").strip() for place in places if place < len(cells)]
        ids = {normal_id(text): text for text in texts if normal_id(text) and normal_id(text) not in placeholders}
        if len(ids) > 1:
            found.append((number, tuple(ids.values())))
        elif any(texts):
            lone.append(number)
    left = [] if bare else [h for place, h in enumerate(headings) if h and place not in places]
    return AliasIds(options.site, tuple(found), tuple(lone), tuple(left), options.url.rpartition("/")[2])


@dataclass(frozen=True)
class AliasesMerged:
    """What alias tables joined: the persons, ids without objects as written, and counts of rows that joined nobody."""

    merged: tuple[Identity, ...]
    absent: Mapping[Identity, Sequence[str]]
    notes: Mapping[str, int]


def merge_aliases(
    forest: Forest[Identity],
    rows: Sequence[Seen],
    *,
    rules: Naming,
    tables: Sequence[AliasIds],
    remembered: Callable[[str, str], bool],
) -> AliasesMerged:
    """Join in ``forest`` what alias tables say is one. Raises SpecError for a table that cannot mean what it says.

    ``remembered`` tells whether the dataset knows the PatientID of a namespace from earlier versions.
    """
    merged: list[Identity] = []
    absent: dict[Identity, list[str]] = {}
    notes: dict[str, int] = {}
    for number, table in enumerate(tables, start=1):
        where = f"persons.aliases, table {number}{f' ({table.file})' if table.file else ''}"
        site = None if table.site is None else rules.namespace(table.site)
        homes = _homes(rows, site)
        _check_ids(table, homes, forest, rules=rules, where=where)
        _check_known(table, homes, rules=rules, remembered=remembered, where=where)
        unknown: set[str] = set()
        for _, ids in table.rows:
            ends: list[Identity] = []
            for text in ids:
                name = normal_id(text)
                if name not in homes:
                    unknown.add(name)
                    homes[name] = ((f"{ALIAS}{site or ''}", name),)
                    forest.add(homes[name][0])
                if homes[name][0][0].startswith(ALIAS):
                    absent.setdefault(homes[name][0], []).append(text)
                ends += homes[name]
            merged += [who for end in ends[1:] if (who := forest.join(ends[0], end)) is not None]
        for note, count in (("unknown_aliases", len(unknown)), ("alias_rows_that_join_nothing", len(table.lone))):
            if count:
                notes[note] = notes.get(note, 0) + count
    return AliasesMerged(tuple(merged), absent, notes)


def _check_ids(
    table: AliasIds, homes: Mapping[str, Sequence[Identity]], forest: Forest[Identity], *, rules: Naming, where: str
) -> None:
    """Refuse ids that several persons have, that lost their zeros, or of which the archive has none."""
    ids = {normal_id(text) for _, texts in table.rows for text in texts}
    shared = sum(len({forest.find(who) for who in homes.get(name, ())}) > 1 for name in ids)
    if shared:
        raise SpecError(
            f"{where}: found {counted(shared, 'PatientID')} that several persons have (of other issuers or sites), "
            "expected to be "
            "told whose they are; say so: aliases: {url: ..., site: NAME}, one table a site"
        )
    if rules.leading_zeros != "distinct":
        _check_zeros(table, homes, where)


def _check_known(
    table: AliasIds,
    homes: Mapping[str, Sequence[Identity]],
    *,
    rules: Naming,
    remembered: Callable[[str, str], bool],
    where: str,
) -> None:
    """Refuse a table that is of other people: neither the archive nor an earlier version has any of its ids."""
    ids = {normal_id(text) for _, texts in table.rows for text in texts}
    places = {"", *map(rules.namespace, rules.sites)} if table.site is None else {rules.namespace(table.site)}
    if not ids & homes.keys() and not any(remembered(place, name) for place in places for name in ids):
        raise SpecError(
            f"{where}: found {counted(len(ids), 'id')} of which the archive has none, expected some of its "
            "PatientIDs; check the "
            "columns and the spelling, or take the table out of the spec"
        )


def _homes(rows: Iterable[Seen], site: str | None) -> dict[str, tuple[Identity, ...]]:
    """Map the normal form of an id to the identities that have it at a site, or anywhere."""
    found: dict[str, dict[Identity, None]] = {}
    for row in rows:
        if row.who[0] != STUDY and site in (None, row.place):
            found.setdefault(row.who[1], {})[row.who] = None
    return {name: tuple(sorted(homes)) for name, homes in found.items()}


def _check_zeros(table: AliasIds, homes: Mapping[str, Sequence[Identity]], where: str) -> None:
    known = {without_zeros(name) for name in homes}
    lost = [n for n, ids in table.rows for t in ids if (i := normal_id(t)) not in homes and without_zeros(i) in known]
    if lost:
        raise SpecError(
            f"{where}: found {counted(len(lost), 'id')} that the archive has with other leading zeros (first in row "
            f"{lost[0]}), "
            "expected ids as in the archive: a spreadsheet cuts 0017 to 17. Store the columns as text, or say that "
            "they are other patients: persons: {leading_zeros: distinct}"
        )


def _places(headings: Sequence[str], options: Aliases) -> list[int]:
    """Return the positions of the columns with ids."""
    named = [place for place, heading in enumerate(headings) if heading]
    shown = ", ".join(repr(headings[place]) for place in named) or "none"
    if options.columns:
        absent = [column for column in options.columns if list(headings).count(column) != 1]
        if absent or len(set(options.columns)) < 2:
            raise SpecError(f"found the columns {shown}, expected two or more of them (once each) in columns: {absent}")
        return [list(headings).index(column) for column in options.columns]
    if len(named) == 2:
        return named
    places = [place for place in named if _says_id(headings[place])]
    if len(places) < 2:
        raise SpecError(
            f"found the columns {shown}, expected two columns of PatientIDs; name them: "
            "aliases: {url: ..., columns: [ID, ALIAS]}"
        )
    return places


def _says_id(heading: str) -> bool:
    word = re.sub(r"[^a-z]", "", heading.casefold())
    return word in _ID_HEADINGS or word.startswith("alias")
