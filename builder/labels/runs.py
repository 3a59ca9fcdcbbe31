"""Run lengths as challenges publish them: ``start length start length ...`` in one cell of a table."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict

from builder.errors import CaseError, Reason, counted

NOTHING = frozenset({"-1", "-1 -1"})
"""What challenges write for an image in which nothing was found; an empty cell says the same."""


def _texts(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


class Runs(BaseModel):
    """How the numbers of a cell count the pixels of an image. The numbers do not say it, so that the spec must.

    Parameters
    ----------
    order
        ``columns``: pixels count down the first column, then down the second (Kaggle's usual way). ``rows``: along the
        first row, then along the second.
    first
        The number of the first pixel: 1 (Kaggle's usual way) or 0.
    starts
        ``absolute``: each start counts from the first pixel. ``relative``: it counts from the end of the run before.
    nothing
        Further texts that stand for no finding, besides an empty cell and -1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["columns", "rows"]
    first: Literal[0, 1]
    starts: Literal["absolute", "relative"] = "absolute"
    nothing: Annotated[tuple[str, ...], BeforeValidator(_texts, json_schema_input_type=str | tuple[str, ...])] = ()

    def says_nothing(self, cell: object) -> bool:
        """Return whether a cell says that somebody looked and found nothing."""
        text = "" if cell is None else " ".join(str(cell).split())
        return not text or text in NOTHING or text in self.nothing

    def decode(self, cell: object, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the pixels of a cell as (row, column) bool.

        Parameters
        ----------
        shape
            Rows and columns of the image.

        Raises
        ------
        CaseError
            LABEL_UNREADABLE for a cell that holds no pairs of whole numbers, or runs that overlap, and LABEL_OFF_GRID
            for runs that leave the image.
        """
        try:
            numbers = np.array(str(cell).split(), dtype=np.int64)
        except (ValueError, OverflowError) as error:
            raise _unreadable("a cell that is no list of whole numbers") from error
        if len(numbers) % 2:
            raise _unreadable(f"a cell of {counted(len(numbers), 'number')}, which do not form pairs")
        return self._filled(numbers[::2], numbers[1::2], shape)

    def _filled(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        pixels = shape[0] * shape[1]
        if (lengths < 1).any() or (np.abs(starts) > pixels).any() or (lengths > pixels).any():
            raise _off_grid("a run that is empty or longer than the image", shape)
        if self.starts == "relative":
            starts = np.cumsum(starts) + np.concatenate([[0], np.cumsum(lengths)[:-1]])
        starts = starts - self.first
        in_order = np.argsort(starts, kind="stable")
        starts, ends = starts[in_order], (starts + lengths)[in_order]
        if len(starts) and (starts[0] < 0 or ends.max() > pixels):
            raise _off_grid("a run that leaves the image", shape)
        if (starts[1:] < ends[:-1]).any():
            raise _unreadable("runs that overlap")
        steps = np.zeros(pixels + 1, dtype=np.int8)
        np.add.at(steps, starts, 1)
        np.add.at(steps, ends, -1)
        inside = np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)
        return inside.reshape(shape, order="F" if self.order == "columns" else "C")


def _unreadable(found: str) -> CaseError:
    return CaseError(Reason.LABEL_UNREADABLE, f"found {found}, expected runs of pixels as pairs of start and length")


def _off_grid(found: str, shape: tuple[int, int]) -> CaseError:
    return CaseError(
        Reason.LABEL_OFF_GRID,
        f"found {found} of {shape[0]} x {shape[1]} pixels, expected runs made for it; see first, order and starts",
    )
