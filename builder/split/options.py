"""The ``splits`` block of a dataset's spec."""

import re
from collections.abc import Mapping
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

DEFAULT_RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}

MOST_SPLITS = 32

TRUE_DATE = "study_date"
"""Column with the archive's own dates: hold-outs may name it, nothing else may, and it is never published."""

STOP = "stop"

FINEST = 10_000
"""Ratios finer than one part in this many are rounded to it."""


class HoldOut(BaseModel):
    """Persons who go to one split whatever the ratios say: those of some sites, vendors, countries, or after a date.

    Give ``values`` (a person with any of them is held out) or ``since`` (a person with any value from there on; with
    ``column: study_date`` the cut is made on the archive's true dates, before any is taken out).
    A ``split`` that the ratios do not name, such as ``external``, gets these persons and nobody else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    """Column that decides, or ``study_date`` for the archive's true dates."""
    values: tuple[str | int | bool, ...] = ()
    """Values of the held-out persons."""
    since: date | float | None = None
    """First value, or date, of the held-out persons."""
    split: str = "external"
    """Split they go to."""

    @model_validator(mode="after")
    def _one_criterion(self) -> "HoldOut":
        if bool(self.values) == (self.since is not None):
            raise ValueError("found both or neither of 'values' and 'since', expected exactly one of them")
        return self


class Tested(BaseModel):
    """What a person must have to be dealt to a split that tests; who was there in an earlier version stays.

    Parameters
    ----------
    splits
        The splits that test.
    labels
        ``complete``: no case of the person lacks a label of the spec; ``any``: unlabelled and partly labelled cases
        may be tested on as well.
    evidence
        ``as_strong``: the evidence of every tested case is at least as strong as that of any case trained on;
        ``any``: it may be weaker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: tuple[str, ...] = ("test",)
    labels: Literal["complete", "any"] = "complete"
    evidence: Literal["any", "as_strong"] = "any"


class Folds(BaseModel):
    """Cross-validation over everybody who is not tested on: stratified folds of persons, dealt anew each repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: Annotated[int, Field(ge=2, le=MOST_SPLITS)] = 5
    """Number of folds."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of times the folds are dealt."""


class Sequester(BaseModel):
    """Stores the test splits separately: their labels, so that only their images are published, or all of them.

    Parameters
    ----------
    what
        ``labels`` publishes the images of these splits without their labels; ``samples`` publishes nothing of their
        persons, with a page that compares them with everybody else.
    url
        Where the whole dataset goes, with all labels, its report and its records: for those who score predictions.
    splits
        The splits whose labels are taken out.
    keep
        Clinical columns that sequestered samples keep; all others are null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(min_length=1)]
    what: Literal["labels", "samples"] = "labels"
    splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("test",)
    keep: tuple[str, ...] = ()


class Quota(BaseModel):
    """How many newcomers of a stratum go to each split at this site.

    Parameters
    ----------
    levels
        One level for each column of ``joint.columns``; ``*`` is any.
    counts
        Split to newcomers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    levels: tuple[str, ...]
    counts: dict[str, Annotated[int, Field(ge=0)]]


