"""Stacks inside multi-frame objects, seen before any pixel is read."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.errors import CaseError, Reason
from builder.imaging.rows import instances_of
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions
from builder.protocols import Description, Entry
from builder.stages.inner import opened
from tests import synthetic
from tests.endtoend.test_multiframe import two_objects

DEFAULT = VolumeOptions()


@dataclass(frozen=True)
class Server:
    """A source that describes its objects without their pixels, and gives none whole."""

    headers: dict[str, bytes]

    def describe(self, entries: Sequence[Entry]) -> Iterator[Description | CaseError]:
        gone = CaseError(Reason.SOURCE_MISSING, "absent")
        yield from (Description(self.headers[e.path], False) if e.path in self.headers else gone for e in entries)

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        raise AssertionError("pixels were asked for")


def surveyed(server: Server, options: VolumeOptions = DEFAULT) -> list[Any]:
    table = instances_of(two_objects())
    ledger = {"source": [0, 0], "path": ["first", "second"], "member": ["", ""], "size": [0, 0], "stamp": ["", ""]}
    for name, values in ledger.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    return opened(stacks_for(table, options), table, [server], options)  # type: ignore[list-item]


def headers() -> dict[str, bytes]:
    found = {}
    for name, dataset in zip(("first", "second"), two_objects(), strict=True):
        header = copy.deepcopy(dataset)
        del header.PixelData
        found[name] = synthetic.to_bytes(header)
    return found


def test_a_server_that_describes_its_objects_is_not_asked_for_pixels() -> None:
    first, second = two_objects()
    axial, coronal = surveyed(Server(headers()))
    assert axial.frames == {first.SOPInstanceUID: (0, 1, 2), second.SOPInstanceUID: (0, 1, 2, 3, 4)}
    assert coronal.frames == {first.SOPInstanceUID: (3, 4, 5, 6, 7, 8)}
    assert [(c.stack.number, c.stack.split_rule, c.stack.shape[0]) for c in (axial, coronal)] == [
        (0, "orientation", 8), (1, "orientation", 6),
    ]  # fmt: skip


def test_objects_that_cannot_be_read_or_are_excluded_stay_one_candidate() -> None:
    (missing,) = surveyed(Server({}))
    (refused,) = surveyed(Server(headers()), VolumeOptions(multiframe="exclude"))
    assert (missing.frames, refused.frames) == (None, None)
