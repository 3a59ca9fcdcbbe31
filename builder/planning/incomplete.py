"""Leave out whole studies of which a source did not give everything, until the next run."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from builder.errors import Reason, SourceError, counted
from builder.model.parquet import read_parquet
from builder.planning.duplicates import VERDICTS
from builder.sources import AnySource
from builder.stages.parts import PartPlan
from builder.storage import Store

Study: TypeAlias = tuple[int, str]
"""Position of a source in the spec, and what the source calls the study."""

_DETAIL = "another object of its study did not come whole from the source; the next run asks again"
_PLACE = ("source", "path", "member")


def aside_studies(
    partial: Iterable[PartPlan], plans: Sequence[PartPlan], sources: Sequence[AnySource], index: Store
) -> frozenset[Study]:
    """Return the studies of which an object did not come.

    Parameters
    ----------
    partial
        The parts that hold such objects.
    plans
        All parts, from which the number of studies is counted.

    Raises
    ------
    SourceError
        When they are more than a source's ``missing_at_most``.
    """
    found = frozenset(
        (source, sources[source].study_of(path))
        for plan in partial
        for source, path, reason in _rows(read_parquet(index.read(plan.table), columns=["source", "path", "reason"]))
        if reason == Reason.SOURCE_INCOMPLETE
    )
    for position in sorted({source for source, _ in found}):
        source = sources[position]
        own = (plan for plan in plans if plan.position == position)
        paths = (path for plan in own for path in read_parquet(index.read(plan.table), columns=["path"])["path"])
        studies = len({source.study_of(path.as_py()) for path in paths})
        count = sum(at == position for at, _ in found)
        if count > source.most_missing * studies:
            raise SourceError(
                f"sources.{position}: the {source.kind} source did not give {count} of "
                f"{counted(studies, 'study', 'studies')} whole, expected at most "
                f"{source.most_missing:.2%} (missing_at_most); nothing was published: run the same "
                "command again when the server is well, or raise missing_at_most",
                host=source.kind,
            )
    return found


def setting_aside(parts: Iterable[pa.Table], sources: Sequence[AnySource], aside: frozenset[Study]) -> pa.Table:
    """Return verdicts that leave out every usable row of some studies, with the schema VERDICTS.

    Parameters
    ----------
    parts
        Tables with the columns source, path, member and status. They are not read when there are no such studies.
    """
    if not aside:
        return VERDICTS.empty_table()
    verdicts: list[dict[str, Any]] = []
    for part in parts:
        for row in part.select([*_PLACE, "status"]).to_pylist():
            if row["status"] in ("instance", "file") and (row["source"], _study(row, sources)) in aside:
                row |= {"status": "quarantined", "reason": Reason.SOURCE_INCOMPLETE.value, "detail": _DETAIL}
                verdicts.append(row)
    return pa.Table.from_pylist(verdicts, schema=VERDICTS)


def _study(row: dict[str, Any], sources: Sequence[AnySource]) -> str:
    source: AnySource = sources[row["source"]]
    return source.study_of(row["path"])


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
