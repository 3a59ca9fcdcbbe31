"""Outcomes with the time to them: two columns, event and time, made from declared ones."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field


class Event(BaseModel):
    """An outcome and when it happened, or until when it is known that it had not.

    It becomes two columns: ``<name>_event`` (boolean) and ``<name>_time`` (in the unit of ``time``). Both have a value
    or none has. A person whose outcome is known without its time, or with a time before the start, has none, and the
    cell is listed.

    Parameters
    ----------
    column
        The declared column that says whether it happened.
    happened
        The values of that column, as text, that mean that it happened; ``true`` for a boolean column. Any other value
        means that it did not.
    time
        The declared column with the time of the event (of a ``date``: days since the person's first study).
    censored
        The declared column with the time of the last look at a person to whom it did not happen; ``time`` without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    happened: tuple[str, ...] = Field(min_length=1)
    time: str
    censored: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The declared columns it is made from."""
        return tuple(name for name in (self.column, self.time, self.censored) if name is not None)


def event_columns(name: str) -> tuple[str, str]:
    """Return the columns of the dataset that an event of this name gives."""
    return f"{name}_event", f"{name}_time"


def derive(event: Event, values: Mapping[str, str | float | int | bool | None]) -> tuple[bool, float] | None:
    """Return whether an event happened and when, from a person's typed columns; None if the table does not say.

    Raises
    ------
    ValueError
        When the outcome is stated without its time, or with a time before the start.
    """
    said = values[event.column]
    if said is None:
        return None
    text = str(said).lower() if isinstance(said, bool) else str(said)
    happened = text in event.happened
    time = values[event.time if happened or event.censored is None else event.censored]
    if time is None or isinstance(time, str):
        raise ValueError("an outcome without its time")
    if time < 0:
        raise ValueError("an outcome before the start of its time")
    return happened, float(time)
