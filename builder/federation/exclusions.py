"""Why persons of a site's archive are not in the dataset: how many each rule kept out, as one more table of persons."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from builder.errors import PrivacyError, Reason
from builder.federation.documents import Table
from builder.federation.tables import Column, Disclosed, count
from builder.federation.told import Repeater, Teller
from builder.spec import DatasetSpec

NAME: Final = "exclusions"
COLUMN: Final = "outcome"
KEPT: Final = "in the dataset"
OTHER: Final = "other"

_GEOMETRY = (
    *(Reason.UNKNOWN_GEOMETRY, Reason.IRREGULAR_SPACING, Reason.GAPPED, Reason.SHEARED, Reason.DUPLICATE_POSITIONS),
    *(Reason.MIXED_ORIENTATION, Reason.SINGLE_SLICE, Reason.TIME_SERIES, Reason.UNSUPPORTED_OBJECT),
)
_CLINICAL = (Reason.CLINICAL_MISSING, Reason.CLINICAL_AMBIGUOUS)
_IMAGES = (Reason.IMAGE_MISSING, Reason.IMAGE_NOT_ALIGNED, Reason.VISIT_MISSING, Reason.VISIT_UNDATED)
_LABELS = (Reason.LABEL_MISSING, Reason.LABEL_AMBIGUOUS, Reason.LABEL_UNREADABLE, Reason.LABEL_EMPTY)
_BUILD = (Reason.UNDECODABLE_PIXELS, Reason.INCONSISTENT_PIXELS, Reason.NO_SAMPLES)


def outcomes(spec: DatasetSpec) -> tuple[str, ...]:
    """Return what can become of a person under a spec, in the order of its steps; the same at every site.

    A rule that the spec names is called so, everything else by the code of its reason. ``other`` holds what is rare.
    """
    codes = [Reason.NOT_SELECTED, *_GEOMETRY]
    codes += _CLINICAL if spec.cohort.clinical == "required" else ()
    late = [*(_IMAGES if spec.cohort.images else ()), *(_LABELS if spec.labels else ()), *_BUILD]
    rules = [f"rule {rule.name}" for rule in spec.cohort.rules]
    return (KEPT, *(code.value for code in codes), *rules, *(code.value for code in late), OTHER)


def exclusions_of(cohort: pa.Table, kept: Collection[str], levels: tuple[str, ...]) -> "Exclusions":
    """Return what became of each person who has an image that the cohort's rules have judged.

    A person of whom nothing is used is counted under the last step that any image of that person reached.

    Parameters
    ----------
    cohort
        One row a series with ``person_key``, ``rule`` and ``reason``.
    kept
        Persons in the dataset.
    levels
        As ``outcomes`` gives them.
    """
    step = {level: place for place, level in enumerate(levels)}
    found: dict[str, str] = {}
    for person, rule, reason in zip(*(cohort[c].to_pylist() for c in ("person_key", "rule", "reason")), strict=True):
        if person is None:
            continue
        level = f"rule {rule}" if reason == Reason.COHORT_RULE else reason
        level = KEPT if person in kept else level if level in step else OTHER
        before = found.setdefault(person, level)
        if before == OTHER or (level != OTHER and step[level] > step[before]):
            found[person] = level
    return Exclusions(levels, found)


@dataclass(frozen=True)
class Exclusions:
    """What can be told of them.

    Parameters
    ----------
    levels
        As ``outcomes`` gives them.
    of
        Person to outcome.
    """

    levels: tuple[str, ...]
    of: Mapping[str, str]


def tell_exclusions(teller: Teller | Repeater, found: Exclusions, total: Table, withheld: list[str]) -> Iterator[Table]:
    """Yield the table, or add a line to ``withheld`` that says why it stays.

    Its first number is that of all persons in the dataset, which ``total`` has told or not. Only where it is told does
    nothing else connect this table with those of the persons in the dataset, so that each can be judged by itself.
    """
    persons = total.rows[0].persons
    if persons is None:
        withheld.append(f"{NAME}: the number of persons in the dataset is not told")
        return
    column = Column(COLUMN, found.levels)
    known = Disclosed((column,), teller.k, {(KEPT,): persons}, ())
    counts = count((column,), ((level,) for level in found.of.values()))
    try:
        yield teller.table(NAME, counts, [(), (COLUMN,)], known=known)
    except PrivacyError:
        withheld.append(f"{NAME}: not told beside what was told before")
