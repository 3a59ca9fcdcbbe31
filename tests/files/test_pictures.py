"""Pictures: pixels equal what was written, colour that is grey is grey, and what Pillow would change is refused."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from builder.files import FileFault, read_facts, read_labels, read_voxels


def tiff(pixels: NDArray[Any], *, orientation: int = 1, tile: int = 0, big: bool = False) -> bytes:
    """Write an uncompressed TIFF by hand (TIFF 6.0, BigTIFF), because Pillow writes neither tiles nor these forms."""
    height, width = pixels.shape[:2]
    edge = tile or height
    starts = [(y, x) for y in range(0, height, edge) for x in range(0, width, tile or width)]
    pieces = [pixels[y : y + edge, x : x + (tile or width)] for y, x in starts]
    if tile:
        pieces = [np.pad(p, [(0, tile - p.shape[0]), (0, tile - p.shape[1])]) for p in pieces]
    first = 16 if big else 8
    places = [first + sum(p.nbytes for p in pieces[:n]) for n in range(len(pieces))]
    samples = pixels.size // (height * width)
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {
        256: [width], 257: [height], 258: [8 * pixels.itemsize] * samples, 259: [1], 262: [2 if samples == 3 else 1],
        274: [orientation], 277: [samples], 339: [form] * samples, **({338: [0]} if samples == 2 else {}),
        **({322: [tile], 323: [tile], 324: places, 325: [p.nbytes for p in pieces]} if tile
           else {273: places, 278: [height], 279: [pieces[0].nbytes]}),
    }  # fmt: skip
    number, room = ("Q", 8) if big else ("I", 4)
    directory = places[-1] + pieces[-1].nbytes
    after = directory + struct.calcsize(f"<{'Q' if big else 'H'}") + len(tags) * (20 if big else 12) + room
    entries, beyond = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        held = packed.ljust(room, b"\0") if len(packed) <= room else struct.pack(f"<{number}", after + len(beyond))
        entries += struct.pack(f"<HH{number}", tag, 4, len(values)) + held
        beyond += packed if len(packed) > room else b""
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, directory) if big else struct.pack("<2sHI", b"II", 42, directory)
    voxels = b"".join(np.ascontiguousarray(p).tobytes() for p in pieces)
    count = struct.pack(f"<{'Q' if big else 'H'}", len(tags))
    return head + voxels + count + entries + bytes(room) + beyond


def encoded(picture: Any, form: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, format=form, **options)
    return sink.getvalue()


GREY = np.random.default_rng(0).integers(0, 256, (7, 5), dtype=np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_pixels_are_the_ones_written(form: str, dtype: str) -> None:
    pixels = GREY.astype(dtype) * (257 if dtype == "uint16" else 1)
    facts, found = read_voxels([encoded(Image.fromarray(pixels), form)])
    assert found.dtype == dtype
    assert np.array_equal(found[0, 0], pixels)
    assert (facts.shape, facts.layers, facts.affine, facts.fault) == ((1, 7, 5), 1, None, "")


def test_colour_has_three_channels_and_grey_colour_one() -> None:
    facts, found = read_voxels([encoded(Image.fromarray(COLOUR))])
    assert (facts.layers, facts.layer_kind) == (3, "colour")
    assert np.array_equal(found[:, 0].transpose(1, 2, 0), COLOUR)
    opaque = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    facts, found = read_voxels([encoded(Image.fromarray(opaque))])
    assert facts.layers == 1
    assert np.array_equal(found[0, 0], GREY)
    with pytest.raises(FileFault, match="transparent"):
        read_facts(encoded(Image.fromarray(np.dstack([GREY, GREY, GREY, GREY]))))


def test_what_pillow_would_change_is_refused() -> None:
    deep = bytearray(encoded(Image.fromarray(COLOUR)))
    deep[24] = 16  # 16 bits a colour, of which Pillow drops half
    deep[29:33] = zlib.crc32(deep[12:29]).to_bytes(4, "big")
    with pytest.raises(FileFault, match="16 bits a colour"):
        read_facts(bytes(deep))
    pages = encoded(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(FileFault, match="2 pages"):
        read_facts(pages)
    with pytest.raises(FileFault, match="mode CMYK"):
        read_facts(encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"))
    whole = encoded(Image.fromarray(COLOUR), "JPEG")
    with pytest.raises(FileFault, match="cannot decode"):
        read_facts(whole[: len(whole) * 2 // 3])


UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
    9: lambda stored: stored,
}
"""What shows a stored picture upright, by the orientation that EXIF and TIFF state (9 is none of them)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_orientation_of_a_photograph_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    facts, found = read_voxels([encoded(Image.fromarray(GREY), "PNG", exif=exif)])
    assert facts.notes == ((f"exif_orientation={orientation}",) if orientation in range(2, 9) else ())
    assert np.array_equal(found[0, 0], UPRIGHT[orientation](GREY))
    jpeg = encoded(Image.fromarray(GREY), "JPEG", exif=exif)
    assert np.array_equal(read_voxels([jpeg])[1][0, 0], UPRIGHT[orientation](np.array(Image.open(io.BytesIO(jpeg)))))
    turned = tiff(GREY.astype("<u2"), orientation=orientation)
    assert np.array_equal(read_voxels([turned])[1][0, 0], UPRIGHT[orientation](GREY))


@pytest.mark.parametrize("big", [False, True], ids=["classic", "BigTIFF"])
@pytest.mark.parametrize("tile", [0, 16])
def test_tiles_strips_and_big_tiffs_are_read(big: bool, tile: int) -> None:
    pixels = np.arange(40 * 33, dtype="<u2").reshape(40, 33) * 49
    assert np.array_equal(read_voxels([tiff(pixels, tile=tile, big=big)])[1][0, 0], pixels)


def test_what_pillow_reads_in_part_is_refused() -> None:
    """Pillow drops the lower half of 16 bits a colour, signs of 8 bits, values beyond the colours, and all but one."""
    with pytest.raises(FileFault, match="16 bits a colour"):
        read_facts(tiff(np.dstack([GREY, GREY, GREY]).astype("<u2")))
    with pytest.raises(FileFault, match="signed values of 8 bits"):
        read_facts(tiff(GREY.astype("i1")))
    with pytest.raises(FileFault, match="2 values a pixel"):
        read_facts(tiff(np.dstack([GREY, GREY])))
    frames = encoded(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(255 - GREY)])
    with pytest.raises(FileFault, match="animated PNG of 2"):
        read_facts(frames)


def test_a_grey_value_that_means_transparent_is_refused_where_it_occurs() -> None:
    assert read_facts(encoded(Image.fromarray(GREY % 100), transparency=200)).layers == 1
    with pytest.raises(FileFault, match="transparent"):
        read_facts(encoded(Image.fromarray(GREY), transparency=int(GREY[3, 2])))


def test_a_palette_is_labels_in_a_mask_and_colours_in_an_image() -> None:
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture = Image.frombytes("P", (2, 2), indices.tobytes())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    data = encoded(picture)
    assert np.array_equal(read_labels([data]).layers[0, 0], indices)
    assert read_facts(data).layers == 3
    with pytest.raises(FileFault, match="palette"):
        read_labels([encoded(Image.fromarray(COLOUR))])
