"""Where everything a plan uses came from, series by series, and the proof that its licences allow the stated use."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.model.licenses import forbids_commercial_use, normal
from builder.model.origin import Origin
from builder.model.tables import SMALL, TEXT, Column, schema
from builder.protocols import Stating
from builder.spec import DatasetSpec

ORIGINS = schema(
    (
        Column("series_key", TEXT),  # null for files that are no DICOM series, and for clinical tables
        Column("role", TEXT),  # image | label | clinical
        Column("source", SMALL),  # position in the spec's sources, or among its clinical tables
        Column("title", TEXT),
        Column("license", TEXT),
        Column("citation", TEXT),
        Column("doi", TEXT),
        Column("page", TEXT),
    )
)
"""One row a series that is used, and one a clinical table: what is stated of its origin."""

MOST_NAMED = 5


@dataclass(frozen=True)
class Stated:
    """What is stated of every series: by its source, completed by what the spec states of the source.

    Parameters
    ----------
    series
        For each source of the spec: SeriesInstanceUID to origin; empty where the source knows none.
    own
        For each source of the spec: what the spec states of it.
    """

    series: tuple[Mapping[str, Origin], ...]
    own: tuple[Origin, ...]

    def of(self, source: int, uid: str | None) -> Origin:
        """The origin of a series of a source."""
        return self.series[source].get(uid or "", self.own[source])

    def licenses(self, stacks: pa.Table) -> list[str | None]:
        """The licence of each stack: SPDX identifier where it is a known one, else as it was stated."""
        rows = zip(stacks.column("source").to_pylist(), stacks.column("series_uid").to_pylist(), strict=True)
        return [normal(name) or name for name in (self.of(source, uid).license for source, uid in rows)]


def ask_origins(spec: DatasetSpec) -> Stated:
    """Ask every source what it knows of its series.

    Raises
    ------
    SourceError, SpecError
        When a source cannot say.
    """
    own = tuple(source.origin for source in spec.sources)
    completed = cache(Origin.completed)  # a million series have a few hundred origins
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
    """The origins of the included series, the annotation objects they are linked to, and the clinical tables.

    Parameters
    ----------
    cohort, links, annotations
        With the private ``series_uid``, the cohort also with ``series_key``; ``links`` by schema LINKS,
        ``annotations`` what it counts the rows of.
    """
    included = cohort.filter(cohort["included"])
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
    """Nothing, if every licence allows the use the spec wants proven.

    Raises
    ------
    SpecError
        Naming each licence that does not, or that is not known, with the number of things under it.
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
