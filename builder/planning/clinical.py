"""Join the spec's clinical tables to the stacks of the survey, and list privately what did not fit."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import compress
from operator import and_
from typing import Any, Final

import pyarrow as pa

from builder.clinical import (
    ClinicalTable,
    Images,
    Joined,
    Rows,
    TableMatch,
    Value,
    faults,
    join,
    near_misses,
    read_rows,
)
from builder.clinical import schema as clinical_schema
from builder.clinical.known import own_days, until_study, when_known
from builder.clinical.matching import WHY_WITHHELD
from builder.deid.dates import Withheld, shared_dates
from builder.errors import SpecError, counted
from builder.model.keyed import Key
from builder.persons import Persons, normal_id, without_zeros
from builder.persons.naming import bare_name
from builder.planning.clinical_archive import Archive
from builder.planning.clinical_names import is_issued, names_of, with_issuers
from builder.planning.clinical_times import as_they_leave, table_births
from builder.planning.extracts import decided_by, take, with_code_files
from builder.planning.inputs import PlanInputs
from builder.split.withdrawn import hashed
from builder.storage import Store

CELLS: Final = "clinical-cells.csv"
IDS: Final = "clinical-ids.csv"
KNOWN: Final = "clinical-known.csv"


@dataclass(frozen=True, eq=False)
class Clinical:
    """The clinical part of a plan.

    Parameters
    ----------
    table
        Every declared column, parallel to the stacks; None when the spec declares no clinical table.
    rows
        Number of tables that have a row for each stack.
    unclear
        Whether a table has rows for the stack of which it is not certain which counts.
    reports
        One per table: match counts, examples by keyed name, and cells that were not used. No identifiers.
    births
        Person to the date of birth that a table states; private.
    shared
        Dates of tables and label objects that are nobody's own, and why; private.
    lock
        What the lock of a version says of tables that are no files, of code lists and of libraries that convert units;
        nothing without them.
    """

    table: pa.Table | None
    rows: tuple[int, ...] = ()
    unclear: tuple[bool, ...] = ()
    reports: tuple[Mapping[str, Any], ...] = ()
    births: Mapping[str, date] = field(default_factory=dict, repr=False)
    shared: Mapping[date, Withheld] = field(default_factory=dict, repr=False)
    lock: Mapping[str, Any] = field(default_factory=dict)


def read_clinical(
    inputs: PlanInputs, stacks: pa.Table, *, persons: Persons, made: Sequence[tuple[str, date]]
) -> Clinical:
    """Read and join the spec's clinical tables, and list what could not be used in the private workspace.

    ``made`` says of whom each label object is, and when it was made: labels and tables together may share a date.

    Raises
    ------
    SpecError
        When tables cannot be read as declared, or match the images less often than they must. It names all of them.
    """
    spec = inputs.spec
    if not spec.clinical:
        return Clinical(None, shared=shared_dates(made))
    archive = Archive(inputs, stacks, persons)
    complaints: list[str] = []
    matches: list[TableMatch] = []
    lock: list[str] = []
    for number, options in enumerate(spec.clinical, start=1):
        place = f"clinical table {number} ({options.title})"
        try:
            taken = take(options, number, inputs)
            lock += [line for line in (*taken.lock, *decided_by(options)) if line not in lock]
            match = _match(taken.data, with_code_files(options), archive)
            found = list(faults(match))
        except SpecError as error:
            found = [line.removeprefix("clinical: ") for line in str(error).splitlines()]
        else:
            matches.append(match)
        complaints += [f"{place}: {fault}" for fault in found]
    _write_lists(matches, inputs.private)
    if complaints:
        raise SpecError("\n".join(complaints))
    told = _columns(matches, archive)
    births = table_births(told, spec, archive.persons, archive.first_studies)
    # habits show in the dates of one column alone, but one date may be shared over all columns and labels
    by_column = [[*made], *(column for match in matches for column in _stated(match))]
    shared = shared_dates(pair for column in by_column for pair in column)
    for column in by_column:
        shared |= shared_dates(column)
    columns, withheld = as_they_leave(told, spec, archive.persons, stacks, births=births, shared=shared)
    fields = {f.name: f.remove_metadata() for table in spec.clinical for f in list(clinical_schema(table))[1:]}
    counts = [
        sum(values is not None for values in said) for said in zip(*(m.joined.values for m in matches), strict=True)
    ]
    return Clinical(
        table=pa.table(
            [pa.array(columns[name], f.type) for name, f in fields.items()], schema=pa.schema(fields.values())
        ),
        rows=tuple(counts),
        unclear=tuple(any(found) for found in zip(*(m.joined.unclear for m in matches), strict=True)),
        reports=tuple(
            {**match.facts(_examples(match, archive, inputs.key)), **_withheld(match.options, withheld)}
            for match in matches
        ),
        births=births,
        shared=shared,
        lock={"clinical": lock} if lock else {},
    )


def _stated(match: TableMatch) -> Iterator[list[tuple[str, date]]]:
    """Yield the dates of every column of a table, each with its person: by keyed name if the row met an image.

    Of other rows only the id of the person is known, or else of the study or series. Two sites may give one id to two
    persons.
    """
    joins = [*match.options.joins.values()]
    place = joins.index("person") if "person" in joins else None
    site = match.options.site or ""
    ids = ["\0".join((site, *(row.keys if place is None else (row.keys[place],)))) for row in match.rows.rows]
    owners = [match.joined.owners.get(number, found) for number, found in enumerate(ids)]
    for number in range(len(match.options.columns)):
        cells = zip(owners, (row.values[number] for row in match.rows.rows), strict=True)
        yield [(who, value) for who, value in cells if isinstance(value, date)]


def _withheld(options: ClinicalTable, withheld: Mapping[str, Counter[Withheld]]) -> dict[str, dict[str, Any]]:
    """Count the times of a table, by column and one a stack, that may not leave although the spec retains them."""
    counts = {name: withheld[name] for name in options.dated if withheld.get(name)}
    if not counts:
        return {}
    return {
        "times_withheld": {name: found.total() for name, found in counts.items()},
        WHY_WITHHELD: {name: {str(why): n for why, n in sorted(found.items())} for name, found in counts.items()},
    }


def _match(data: bytes, options: ClinicalTable, archive: Archive) -> TableMatch:
    rows = _without_withdrawn(read_rows(data, options), options, archive)
    inside = archive.inside(options)
    issued = with_issuers(rows, options, archive)
    joined = join(issued, options, _images(options, issued, inside, archive))
    near: dict[str, int] = {}
    if options.unit == "person":
        ids = archive.person_ids(inside)
        without = {person: ids.get(person, ()) for person in joined.image_only}
        place = list(options.joins.values()).index("person")
        known = {archive.spelled(row.keys[place]): row.number for row in rows.rows}
        near = near_misses(without, known)
        if archive.naming.leading_zeros == "report":
            _check_zeros(known, ids, without)
    told = when_known(
        options,
        joined,
        archive.inputs.spec.report.outcomes,
        study_dates=archive.study_dates,
        first_studies=[archive.first_studies.get(person) for person in archive.persons],
    )
    levels = _levels(joined, inside, archive)
    return TableMatch(options, rows, joined, near, _differing(joined, archive), tuple(told), levels)


def _without_withdrawn(rows: Rows, options: ClinicalTable, archive: Archive) -> Rows:
    """Leave out rows of persons who withdrew, so that nothing tells of them as rows without an image."""
    table, key = archive.inputs.withdrawn.table, archive.inputs.key
    if not table.num_rows:
        return rows
    names = ("bare", "studies")
    bare, studies = ({name for found in table[c].to_pylist() for name in found or ()} for c in names)
    joins = [*options.joins.values()]
    there = set(archive.patient_ids)

    def is_gone(keys: Sequence[str]) -> bool:
        said = dict(zip(joins, keys, strict=False))
        person = normal_id(said.get("person"))
        by_id = person and person not in there and hashed(key, [bare_name(key, ("", person))])[0] in bare
        return bool(by_id) or ("study" in said and hashed(key, [key.name("study", said["study"])])[0] in studies)

    return replace(rows, rows=tuple(row for row in rows.rows if not is_gone(row.keys)))


def _check_zeros(
    known: Mapping[str, int], ids: Mapping[str, tuple[str, ...]], without: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuse a table that lost leading zeros if a row's id, as it stands now, is somebody else's.

    Parameters
    ----------
    known
        Id of the table to the number of a row that has it.
    ids, without
        The ids of every person, and of the persons to whom no row belongs.

    Raises
    ------
    SpecError
        When some ids of the table are nobody's until they get their zeros back, and others could be two persons'.
    """
    somebody = {name for names in ids.values() for name in names}
    missed = {without_zeros(name) for names in without.values() for name in names if name not in known}
    lost = [name for name in known if name not in somebody and without_zeros(name) in missed]
    doubtful = [number for name, number in known.items() if name in somebody and without_zeros(name) in missed]
    if lost and doubtful:
        raise SpecError(
            f"found {counted(len(lost), 'id')} that the archive has with other leading zeros only, and "
            f"{len(doubtful)} that are "
            f"one person's as they stand and another's with zeros (first in row {min(doubtful)}), expected ids as in "
            "the archive: a spreadsheet cuts 0017 to 17. Store the column as text; or, if these are other patients, "
            "write persons: {leading_zeros: distinct}"
        )


