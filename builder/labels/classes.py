"""Class labels of tables, at the level of instance, series, study or patient, with values spelt out in the spec."""

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
    """One finding of a table.

    Parameters
    ----------
    column
        The column that holds it.
    values
        Cell to value, e.g. ``{"1": "positive", "0": "negative", "-1": "uncertain"}``; cells it does not list are
        refused. Without it (and without ``levels``) a cell must be a number.
    levels
        Ordered categories: the value is the place in this list, from 0.
    missing
        Cells that say nothing (besides the empty one): the finding is null then.
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
        """The value of a cell. Raises CaseError LABEL_UNREADABLE for one the spec does not foresee."""
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
        image of that series, study or patient gets it.
    findings
        Name to column.
    propagate
        When several rows are the image's: ``same`` demands that they agree; ``any`` and ``all`` combine positive and
        negative, ``max`` takes the highest number or level, ``most`` the most frequent value (a tie is refused),
        ``undecided`` leaves null what they disagree about: for a consensus to settle.
    reader
        Column of who judged, where several readers have a row each; they get keyed names.
    """

    VERSION: ClassVar[int] = 2
    FUSED_BY: ClassVar[tuple[str, ...]] = ("majority", "dawid_skene")

    kind: Literal["classes"] = "classes"
    findings: dict[str, ClassColumn] = Field(min_length=1)
    propagate: Propagate = "same"
    reader: str | None = None

    @property
    def columns(self) -> list[str]:
        """The columns that ``read`` needs."""
        return [finding.column for finding in self.findings.values()]

    @property
    def reader_column(self) -> str | None:
        """The column of who made a row."""
        return self.reader

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Classes called ``name``; a finding nobody judged is null.

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
        """What each reader said of each finding, as far as something was said."""
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
