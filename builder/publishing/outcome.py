"""Decide whether a dataset may be published, so that an empty or depleted one never replaces a good one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from builder.errors import OutcomeError, Reason, counted
from builder.model.layout import Receipt
from builder.plan import DatasetPlan
from builder.spec import DatasetSpec

MOST_EXAMPLES = 3
"""Most cases that a message names for each reason."""


@dataclass(frozen=True)
class Loss:
    """What was lost for one reason between the plan and the dataset.

    Parameters
    ----------
    persons
        Persons who lost at least one case.
    example
        Keyed names of a few of the cases, for ``builder explain``.
    detail
        What was found in the first of these cases; holds no value of a patient.
    """

    reason: str
    cases: int
    persons: int
    example: tuple[str, ...]
    detail: str

    def facts(self) -> dict[str, Any]:
        """Return the loss as data that JSON can hold."""
        return asdict(self)

    def text(self) -> str:
        """Return the loss as one line of text."""
        took = f"{counted(self.cases, 'case')} of {counted(self.persons, 'person')}"
        return f"{self.reason}: {took}, such as {self.example[0]} ({self.detail})"


def losses(plan: DatasetPlan, receipts: Mapping[str, Receipt]) -> tuple[Loss, ...]:
    """Return which planned cases the build lost, by reason, the largest loss first."""
    person_of = {case.case_key: case.person_key for case in plan.cases}
    by_reason: dict[str, list[Any]] = {}
    for receipt in receipts.values():
        for case in receipt.excluded:
            by_reason.setdefault(case.reason.value, []).append(case)
    found = []
    for reason, cases in by_reason.items():
        ordered = sorted(cases, key=lambda case: case.case_key)
        found.append(
            Loss(
                reason=reason,
                cases=len(cases),
                persons=len({person_of[case.case_key] for case in cases}),
                example=tuple(case.case_key for case in ordered[:MOST_EXAMPLES]),
                detail=ordered[0].detail,
            )
        )
    return tuple(sorted(found, key=lambda loss: (-loss.cases, loss.reason)))


def check_plan(plan: DatasetPlan, *, hints: Sequence[str] = ()) -> None:
    """Refuse a plan whose dataset could not be published, before any time is spent on decoding.

    ``hints`` are lines that say which rule removed what. Raises OutcomeError.
    """
    faults = plan_faults(plan)
    if faults:
        raise OutcomeError(_message(plan, faults, hints))


def plan_faults(plan: DatasetPlan) -> tuple[str, ...]:
    """Return why nothing could be published from a plan; empty if something could."""
    waiting = plan.faces.waiting
    faces = (
        f"{counted(waiting, 'image of a head waits', 'images of heads wait')} for a person's decision "
        "(deid.face_review): builder view shows them",
    )
    empty = _empty(plan.spec, plan.cohort.num_rows, len(plan.cases), plan.splits["split"].to_pylist())
    return (*empty, *(faces if waiting else ()))


def check_build(plan: DatasetPlan, lost: Sequence[Loss], index: pa.Table, *, unlisted: int = 0, alike: int = 0) -> None:
    """Refuse to publish a dataset that is empty, lacks a split that the spec asks for, or lost too much in the build.

    Parameters
    ----------
    index
        One row per sample, with ``person_key`` and ``split``.
    unlisted
        Number of studies that a source did not give whole, so that they are not in the plan. Each counts as a lost case
        of a lost person, for nobody knows what was in it.
    alike
        Number of persons who were put into one split with others because their volumes show one image.

    Raises
    ------
    OutcomeError
        The message says how much each reason removed, and what to type next. The published version stays as it is.
    """
    persons = set(index["person_key"].to_pylist())
    empty = _empty(plan.spec, plan.cohort.num_rows, index.num_rows, index["split"].to_pylist())
    faults = empty if not index.num_rows else (*empty, *_unfetched(plan, lost), *_beyond(plan, lost, persons, unlisted))
    if faults:
        reasons = [loss.text() for loss in lost]
        if alike:
            reasons.append(
                f"{counted(alike, 'person was', 'persons were')} put into one split with others, because volumes of "
                "theirs show one image (leaks.on_match: merge); if they are no copies, raise leaks.thresholds, or "
                "write leaks: {on_match: report}"
            )
        raise OutcomeError(_message(plan, faults, reasons))


def _empty(spec: DatasetSpec, candidates: int, left: int, splits: Sequence[str | None]) -> tuple[str, ...]:
    if not left:
        return (f"no case is left of {counted(candidates, 'image stack')}, expected at least one",)
    ratios = spec.splits.ratios if "ratios" in spec.splits.model_fields_set else ()  # nobody asked for the defaults
    asked = dict.fromkeys([*ratios, *(rule.split for rule in spec.splits.hold_out)])
    empty = [name for name in asked if name not in set(splits) and name not in spec.splits.may_be_empty]
    if not empty:
        return ()
    names = ", ".join(empty)
    return (
        f"found nobody in the split {names}, expected at least one person in each split the spec asks for; give the "
        f"dataset more persons, leave {names} out of splits.ratios, or write splits: {{may_be_empty: [{names}]}}",
    )


def _unfetched(plan: DatasetPlan, lost: Sequence[Loss]) -> Iterator[str]:
    """Yield a fault when the sources gave fewer cases whole than they may (``missing_at_most``)."""
    gone = sum(loss.cases for loss in lost if loss.reason == Reason.SOURCE_INCOMPLETE)
    most = max((source.most_missing for source in plan.spec.sources), default=0.0)
    if gone > most * len(plan.cases):
        yield (
            f"the sources did not give {gone} of {counted(len(plan.cases), 'planned case')} whole, expected at most "
            f"{most:.2%} (missing_at_most); run the same command again when the server is well"
        )


def _beyond(plan: DatasetPlan, lost: Sequence[Loss], persons: set[str], unlisted: int) -> Iterator[str]:
    """Yield the losses that exceed the bounds of the spec."""
    bounds = plan.spec.max_lost
    planned = {case.person_key for case in plan.cases}
    counts = {
        "cases": (sum(loss.cases for loss in lost) + unlisted, len(plan.cases) + unlisted, bounds.cases),
        "persons": (len(planned - persons) + unlisted, len(planned) + unlisted, bounds.persons),
    }
    over = {
        name: (gone, of, share)
        for name, (gone, of, share) in counts.items()
        if gone >= bounds.at_least and gone / of > share
    }
    for name, (gone, of, share) in over.items():
        yield (
            f"the build lost {gone} of {of} planned {name} ({_percent(gone / of)}), expected at most {_percent(share)} "
            f"(max_lost.{name}), or fewer than {bounds.at_least}"
        )
    if over:
        allowed = ", ".join(f"{name}: {math.ceil(100 * gone / of) / 100}" for name, (gone, of, _) in over.items())
        yield f"mend what the reasons below name; or, to publish what is left, write max_lost: {{{allowed}}}"


def _percent(share: float) -> str:
    """Write a share so that one just above a bound does not read like the bound itself: 10.17%, not 10%."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def _message(plan: DatasetPlan, faults: Sequence[str], reasons: Sequence[str]) -> str:
    lines = [
        "\n".join(faults),
        *(f"  {reason}" for reason in reasons),
        "  nothing was published: what was published before stays, and finished shards are kept",
        "  next: builder explain DATASET NAME says why a file, UID, case or patient is out, builder explain-reason "
        "CODE what a reason means; then run the same command",
    ]
    return "\n".join(lines)