def _images(options: ClinicalTable, rows: Rows, inside: Sequence[bool], archive: Archive) -> Images:
    stacks, outcomes = archive.stacks, archive.inputs.spec.report.outcomes
    columns = {"study": "study_uid", "series": "series_uid"}
    units = archive.persons if options.unit == "person" else stacks[columns[options.unit]].to_pylist()
    return Images(
        persons=archive.persons,
        units=[unit or "" if counts else "" for unit, counts in zip(units, inside, strict=True)],
        keys={fact: names_of(fact, options, rows, inside, archive) for fact in options.joins.values()},
        study_dates=archive.study_dates,
        first_studies=archive.first_studies,
        normal=lambda fact, text: archive.spelled(text) if fact == "person" and not is_issued(options) else text,
        until_study=until_study(options, outcomes),
        own_days=own_days(options, outcomes),
    )


def _levels(joined: Joined, inside: Sequence[bool], archive: Archive) -> dict[str, tuple[int, int]]:
    """Count the persons, studies and series of the table's site that have images, and those to which a row belongs."""
    names = {"person": archive.persons, **{f: archive.stacks[f"{f}_uid"].to_pylist() for f in ("study", "series")}}
    there = [said is not None for said in joined.values]
    return {
        level: (len({*compress(of, inside)}), len({*compress(of, map(and_, inside, there))}))
        for level, of in names.items()
    }


