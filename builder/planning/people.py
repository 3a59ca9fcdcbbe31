"""Determine the archive's persons from its identities and the spec's alias tables, and report doubts before a build."""

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from builder.clinical import read_sheet, text_of
from builder.clinical.sheet import Line
from builder.errors import LayoutError, SpecError, counted
from builder.persons import Aliases, AliasIds, Naming, Persons, alias_ids, group_persons, normal_id
from builder.planning.inputs import PlanInputs
from builder.sources import LaidOut
from builder.split import Registry
from builder.split.withdrawn import hashed
from builder.stages.survey import IDENTITIES
from builder.storage import read_at

DOUBTS = {
    "unknown_aliases": (
        "id of the alias tables is of nobody in the archive",
        "ids of the alias tables are of nobody in the archive",
    ),
    "alias_rows_that_join_nothing": (
        "row of the alias tables names fewer than two ids, and joins nobody",
        "rows of the alias tables name fewer than two ids, and join nobody",
    ),
    "placeholder_ids": (
        "PatientID names nobody (such as ANONYMOUS or 0): each study under it is a person of its own; "
        "say otherwise in persons.placeholders",
        "PatientIDs name nobody (such as ANONYMOUS or 0): each study under them is a person of its own; "
        "say otherwise in persons.placeholders",
    ),
    "differ_in_leading_zeros": (
        "group of PatientIDs differs only in leading zeros and is not merged; an alias table "
        "or persons: {leading_zeros: join} merges it",
        "groups of PatientIDs differ only in leading zeros and are not merged; an alias table "
        "or persons: {leading_zeros: join} merges them",
    ),
    "spelling": (
        "PatientID is written in several ways (case, invisible characters, Unicode forms) and counts as one",
        "PatientIDs are written in several ways (case, invisible characters, Unicode forms) and count as one each",
    ),
    "blank_issuer": (
        "PatientID comes with its issuer and without, and counts as one",
        "PatientIDs come with their issuer and without, and count as one each",
    ),
    "unclear_issuer": (
        "PatientID without issuer could be of several issuers: all who may be meant go to one split",
        "PatientIDs without issuer could be of several issuers: all who may be meant go to one split",
    ),
    "sex": (
        "person has contradicting sexes: perhaps several people; see persons.on_conflict and the sources' site",
        "persons have contradicting sexes: perhaps several people; see persons.on_conflict and the sources' site",
    ),
    "birth_date": (
        "person has contradicting birth dates: perhaps several people; see persons.on_conflict and the sources' site",
        "persons have contradicting birth dates: perhaps several people; see persons.on_conflict and the sources' site",
    ),
}
"""Counts of ``Persons.counts`` that somebody must see before a build, and what one or several of them mean."""


def find_persons(inputs: PlanInputs, annotations: pa.Table, *, registry: Registry) -> Persons:
    """Find the persons of everything in the archive. ``registry`` lists everybody who was assigned to a split before.

    Raises
    ------
    SpecError
        When an alias table cannot be applied as it is, or sources without a site share PatientIDs.
    LayoutError
        When persons' identities are contradictory and ``persons.on_conflict`` is ``stop``.
    """
    spec = inputs.spec
    found = (inputs.survey.identities(), annotations, inputs.inventory.leftovers())
    everybody = pa.concat_tables([table.select(IDENTITIES.names).cast(IDENTITIES) for table in found])
    everybody = everybody.filter(pc.is_valid(pc.coalesce(everybody["study_uid"], everybody["patient_id"])))
    files = {n for n, source in enumerate(spec.sources) if isinstance(source, LaidOut) and source.layout is not None}
    naming = spec.persons.naming([source.site for source in spec.sources], named_studies=files)
    stated = everybody["patient_id"].unique().to_pylist() if spec.persons.aliases else []
    known = {normal_id(text) for text in stated} - {""}
    tables = [
        read_aliases(options, number, naming, known) for number, options in enumerate(spec.persons.aliases, start=1)
    ]
    remembered = pc.list_flatten(registry.table["members"]).to_pylist()
    gone = set(pc.list_flatten(inputs.withdrawn.table["members"]).to_pylist())
    persons = group_persons(
        everybody, key=inputs.key, naming=naming, aliases=tables, remembered=remembered,
        withdrew=lambda name: bool(gone) and hashed(inputs.key, [name])[0] in gone,
    )  # fmt: skip
    doubtful = [c for c in persons.conflicts if c.kind in ("sex", "birth_date")]
    if doubtful and spec.persons.on_conflict == "stop":
        said = " and ".join(sorted({c.kind.replace("_", " ") for c in doubtful}))
        raise LayoutError(
            f"persons: found {counted(len({c.person_key for c in doubtful}), 'person')} with contradicting {said}, "
            "expected one value each; "
            "state the site of every source, correct the archive, or set persons.on_conflict: report"
        )
    for line in doubts(persons):
        inputs.progress.say(f"persons: {line}")
    return persons


def doubts(persons: Persons) -> Iterator[str]:
    """Yield a sentence with a count for every kind of doubt about the identity of persons."""
    counts = persons.counts()
    for name, words in DOUBTS.items():
        if counts.get(name):
            yield counted(counts[name], *words)


def read_aliases(options: Aliases, number: int, naming: Naming, known: Collection[str]) -> AliasIds:
    """Read an alias table with the reader of clinical tables. Raises SpecError naming the table."""
    where = f"persons.aliases, table {number} ({options.url.rpartition('/')[2]})"
    if options.site is not None and naming.namespace(options.site) not in {naming.namespace(s) for s in naming.sites}:
        sites = ", ".join(sorted({site for site in naming.sites if site})) or "none"
        raise SpecError(f"{where}: found the site {options.site!r}, expected one that a source states: {sites}")
    try:
        sheet = read_sheet(read_at(options.url), options.sheet, encoding=options.encoding)
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError(f"{where}: found no file at its url, expected a table; check the path") from None
    except SpecError as error:
        raise SpecError(f"{where}: {str(error).removeprefix('clinical: ')}") from None
    try:
        rows = [(line.number, _texts(line)) for line in sheet.rows]
        return alias_ids(sheet.headings, rows, options=options, placeholders=naming.placeholders, known=known)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def _texts(line: Line) -> tuple[str, ...]:
    """Return the cells of a row. An incomplete row may hide an alias, so it counts as a fault of the table."""
    if line.fault is not None:
        raise SpecError(f"row {line.number}: found {line.fault}, expected a row of PatientIDs; correct the table")
    try:
        return tuple(text_of(cell) or "" for cell in line.cells)
    except ValueError as error:
        raise SpecError(f"row {line.number}: found {error}, expected PatientIDs as text; correct the table") from None
