"""Rectangles of pixels taken out: what is inside is gone, and everything outside is as pydicom decodes the source."""

import io
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from builder.deid import MaskRegion
from builder.deid.pixels import PixelVerdict
from builder.errors import CaseError
from builder.release.blanking import blank_pixels
from builder.release.unit import file_bytes
from tests.synthetic import ENCODINGS, ct_series

SIZE = (16, 20)
BOX = MaskRegion(rows=(2, 5), columns=(3, 11), size=SIZE)
KEPT = MaskRegion(rows=(4, 14), columns=(0, 18), size=SIZE)


def inside(region: MaskRegion) -> np.ndarray:
    found = np.zeros(SIZE, bool)
    found[slice(*region.rows), slice(*region.columns)] = True
    return found


def again(clean: Dataset) -> Dataset:
    return dcmread(io.BytesIO(file_bytes(clean)))


@pytest.mark.parametrize("encoding", sorted(set(ENCODINGS) - {"big_endian"}))
def test_grey_pixels_outside_are_those_of_the_source(encoding: str) -> None:
    (image,) = ct_series(slices=1, shape=SIZE, encoding=encoding).images
    before = image.pixel_array.copy()
    assert blank_pixels(image, PixelVerdict(blank=(BOX,), regions=(KEPT,)))
    after = again(image)
    gone = inside(BOX) | ~inside(KEPT)
    assert np.array_equal(after.pixel_array[~gone], before[~gone])
    assert set(after.pixel_array[gone]) == {before[~gone].min()}
    native = encoding in ("explicit", "implicit", "deflated")
    assert after.file_meta.TransferSyntaxUID == (ENCODINGS[encoding] if native else ExplicitVRLittleEndian)


def colour(planar: int, photometric: str) -> Dataset:
    (image,) = ct_series(slices=1, shape=SIZE).images
    pixels = np.random.default_rng(3).integers(1, 255, (*SIZE, 3), np.uint8)
    image.SamplesPerPixel, image.PlanarConfiguration, image.PhotometricInterpretation = 3, planar, photometric
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = (pixels.transpose(2, 0, 1) if planar else pixels).tobytes()
    return image


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(("photometric", "black"), [("RGB", (0, 0, 0)), ("YBR_FULL", (0, 128, 128))])
def test_native_colours_keep_every_other_byte(planar: int, photometric: str, black: tuple[int, ...]) -> None:
    image = colour(planar, photometric)
    shape = (3, *SIZE) if planar else (*SIZE, 3)
    before = np.frombuffer(image.PixelData, np.uint8).reshape(shape)
    assert blank_pixels(image, PixelVerdict(blank=(BOX,)))
    after = np.frombuffer(image.PixelData, np.uint8).reshape(shape)
    if planar:
        before, after = before.transpose(1, 2, 0), after.transpose(1, 2, 0)
    assert np.array_equal(after[~inside(BOX)], before[~inside(BOX)])
    assert {tuple(int(v) for v in pixel) for pixel in after[inside(BOX)]} == {black}


def test_lossy_colours_say_so_afterwards() -> None:
    image = colour(0, "RGB")
    smooth = np.linspace(0, 255, SIZE[1]).astype(np.uint8)[None, :, None].repeat(SIZE[0], 0).repeat(3, 2)
    image.PixelData = np.ascontiguousarray(smooth).tobytes()
    from PIL import Image
    from pydicom.encaps import encapsulate

    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=90)
    image.PixelData = encapsulate([buffer.getvalue()])
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    image.PhotometricInterpretation = "YBR_FULL_422"
    image.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    before = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    assert blank_pixels(image, PixelVerdict(blank=(BOX,)))
    after = again(image)
    assert (after.PhotometricInterpretation, after.LossyImageCompression) == ("RGB", "01")
    assert after.LossyImageCompressionMethod == "ISO_10918_1"
    assert np.abs(after.pixel_array[~inside(BOX)].astype(int) - before[~inside(BOX)]).max() <= 2
    assert not after.pixel_array[inside(BOX)].any()


def test_what_cannot_be_blanked_is_refused(tmp_path: Path) -> None:
    (image,) = ct_series(slices=1, shape=SIZE, encoding="big_endian").images
    with pytest.raises(CaseError, match="big endian"):
        blank_pixels(image, PixelVerdict(blank=(BOX,)))
    (image,) = ct_series(slices=1, shape=(8, 8)).images
    with pytest.raises(CaseError, match="expected size"):
        blank_pixels(image, PixelVerdict(blank=(BOX,)))
    assert not blank_pixels(image, PixelVerdict())
