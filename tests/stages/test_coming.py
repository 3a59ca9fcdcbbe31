"""The objects of the next cases come while one is built, a bounded number of them, and a fault in its turn."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import SourceError
from builder.protocols import Entry
from builder.stages.coming import GROUP, coming

CASES = 4 * GROUP
OBJECTS = pa.table(
    {
        "case": pa.array([case for case in range(CASES) for _ in range(2)], pa.int32()),
        "source": pa.array([0] * 2 * CASES, pa.int32()),
        "path": [f"{case}/{name}" for case in range(CASES) for name in "ab"],
        "size": [1] * 2 * CASES,
        "stamp": [""] * 2 * CASES,
    }
)


class Far:
    """Notes what it was asked to bring; ``hold`` keeps it from finishing."""

    at_once = 2

    def __init__(self, fails_at: str = "") -> None:
        self.begun: list[list[str]] = []
        self.hold = threading.Event()
        self.fails_at = fails_at

    def bring(self, entries: Sequence[Entry]) -> None:
        self.begun.append([entry.path for entry in entries])
        if any(entry.path == self.fails_at for entry in entries):
            raise SourceError("far away")
        if len(self.begun) > 1:
            self.hold.wait(10)


def test_the_next_group_is_on_its_way_while_a_case_is_built() -> None:
    source: Any = Far()
    with coming(OBJECTS, [source]) as wait:
        for case in range(GROUP):
            wait(case)  # returns although the second group is still held up
        _until(lambda: len(source.begun) == 2)
        time.sleep(0.05)
        assert len(source.begun) == 2  # and no third one is asked for
        source.hold.set()
        for case in range(GROUP, CASES):
            wait(case)
    wanted = OBJECTS["path"].to_pylist()
    assert [path for group in source.begun for path in group] == wanted
    assert [len(group) for group in source.begun if group] == [2 * GROUP] * (CASES // GROUP)


def test_a_server_that_is_away_is_told_when_the_case_is_due() -> None:
    source: Any = Far(fails_at=f"{GROUP}/a")
    with coming(OBJECTS, [source]) as wait:
        wait(GROUP - 1)
        with pytest.raises(SourceError, match="far away"):
            wait(GROUP)


def _until(holds: Any) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
