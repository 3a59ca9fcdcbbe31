"""Check that tables state the columns that a plan needs, where a source reads headers only when a shard needs them."""

from collections.abc import Sequence

from builder.errors import SpecError
from builder.model.tables import CHOICE, SERIES
from builder.planning.asked import expressions
from builder.sources import AnySource
from builder.sources.deferring import is_deferred
from builder.spec import DatasetSpec
from builder.spec.columns import columns_of, named_columns
from builder.spec.stated import ADVICE
from builder.stages.stated_stacks import KNOWN, MADE_OF


def check_stated(spec: DatasetSpec) -> None:
    """Return normally if headers are read first, or if tables state every column that the plan decides by.

    Raises
    ------
    SpecError
        Names the columns that only headers tell.
    """
    late = [(number, source.states()) for number, source in enumerate(spec.sources) if is_deferred(source)]
    if not late:
        return
    stated = frozenset.intersection(*(columns for _, columns in late))
    told = KNOWN | stated | {name for name, of in MADE_OF.items() if of in stated}
    if unknown := sorted(_used(spec) - told):
        raise SpecError(
            f"sources.{late[0][0]}.headers: when_needed: found {', '.join(unknown)} in cohort or splits, expected "
            f"columns that the tables of the source state{ADVICE}"
        )


def refuse_stated(sources: Sequence[AnySource], *, what: str) -> None:
    """Raise SpecError if a source reads headers late, for something that needs them all at once."""
    for number, source in enumerate(sources):
        if is_deferred(source):
            raise SpecError(
                f"sources.{number}.headers: found when_needed, expected first, because {what} needs every header"
            )


def _used(spec: DatasetSpec) -> frozenset[str]:
    """Return the columns of series by which the plan decides anything."""
    splits, cohort = spec.splits, spec.cohort
    named = {*named_columns(expressions(cohort), columns_of(spec.clinical, labelled=False))}
    named |= {name.removeprefix("-") for name in cohort.prefer}
    named |= {*splits.stratify, *(rule.column for rule in splits.hold_out)}
    named |= {splits.leave_one_out} if splits.leave_one_out is not None else set()
    clinical = {name for table in spec.clinical for name in table.names}
    return frozenset(named & {*SERIES.names, *CHOICE.names}) - clinical
