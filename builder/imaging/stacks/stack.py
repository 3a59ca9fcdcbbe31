"""A stack: instances of one series that belong on one grid, in order, with a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from builder.imaging.stacks.spacing import Verdict
from builder.model.geometry import Geometry

Matrix: TypeAlias = tuple[tuple[float, float, float, float], ...]

PICTURES = frozenset(
    {Verdict.PROJECTION, Verdict.LOCALIZER, Verdict.STILL, Verdict.CINE, Verdict.SECONDARY_CAPTURE}
)  # fmt: skip
"""Verdicts of images that lie in a plane of their own and not in patient space."""

COLOURS = ("r", "g", "b")

AIR = -1024
"""Value in Hounsfield units that stands for "no data" in a CT."""


@dataclass(frozen=True)
class Stack:
    """Instances of one series that belong on one grid, in order, with a verdict.

    Parameters
    ----------
    series_uid
        SeriesInstanceUID (0020,000E).
    number
        Position among the stacks of its series, from 0.
    split_rule
        The rule that separated this stack from its neighbours (``orientation``, ``echo_time``, ...); "" for none.
    verdict, detail
        What the stack is, and the numbers behind the verdict, without identifiers.
    uids
        SOPInstanceUIDs, one tuple per channel, with slices in the order of the grid; a picture has one tuple in all.
    frame_numbers
        Parallel to ``uids``: the frame (from 0; for a mosaic the tile) of each slice in its instance. Empty when every
        instance is one slice.
    channels
        One name per channel: ``("image",)``, ``("t0", "t1", ...)``, ``("te20", "te40", ...)`` or ``("r", "g", "b")``.
    affine
        Maps voxel (slice, row, column) to LPS mm; None when the slices have no regular grid or none is known.
    uneven, offsets
        For an irregular or gapped stack on a straight line, the affine of the regular grid it can be resampled to, and
        the position of each slice on that grid's slice axis (from 0, in steps of the grid).
    slice_axes
        For such a stack, what each slice says of its own slice axis: a vector in mm, and notes. A slice alone in its
        run has no other.
    shape
        (slice, row, column) of one channel.
    frame_of_reference
        FrameOfReferenceUID (0020,0052); None when it is absent or when every instance states a different one.
    grid
        The verdict on one channel alone, which differs from ``verdict`` for a time series.
    frames
        Total number of images, over channels and slices.
    number_type, number_type_sure
        The volume's number type predicted from the headers, and whether it holds every value that can be stored.
    voxel_bytes
        Bytes of one voxel of the volume with its padding mask, predicted from the headers.
    tiles
        Tiles in a row of a mosaic picture, whose tiles are the frames; 0 for all other stacks.
    echo_time, b_value, component
        The first stated echo time (ms) and b-value (s/mm2), and the values of Image Type that separate the stack.
    notes
        Short codes, with numbers, for what was tolerated.
    """

    series_uid: str
    number: int
    split_rule: str
    verdict: Verdict
    detail: str
    uids: tuple[tuple[str, ...], ...]
    frame_numbers: tuple[tuple[int, ...], ...] = ()
    channels: tuple[str, ...] = ("image",)
    affine: Matrix | None = None
    uneven: Matrix | None = None
    offsets: tuple[float, ...] = ()
    slice_axes: tuple[tuple[tuple[float, ...] | None, tuple[str, ...]], ...] = ()
    shape: tuple[int, int, int] = (0, 0, 0)
    frame_of_reference: str | None = None
    grid: Verdict = Verdict.UNKNOWN_GEOMETRY
    frames: int = 1
    bits_allocated: int = 16
    number_type: str = "int16"
    number_type_sure: bool = True
    voxel_bytes: int = 2
    tiles: int = 0
    echo_time: float | None = None
    b_value: float | None = None
    component: tuple[str, ...] = ()
    modality: str = ""
    sop_class_uid: str = ""
    transfer_syntaxes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def geometry(self) -> Geometry | None:
        """The grid, or None when there is none."""
        if self.affine is None or min(self.shape) < 1:
            return None
        return Geometry(self.shape, np.array(self.affine), self.frame_of_reference)

    @property
    def uid_to_slice(self) -> Mapping[str, int]:
        """Maps SOPInstanceUID to slice index over all channels; empty when an instance holds several slices."""
        if self.frame_numbers:
            return {}
        return {uid: index for channel in self.uids for index, uid in enumerate(channel)}

    def with_uids(self, mapping: Mapping[str, str]) -> "Stack":
        """Return the same stack with other UIDs. Raise KeyError for a UID that ``mapping`` lacks."""
        frame = None if self.frame_of_reference is None else mapping[self.frame_of_reference]
        uids = tuple(tuple(mapping[uid] for uid in channel) for channel in self.uids)
        return replace(self, series_uid=mapping[self.series_uid], uids=uids, frame_of_reference=frame)

    def split(self) -> tuple["Stack", ...]:
        """Return one stack per time point of a time series or per run of a gapped stack, else the stack itself."""
        if self.verdict == Verdict.GAPPED and self.uneven is not None:
            return self._runs()
        if self.verdict != Verdict.TIME_SERIES:
            return (self,)
        return tuple(
            replace(
                self, split_rule="time", verdict=self.grid, detail=f"{name} of {len(self.channels)}: {self.detail}",
                uids=(self.uids[index],), frame_numbers=self.frame_numbers[index : index + 1], channels=("image",),
                frames=self.shape[0],
            )
            for index, name in enumerate(self.channels)
        )  # fmt: skip

    def _runs(self) -> tuple["Stack", ...]:
        """Return the runs of a gapped stack between its gaps."""
        breaks = [i for i in range(1, len(self.offsets)) if self.offsets[i] - self.offsets[i - 1] > 1.5]
        ends = [0, *breaks, len(self.offsets)]
        return tuple(_run(self, start, end) for start, end in pairwise(ends))


def _run(stack: Stack, start: int, end: int) -> Stack:
    """Make a stack of slices ``start`` to ``end`` of a gapped stack, which are evenly spaced.

    A lone slice has the axis that it states itself, as any single slice: nobody knows how far it reaches.
    """
    affine = np.array(stack.uneven)
    affine[:3, 3] += affine[:3, 0] * stack.offsets[start]
    shift = affine[:3, :3].copy()
    own, notes = stack.slice_axes[start] if end - start == 1 else (affine[:3, 0], ())
    affine[:3, 0] = affine[:3, 0] if own is None else own
    aslant = not Geometry((1, 1, 1), affine).is_orthogonal
    verdict = Verdict.SINGLE_SLICE if end - start == 1 else Verdict.SHEARED if aslant else Verdict.REGULAR
    matrix = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in affine)
    return replace(
        stack, split_rule="gap", verdict=verdict, grid=verdict,
        detail=f"{end - start} slices, {np.linalg.norm(shift[:, 0]):.4g} mm, of {len(stack.offsets)}: {stack.detail}",
        uids=(stack.uids[0][start:end],), frame_numbers=tuple(f[start:end] for f in stack.frame_numbers),
        affine=None if own is None else matrix, uneven=None, offsets=(), slice_axes=(),
        notes=tuple(sorted({*stack.notes, *notes})), shape=(end - start, *stack.shape[1:]), frames=end - start,
    )  # fmt: skip
