"""Crops of volumes: the compiled loop and the plain one give the same, and neither trusts what is stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs.blosc as blosc
import numpy as np
import pytest

from builder.errors import LayoutError
from builder.kernels.crops import UNCHECKED, decode_box
from builder.reader import open_dataset

BOXES = (((0, 0, 0), (4, 5, 6)), ((1, 2, 3), (3, 3, 3)), ((3, 4, 5), (1, 1, 1)), ((0, 0, 5), (4, 5, 1)))


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Crops are decoded by the compiled loop, or as where Numba is missing."""
    if request.param == "plain":
        monkeypatch.setattr("builder.reader.shard._compiled", lambda: None)
    return str(request.param)


def test_crops_are_those_of_the_whole(volumes: Any, packed: Any, way: str) -> None:
    for made in (volumes, packed["volumes"]):
        dataset = open_dataset(made.root)
        for position, sample in enumerate(made.samples):
            whole = np.asarray(sample.arrays["image"])
            for start, shape in BOXES:
                box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
                found = dataset.crop(position, start, shape)["image"]
                np.testing.assert_array_equal(found, whole[(slice(None), *box)], err_msg=way)


@pytest.fixture
def damaged(volumes: Any, tmp_path: Path) -> tuple[Path, Callable[[], Any], bytes]:
    """A copy of a dataset of volumes: the image of its first volume, how to read all of it, and its good bytes."""
    for path in volumes.root.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(volumes.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    dataset = open_dataset(tmp_path)
    source, _ = dataset.locate(0, "image")
    place = tmp_path / source.path
    return (
        place,
        lambda **options: open_dataset(tmp_path, **options).crop(0, (0, 0, 0), (9, 10, 11)),
        place.read_bytes(),
    )


def test_every_flipped_byte_is_noticed(damaged: Any, way: str) -> None:
    place, read, good = damaged
    for number in range(0, len(good), 7):
        wrong = bytearray(good)
        wrong[number] ^= 1 << (number % 8)
        place.write_bytes(wrong)
        with pytest.raises(LayoutError, match=r"damaged|outside"):
            read()
    place.write_bytes(good)
    read()


def test_damage_without_checksums_never_crashes(damaged: Any, way: str) -> None:
    place, read, good = damaged
    rng, refused = np.random.default_rng(0), 0
    for _ in range(200):
        wrong = np.frombuffer(good, np.uint8).copy()
        wrong[rng.integers(0, len(good) // 2, 8)] = rng.integers(0, 256, 8)
        place.write_bytes(wrong.tobytes())
        try:
            read(checksums=False)
        except LayoutError as error:
            refused += "damaged" in str(error) or "cut short" in str(error)
    assert refused > 20


def test_a_chunk_of_another_size_is_refused() -> None:
    """Whoever wrote the file may have stored anything, with the right checksum."""
    whole = np.arange(4 * 4 * 4, dtype=np.int16).reshape(4, 4, 4)

    def first_wrong(*stored: bytes, places: Any = None, known: bool = True) -> int:
        data = np.frombuffer(b"".join(stored), np.uint8)
        ends = np.cumsum([len(part) for part in stored])
        table = [(end - len(part), len(part)) for end, part in zip(ends, stored, strict=True)]
        grid, checked = (1, 1, len(stored)), np.full(len(stored), known)
        out = np.zeros((1, 4, 4, 4 * len(stored)), np.int16)
        return decode_box(data, np.array(places or table, np.int64), checked, grid, (4, 4, 4), (0, 0, 0), out)

    good, larger, smaller = (
        blosc.compress(np.resize(whole, shape), b"lz4hc", 9, blosc.SHUFFLE)
        for shape in ((4, 4, 4), (9, 9, 9), (4, 4, 3))
    )
    assert first_wrong(good) == -1
    assert first_wrong(good, known=False) == UNCHECKED
    assert first_wrong(larger) == 0
    assert first_wrong(smaller) == 0
    assert first_wrong(good[:-1]) == 0
    assert first_wrong(good, larger) == 1
    for place in ((-1, len(good)), (1, len(good)), (0, 15), (0, len(good) + 1), (2**62, len(good))):
        assert first_wrong(good, places=[place]) == 0, place


def test_checksums_are_compared_once_an_opening(volumes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    value = google_crc32c.value
    monkeypatch.setattr(google_crc32c, "value", lambda data: compared.append(1) or value(data))
    dataset = open_dataset(volumes.root, fields=["image"])
    dataset.crop(0, (0, 0, 0), (4, 5, 6))
    first = len(compared)
    dataset.crop(0, (0, 0, 0), (4, 5, 6))
    assert len(compared) == first
    dataset.crop(0, (0, 0, 0), (5, 5, 6))
    assert len(compared) == first + 1, "the box touches one more chunk"
    dataset.close_files()
    dataset.crop(0, (0, 0, 0), (4, 5, 6))
    assert len(compared) > first + 1
