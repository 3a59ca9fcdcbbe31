"""Which of several rows of a clinical table counts."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from builder.clinical.column import quoted


class Pick(BaseModel):
    """Which of several rows counts.

    Parameters
    ----------
    where
        Heading to the value, or values, that a row must have, e.g. ``{Diagnosis type: primary}``.
    by
        Heading of the column whose values are compared. They are compared as what they are: numbers, dates, numbered
        labels such as ``Visit 10``. A column whose values have no certain order is refused.
    take
        ``min`` and ``max`` of ``by``; or, where ``by`` holds dates, the row ``nearest`` to the study (of two equally
        near the earlier one), the ``last_before`` it (its own day included), or the ``first_after`` it.
    order
        Values of ``by`` in ascending order, for those that have none of their own.
    within_days
        The most days that ``nearest``, ``last_before`` and ``first_after`` may lie from the study.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: Mapping[str, str | tuple[str, ...]] = Field(default_factory=dict)
    by: str | None = None
    take: Literal["min", "max", "nearest", "last_before", "first_after"] | None = None
    order: tuple[str, ...] = ()
    within_days: int | None = Field(default=None, ge=0)

    @field_validator("where", mode="before")
    @classmethod
    def _values_are_texts(cls, where: Any) -> Any:
        for value in where.values() if isinstance(where, Mapping) else ():
            for one in value if isinstance(value, list | tuple) else (value,):
                quoted(one, "a value of the file")
        return where

    @model_validator(mode="after")
    def _says_which(self) -> "Pick":
        if (self.by is None) != (self.take is None):
            raise ValueError("found one of by and take, expected both or none of them")
        if self.by is None and not self.where:
            raise ValueError("found neither by nor where, expected one of them to say which row counts")
        if self.order and self.to_study:
            raise ValueError(f"found an order with take: {self.take}, which compares dates; expected min or max")
        if self.within_days is not None and not self.to_study:
            raise ValueError("found within_days without take: nearest, last_before or first_after")
        return self

    @property
    def to_study(self) -> bool:
        """Whether the row depends on the date of the study."""
        return self.take in ("nearest", "last_before", "first_after")

    def accepted(self, heading: str) -> tuple[str, ...]:
        """Return the values of a heading of ``where`` that a row may have."""
        values = self.where[heading]
        return (values,) if isinstance(values, str) else values
