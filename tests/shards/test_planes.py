"""Chunks whose planes of bytes are compressed only where that saves much, against Blosc and what it says of them."""

import hashlib
import math
from typing import Any

import numcodecs.blosc as blosc
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builder.shards.planes import BITS_SAVE, PLANE_SAVES, encode_planes

FOUND = ("noise", "ramp", "constant", "low noise", "around zero", "mask")


def made(kind: str, shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    rng, count = np.random.default_rng(seed), math.prod(shape)
    values: dict[str, NDArray[Any]] = {
        "noise": np.frombuffer(rng.bytes(count * np.dtype(dtype).itemsize), dtype),
        "ramp": np.arange(count) // 7,
        "constant": np.full(count, 1000),
        "low noise": rng.normal(1000, 40, count),
        "around zero": rng.normal(0, 3, count),
        "mask": np.repeat(rng.integers(0, 2, count // 50 + 1), 50)[:count],
    }
    with np.errstate(invalid="ignore"):
        return values[kind].astype(dtype).reshape(shape)


def decoded(chunk: bytes, like: NDArray[Any]) -> NDArray[Any]:
    return np.frombuffer(blosc.decompress(chunk), like.dtype).reshape(like.shape)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(FOUND),
    shape=st.tuples(*[st.integers(1, 48)] * 3),
    dtype=st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "float16", "float32", "float64"]),
    level=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@example(kind="low noise", shape=(96, 96, 96), dtype="int16", level=9, seed=0)  # seven blocks
@example(kind="noise", shape=(67, 67, 67), dtype="float32", level=9, seed=0)  # blocks of 67 x 67
@example(kind="around zero", shape=(1, 1, 131_101), dtype="int32", level=9, seed=0)  # a prime, more than a block
@example(kind="noise", shape=(1, 1, 127), dtype="int16", level=9, seed=0)  # too small for planes
@example(kind="noise", shape=(1, 1, 128), dtype="int16", level=9, seed=0)
def test_every_array_comes_back_and_blosc_takes_the_chunk_for_its_own(
    kind: str, shape: tuple[int, int, int], dtype: str, level: int, seed: int
) -> None:
    array = made(kind, shape, dtype, seed)
    chunk = encode_planes(array, level)
    assert np.frombuffer(chunk[4:16], "<u4")[[0, 2]].tolist() == [array.nbytes, len(chunk)]
    assert decoded(chunk, array).tobytes() == array.tobytes()
    assert encode_planes(np.asfortranarray(array), level) == chunk


def test_without_elements_it_is_what_blosc_makes() -> None:
    empty = np.zeros((0, 4, 4), np.int16)
    assert encode_planes(empty, 6) == blosc.compress(empty, b"lz4hc", 6, blosc.SHUFFLE, 0)


def test_noise_is_stored_as_it_is_and_the_plane_beside_it_compressed() -> None:
    """Of numbers whose low byte is noise and whose high byte is constant, the low bytes stand in the chunk."""
    low = np.random.default_rng(0).integers(0, 256, 24**3).astype(np.uint8)
    array = (low.astype(np.int16) + 0x400).reshape(24, 24, 24)
    chunk = encode_planes(array, 9)
    assert low.tobytes() in chunk
    assert len(chunk) < low.size * 1.02


@pytest.mark.parametrize(("saved", "compressed"), [(PLANE_SAVES - 8, False), (PLANE_SAVES + 3, True)])
def test_a_plane_is_compressed_from_what_it_must_save(saved: int, compressed: bool) -> None:
    plane = np.random.default_rng(0).integers(0, 256, 40_000).astype(np.uint8)
    plane[: len(plane) * saved // 100] = 7
    assert (plane.tobytes() not in encode_planes(plane, 9)) == compressed


def test_the_same_bytes_in_every_release() -> None:
    """Other bytes would mean that an unchanged archive is stored again under the fingerprint it had."""
    kinds = [made(kind, (24, 24, 24), "int16", 0) for kind in ("noise", "ramp", "mask")]
    digests = [hashlib.sha256(encode_planes(array, 9)).hexdigest()[:16] for array in kinds]
    assert digests == ["cb1e4008251ed205", "c4939f8c23057fd8", "b312e7a4980934c4"]


def test_bits_are_shuffled_only_where_that_saves_much() -> None:
    """Noise around zero changes all high bits at once, which only a shuffle of bits finds."""
    zero, water = (made(kind, (24, 24, 24), "int16", 0) for kind in ("around zero", "low noise"))
    bits = {name: blosc.compress(a, b"lz4", 9, blosc.BITSHUFFLE, 0) for name, a in (("zero", zero), ("water", water))}
    assert encode_planes(zero, 9) == bits["zero"]
    chunk = encode_planes(water, 9)
    assert chunk != bits["water"]
    assert len(chunk) - len(bits["water"]) < water.nbytes * BITS_SAVE // 100
