"""Choose series of the IDC from its tables, before any bucket is asked."""

import functools
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builder.errors import SpecError, counted
from builder.model.expression import compile as compile_expression

SERIES: Final = "SeriesInstanceUID"
BUCKET, UUID, GCS_BUCKET = "aws_bucket", "crdc_series_uuid", "gcs_bucket"
NEEDED: Final = (
    "collection_id", "PatientID", "Modality", SERIES, "license_short_name", BUCKET, UUID, "instanceCount",
)  # fmt: skip
WANTED: Final = ("source_DOI", "StudyInstanceUID", "series_size_MB", "series_revised_idc_version")
"""Columns that are used where the index has them; indexes of early versions do not."""

PRIOR: Final = ("min_idc_version", "max_idc_version")

ON_GCS: Final = {
    "idc-open-data": "idc-open-data",
    "idc-open-data-two": "idc-open-idc1",
    "idc-open-data-cr": "idc-open-cr",
}
"""Names of the buckets on Google Cloud by their names on AWS."""

_LINE = re.compile(r"cp\s+(?:--\S+\s+)*'?\"?(?:s3|gs)://[a-z0-9.\-]+/([0-9a-f\-]{36})/\*'?\"?\s+\S+")


@dataclass(frozen=True)
class Tables:
    """Paths of the tables to choose from.

    Parameters
    ----------
    index
        The series index.
    others
        Further tables by name, each with at most one row for each series.
    prior
        The index of earlier versions of series; "" without it.
    """

    index: str
    others: tuple[tuple[str, str], ...] = ()
    prior: str = ""


@dataclass(frozen=True)
class Wanted:
    """What to choose.

    Parameters
    ----------
    values
        Wanted values by column of the index; all must fit.
    select
        An expression over the columns of the index and of the other tables; "" for all.
    uuids
        Versions of series by their UUID; empty for all.
    version
        Release of the IDC whose content is wanted; None for that of the index.
    """

    values: tuple[tuple[str, tuple[str, ...]], ...]
    select: str = ""
    uuids: tuple[str, ...] = ()
    version: int | None = None


@dataclass(frozen=True)
class Chosen:
    """Rows in the order of bucket and UUID, and what to tell a person about them."""

    rows: Sequence[Mapping[str, Any]]
    news: str


@functools.lru_cache(maxsize=8)
def choose(tables: Tables, wanted: Wanted) -> Chosen:
    """Return the chosen series. Raises SpecError when a table cannot be read or an expression does not fit."""
    current = _read(tables.index, NEEDED, WANTED, _filters(wanted), where="index")
    revised = 0
    if wanted.version is not None:
        if "series_revised_idc_version" not in current.schema.names:
            raise SpecError("sources.version: found an index without series_revised_idc_version, expected that column")
        newer = pc.greater(current["series_revised_idc_version"], wanted.version)
        revised = pc.sum(newer).as_py() or 0
        current = current.filter(pc.invert(newer))
    prior = _earlier(tables.prior, wanted)
    if prior is not None:
        # a version that is current as well is no earlier one
        known = pa.array(current[UUID].to_pylist(), pa.string())
        prior = prior.filter(pc.invert(pc.is_in(prior[UUID], known)))
        revised = prior.num_rows
        current = pa.concat_tables([current, prior], promote_options="default")
    if wanted.select:
        current = _selected(current, tables, wanted)
    rows = sorted(current.to_pylist(), key=lambda row: (row[BUCKET] or "", row[UUID] or ""))
    _check_present(rows, wanted)
    return Chosen(rows, _news(rows, revised, wanted))


def read_s5cmd(path: str) -> tuple[str, ...]:
    """Return the UUIDs of the series that a manifest for s5cmd names. Raises SpecError."""
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"sources.manifest: found no file that can be read ({type(error).__name__})") from None
    wanted = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    found = [_LINE.fullmatch(line) for line in wanted]
    if not found or not all(found):
        raise SpecError(
            f"sources.manifest: found {sum(match is None for match in found)} of {len(found)} lines that name no "
            "series, expected lines such as: cp s3://idc-open-data/UUID/* ."
        )
    return tuple(dict.fromkeys(match[1] for match in found if match))


def _filters(wanted: Wanted, *, columns: Iterable[str] | None = None) -> Any:
    filters = [
        pc.field(name).isin(pa.array(values, pa.string()))
        for name, values in wanted.values
        if values and (columns is None or name in columns)
    ]
    if wanted.uuids:
        filters.append(pc.field(UUID).isin(pa.array(wanted.uuids, pa.string())))
    return functools.reduce(operator.and_, filters) if filters else None


def _read(path: str, needed: Iterable[str], extra: Iterable[str], filters: Any, *, where: str) -> pa.Table:
    try:
        names = pq.read_schema(path).names
        if missing := [name for name in needed if name not in names]:
            raise SpecError(f"sources.{where}: found a table without {missing[0]}, expected one of the IDC's tables")
        columns = [*needed, *(name for name in extra if name in names)]
        return pq.read_table(Path(path), columns=columns, filters=filters)
    except (OSError, KeyError, ValueError) as error:
        raise SpecError(
            f"sources.{where}: found no IDC table that can be read ({type(error).__name__}), expected a Parquet file "
            "such as those of the Python packages idc-index-data and idc-index"
        ) from None


