"""What few bytes may claim: sizes, expansion, items and elements are refused before they cost memory or time."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from builder.decode.format import pixel_format
from builder.decode.streams import jpeg_2000_size, jpeg_size
from builder.errors import CaseError, Reason
from builder.headers.attributes import read_header
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.stored import stored_values
from tests import synthetic
from tests.imaging.bounds import bounded

CLAIM = 60_000


def image(encoding: str) -> Dataset:
    return synthetic.ct_series(slices=1, shape=(40, 40), encoding=encoding).images[0]


def frame_of(dataset: Dataset) -> bytes:
    return next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))


def with_frame(dataset: Dataset, frame: bytes) -> Dataset:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def refused(dataset: Dataset) -> str:
    with bounded(), pytest.raises(CaseError) as caught:
        stored_values(dataset, pixel_format(dataset))
    return caught.value.reason.value


def jpeg_claim(frame: bytes) -> bytes:
    """The frame with another size in its SOF3 or SOF55."""
    at = max(frame.find(b"\xff\xc3"), frame.find(b"\xff\xf7"))
    return frame[: at + 5] + struct.pack(">HH", CLAIM, CLAIM) + frame[at + 9 :]


def codestream_claim(frame: bytes) -> bytes:
    """The codestream with another size in its SIZ, for the image and for its one tile."""
    at = frame.find(b"\xff\x4f\xff\x51")
    sizes = bytearray(frame)
    for place in (at + 8, at + 12, at + 24, at + 28):
        sizes[place : place + 4] = struct.pack(">I", CLAIM)
    return bytes(sizes)


CLAIMS: dict[str, Callable[[bytes], bytes]] = {
    "jpeg_lossless": jpeg_claim, "jpegls": jpeg_claim, "jpeg2000": codestream_claim,
}  # fmt: skip


@pytest.mark.parametrize("encoding", CLAIMS)
def test_a_frame_that_states_another_size_is_refused_before_it_is_decoded(encoding: str) -> None:
    sound = image(encoding)
    assert stored_values(sound, pixel_format(sound)).shape == (1, 40, 40)
    frame = frame_of(sound)
    size_of = jpeg_2000_size if encoding == "jpeg2000" else jpeg_size
    assert size_of(frame) == (40, 40)
    claimed = CLAIMS[encoding](frame)
    assert size_of(claimed) == (CLAIM, CLAIM)
    assert refused(with_frame(sound, claimed)) == "undecodable_pixels"


@pytest.mark.parametrize("encoding", CLAIMS)
def test_a_header_and_a_frame_that_agree_on_a_huge_size_are_refused(encoding: str) -> None:
    dataset = image(encoding)
    with_frame(dataset, CLAIMS[encoding](frame_of(dataset)))
    dataset.Rows = dataset.Columns = CLAIM
    assert refused(dataset) == "too_large"


def test_a_codestream_in_a_file_is_found_by_its_box() -> None:
    stream = frame_of(image("jpeg2000"))
    lead = b"\0\0\0\x0cjP  \r\n\x87\n"
    spoof = struct.pack(">I4s", 40, b"xml ") + codestream_claim(stream)[:32]
    boxed = struct.pack(">I4s", 8 + len(stream), b"jp2c") + stream
    assert jpeg_2000_size(lead + spoof + boxed) == (40, 40)
    assert jpeg_2000_size(lead + spoof) is None
    assert jpeg_2000_size(b"") is None


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_jpeg_ls_frame_without_its_end_is_refused_at_once(kept: float) -> None:
    dataset = image("jpegls")
    frame = frame_of(dataset)
    assert refused(with_frame(dataset, frame[: int(len(frame) * kept)])) == "undecodable_pixels"


@pytest.mark.parametrize("frame", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xff\xff", b"\xff\xd8\xff\xe0\0\0" * 9])
def test_no_size_is_found_where_there_is_none(frame: bytes) -> None:
    assert jpeg_size(frame) is None


def test_run_lengths_that_expand_beyond_the_limit_are_refused() -> None:
    dataset = image("rle")
    runs = b"\x81\0" * 5_000
    header = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13)
    dataset.Rows, dataset.Columns = 20_000, 20_000
    assert refused(with_frame(dataset, header + runs + runs)) == "too_large"


def sequence(items: bytes) -> bytes:
    """An image whose Referenced Image Sequence (0008,1140) holds given items."""
    content = synthetic.to_bytes(image("explicit"))
    at = content.index(b"\x08\x00\x70\x00LO")
    element = b"\x08\x00\x40\x11SQ\0\0" + struct.pack("<I", len(items)) + items
    return content[:at] + element + content[at:]


def test_a_million_empty_items_are_refused_by_index_and_build() -> None:
    content = sequence(b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000)
    for read in (parse_instance, lambda data: read_header(lambda s, n: data[s : s + n], len(data))):
        with bounded(), pytest.raises(CaseError) as caught:
            read(content)
        assert caught.value.reason == Reason.TOO_LARGE


def test_elements_without_end_are_refused_by_index_and_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("builder.headers.attributes", "builder.imaging.parse"):
        monkeypatch.setattr(f"{module}.READ_LIMIT", 50_000)
    flat = b"".join(struct.pack("<HH2sH2s", 0x0009, 0x1000 + n, b"LO", 2, b"a ") for n in range(60_000))
    flat += b"".join(struct.pack("<HH2sH2s", 0x000B, 0x1000 + n, b"LO", 2, b"a ") for n in range(60_000))
    content = synthetic.to_bytes(image("explicit"))
    at = content.index(b"\x10\x00\x10\x00PN")
    for read in (parse_instance, lambda data: read_header(lambda s, n: data[s : s + n], len(data))):
        with bounded(), pytest.raises(CaseError) as caught:
            read(content[:at] + flat + content[at:])
        assert caught.value.reason == Reason.TOO_LARGE


def test_a_frame_in_many_fragments_is_checked_too() -> None:
    dataset = image("jpeg2000")
    frame = codestream_claim(frame_of(dataset))
    dataset.PixelData = encapsulate([frame], fragments_per_frame=3)
    assert refused(dataset) == "undecodable_pixels"


def test_empty_images_may_compress_without_limit() -> None:
    voxels: Any = np.zeros((1, 512, 512))
    made = synthetic.ct_series(slices=1, shape=(512, 512), voxels=voxels, encoding="jpeg2000").images[0]
    assert len(made.PixelData) < 2_000
    assert len(np.unique(stored_values(made, pixel_format(made)))) == 1