def _differing(joined: Joined, archive: Archive) -> dict[str, int]:
    """Count the persons whose sex differs between table and headers, because the table's codes may be swapped."""
    persons = {
        person
        for person, said, header in zip(archive.persons, joined.values, archive.stacks["sex"].to_pylist(), strict=True)
        if said is not None and said.get("sex") in ("F", "M") and header in ("F", "M") and said["sex"] != header
    }
    return {"sex": len(persons)} if persons else {}


def _columns(matches: Sequence[TableMatch], archive: Archive) -> dict[str, list[Value]]:
    """Return every column's values, one per stack. If tables share a column, the stack's own site or source wins."""
    found: dict[str, list[Value]] = {}
    sharing: dict[str, list[TableMatch]] = {}
    for match in matches:
        for name in match.options.names:
            sharing.setdefault(name, []).append(match)
    for name, tables in sharing.items():
        if len(tables) == 1:
            found[name] = [None if said is None else said[name] for said in tables[0].joined.values]
        else:
            found[name] = _shared(name, [(t.joined, archive.inside(t.options)) for t in tables])
    return found


def _shared(name: str, tables: Sequence[tuple[Joined, Sequence[bool]]]) -> list[Value]:
    values: list[Value] = []
    for row in range(len(tables[0][1])):
        own: set[Value] = set()
        others: set[Value] = set()
        for joined, inside in tables:
            said = joined.values[row]
            value = None if said is None else said[name]
            if value is not None:
                (own if inside[row] else others).add(value)
        stated = own or others
        values.append(stated.pop() if len(stated) == 1 else None)
    return values


def _examples(match: TableMatch, archive: Archive, key: Key) -> dict[str, list[str]]:
    """Return the keyed names of what matched and what did not. Person keys are keyed already."""
    unit, joined = match.options.unit, match.joined
    met = {"matched": joined.matched, "image_only": joined.image_only, "ambiguous": joined.ambiguous}
    facts = list(match.options.joins.values())
    keyed = {"person": ("patient", ""), "study": ("study",), "series": ("series",)}.get(facts[0], (facts[0],))
    shown = {name: [u if unit == "person" else key.name(unit, u) for u in units] for name, units in met.items()}
    return {**shown, "clinical_only": [key.name(*keyed, text) for text in joined.clinical_only]}


def _write_lists(matches: Sequence[TableMatch], private: Store) -> None:
    """Write what a person needs to correct the tables. It has identifiers and values, so it stays in the workspace."""
    cells = [
        (number, issue.row, issue.column, issue.problem, issue.value)
        for number, match in enumerate(matches, start=1)
        for issue in match.issues
    ]
    ids = [
        (number, outcome, text.replace("\0", "^^^"))  # as HL7 writes an id with its issuer
        for number, match in enumerate(matches, start=1)
        for outcome, texts in (
            ("in the table only", match.joined.clinical_only),
            *((f"row {row} names several persons or series", ("",)) for row in match.joined.shared),
        )
        for text in texts
    ]
    known = [
        (number, told.column, told.how, told.values, told.latest_days)
        for number, match in enumerate(matches, start=1)
        for told in match.known
        if told.how != "outcome"
    ]
    private.put(KNOWN, _csv(("table", "column", "how", "values", "latest_days_after_study"), known))
    private.put(CELLS, _csv(("table", "row", "column", "problem", "value"), cells))
    private.put(IDS, _csv(("table", "outcome", "id"), ids))


def _csv(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return sink.getvalue().encode()