class Joint(BaseModel):
    """This site's part of a joint plan of several sites; ``builder site build`` writes it, nobody by hand.

    Parameters
    ----------
    columns
        Column to the levels that the plan knows; a value that is none of them is of the last one.
    quotas
        How newcomers are dealt. Persons whom an earlier version dealt, a hold-out sets aside or ``tested`` bars keep
        out of them; those of ``alike`` are newcomers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, tuple[str, ...]]
    quotas: tuple[Quota, ...]


class Splits(BaseModel):
    """How persons are dealt to splits.

    Whoever was dealt before keeps that split: a build reads the registry of the dataset it goes to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratios: dict[str, float] = Field(default_factory=lambda: dict(DEFAULT_RATIOS))
    """Share of the persons in each split; the shares sum to 1."""
    stratify: tuple[str, ...] = ()
    """Columns whose levels are spread evenly over the splits, e.g. ``[grade, sex]``."""
    seed: int = 0
    """Seed of the deal. Persons whom an earlier version dealt keep their split whatever it is."""
    may_be_empty: tuple[str, ...] = ()
    """Splits that may be empty in a published version."""
    previous: str | None = Field(default=None, min_length=1)
    """Another dataset (``DATASET`` or ``DATASET@VERSION``) whose persons keep the splits they have there."""
    fresh: bool = False
    """Whether to deal everybody anew, whatever earlier versions say. The leak certificate records it."""
    on_merge: Annotated[str, Field(min_length=1)] = STOP
    """Which split persons go to who were dealt to several before they turned out to be one; ``stop`` stops the plan."""
    trust_registry: bool = False
    """Keep the registry although the archive seems to be of other people than those it knows."""
    hold_out: tuple[HoldOut, ...] = ()
    """Persons who go to one split whatever the ratios say."""
    tested: Tested = Tested()
    """What persons must have to be tested on."""
    sequester: Sequester | None = None
    """Where the labels of the test split go, if they are kept apart."""
    folds: Folds | None = None
    """Written to the column ``folds`` of ``splits.parquet``, a number a repeat, and ``exports/splits_final.json``."""
    leave_one_out: str | None = None
    """Column (site, vendor, collection) whose values are each left out once: ``exports/leave_one_out.json``."""
    joint: Joint | None = None
    """Quotas of a joint plan of several sites, which take the place of the ratios."""
    alike: str | None = Field(default=None, min_length=1)
    """File with keyed names of persons, each with a split that another site deals them to as well: one a line."""

    @model_serializer(mode="wrap")
    def _without_no_plan(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only sites of a joint plan have, so that specs of one site are written as they always were."""
        written: dict[str, Any] = serialize(self)
        for name in ("joint", "alike"):
            if getattr(self, name) is None:
                written.pop(name, None)
        return written

    @field_validator("ratios")
    @classmethod
    def _ratios_are_shares(cls, ratios: dict[str, float]) -> dict[str, float]:
        whole_shares(ratios)
        return ratios

    @model_validator(mode="after")
    def _words_agree(self) -> "Splits":
        if self.fresh and self.previous is not None:
            raise ValueError("found both 'fresh' and 'previous', expected one: a new deal follows no earlier one")
        known = sorted({*self.ratios, *(rule.split for rule in self.hold_out)})
        wrong = [name for name in known if not _NAME.fullmatch(name)]
        if wrong:  # names of files are made of them
            raise ValueError(
                f"found a split called {wrong[0]!r}, expected a letter or digit and then at most 63 letters, digits, "
                "blanks and _ . + -"
            )
        if self.on_merge != STOP and self.on_merge not in known:
            raise ValueError(f"on_merge: found {self.on_merge!r}, expected {STOP!r} or one of the splits {known}")
        return self

    @field_validator("stratify")
    @classmethod
    def _columns_differ(cls, stratify: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(stratify)) < len(stratify):
            raise ValueError(f"found a column twice in {list(stratify)}, expected each once")
        return stratify


_NAME: Final = re.compile(r"[^\W_][\w .+-]{0,63}")


def whole_shares(ratios: Mapping[str, float]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of the splits, and their ratios as whole numbers whose sum is the common denominator.

    ``{train: 0.7, validation: 0.15, test: 0.15}`` is 14, 3 and 3 twentieths. Raises ValueError when a ratio is not
    positive or they do not sum to 1.
    """
    if not 1 <= len(ratios) <= MOST_SPLITS:
        raise ValueError(f"ratios: found {len(ratios)} splits, expected 1 to {MOST_SPLITS}")
    wrong = {k: v for k, v in ratios.items() if not _is_share(v)}
    if wrong or not all(ratios):
        raise ValueError(f"ratios: found {wrong or 'an empty name'}, expected names with numbers above 0 and at most 1")
    total = sum(ratios.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"ratios: found a sum of {total:g}, expected 1")
    names = tuple(ratios)
    fractions = [Fraction(float(ratios[n])).limit_denominator(1000) for n in names]
    exact = all(abs(float(f) - ratios[n]) < 1e-7 for f, n in zip(fractions, names, strict=True))
    scale = 1
    for f in fractions:
        scale = scale * f.denominator // _gcd(scale, f.denominator)
    if exact and sum(fractions) == 1 and scale <= FINEST:
        return names, tuple(int(f * scale) for f in fractions)
    return names, _largest_remainder([ratios[n] for n in names])


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def _largest_remainder(ratios: list[float]) -> tuple[int, ...]:
    parts = [max(1, int(r * FINEST)) for r in ratios]
    order = sorted(range(len(ratios)), key=lambda i: (int(ratios[i] * FINEST) - ratios[i] * FINEST, i))
    for i in range(FINEST - sum(parts)):
        parts[order[i % len(order)]] += 1
    return tuple(parts)
