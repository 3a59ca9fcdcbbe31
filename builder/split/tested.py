"""Decide who may be tested on: persons with complete and strong labels. The others are dealt elsewhere first."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import SpecError, counted
from builder.split.assignment import assign
from builder.split.options import Splits

_FIXED = pa.schema([("person_key", pa.string()), ("split", pa.string())])


def deal_elsewhere(
    people: pa.Table, barred: Collection[str], options: Splits, *, previous: pa.Table | None
) -> pa.Table | None:
    """Return ``previous`` with the barred persons added, dealt by their ratios to the splits that do not test.

    Persons of ``previous`` stay where they are.

    Raises
    ------
    SpecError
        When the ratios name no split that is not tested.
    """
    fixed = set() if previous is None else set(previous["person_key"].to_pylist())
    newcomers = people.filter(pc.is_in(people["person_key"], pa.array([*set(barred) - fixed], pa.string())))
    if not newcomers.num_rows:
        return previous
    others = {name: share for name, share in options.ratios.items() if name not in options.tested.splits}
    if not others:
        raise SpecError(
            f"splits: found {counted(newcomers.num_rows, 'person')} who may not be tested on and no split but "
            f"{list(options.ratios)}; name another split in ratios, or loosen splits.tested"
        )
    total = sum(others.values())
    shares = {name: share / total for name, share in others.items()}
    dealt = assign(newcomers, ratios=shares, strata=options.stratify, seed=options.seed).select(_FIXED.names)
    before = [] if previous is None else [previous.select(_FIXED.names).cast(_FIXED)]
    return pa.concat_tables([*before, dealt.cast(_FIXED)])
