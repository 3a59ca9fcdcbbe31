"""Tables of the OMOP Common Data Model 5.4, as files of an extract or in PostgreSQL, with the user's own concepts."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
from pydantic import Field

from builder.errors import SpecError
from builder.extracts.extract import ExtractBlock
from builder.extracts.sql import SqlUser, query_table
from builder.protocols import Extracted, Outside

TableName: TypeAlias = Literal[
    "person", "condition_occurrence", "measurement", "observation", "procedure_occurrence", "drug_exposure", "death",
    "image_occurrence",
]  # fmt: skip

Get: TypeAlias = Callable[[str], pa.Table | None]
"""Gives a table of the model by its name, None where there is none."""


@dataclass(frozen=True)
class Layout:
    """The columns of a table that mean the same in all: its concept, date, value and unit; "" where it has none."""

    concept: str = ""
    date: str = ""
    numbers: str = ""
    texts: str = ""


LAYOUTS: Final[dict[TableName, Layout]] = {
    "person": Layout("gender_concept_id"),
    "condition_occurrence": Layout("condition_concept_id", "condition_start_date"),
    "measurement": Layout("measurement_concept_id", "measurement_date", "value_as_number"),
    "observation": Layout("observation_concept_id", "observation_date", "value_as_number", "value_as_string"),
    "procedure_occurrence": Layout("procedure_concept_id", "procedure_date"),
    "drug_exposure": Layout("drug_concept_id", "drug_exposure_start_date"),
    "death": Layout("cause_concept_id", "death_date"),
    "image_occurrence": Layout("modality_concept_id", "image_occurrence_date"),
}

_OPERATORS: Final = {"4171756": "<", "4171754": "<=", "4172704": ">", "4171755": ">="}
"""Values of ``operator_concept_id`` under which ``value_as_number`` is a bound and no value."""

_NULLS: Final = ("", "NULL", "\\N")
_CONCEPTS: Final = ("concept_id", "concept_code", "vocabulary_id", "concept_name")
_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".parquet")


class Omop(ExtractBlock):
    """One table of an OMOP CDM. Headings are the model's own, in small letters, and those that all tables share.

    These are ``person_source_value``, ``care_site`` (of the person), ``date``, ``concept_id``, and from the CONCEPT
    table, where the extract has one, ``code``, ``system`` and ``display``; measurements and observations also have
    ``value`` and ``unit``, a person ``birth_date``, an image ``study_uid`` and ``series_uid``.

    Parameters
    ----------
    url
        A folder with a CSV or Parquet file for each table (or a folder of parts called as the table), or
        ``postgresql://HOST:PORT/DATABASE``.
    table
        Which table.
    tables_in
        The schema of a database that holds the tables.
    sign_in
        As for ``sql``.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["omop"]
    url: str = Field(min_length=1)
    table: TableName
    tables_in: str = Field(default="cdm", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
    sign_in: SqlUser = SqlUser()

    @property
    def title(self) -> str:
        return f"omop {self.table}"

    def take(self, outside: Outside) -> Extracted:
        get = self._queried(outside) if re.match(r"postgres(ql)?://", self.url) else self._filed(outside)
        table, layout = get(self.table), LAYOUTS[self.table]
        if table is None:
            raise SpecError(
                f"{self.title}: found no file {self.table} at its url, expected one that ends in {', '.join(_SUFFIXES)}"
            )
        needed = ["person_id", *filter(None, (layout.concept, layout.date))]
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise SpecError(f"{self.title}: found no column {missing[0]}, expected the columns of OMOP CDM 5.4")
        columns = {name: table[name] for name in table.column_names}
        columns |= _person(table, get)
        columns |= {"date": table[layout.date]} if layout.date else {}
        concepts = get("concept")
        said, notes = _concept(table[layout.concept], concepts, self.table)
        columns |= said | _value(table, layout, concepts) | _own(table, self.table)
        return Extracted(pa.table(columns), notes)

    def _filed(self, outside: Outside) -> Get:
        def get(name: str) -> pa.Table | None:
            parts = [
                _read(file, data, f"{self.title}: {name}")
                for file, data in outside.files(self.url, lambda file: _is_of(file, name))
            ]
            return pa.concat_tables(parts, promote_options="default") if parts else None

        return get

    def _queried(self, outside: Outside) -> Get:
        layout = LAYOUTS[self.table]
        own = f'"{self.tables_in}"."{self.table}"'

        def get(name: str) -> pa.Table | None:
            columns = "person_id, person_source_value, care_site_id" if name == "person" != self.table else "*"
            query = f'SELECT {columns} FROM "{self.tables_in}"."{name}"'
            if name == "concept":
                ids = [layout.concept, *(["unit_concept_id"] if layout.numbers else [])]
                named = " UNION ".join(f"SELECT {column} FROM {own}" for column in ids)
                query += f" WHERE concept_id IN ({named})"
            try:
                return _as_text(query_table(self.url, query, self.sign_in, outside, title=self.title))
            except SpecError:
                if name in ("concept", "care_site"):
                    return None
                raise

        return get


def _is_of(file: str, table: str) -> bool:
    """Return whether a file is the table, or a part of it in a folder that is called as the table."""
    *folders, name = file.lower().split("/")
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix in _SUFFIXES and (stem == table or (bool(folders) and folders[-1] == table))


def _read(file: str, data: bytes, where: str) -> pa.Table:
    """Return a file as columns of text. Raises SpecError when it is damaged."""
    try:
        if file.lower().endswith(".parquet"):
            return _as_text(pq.read_table(io.BytesIO(data)))
        return _delimited(data, where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{where}: found a file that cannot be read ({type(error).__name__}), expected rows with as many cells as "
            "there are headings; is it complete?"
        ) from None


def _delimited(data: bytes, where: str) -> pa.Table:
    """Return a text table. Its headings may have another separator than its rows, as no name of the model has any."""
    head, _, rest = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    names = [name.lower() for name in re.findall(r"\w+", head.decode(), re.ASCII)]
    first = (rest.partition(b"\n")[0] or head).decode()
    mark = next((mark for mark in "\t,;|" if first.count(mark) >= len(names) - 1 > 0), None)
    if mark is None or len({*names}) < len(names):
        raise SpecError(f"{where}: found no separator that fits its headings, expected tabs, commas, ; or |")
    if not rest.strip():
        return pa.table({name: pa.array([], pa.string()) for name in names})
    quoted = mark != "\t" or b'"' in head  # vocabularies come with tabs, and quotes in names are quotes
    width = first.count(mark) + 1 if not quoted else len(next(csv.reader([first], delimiter=mark)))
    beyond = [f"cell {number}" for number in range(len(names) + 1, width + 1)]
    table = pv.read_csv(
        io.BytesIO(rest),
        read_options=pv.ReadOptions(column_names=[*names, *beyond], use_threads=False),
        parse_options=pv.ParseOptions(delimiter=mark, quote_char='"' if quoted else False, newlines_in_values=quoted),
        convert_options=pv.ConvertOptions(
            column_types=dict.fromkeys([*names, *beyond], pa.string()),
            strings_can_be_null=True,
            null_values=list(_NULLS),
        ),
    )
    if any(table[name].null_count < table.num_rows for name in beyond):
        raise SpecError(f"{where}: found rows of {width} cells under {len(names)} headings, expected as many")
    return table.select(names)


def _as_text(table: pa.Table) -> pa.Table:
    """Return all columns as text under small headings; whole floats, as pandas writes ids with gaps, without ``.0``."""

    def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if pa.types.is_floating(column.type):
            whole = pc.all(pc.equal(pc.floor(column), column)).as_py() is not False
            column = column.cast(pa.int64()) if whole else column
        return column.cast(pa.string())

    return pa.table({name.lower(): text(table[name]) for name in table.column_names})


def _person(table: pa.Table, get: Get) -> dict[str, pa.Array]:
    """Return the number that the source gave each row's person, and the care site that issued it; null where unknown.

    The care site is called as its source does, or by its id without a CARE_SITE table.
    """
    of_persons = "person_source_value" in table.column_names
    persons = table if of_persons else get("person")
    sites = _column_of(get("care_site"), "care_site_id", "care_site_source_value")
    numbers, cared = (_column_of(persons, "person_id", name) for name in ("person_source_value", "care_site_id"))
    ids = table["person_id"].to_pylist()
    care = [cared.get(i) for i in ids]
    found = {"care_site": pa.array([sites.get(site or "") or site for site in care], pa.string())}
    return (
        found if of_persons else {**found, "person_source_value": pa.array([numbers.get(i) for i in ids], pa.string())}
    )


def _column_of(table: pa.Table | None, key: str, name: str) -> dict[str, str | None]:
    """Map the ids of a table to one of its columns; nothing without the table or the column."""
    if table is None or not {key, name} <= {*table.column_names}:
        return {}
    return dict(zip(table[key].to_pylist(), table[name].to_pylist(), strict=True))


def _concept(
    ids: pa.ChunkedArray, concepts: pa.Table | None, table: str
) -> tuple[dict[str, pa.Array], tuple[str, ...]]:
    """Return code, system and display of each row's concept, and what to say of those that are not in the table."""
    known = _known(concepts)
    found = [known.get(name, (None, None, None)) for name in ids.to_pylist()]
    columns: dict[str, pa.Array] = {"concept_id": ids}
    for place, name in enumerate(("code", "system", "display")):
        columns[name] = pa.array([said[place] for said in found], pa.string())
    filled = len(ids) - ids.null_count
    lost = sum(name is not None and name not in known for name in ids.to_pylist())
    if concepts is None:
        return columns, ("there is no CONCEPT table that can be read: code, system and display are empty",)
    if lost:
        return columns, (f"{lost} of {filled} concepts of {table} are not in the CONCEPT table, and have no code",)
    return columns, ()


def _known(concepts: pa.Table | None) -> dict[str, tuple[str | None, ...]]:
    """Map concept ids to code, vocabulary and name; 0 is OMOP's "no matching concept", and none."""
    if concepts is None or not {*_CONCEPTS} <= {*concepts.column_names}:
        return {}
    rows = zip(*(concepts[name].to_pylist() for name in _CONCEPTS), strict=True)
    return {row[0]: row[1:] for row in rows if row[0] != "0"} | {"0": (None, None, None)}


def _value(table: pa.Table, layout: Layout, concepts: pa.Table | None) -> dict[str, pa.Array]:
    """Return the value, a bound with its sign so that it is no number, and the unit: UCUM's code, or the source's."""
    if not layout.numbers:
        return {}
    rows = range(table.num_rows)
    has = {name: table[name].to_pylist() for name in table.column_names}
    numbers, texts = has.get(layout.numbers, [None] * len(rows)), has.get(layout.texts, [None] * len(rows))
    operators = has.get("operator_concept_id", [None] * len(rows))
    values = [
        None if number is None else _OPERATORS.get(operator or "", "") + number
        for number, operator in zip(numbers, operators, strict=True)
    ]
    values = [text if value is None else value for value, text in zip(values, texts, strict=True)]
    known = _known(concepts)
    sources, ids = has.get("unit_source_value", [None] * len(rows)), has.get("unit_concept_id", [None] * len(rows))
    units = [
        known[i][0] if i in known and known[i][1] == "UCUM" else source for i, source in zip(ids, sources, strict=True)
    ]
    return {"value": pa.array(values, pa.string()), "unit": pa.array(units, pa.string())}


def _own(table: pa.Table, name: TableName) -> dict[str, pa.Array]:
    """Return the headings that only persons and images have."""
    if name == "image_occurrence":
        return {f"{what}_uid": table[f"image_{what}_uid"] for what in ("study", "series")}
    if name != "person":
        return {}
    parts = [table[f"{part}_of_birth"].to_pylist() for part in ("year", "month", "day")]
    return {"birth_date": pa.array([_day(*map(str, row)) for row in zip(*parts, strict=True)], pa.string())}


def _day(year: str, month: str, day: str) -> str | None:
    return f"{year}-{month}-{day}" if all(part.isdigit() for part in (year, month, day)) else None
