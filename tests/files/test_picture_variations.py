"""Pictures as other programs write them: each reads as Pillow shows it upright, or is refused with a reason."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from builder.files import FileFault, read_facts, read_labels, read_voxels
from tests.files.test_pictures import COLOUR, GREY, encoded, tiff


def exif_of(orientation: int, *, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block by hand: byte order, type and count of its orientation as cameras and editors differ."""
    mark = b"II" if order == "<" else b"MM"
    value = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], orientation).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHI", 274, kind, count) + value
    return b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def with_segment(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with APP1 segments after its start."""
    made = b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments)
    return jpeg[:2] + made + jpeg[2:]


JPEG = encoded(Image.fromarray(COLOUR), "JPEG", quality=95)
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"


@pytest.mark.parametrize(
    "data",
    [
        with_segment(JPEG, exif_of(6)),
        with_segment(JPEG, exif_of(6, order=">")),
        with_segment(JPEG, exif_of(8, order=">"), XMP),
        with_segment(JPEG, XMP, exif_of(3)),
        with_segment(JPEG, exif_of(5, kind=4)),
        with_segment(JPEG, exif_of(0)),
        with_segment(JPEG, exif_of(77)),
        with_segment(JPEG, b"Exif\0\0II*\0"),
        encoded(Image.fromarray(GREY.astype("uint16") * 257), exif=exif_of(7)[6:]),
        encoded(Image.fromarray(COLOUR), exif=exif_of(4, order=">")[6:]),
        encoded(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"),
    ],
)
def test_what_exif_says_is_what_pillow_does(data: bytes) -> None:
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    facts, found = read_voxels([data])
    assert np.array_equal(np.moveaxis(found, 0, -1)[0] if facts.layers == 3 else found[0, 0], expected)


def alpha(pixels: NDArray[Any], opacity: int) -> NDArray[Any]:
    return np.dstack([pixels, np.full(pixels.shape[:2], opacity, np.uint8)])


def palette(colours: NDArray[Any]) -> Any:
    picture = Image.frombytes("P", GREY.shape[::-1], (GREY % len(colours)).tobytes())
    picture.putpalette(colours.astype(np.uint8).ravel().tolist())
    return picture


RAMP = np.repeat(np.arange(16)[:, None] * 17, 3, axis=1)


@pytest.mark.parametrize(
    ("data", "grey"),
    [
        (encoded(Image.fromarray(np.dstack([GREY] * 3))), GREY),
        (encoded(Image.fromarray(alpha(np.dstack([GREY] * 3), 255))), GREY),
        (encoded(Image.fromarray(alpha(GREY, 255))), GREY),
        (encoded(Image.fromarray(alpha(np.dstack([GREY] * 3), 255)), "TIFF"), GREY),
        (encoded(palette(RAMP)), GREY % 16 * 17),
        (encoded(palette(RAMP), transparency=b"\xff" * 16), GREY % 16 * 17),
        (encoded(palette(RAMP), "TIFF"), GREY % 16 * 17),
        (encoded(Image.fromarray(GREY > 99)), (GREY > 99) * 255),
        (encoded(Image.fromarray(np.dstack([GREY] * 3)), "TIFF", compression="tiff_adobe_deflate"), GREY),
        (encoded(Image.fromarray(GREY).convert("RGB").convert("RGBA"), optimize=True), GREY),
    ],
)
def test_grey_in_any_dress_is_grey(data: bytes, grey: NDArray[Any]) -> None:
    facts, found = read_voxels([data])
    assert facts.layers == 1
    ratio = 255 if found.max() == 1 else 1  # one bit may be read as 0 and 1
    assert np.array_equal(found[0, 0] * ratio, grey)


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(alpha(np.dstack([GREY] * 3), 254))),
        encoded(Image.fromarray(alpha(COLOUR, 0))),
        encoded(Image.fromarray(alpha(GREY, 128))),
        encoded(palette(RAMP), transparency=bytes([0]) + b"\xff" * 15),
        encoded(Image.fromarray(alpha(COLOUR, 200)), "TIFF"),
    ],
)
def test_what_is_not_opaque_is_refused(data: bytes) -> None:
    with pytest.raises(FileFault, match="transparent"):
        read_facts(data)


def pages(*pictures: NDArray[Any], **options: Any) -> bytes:
    first, *rest = (Image.fromarray(p) for p in pictures)
    return encoded(first, "TIFF", save_all=True, append_images=rest, **options)


@pytest.mark.parametrize(
    "data",
    [
        pages(GREY, GREY), pages(GREY, GREY.T.copy()), pages(GREY, COLOUR), pages(COLOUR, GREY, GREY),
        pages(GREY.astype("uint16"), GREY.astype("uint16")), pages(GREY, GREY, compression="tiff_lzw"),
        pages(GREY, GREY[:2, :2].copy()), pages(GREY, GREY, big_tiff=True),
    ],
)  # fmt: skip
def test_several_pages_are_refused_whatever_they_are(data: bytes) -> None:
    with pytest.raises(FileFault, match="pages"):
        read_facts(data)


DEEP = np.random.default_rng(1).integers(0, 2**16, (7, 5), dtype=np.uint16)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.fromarray(DEEP)), DEEP),
        (encoded(Image.fromarray(DEEP // 16)), DEEP // 16),
        (encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"), DEEP),
        (encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_adobe_deflate"), DEEP),
        (encoded(Image.fromarray(DEEP), "TIFF", compression="packbits"), DEEP),
        (encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"), DEEP),
        (tiff(DEEP.astype("<i2")), DEEP.astype("<i2")),
        (tiff(DEEP.astype("<f4")), DEEP.astype("<f4")),
        (tiff(DEEP[:1].copy()), DEEP[:1]),
        (encoded(Image.fromarray(np.full((3, 3), 65535, np.uint16))), np.full((3, 3), 65535)),
    ],
)
def test_sixteen_bits_keep_their_values(data: bytes, expected: NDArray[Any]) -> None:
    assert np.array_equal(read_voxels([data])[1][0, 0], expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shown", [b"", b"\0\xff"])
def test_indices_of_a_palette_are_the_labels_at_any_depth(bits: int, shown: bytes) -> None:
    indices = GREY % min(2**bits, 200)
    picture = Image.frombytes("P", GREY.shape[::-1], indices.tobytes())
    picture.putpalette(np.arange(3 * 2**bits).astype(np.uint8).tolist())
    options: dict[str, Any] = {"transparency": shown} if shown else {}
    assert np.array_equal(read_labels([encoded(picture, bits=bits, **options)]).layers[0, 0], indices)


def test_texts_of_a_picture_are_in_nothing_that_is_kept() -> None:
    told = PngImagePlugin.PngInfo()
    for name in ("Author", "Comment", "Patient"):
        told.add_text(name, "DOE^JANE")
    told.add_itxt("XML:com.adobe.xmp", "<x>DOE^JANE</x>")
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x9286] = "DOE^JANE", "DOE^JANE", "DOE^JANE"
    for data in (
        encoded(Image.fromarray(GREY), pnginfo=told, exif=exif),
        encoded(Image.fromarray(GREY), "JPEG", exif=exif, comment=b"DOE^JANE"),
        encoded(Image.fromarray(GREY), "TIFF", tiffinfo={270: "DOE^JANE", 315: "DOE^JANE"}),
    ):
        assert b"DOE^JANE" in data
        facts, _ = read_voxels([data])
        assert "DOE" not in repr(facts)


def test_a_damaged_chunk_of_text_costs_nothing_or_is_said() -> None:
    data = encoded(Image.fromarray(GREY))
    bomb = zlib.compress(bytes(2**25))
    body = b"zTXt" + b"Comment\0\0" + bomb
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    try:
        _, found = read_voxels([data[:33] + chunk + data[33:]])
    except FileFault:
        return
    assert np.array_equal(found[0, 0], GREY)
