"""Find the stacks inside multi-frame objects. Each stack of an object becomes its own candidate.

The index does not record frames, so the headers of such objects are read a second time. No pixels are decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import CaseError
from builder.imaging.multiframe import resolve
from builder.imaging.stacks.axes import joined
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.spacing import Verdict
from builder.imaging.stacks.stack import Stack
from builder.sources import AnySource
from builder.stages.boundary import fault_of_case
from builder.stages.fetch import read_headers


@dataclass(frozen=True)
class Candidate:
    """A stack that may become a case.

    Parameters
    ----------
    frames
        Maps SOPInstanceUID to the frames (from 0) that belong to this stack, in ascending order; None for a stack of
        whole instances.
    inside
        The one stack that a multi-frame object holds, where its header was read: it knows geometry and echo time.
    """

    stack: Stack
    frames: Mapping[str, tuple[int, ...]] | None = None
    inside: Stack | None = None

    @property
    def uids(self) -> frozenset[str]:
        """SOPInstanceUIDs of the stack's instances."""
        return frozenset(uid for channel in self.stack.uids for uid in channel)


def opened(
    stacks: Sequence[Stack], instances: pa.Table, sources: Sequence[AnySource], options: VolumeOptions
) -> list[Candidate]:
    """Return the numbered candidates among the stacks of one series.

    A multi-frame object that holds several stacks after ``options.join`` and ``split`` gives one candidate per stack.
    The first keeps the object's number; the others follow all other stacks, whose numbers do not change. An object with
    one stack stays as it is. So does an unreadable object: the task that builds its case meets the same error and
    records it.

    Raises
    ------
    SourceError
        When a source does not answer.
    """
    first: list[Candidate] = []
    more: list[Candidate] = []
    for stack in stacks:
        found = _parts(stack, instances, sources, options) if stack.verdict == Verdict.MULTIFRAME else ()
        inside = found[0].stack if found else None
        first.append(found[0] if len(found) > 1 else Candidate(_with_channels(stack, found), inside=inside))
        more.extend(found[1:])
    return [replace(c, stack=replace(c.stack, number=number)) for number, c in enumerate([*first, *more])]


def admitted(stack: Stack, options: VolumeOptions) -> tuple[Stack, ...]:
    """Return what ``admit`` returns, or the stack unchanged when the options refuse it."""
    try:
        return admit(stack, options)
    except CaseError:
        return (stack,)


def _parts(
    stack: Stack, instances: pa.Table, sources: Sequence[AnySource], options: VolumeOptions
) -> Sequence[Candidate]:
    """Return the stacks inside an object that the options admit; none when it cannot be read."""
    held = {uid for channel in stack.uids for uid in channel}
    rows = instances.filter(pc.is_in(instances.column("sop_instance_uid"), pa.array(sorted(held), pa.string())))
    try:
        admit(stack, options)
        found = joined(resolve(stack, read_headers(rows, sources)), options)
    except Exception as error:  # noqa: BLE001 - the case boundary
        fault_of_case(error)
        return ()
    return [Candidate(part, _frames(part)) for inner in found for part in admitted(inner, options)]


def _with_channels(stack: Stack, found: Sequence[Candidate]) -> Stack:
    """Return the stack with the channels of the one stack inside, so that the plan knows them, as a time series has."""
    if len(found) != 1 or len(found[0].stack.channels) == 1:
        return stack
    return replace(stack, channels=found[0].stack.channels, shape=found[0].stack.shape)


def _frames(stack: Stack) -> Mapping[str, tuple[int, ...]]:
    frames: dict[str, set[int]] = {}
    for uids, numbers in zip(stack.uids, stack.frame_numbers, strict=True):
        for uid, number in zip(uids, numbers, strict=True):
            frames.setdefault(uid, set()).add(number)
    return {uid: tuple(sorted(numbers)) for uid, numbers in frames.items()}
