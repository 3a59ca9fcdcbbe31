"""Reader for class labels in tables, per instance, series, study or patient, with the values declared in the spec."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import CaseError, Reason, counted
from builder.labels.rows import Cell, Row, load_rows, reader_of
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Classes, Evidence, Reading, Scalar, Tier
from builder.model.classes import class_field
from builder.model.linking import ImageRow, Mentions
from builder.protocols import ImageFacts, LabelObject

Propagate: TypeAlias = Literal["same", "any", "all", "max", "most", "undecided"]


NO_ANSWER = ("", "NA", "N/A", "nan", "--", "[Not Available]", "[Unknown]", "[Not Applicable]")
"""Cells that give no answer unless the spec says otherwise."""


class Answers(BaseModel):
    """What the cells of a finding mean.

    Parameters
    ----------
    values
        Maps a cell to a value: a word (``{"1": positive, "0": negative, "-1": uncertain}``), true or false, or a
        number. Other cells are refused. Without ``values`` and ``levels``, a cell must be a number.
    levels
        Ordered categories, lowest first. The value is the name of the level.
    missing
        Cells, besides the empty one, that give no answer. The finding is then null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, bool | int | float | str] = {}
    levels: tuple[str, ...] = ()
    missing: tuple[str, ...] = NO_ANSWER

    @model_validator(mode="after")
    def _values_or_levels(self) -> "Answers":
        if self.values and self.levels:
            raise ValueError("found values and levels, expected one of them")
        if len({_kind(value) for value in self.values.values()}) > 1:
            raise ValueError("values: found words, numbers or truth values together, expected one kind of them")
        return self

    @property
    def kind_of_column(self) -> pa.DataType:
        """The type of the column: text, number or truth value."""
        return pa.string() if self.levels else _kind(next(iter(self.values.values()), 0.0))

    @property
    def stated_levels(self) -> tuple[str, ...]:
        """The levels of a text column in the order in which the spec states them; none for numbers and booleans."""
        words = [value for value in self.values.values() if isinstance(value, str)]
        return self.levels or tuple(dict.fromkeys(words))

    def decode(self, cell: Cell) -> Scalar:
        """Return the value of a cell. Raises CaseError LABEL_UNREADABLE if the spec does not list it."""
        text = "" if cell is None else str(cell).strip()
        if text == "" or text in self.missing:
            return None
        if self.values:
            if text not in self.values:
                raise CaseError(Reason.LABEL_UNREADABLE, f"found a cell of {self.place} that values does not list")
            return self.values[text]
        if self.levels:
            if text not in self.levels:
                raise CaseError(Reason.LABEL_UNREADABLE, f"found a cell of {self.place} that levels does not list")
            return text
        try:
            number = float(text)
        except ValueError as error:
            raise CaseError(Reason.LABEL_UNREADABLE, f"found a cell of {self.place} that is no number") from error
        if not math.isfinite(number):
            return None
        return int(number) if number.is_integer() else number

    @property
    def place(self) -> str:
        """What a message calls the cells."""
        return "a table"


class ClassColumn(Answers):
    """One finding in a table: the column that holds it, and what its cells mean."""

    column: str
    """The column that holds the finding."""

    @property
    def place(self) -> str:
        """The column."""
        return self.column


