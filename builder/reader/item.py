"""One decoded sample: its arrays, its row and its grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.model.geometry import Geometry
from builder.reader.batches import shown


@dataclass(frozen=True, eq=False, repr=False)
class Item:
    """One sample: ``item["image"]`` is an array, and ``item.row`` holds everything else.

    Parameters
    ----------
    index
        Position in the dataset's index (not in a subset of it).
    arrays
        Field name to (channel, slice, row, column) array.
    """

    index: int
    arrays: Mapping[str, NDArray[Any]]
    _table: pa.Table = field(repr=False)
    grids: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Field name to the grid that it has for itself; see ``geometry_of``."""
    images: tuple[str, ...] = field(default=("image",), repr=False)
    """Names of the fields that hold images."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __repr__(self) -> str:
        return f"<sample {self.index}: {shown(self.arrays)}>"

    @property
    def row(self) -> dict[str, Any]:
        """All columns of the sample: split, geometry, labels and clinical data."""
        return self.values(self._table.schema.names)

    def values(self, columns: Sequence[str]) -> dict[str, Any]:
        """Return some columns of the row, and read only those."""
        found: dict[str, Any] = self._table.select(list(columns)).slice(self.index, 1).to_pylist()[0]
        return found

    def geometry_of(self, name: str) -> Geometry:
        """Return the grid of one field in LPS mm; fields of other visits may have grids of their own."""
        grid = self.grids.get(name, "")
        if not grid:
            return self.geometry
        affine = self.values([f"grid.{grid}.affine"])[f"grid.{grid}.affine"]
        s, r, c = self.arrays[name].shape[1:]
        return Geometry((s, r, c), np.reshape(affine, (4, 4)))

    @property
    def geometry(self) -> Geometry:
        """The sample's grid in LPS mm."""
        row = self.values(["slices", "rows", "columns", "affine"])
        return Geometry((row["slices"], row["rows"], row["columns"]), np.reshape(row["affine"], (4, 4)))
