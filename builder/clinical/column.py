"""The options of one column of a clinical table in a spec."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from builder.clinical.cells import DecimalMark


def quoted(value: Any, what: str) -> None:
    """Refuse YAML's numbers, truths and nulls where a text of the file is meant."""
    if isinstance(value, list | dict):
        raise ValueError(f"found a {'list' if isinstance(value, list) else 'mapping'} as {what}, expected a text")
    if not isinstance(value, str):
        text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
        raise ValueError(f'found {text} as {what}, expected a text; quote the value: "{text}"')


class ClinicalColumn(BaseModel):
    """One column of a clinical table.

    Parameters
    ----------
    source
        Its heading in the file (``from`` in YAML).
    type
        ``date`` becomes whole days since the person's first study; the date itself never leaves.
    min, max
        Inclusive bounds of a number, integer or day offset. A value outside becomes missing and is listed.
    levels
        The values accepted, or a mapping from value to level. Other values become missing and are listed.
    unit
        UCUM unit of a number.
    unit_from
        Heading of the column with the unit of each row: its number is converted to ``unit`` (UCUM).
    unit_names
        How that column writes units that are not UCUM, to UCUM: ``{"ng per ml": "ng/mL"}``.
    decimal
        The decimal mark of numbers held as text, ``.`` or ``,``; the other one may then group thousands. Without it
        there are decimal points only.
    format
        ``strptime`` format of a date held as text; ISO 8601 without it.
    pivot
        First of the hundred years that two-digit years belong to; required with ``%y`` in the format.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    source: str = Field(alias="from", min_length=1)
    type: Literal["category", "number", "integer", "boolean", "date", "text"]
    min: float | None = None
    max: float | None = None
    levels: Mapping[str, str] | tuple[str, ...] | None = None
    unit: str | None = None
    unit_from: str | None = Field(default=None, min_length=1)
    unit_names: Mapping[str, str] = Field(default_factory=dict)
    decimal: DecimalMark | None = None
    format: str | None = None
    pivot: int | None = Field(default=None, ge=1800, le=2100)

    @field_validator("levels", mode="before")
    @classmethod
    def _levels_are_texts(cls, levels: Any) -> Any:
        if isinstance(levels, Mapping):
            for value, level in levels.items():
                quoted(value, "a value of the file")
                quoted(level, "a level")
        elif isinstance(levels, list | tuple):
            for value in levels:
                quoted(value, "a level")
        elif levels is not None:
            raise ValueError("found neither a list nor a mapping, expected a list of levels, or a mapping to them")
        if levels is not None and not levels:
            raise ValueError("found no level, expected at least one; without levels every value is taken as it is")
        return levels

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> "ClinicalColumn":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"found min {self.min} above max {self.max}, expected them the other way round")
        only = {"format": ("date",), "pivot": ("date",), "decimal": ("number", "integer")}
        for name, types in only.items():
            if getattr(self, name) is not None and self.type not in types:
                raise ValueError(
                    f"found {name} for a column of type {self.type}, expected it with {' or '.join(types)}"
                )
        if self.unit_from is not None and (self.type != "number" or self.unit is None):
            raise ValueError(
                "found unit_from, expected it for a column of type number with the unit that it shall have"
            )
        if self.unit_names and self.unit_from is None:
            raise ValueError("found unit_names without unit_from, expected the heading of the column with the units")
        if self.pivot is None and self.type == "date" and self.format is not None and "%y" in self.format:
            raise ValueError(
                "found a format with two-digit years (%y) and no pivot, expected pivot: the first of the hundred years "
                "they belong to, such as 1930"
            )
        return self

    @property
    def mapping(self) -> Mapping[str, str] | None:
        """Value in the file to level, or None without levels."""
        if self.levels is None or isinstance(self.levels, Mapping):
            return self.levels
        return {level: level for level in self.levels}
