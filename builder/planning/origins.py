"""Record where each series in a plan came from, and prove that its licence allows the intended use."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.model.licenses import forbids_commercial_use, normal
from builder.model.origin import Origin
from builder.model.tables import SMALL, TEXT, Column, schema, used_rows
from builder.protocols import Stating
from builder.spec import DatasetSpec

ORIGINS = schema(
    (
        Column("series_key", TEXT),  # null for files that are not DICOM series, and for clinical tables
        Column("role", TEXT),  # image | label | clinical
        Column("source", SMALL),  # position in the spec's sources, or among its clinical tables
        Column("title", TEXT),
        Column("license", TEXT),
        Column("citation", TEXT),
        Column("doi", TEXT),
        Column("page", TEXT),
    )
)
"""One row per used series and per clinical table, with what is stated about its origin."""

MOST_NAMED = 5


@dataclass(frozen=True)
class Stated:
    """The origins that sources state for their series, completed by what the spec states about each source.

    Parameters
    ----------
    series
        For each source of the spec, maps SeriesInstanceUID to origin; empty if the source states none.
    own
        For each source of the spec, what the spec states about it.
    """

    series: tuple[Mapping[str, Origin], ...]
    own: tuple[Origin, ...]

    def of(self, source: int, uid: str | None) -> Origin:
        """Return the origin of a series of a source."""
        return self.series[source].get(uid or "", self.own[source])

    def licenses(self, stacks: pa.Table) -> list[str | None]:
        """Return the licence of each stack: its SPDX identifier if it is a known licence, otherwise as stated."""
        rows = zip(stacks.column("source").to_pylist(), stacks.column("series_uid").to_pylist(), strict=True)
        return [normal(name) or name for name in (self.of(source, uid).license for source, uid in rows)]


def ask_origins(spec: DatasetSpec) -> Stated:
    """Ask every source what it states about its series.

    Raises
    ------
    SourceError, SpecError
        When a source cannot answer.
    """
    own = tuple(source.origin for source in spec.sources)
    completed = cache(Origin.completed)  # a million series share a few hundred origins
    series = tuple(
        {uid: completed(origin, mine) for uid, origin in source.series_origins().items()}
        if isinstance(source, Stating)
        else {}
        for source, mine in zip(spec.sources, own, strict=True)
    )
    return Stated(series, own)


def gather_origins(
    spec: DatasetSpec, stated: Stated, cohort: pa.Table, links: pa.Table, annotations: pa.Table, *, key: Key
) -> pa.Table:
    """Return the origins of the included series, the annotation objects linked to them, and the clinical tables.

    Parameters
    ----------
    cohort, links, annotations
        With the private ``series_uid``; the cohort also has ``series_key``. ``links`` has schema LINKS; its row
        numbers refer to ``annotations``.
    """
    included = used_rows(cohort)
    used = sorted(set(links.column("annotation").to_pylist()))
    labels = annotations.select(["source", "series_uid"]).take(pa.array(used, pa.int64()))
    images = zip(*(included.column(c).to_pylist() for c in ("source", "series_uid", "series_key")), strict=True)
    annotated = {(source, uid) for source, uid in zip(*(c.to_pylist() for c in labels.columns), strict=True)}
    rows = [("image", source, name, stated.of(source, uid)) for source, uid, name in dict.fromkeys(images)]
    rows += [
        ("label", source, None if uid is None else key.name("series", uid), stated.of(source, uid))
        for source, uid in annotated
    ]
    rows += [("clinical", number, None, table.origin) for number, table in enumerate(spec.clinical)]
    rows.sort(key=lambda row: (row[0], row[1], row[2] or ""))
    columns = {"series_key": [r[2] for r in rows], "role": [r[0] for r in rows], "source": [r[1] for r in rows]}
    columns |= {name: [getattr(r[3], name) for r in rows] for name in Origin.model_fields}
    return pa.table(columns, schema=ORIGINS)


def prove_usage(spec: DatasetSpec, origins: pa.Table) -> None:
    """Return normally if every licence allows the use that the spec wants proven; raise otherwise.

    Raises
    ------
    SpecError
        Names each licence that does not allow it or is unknown, with the number of items under it.
    """
    if spec.usage is None:
        return
    terms = (origins.column(name).to_pylist() for name in ("role", "source", "license"))
    counted = Counter(zip(*terms, strict=True))
    faults = [
        _things(role, source, count) + (f" under {license}, which {why}" if license else " under no stated licence")
        for (role, source, license), count in sorted(counted.items(), key=str)
        if (why := forbids_commercial_use(license)) is not None
    ]
    own = forbids_commercial_use(spec.license)
    faults += [f"the dataset's own licence {spec.license}, which {own}"] if own is not None else []
    if faults:
        more = [f"{len(faults) - MOST_NAMED} more"] if len(faults) > MOST_NAMED else []
        raise SpecError(
            f"usage: found {'; '.join([*faults[:MOST_NAMED], *more])}; expected licences that allow commercial use: "
            "leave them out (a cohort rule on the column license), state origin.license of a source where it is "
            "known, or take 'usage: commercial' out of the spec"
        )


def _things(role: str, source: int, count: int) -> str:
    if role == "clinical":
        return f"clinical table {source + 1}"
    return f"{count} series of {role}s from source {source + 1}"
