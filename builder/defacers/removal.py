"""What goes out of one image: sets of cells, and where the image lies among them. A private file of a few kilobytes."""

import hashlib
import io
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from builder.defacers.cells import CELL_MM, Bools, Cells, parse_cells
from builder.model.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Removal:
    """Cells to take out of an image.

    Parameters
    ----------
    gone
        All of them: those of every image of the case that lies in the same place, less the brain in any of them.
    surface
        Those of them that hold skin of this image.
    matrix
        (4, 4): from LPS mm of the image's frame of reference to LPS mm of the cells.
    """

    gone: Cells
    surface: Cells
    matrix: NDArray[np.float64]

    def gone_in(self, grid: Geometry) -> Bools:
        """Return (slice, row, column) bool: the voxels of the image's grid to take out."""
        return self.gone.within(self._placed(grid))

    def surface_in(self, grid: Geometry) -> Bools:
        """Return (slice, row, column) bool: those of them that hold skin."""
        return self.surface.within(self._placed(grid))

    def kept_by(self, drawn: Cells) -> float:
        """Return the share of the surface that lies in cells of the image's own frame of reference."""
        places = np.argwhere(self.surface.held)[:, ::-1] + np.array(self.surface.start)[::-1]
        if not len(places) or not drawn.held.any():
            return 0.0
        back = np.linalg.inv(self.matrix)
        cells = np.floor((places * CELL_MM @ back[:3, :3].T + back[:3, 3])[:, ::-1] / CELL_MM + 0.5).astype(int)
        cells -= np.array(drawn.start)
        inside = ((cells >= 0) & (cells < drawn.held.shape)).all(axis=1)
        return float(drawn.held[tuple(cells[inside].T)].sum() / len(places))

    def _placed(self, grid: Geometry) -> Geometry:
        return replace(grid, affine=self.matrix @ grid.affine)

    @property
    def digest(self) -> str:
        """The sha256 of what goes, by which a plan names it."""
        return hashlib.sha256(self._bytes()).hexdigest()

    def _bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(self.matrix, np.float64), allow_pickle=False)
        for part in (self.gone, self.surface):
            data = part.to_bytes()
            buffer.write(len(data).to_bytes(8, "little") + data)
        return buffer.getvalue()

    def to_bytes(self) -> bytes:
        """Return the removal as a file; ``parse_removal`` is the inverse."""
        return zlib.compress(self._bytes())


def parse_removal(data: bytes) -> Removal:
    """Read what ``Removal.to_bytes`` wrote. Raises ValueError or zlib.error if it is something else."""
    buffer = io.BytesIO(zlib.decompress(data))
    matrix = np.load(buffer, allow_pickle=False)
    gone, surface = (parse_cells(buffer.read(int.from_bytes(buffer.read(8), "little"))) for _ in range(2))
    return Removal(gone, surface, matrix)