class ListColumn(BaseModel):
    """One column that lists all findings of an image, such as ``Cardiomegaly|Emphysema``.

    Each finding is true where the cell lists it, and false where the cell lists others or one of ``none``.

    Parameters
    ----------
    column
        The column.
    findings
        Maps the name of a finding to its word in the cell.
    separator
        What stands between two words.
    none
        Words that say that there is no finding.
    others
        What to do with a word that is neither a finding nor one of ``none``: ``refuse`` the case, or ``ignore`` it.
    missing
        Cells, besides the empty one, that give no answer. All findings are then null.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    findings: dict[str, str] = Field(min_length=1)
    separator: str = Field(default="|", min_length=1)
    none: tuple[str, ...] = ()
    others: Literal["refuse", "ignore"] = "refuse"
    missing: tuple[str, ...] = NO_ANSWER

    def decode(self, cell: Cell) -> dict[str, Scalar]:
        """Return whether each finding is listed. Raises CaseError LABEL_UNREADABLE for a word that the spec lacks."""
        text = "" if cell is None else str(cell).strip()
        if text == "" or text in self.missing:
            return dict.fromkeys(self.findings)
        words = {word.strip() for word in text.split(self.separator)} - {""}
        unknown = words - {*self.findings.values(), *self.none}
        if unknown and self.others == "refuse":
            detail = f"found {counted(len(unknown), 'word')} in {self.column} that neither findings nor none lists"
            raise CaseError(Reason.LABEL_UNREADABLE, detail)
        return {finding: word in words for finding, word in self.findings.items()}


def _kind(value: bool | float | str) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    return pa.string() if isinstance(value, str) else pa.float64()


class ClassTable(TableLabel):
    """Classes from a table.

    Parameters
    ----------
    table
        Where the table lies and which rows are the image's. A row about a series, study or patient applies to every
        image of it.
    findings
        Maps the name of a finding to its column.
    listed
        A column that lists several findings, beside ``findings`` or in their place.
    propagate
        What to do with several rows for one image. ``same`` requires them to agree; ``any`` and ``all`` combine
        positive and negative, or true and false; ``max`` takes the highest number or level; ``most`` takes the most
        frequent value and refuses a tie; ``undecided`` leaves the finding null where they disagree, for a consensus to
        settle.
    reader
        Column with the reader's name, for tables in which several readers have a row each. Names are replaced by keyed
        ones.
    """

    VERSION: ClassVar[int] = 4
    FUSED_BY: ClassVar[tuple[str, ...]] = ("majority", "dawid_skene")

    kind: Literal["classes"] = "classes"
    findings: dict[str, ClassColumn] = Field(default_factory=dict)
    listed: ListColumn | None = None
    propagate: Propagate = "same"
    reader: str | None = None

    @model_validator(mode="after")
    def _some_findings(self) -> "ClassTable":
        listed = self.listed.findings if self.listed is not None else {}
        if not self.findings and not listed:
            raise ValueError("found neither findings nor listed, expected one of them")
        if both := sorted({*self.findings} & {*listed}):
            raise ValueError(f"found {both[0]!r} in findings and in listed, expected it once")
        return self

    @property
    def tier(self) -> Tier:
        """The tier that the spec states; a single reader only if the spec says who that is."""
        named = self.evidence.readers or self.reader
        return self.evidence.tier or ("single_reader" if named else "unstated")

    @property
    def columns(self) -> list[str]:
        """Return the columns that ``read`` needs."""
        listed = [self.listed.column] if self.listed is not None else []
        return [*(finding.column for finding in self.findings.values()), *listed]

    @property
    def reader_column(self) -> str | None:
        """Return the column that names the reader of a row."""
        return self.reader

    def class_fields(self, name: str) -> tuple[pa.Field, ...]:
        """Return the columns of the findings, in the order of the spec."""
        listed = self.listed.findings if self.listed is not None else {}
        return (
            *(class_field(name, f, column.kind_of_column, column.stated_levels) for f, column in self.findings.items()),
            *(class_field(name, finding, pa.bool_()) for finding in listed),
        )

    def mentions(self, content: bytes) -> Mentions:
        """Return a test of whether the table answers anything about an image: blank cells alone are no label."""
        return self.table.mentions(content, columns=self.columns, answers=self._answers)

    def _answers(self, row: Row) -> bool:
        try:
            return any(value is not None for value in self._decoded(row).values())
        except CaseError:
            return True  # reading the label says what is wrong with the cell

    def planned_classes(self, contents: Sequence[bytes], image: ImageRow) -> tuple[Scalar, ...]:
        """Return the values that ``read`` will find for an image. Raises CaseError as ``read`` does."""
        cut = [LabelObject(self.cut(content, image, map_uid=str)) for content in contents]
        return tuple(self._values(load_rows(cut)).values())

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return classes called ``name``. A finding that nobody judged is null.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_UNREADABLE, or LABEL_EMPTY when every finding is null.
        """
        rows = load_rows(objects)
        values = self._values(rows)
        readings = self._readings(rows) if self.reader else ()
        if all(value is None for value in values.values()) and not readings:
            raise CaseError(Reason.LABEL_EMPTY, "found a row for the image in which every finding is missing")
        evidence = Evidence(tier=self.tier, readers=tuple(sorted({r.reader for r in readings})))
        return (Classes(name, values, evidence, readings),)

    def _values(self, rows: Sequence[Row]) -> dict[str, Scalar]:
        decoded = [self._decoded(row) for row in rows]
        return {finding: self._combine(finding, [row[finding] for row in decoded]) for finding in decoded[0]}

    def _decoded(self, row: Row) -> dict[str, Scalar]:
        """Return the values of one row, in the order of ``class_fields``."""
        own: dict[str, Scalar] = {f: column.decode(row.get(column.column)) for f, column in self.findings.items()}
        return own | (self.listed.decode(row.get(self.listed.column)) if self.listed is not None else {})

    def _readings(self, rows: Sequence[Row]) -> tuple[Reading, ...]:
        """Return what each reader said of each finding, leaving out empty answers."""
        said = [
            Reading(reader_of(row), finding, value) for row in rows for finding, value in self._decoded(row).items()
        ]
        return tuple(reading for reading in said if reading.value is not None)

    def _combine(self, finding: str, found: Sequence[Scalar]) -> Scalar:
        said = [value for value in found if value is not None]
        if not said:
            return None
        if len(set(said)) == 1:
            return said[0]
        if self.propagate == "undecided":
            return None
        if self.propagate == "max" and (highest := self._highest(finding, said)) is not None:
            return highest
        if self.propagate in ("any", "all"):
            for order in (("positive", "uncertain", "negative"), (True, False)):
                if set(said) <= set(order):
                    ranked = order if self.propagate == "any" else order[::-1]
                    return next(value for value in ranked if value in said)
        if self.propagate == "most":
            counts = sorted(
                ((said.count(value), str(value), value) for value in set(said)), key=lambda c: (-c[0], c[1])
            )
            if counts[0][0] > counts[1][0]:
                return counts[0][2]
        raise CaseError(
            Reason.LABEL_AMBIGUOUS, f"found {len(set(said))} values of {finding} in {len(said)} rows; see propagate"
        )

    def _highest(self, finding: str, said: Sequence[Scalar]) -> Scalar:
        """Return the highest number or level; None if the values have no order."""
        levels = self.findings[finding].levels if finding in self.findings else ()
        if levels:
            return max((value for value in said if isinstance(value, str)), key=levels.index)
        numbers = [value for value in said if isinstance(value, int | float)]
        return max(numbers) if len(numbers) == len(said) else None
