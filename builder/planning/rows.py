"""Rows of the planning tables as typed values: where a stack's instances are, a case of the cohort, and a link."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import TypeVar

import pyarrow as pa

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the instances of a stack are: a chunk of the inventory, and their holders in its membership."""

    chunk: int
    series_uid: str
    holders: Sequence[int]
    usable_reason: str | None


@dataclass(frozen=True)
class CandidateRow:
    """What putting images together into cases needs to know of a candidate; columns as in SERIES and STACKS."""

    stack_key: str
    person_key: str
    study_key: str
    frame_of_reference_key: str | None
    study_date: date | None
    visit: str | None
    slices: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class IncludedStack:
    """What the plan of a case needs to know of an included row of the cohort; columns as in STACKS and SERIES."""

    case_key: str
    stack_key: str
    person_key: str
    series_key: str
    stack: int
    modality: str | None
    manufacturer: str | None
    verdict: str
    slices: int
    rows: int
    columns: int
    channels: int | None
    spacing_slice_mm: float | None
    spacing_row_mm: float | None
    spacing_column_mm: float | None
    number_type: str
    number_type_sure: bool
    voxel_bytes: int
    peak_bytes: int
    frame_lists: Sequence[Sequence[int]] | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (slice, row, column)."""
        return (self.slices, self.rows, self.columns)

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Distance between voxel centres along (slice, row, column); None when one of them is not known."""
        if self.spacing_slice_mm is None or self.spacing_row_mm is None or self.spacing_column_mm is None:
            return None
        return (self.spacing_slice_mm, self.spacing_row_mm, self.spacing_column_mm)


@dataclass(frozen=True)
class LinkRow:
    """A row of LINKS: a row of the annotations that a label takes for a case, and the kind of reference."""

    annotation: int
    case_key: str
    label: str
    how: str


@dataclass(frozen=True)
class LabelState:
    """Which labels a case of a person has, and the strongest evidence for them."""

    person_key: str
    label_status: str | None
    label_tier: str | None


def rows_of(table: pa.Table, kind: type[Row]) -> list[Row]:
    """Return the rows of a table as values of a dataclass, from the columns that are called like its fields."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return [kind(*values) for values in zip(*(table.column(name).to_pylist() for name in names), strict=True)]


def included(cohort: pa.Table) -> pa.Table:
    """Return the rows of the cohort that become cases."""
    return cohort.filter(cohort["included"])
