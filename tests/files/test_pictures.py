"""Pictures: pixels equal what was written, colour that is grey is grey, and what Pillow would change is refused."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder.files import FileFault, read_facts, read_labels, read_voxels


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


def test_the_orientation_of_a_photograph_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6
    facts, found = read_voxels([encoded(Image.fromarray(GREY), "PNG", exif=exif)])
    assert facts.notes == ("exif_orientation=6",)
    assert np.array_equal(found[0, 0], np.rot90(GREY, -1))


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
