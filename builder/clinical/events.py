"""Outcomes with the time to them: one pair of columns, event and time, from a table's own."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Event(BaseModel):
    """An outcome and when it happened, or until when it is known not to have.

    It becomes two columns: ``<name>_event`` (boolean) and ``<name>_time`` (in the unit of ``time``). They have a value
    together or not at all: a person whose outcome is known but not its time, or whose time is before the start, has
    neither, and is listed.

    Parameters
    ----------
    column
        The declared column that says whether it happened.
    happened
        The values of that column, as text, that mean it did; ``true`` for a boolean one. Any other value: it did not.
    time
        The declared column with the time of the event (of a ``date``: days since the person's first study).
    censored
        The declared column with the time of the last look at those it did not happen to; ``time`` without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    happened: tuple[str, ...] = Field(min_length=1)
    time: str
    censored: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns it is made of."""
        return tuple(name for name in (self.column, self.time, self.censored) if name is not None)


def event_columns(name: str) -> tuple[str, str]:
    """The columns of the dataset that an event of this name becomes."""
    return f"{name}_event", f"{name}_time"


def derive(event: Event, values: Mapping[str, Any]) -> tuple[bool, float] | None:
    """Whether it happened and when, from a person's typed columns; None where nothing is said of it.

    Raises ValueError with the problem where the outcome is stated and its time is not, or cannot be.
    """
    said = values[event.column]
    if said is None:
        return None
    text = str(said).lower() if isinstance(said, bool) else str(said)
    happened = text in event.happened
    time = values[event.time if happened or event.censored is None else event.censored]
    if time is None:
        raise ValueError("an outcome without its time")
    if time < 0:
        raise ValueError("an outcome before the start of its time")
    return happened, float(time)
