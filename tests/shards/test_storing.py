"""Fields stored as other numbers: what comes back, what is refused, and that every reader understands."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from builder.errors import CaseError
from builder.model.case import ClearedSample
from builder.model.fields import Packing
from builder.model.geometry import Geometry
from builder.model.layout import parse_receipt
from builder.shards import FieldStorage, open_shard, write_shard
from builder.shards.storing import CODECS
from builder.shards.streams import encode_chunk
from builder.storage import open_store

FINGERPRINT = "89abcdef01234567" * 2
SHAPE = (5, 6, 7)


def make_sample(number: int, *, scale: float = 1.0) -> ClearedSample:
    rng = np.random.default_rng(number)
    image = (rng.uniform(-10, 30, (2, *SHAPE)) * scale).astype(np.float32)
    mask = (image[:1] > 5).astype(np.uint8)
    row: dict[str, Any] = {"sample_key": f"s{number}"}
    return ClearedSample({"image": image, "tumor": mask}, Geometry(SHAPE, np.eye(4)), row)


@pytest.mark.parametrize(
    ("preset", "digest"),
    [
        ("fast", "7de6079e273c3954"),
        ("small", "2a520f3e5b4f0a28"),
        ("archive", "c5496b75b79ead86"),
        ("crops", "8748ae82162b11e3"),
        ("training", "8748ae82162b11e3"),
    ],
)
def test_a_preset_stores_the_same_bytes_in_every_release(preset: str, digest: str) -> None:
    """Other bytes would mean that an unchanged archive is stored again under the fingerprint it had."""
    ramp = (np.arange(16 * 16 * 16).reshape(16, 16, 16) ** 2 % 1999).astype(np.int16)
    assert hashlib.sha256(encode_chunk(ramp, CODECS[preset])).hexdigest()[:16] == digest


def test_training_stores_the_same_bytes_of_noise_in_every_release() -> None:
    """The ramp has no plane that is stored as it is, and gives the same bytes by levels 6 and 9."""
    number = np.arange(24**3)
    draws = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(24**3 // 32))
    low, high = (
        np.where(number % 24 < 21, np.frombuffer(draws, np.uint8), 0),
        (number * 2654435761 % 2**32 >> 20) % 13 % 5,
    )
    image = (low + 256 * high).astype(np.int16).reshape(24, 24, 24)
    assert hashlib.sha256(encode_chunk(image, CODECS["training"])).hexdigest()[:16] == "8f7fb9b823aad219"


@settings(max_examples=200, deadline=None)
@given(
    dtype=st.sampled_from(["int8", "uint8", "int16", "uint16"]),
    factor=st.floats(1e-6, 1e6, allow_subnormal=False),
    steps=st.floats(-(2.0**20), 2.0**20),
    data=st.data(),
)
def test_packing_can_be_undone(dtype: Any, factor: float, steps: float, data: st.DataObject) -> None:
    """Stored numbers to float32 values and back: none is lost, for any factor and offset that is allowed."""
    rule = FieldStorage(dtype=dtype, factor=factor, offset=steps * factor * 0.99)
    limits = np.iinfo(dtype)
    stored = np.array(data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=50)), dtype=dtype)
    packing = rule.packing
    assert packing is not None
    values = np.empty(stored.shape, np.float32)
    packing.unpack(stored, values)
    inside = np.abs(values - packing.offset) <= np.float64(factor) * max(abs(limits.min), limits.max)
    again = np.rint((values.astype(np.float64) - packing.offset) / factor)
    np.testing.assert_array_equal(again, stored)
    assert inside.all() or steps != 0


def test_packed_values_come_back_within_half_a_step(tmp_path: Path) -> None:
    samples = [make_sample(i) for i in range(3)]
    rule = FieldStorage(dtype="int16", factor=0.002, offset=5.0, codec="small")
    receipt = write_shard(open_store(tmp_path), FINGERPRINT, cases=[samples], storage={"image": rule})
    fields = {layout.name: layout for layout in receipt.fields}
    assert (fields["image"].dtype, fields["image"].packing) == ("int16", Packing(0.002, 5.0))
    assert fields["tumor"].packing is None
    assert parse_receipt(receipt.to_json()) == receipt
    root = tmp_path / "data" / FINGERPRINT
    expected = np.stack([np.asarray(s.arrays["image"]) for s in samples])
    stored = zarr.open_array(str(root / "image"), mode="r")
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored[:], np.rint((expected.astype(np.float64) - 5.0) / 0.002))
    with xarray.open_zarr(str(root), chunks=None) as found:  # applies scale_factor and add_offset by itself
        np.testing.assert_allclose(found["image"].values, expected, atol=0.001 + 1e-5)
        np.testing.assert_array_equal(found["tumor"].values, np.stack([np.asarray(s.arrays["tumor"]) for s in samples]))


def test_conversion_keeps_numbers_or_refuses(tmp_path: Path) -> None:
    whole = np.arange(-4, 4, dtype=np.float32).reshape(1, 2, 2, 2)
    assert FieldStorage(dtype="int16").convert("image", whole).dtype == np.int16
    np.testing.assert_array_equal(FieldStorage(dtype="int16").convert("image", whole), whole)
    np.testing.assert_array_equal(FieldStorage(dtype="float16").convert("image", whole), whole)
    refused: list[tuple[FieldStorage, Any, str]] = [
        (FieldStorage(dtype="uint8"), whole, "does not hold"),
        (FieldStorage(dtype="int16"), whole + np.float32(0.5), "no whole numbers"),
        (FieldStorage(dtype="int8", factor=0.01), whole, "does not hold"),
        (FieldStorage(dtype="int16", factor=1.0), whole * np.nan, "does not hold"),
        (FieldStorage(dtype="float16"), whole * 1e5, "beyond float16"),
    ]
    for rule, array, message in refused:
        with pytest.raises(CaseError, match=message):
            rule.convert("image", array)
    rule = FieldStorage(dtype="int16", factor=0.01)
    with open_shard(open_store(tmp_path), FINGERPRINT, storage={"image": rule}) as writer:
        writer.add_case([make_sample(0)])
        with pytest.raises(CaseError, match="does not hold"):
            writer.add_case([make_sample(1), make_sample(2, scale=100.0)])
        receipt = writer.finish()
    assert (receipt.rows, receipt.cases) == (1, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"factor": 0.1},
        {"factor": 0.1, "dtype": "float32"},
        {"factor": -1.0, "dtype": "int16"},
        {"offset": 3.0, "dtype": "int16"},
        {"factor": 1e-6, "offset": 1e3, "dtype": "int16"},
    ],
)
def test_what_could_not_be_undone_is_no_storage(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="factor"):
        FieldStorage.model_validate(wrong)


def test_a_full_disk_is_told_while_samples_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails in the thread that writes is raised where samples are added, and nothing is left."""

    def full(self: Any, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builder.shards.streams.Stream._write", full)
    cases = [[make_sample(number)] for number in range(3)]
    with pytest.raises(OSError, match="No space"):
        write_shard(open_store(tmp_path), FINGERPRINT, cases=cases)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
