"""Reader for class labels in tables, per instance, series, study or patient, with the values declared in the spec."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import CaseError, Reason
from builder.labels.rows import Cell, Row, load_rows, reader_of
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Classes, Evidence, Reading, Scalar
from builder.protocols import ImageFacts, LabelObject

Propagate: TypeAlias = Literal["same", "any", "all", "max", "most", "undecided"]


class ClassColumn(BaseModel):
    """One finding in a table.

    Parameters
    ----------
    column
        The column that holds the finding.
    values
        Maps a cell to a value, e.g. ``{"1": "positive", "0": "negative", "-1": "uncertain"}``. Other cells are refused.
        Without ``values`` and ``levels``, a cell must be a number.
    levels
        Ordered categories. The value is the position in this list, counted from 0.
    missing
        Cells, besides the empty one, that give no answer. The finding is then null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    values: dict[str, str] = {}
    levels: tuple[str, ...] = ()
    missing: tuple[str, ...] = ("", "NA", "N/A", "nan", "--", "[Not Available]", "[Unknown]", "[Not Applicable]")

    @model_validator(mode="after")
    def _values_or_levels(self) -> "ClassColumn":
        if self.values and self.levels:
            raise ValueError("found values and levels, expected one of them")
        return self

    def decode(self, cell: Cell) -> Scalar:
        """Return the value of a cell. Raises CaseError LABEL_UNREADABLE if the spec does not list it."""
        text = "" if cell is None else str(cell).strip()
        if text in self.missing:
            return None
        if self.values:
            if text not in self.values:
                raise CaseError(Reason.LABEL_UNREADABLE, f"found a cell of {self.column} that values does not list")
            return self.values[text]
        if self.levels:
            if text not in self.levels:
                raise CaseError(Reason.LABEL_UNREADABLE, f"found a cell of {self.column} that levels does not list")
            return self.levels.index(text)
        try:
            number = float(text)
        except ValueError as error:
            raise CaseError(Reason.LABEL_UNREADABLE, f"found a cell of {self.column} that is no number") from error
        if not math.isfinite(number):
            return None
        return int(number) if number.is_integer() else number


class ClassTable(TableLabel):
    """Classes from a table.

    Parameters
    ----------
    table
        Where the table lies and which rows are the image's. A row about a series, study or patient applies to every
        image of it.
    findings
        Maps the name of a finding to its column.
    propagate
        What to do with several rows for one image. ``same`` requires them to agree; ``any`` and ``all`` combine
        positive and negative values; ``max`` takes the highest number or level; ``most`` takes the most frequent value
        and refuses a tie; ``undecided`` leaves the finding null where they disagree, for a consensus to settle.
    reader
        Column with the reader's name, for tables in which several readers have a row each. Names are replaced by keyed
        ones.
    """

    VERSION: ClassVar[int] = 2
    FUSED_BY: ClassVar[tuple[str, ...]] = ("majority", "dawid_skene")

    kind: Literal["classes"] = "classes"
    findings: dict[str, ClassColumn] = Field(min_length=1)
    propagate: Propagate = "same"
    reader: str | None = None

    @property
    def columns(self) -> list[str]:
        """Return the columns that ``read`` needs."""
        return [finding.column for finding in self.findings.values()]

    @property
    def reader_column(self) -> str | None:
        """Return the column that names the reader of a row."""
        return self.reader

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return classes called ``name``. A finding that nobody judged is null.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_UNREADABLE, or LABEL_EMPTY when every finding is null.
        """
        rows = load_rows(objects)
        values = {finding: self._combine(finding, column, rows) for finding, column in self.findings.items()}
        readings = self._readings(rows) if self.reader else ()
        if all(value is None for value in values.values()) and not readings:
            raise CaseError(Reason.LABEL_EMPTY, "found a row for the image in which every finding is missing")
        evidence = Evidence(tier=self.tier, readers=tuple(sorted({r.reader for r in readings})))
        return (Classes(name, values, evidence, readings),)

    def _readings(self, rows: Sequence[Row]) -> tuple[Reading, ...]:
        """Return what each reader said of each finding, leaving out empty answers."""
        said = [
            Reading(reader_of(row), finding, column.decode(row.get(column.column)))
            for row in rows
            for finding, column in self.findings.items()
        ]
        return tuple(reading for reading in said if reading.value is not None)

    def _combine(self, finding: str, column: ClassColumn, rows: Sequence[Row]) -> Scalar:
        found = [column.decode(row.get(column.column)) for row in rows]
        said = [value for value in found if value is not None]
        if not said:
            return None
        if len(set(said)) == 1:
            return said[0]
        if self.propagate == "undecided":
            return None
        if self.propagate == "max" and all(isinstance(value, int | float) for value in said):
            return max(value for value in said if isinstance(value, int | float))
        if self.propagate in ("any", "all"):
            order = (
                ("positive", "uncertain", "negative")
                if self.propagate == "any"
                else ("negative", "uncertain", "positive")
            )
            if set(said) <= set(order):
                return next(value for value in order if value in said)
        if self.propagate == "most":
            counts = sorted(
                ((said.count(value), str(value), value) for value in set(said)), key=lambda c: (-c[0], c[1])
            )
            if counts[0][0] > counts[1][0]:
                return counts[0][2]
        raise CaseError(
            Reason.LABEL_AMBIGUOUS, f"found {len(set(said))} values of {finding} in {len(said)} rows; see propagate"
        )