def _earlier(prior: str, wanted: Wanted) -> pa.Table | None:
    """Return earlier versions of series: those of a release, or those that a manifest names."""
    if not prior or (wanted.version is None and not wanted.uuids):
        return None
    needed = ("collection_id", "PatientID", "Modality", SERIES, BUCKET, UUID, *PRIOR)
    filters = _filters(wanted, columns=needed)
    found = _read(prior, needed, (GCS_BUCKET, "StudyInstanceUID", "series_size_MB"), filters, where="prior")
    if wanted.version is not None:
        served = pc.and_(
            pc.less_equal(found[PRIOR[0]], wanted.version), pc.greater_equal(found[PRIOR[1]], wanted.version)
        )
        found = found.filter(served)
    # a version that moved between buckets has a row for each, of which the last is where it is now
    found = found.sort_by([(UUID, "ascending"), (PRIOR[1], "descending")])
    uuids = found[UUID].to_pylist()
    first = [n for n, uuid in enumerate(uuids) if n == 0 or uuids[n - 1] != uuid]
    return found.take(pa.array(first, pa.int64())).drop_columns(list(PRIOR))


def _selected(current: pa.Table, tables: Tables, wanted: Wanted) -> pa.Table:
    """Return the rows that fulfil the expression, after joining the tables whose columns it names."""
    index = pq.read_schema(tables.index)
    schemas = {name: _schema(name, path) for name, path in tables.others}
    fields = {field.name: field for field in index}
    owners: dict[str, tuple[str, str]] = {}
    for name, schema in schemas.items():
        for field in schema:
            if field.name == SERIES:
                continue
            shown = f"{name}_{field.name}" if field.name in fields else field.name
            fields[shown], owners[shown] = field.with_name(shown), (name, field.name)
    try:
        expression = compile_expression(wanted.select, pa.schema(list(fields.values())))
    except SpecError as error:
        raise SpecError(f"sources.select: {error}") from None
    joined = current.select([SERIES])
    if own := [name for name in expression.columns if name not in owners]:
        rows = pq.read_table(Path(tables.index), columns=list(dict.fromkeys([SERIES, *own])))
        joined = _with(joined, rows, own, table="index")
    for table, path in tables.others:
        own = [name for name in expression.columns if owners.get(name, ("",))[0] == table]
        if own:
            known = {owners[name][1]: name for name in own}
            rows = pq.read_table(Path(path), columns=[SERIES, *known])
            rows = rows.rename_columns([SERIES, *(known[name] for name in rows.column_names[1:])])
            joined = _with(joined, rows, own, table=table)
    return current.filter(expression.mask(joined))


def _schema(name: str, path: str) -> pa.Schema:
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"sources.tables.{name}: found no Parquet file that can be read ({type(error).__name__})"
        ) from None
    if SERIES not in schema.names:
        raise SpecError(
            f"sources.tables.{name}: found a table without {SERIES}, expected one with a row for each series (the "
            "clinical_index lists columns of clinical tables: read those under clinical)"
        )
    return schema


def _with(left: pa.Table, right: pa.Table, names: Sequence[str], *, table: str) -> pa.Table:
    """Return ``left`` with columns of ``right`` by series; without a row there, they have no value."""
    right = right.filter(pc.is_in(right[SERIES], left[SERIES].combine_chunks().unique()))
    if pc.count_distinct(right[SERIES]).as_py() != right.num_rows:
        raise SpecError(f"sources.tables.{table}: found several rows for a series, expected at most one")
    places = pc.index_in(left[SERIES].combine_chunks(), value_set=right[SERIES].combine_chunks())
    taken = right.take(places)
    for name in names:
        if name not in left.column_names:
            left = left.append_column(right.schema.field(name).with_nullable(True), taken[name])
    return left


def _check_present(rows: Sequence[Mapping[str, Any]], wanted: Wanted) -> None:
    """Refuse series that are named one by one and that no table has: they were withdrawn, or are of another version."""
    named = dict(wanted.values).get(SERIES, ())
    for what, column, asked in (("series", SERIES, named), ("manifest", UUID, wanted.uuids)):
        absent = len(set(asked) - {row[column] for row in rows})
        if absent and not wanted.select and not any(values for name, values in wanted.values if name != SERIES):
            raise SpecError(
                f"sources.{what}: found {absent} of {len(set(asked))} series in no table, expected all: they were "
                "withdrawn, or revised in another version of the IDC; name prior_versions_index.parquet under prior, "
                "or take them out"
            )


def _news(rows: Sequence[Mapping[str, Any]], revised: int, wanted: Wanted) -> str:
    sizes = [row.get("series_size_MB") or 0.0 for row in rows]
    licenses = sorted({row["license_short_name"] for row in rows if row["license_short_name"]})
    text = (
        f"idc: {len(rows):,} series of {counted(len({row['PatientID'] for row in rows}), 'person')}, "
        f"{sum(sizes) / 1000:,.1f} GB by the index, licences: {', '.join(licenses) or 'none stated'}"
    )
    if revised and wanted.version is not None:
        text += f"; {revised:,} of them in the version before a revision after release {wanted.version}"
    elif revised:
        text += f"; {revised:,} of them in a version that was revised or withdrawn since"
    return text
