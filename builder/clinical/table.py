"""What a spec says of a clinical table."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from builder.clinical.events import Event, event_columns
from builder.model.origin import Origin


class ClinicalColumn(BaseModel):
    """One column of a clinical table.

    Parameters
    ----------
    source
        Its heading in the file (``from`` in YAML).
    type
        ``date`` becomes whole days since the person's first study, the date itself never leaves.
    min, max
        Inclusive bounds of a number, integer or day offset; a value outside becomes missing and is listed.
    levels
        For categories: the values accepted, or a mapping from value to level; others become missing and are listed.
    unit
        UCUM unit of a number.
    format
        ``strptime`` format of a date held as text; ISO 8601 without it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    source: str = Field(alias="from", min_length=1)
    type: Literal["category", "number", "integer", "boolean", "date", "text"]
    min: float | None = None
    max: float | None = None
    levels: Mapping[str, str] | tuple[str, ...] | None = None
    unit: str | None = None
    format: str | None = None


class Pick(BaseModel):
    """Which of several rows of one person counts: the one with the smallest or largest value of a column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    take: Literal["min", "max"]


class ClinicalTable(BaseModel):
    """A table with one or several rows a person.

    Parameters
    ----------
    url
        CSV, TSV, XLSX, Parquet or BCR Biotab file (told by content).
    person_id
        Heading of the column that holds the PatientID.
    person_pattern
        A regular expression that a person's id must match in full; its first group, if it has one, is the PatientID.
    sheet
        Name of an XLSX sheet; the first one without it.
    cardinality, pick
        ``one`` row a person (several that say the same count as one; several that differ make the person ambiguous),
        or ``many``, of which ``pick`` takes one.
    header_row
        Number of the row with the headings, from 1.
    missing
        Codes that mean no value, beside an empty cell.
    min_matched
        Fraction of the persons with images that must have a row; fewer stop the build.
    origin
        Where the table came from, and its licence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    person_id: str
    person_pattern: str | None = None
    sheet: str | None = None
    header_row: int = Field(default=1, ge=1)
    cardinality: Literal["one", "many"] = "one"
    pick: Pick | None = None
    missing: tuple[str, ...] = ()
    columns: Mapping[str, ClinicalColumn] = Field(min_length=1)
    events: Mapping[str, Event] = Field(default_factory=dict)
    min_matched: float = Field(default=0.0, ge=0.0, le=1.0)
    origin: Origin = Origin()

    @model_validator(mode="after")
    def _picks_from_many(self) -> "ClinicalTable":
        if (self.cardinality == "many") != (self.pick is not None):
            raise ValueError(
                f"found cardinality {self.cardinality} {'without' if self.pick is None else 'with'} a pick rule, "
                "expected one with many and none with one"
            )
        return self

    @model_validator(mode="after")
    def _events_use_columns(self) -> "ClinicalTable":
        for name, event in self.events.items():
            unknown = [column for column in event.sources if column not in self.columns]
            if unknown:
                raise ValueError(f"events.{name}: found the column {unknown[0]!r}, expected one declared in columns")
            times = [column for column in (event.time, event.censored) if column is not None]
            if any(self.columns[column].type not in ("number", "integer", "date") for column in times):
                raise ValueError(f"events.{name}: found a time that is no number, integer or date")
            if len({self.columns[column].unit for column in times}) > 1:
                raise ValueError(f"events.{name}: found times of different units, expected one")
        twice = set(self.columns) & {column for name in self.events for column in event_columns(name)}
        if twice:
            raise ValueError(f"events: found {sorted(twice)} among columns, expected other names")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The dataset's columns it gives, in order."""
        return (*self.columns, *(column for name in self.events for column in event_columns(name)))

    @field_validator("person_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"found a pattern that is no regular expression: {error}") from error
        return pattern
