"""Pictures: PNG, JPEG and TIFF of 8 and 16 bits, through Pillow."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.files.facts import FileFacts, check_size, unreadable

FORMATS = ("PNG", "JPEG", "TIFF")
GREY = frozenset({"1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
COLOUR = frozenset({"RGB", "RGBA", "LA", "P", "PA"})
_ORIENTATION, _PHOTOMETRIC, _BITS, _SAMPLES, _FORM = 274, 262, 258, 277, 339
_SIGNED = 2
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, MemoryError)


def picture_facts(content: bytes) -> FileFacts:
    """Decode a picture and return its size, type and number of channels. Colour that is grey everywhere counts as grey.

    A picture states no place in the patient, and its dots per inch say how to print it, so its affine is None.
    """
    pixels, notes = _decoded(content)
    kind = "colour" if pixels.shape[0] == 3 else ""
    return FileFacts(
        shape=(1, *pixels.shape[1:]), dtype=pixels.dtype.str, layers=pixels.shape[0],
        layer_kind="colour" if kind else "", notes=notes,
    )  # fmt: skip


def picture_voxels(content: bytes) -> NDArray[Any]:
    """Return (channel, 1, row, column) values. Raises FileFault."""
    return _decoded(content)[0][:, None]


def picture_labels(content: bytes) -> NDArray[Any]:
    """Return (1, 1, row, column) values of a mask: the indices of a palette, or grey values. Raises FileFault."""
    with _opened(content) as picture:
        if picture.mode == "P":
            return np.array(picture)[None, None]
    pixels, _ = _decoded(content)
    if pixels.shape[0] != 1:
        raise unreadable("a mask in colours without a palette, expected grey values or palette indices")
    return pixels[:, None]


def _decoded(content: bytes) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return (channel, row, column) pixels, upright, with notes."""
    from PIL import ImageOps

    with _opened(content) as picture:
        turn = picture.getexif().get(_ORIENTATION, 1)
        clear = picture.info.get("transparency")
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in GREY:
            pixels = _narrowed(np.array(upright))[None]
            if isinstance(clear, int) and (pixels == clear).any():
                raise unreadable("a picture with transparent pixels, expected opaque ones")
        else:
            pixels = _colour(np.array(upright.convert("RGBA")))
    return np.ascontiguousarray(pixels), (f"exif_orientation={turn}",) if turn in range(2, 9) else ()


@contextmanager
def _opened(content: bytes) -> Iterator[Any]:
    """Open a picture of a supported form; faults of the decoder become FileFault."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                check_size((picture.height, picture.width))
                _check_form(picture, content)
                yield picture
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise unreadable("a picture of more pixels than Pillow decodes") from error
    except _DAMAGE as error:
        raise unreadable("a picture that Pillow cannot decode") from error


def _check_form(picture: Any, content: bytes) -> None:
    if picture.mode not in GREY | COLOUR:
        raise unreadable(f"a picture of mode {picture.mode}, expected grey values or red, green and blue")
    if picture.format == "PNG" and content[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):
        raise unreadable("a PNG with 16 bits a colour, expected 8, or 16 bits of grey")  # Pillow drops the lower 8
    if picture.format == "PNG" and getattr(picture, "n_frames", 1) != 1:
        raise unreadable(f"an animated PNG of {picture.n_frames} pictures, expected one")
    if picture.format == "TIFF":
        _check_tiff(picture)


def _check_tiff(picture: Any) -> None:
    """Refuse what Pillow would read in part: pages, bits, signs or samples of a TIFF."""
    if getattr(picture, "n_frames", 1) != 1:
        raise unreadable(f"a TIFF of {picture.n_frames} pages, expected one")
    bits, samples = max(picture.tag_v2.get(_BITS, (1,))), picture.tag_v2.get(_SAMPLES, 1)
    if picture.tag_v2.get(_PHOTOMETRIC) == 0 and bits > 8:
        raise unreadable("a TIFF of more than 8 bits whose smallest value is white, expected black")
    if samples > 1 and bits > 8:
        raise unreadable(f"a TIFF with {bits} bits a colour, expected 8, or more bits of grey")
    if bits == 8 and _SIGNED in picture.tag_v2.get(_FORM, (1,)):
        raise unreadable("a TIFF with signed values of 8 bits, expected values from 0 to 255, or 16 bits")
    if samples != len(picture.getbands()):
        raise unreadable(f"a TIFF with {samples} values a pixel that are not all colours or opacity")


def _narrowed(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return grey values as the narrowest type that volumes have."""
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8)
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    native = pixels.astype(pixels.dtype.newbyteorder("="))
    if native.dtype.itemsize <= 2:
        return native
    low, high = int(native.min()), int(native.max())
    for name in ("uint8", "int16", "uint16"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return native.astype(name)
    if max(abs(low), abs(high)) > 2**24:
        raise unreadable("a picture with values beyond 2**24, expected at most 24 bits")
    return native.astype(np.float32)


def _colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (channel, row, column) of RGBA pixels: one channel if red, green and blue are equal everywhere."""
    if (pixels[..., 3] != 255).any():
        raise unreadable("a picture with transparent pixels, expected opaque ones")
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red[None]
    return np.stack([red, green, blue])
