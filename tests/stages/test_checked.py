"""Parts of files that tasks leave for each other, when they are damaged on their way or where they lie."""

from pathlib import Path

import numpy as np
import pytest

from builder.errors import LayoutError
from builder.model.zarr_format import CHECKSUM_BYTES
from builder.stages.checked import READS, read_checked, with_checksum
from builder.stages.comparing import RECORD, _Records
from builder.storage import LocalStore, open_store


class Damaging(LocalStore):
    """A store that changes a bit of the first few reads."""

    damaged = 0

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        data = bytearray(super().read_range(path, start, length=length))
        data[length // 2] ^= 4 * (self.damaged > 0)
        self.damaged -= 1
        return bytes(data)


def test_what_was_damaged_on_its_way_is_read_again(tmp_path: Path) -> None:
    store = Damaging(tmp_path)
    store.put("file", b"".join(map(with_checksum, (b"one", b"other"))))
    store.damaged = READS - 1
    assert read_checked(store, "file", 7, length=9) == b"other"
    store.damaged = READS
    with pytest.raises(LayoutError, match="file of the private workspace: found other bytes"):
        read_checked(store, "file", 7, length=9)


def test_a_part_cut_short_is_no_part(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.put("file", with_checksum(b"one"))
    with pytest.raises(LayoutError, match="found other bytes"):
        read_checked(store, "file", 0, length=3)


def test_small_copies_are_read_again(tmp_path: Path) -> None:
    """A bit that changed on its way would give another fit, which is kept for later versions."""
    records = np.zeros(2, RECORD)
    records["levels"][1], records["shape"][1] = 7, (3, 4, 5)
    store = Damaging(tmp_path)
    store.put("small-0.bin", b"".join(with_checksum(record.tobytes()) for record in records))
    assert store.size("small-0.bin") == 2 * (RECORD.itemsize + CHECKSUM_BYTES)
    store.damaged = 1
    found = _Records(store, np.array([[0, 1]])).print_of(0)
    assert (found.shape, set(np.ravel(found.levels).tolist())) == ((3, 4, 5), {7})
