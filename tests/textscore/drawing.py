"""Pictures with text whose place is known: real planes and ultrasound speckle, and people's data drawn into them."""

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from scipy import ndimage

from tests.score.people import KINDS, human

FONTS = Path("/usr/share/fonts/truetype")
SIZES = (9, 10, 12, 14, 16, 20, 26)
TURNS = ("level", "level", "level", "level", "up", "down", "tilted")
INKS = ("largest", "largest", "grey", "inverted", "boxed")
BITS = (8, 12, 16)


@dataclass(frozen=True)
class Drawn:
    """A picture, and where its text is: ``ink`` is True on the pixels of each text, in its own plane; none without."""

    pixels: NDArray[Any]
    ink: tuple[NDArray[np.bool_], ...]
    texts: tuple[str, ...]
    traits: dict[str, Any]


def real_planes(corpus: Sequence[Path], *, most: int, seed: int = 3) -> list[tuple[str, NDArray[np.float32]]]:
    """Return planes of CT, MR, PET and radiographs out of folders, in an order that depends on the seed alone."""
    paths = [path for folder in corpus for path in sorted(folder.rglob("*.dcm"))]
    random.Random(seed).shuffle(paths)
    found = []
    for path in paths:
        if len(found) == most:
            break
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = dcmread(path)
                plane = image.pixel_array
        except (ValueError, AttributeError, RuntimeError, NotImplementedError, TypeError, OSError, KeyError):
            continue
        except Exception as error:  # noqa: BLE001 - decoders raise what they like; such a file is no plane
            print(f"no plane ({type(error).__name__})")
            continue
        modality = str(image.get("Modality"))
        if plane.ndim == 2 and modality in ("CT", "MR", "PT", "CR", "DX") and 120 <= min(plane.shape) <= 700:
            plane = plane[:512, :512].astype(np.float32)
            found.append((modality, ndimage.zoom(plane, 2, order=1) if min(plane.shape) < 200 else plane))
    return found


def speckle(rng: random.Random) -> NDArray[np.float32]:
    """Return what an ultrasound image looks like: a sector of Rayleigh speckle with some dark and bright structures."""
    noise = np.random.default_rng(rng.randrange(2**32))
    rows, columns = rng.choice(((360, 480), (320, 400), (400, 400)))
    coarse = noise.normal(size=(2, rows, columns))
    field = np.hypot(*(ndimage.gaussian_filter(part, (1.0, 1.8)) for part in coarse))
    body = ndimage.gaussian_filter(noise.normal(size=(rows, columns)), 22)
    plane = field / field.max() * (0.5 + 6 * np.clip(body, -0.08, 0.12)) * 255
    row, column = np.mgrid[:rows, :columns]
    away = np.hypot(row + 40, column - columns / 2)
    sector = (away > 70) & (away < rows) & (np.abs(np.arctan2(column - columns / 2, row + 40)) < 0.7)
    return np.where(sector, np.clip(plane, 0, 255), 0).astype(np.float32)


def fonts() -> list[Path]:
    """Return the fonts of this machine; none where it has none, and Pillow's own are used alone."""
    return sorted(p for p in FONTS.rglob("*.ttf") if "Math" not in p.name)


def draw(number: int, planes: Sequence[tuple[str, NDArray[np.float32]]], *, seed: int = 17) -> Drawn:
    """Return the picture of a number: every fifth has no text, the others one or two."""
    rng = random.Random(seed * 1_000_003 + number)
    kind, plane = ("US", speckle(rng)) if number % 6 == 5 or not planes else planes[rng.randrange(len(planes))]
    bits = 8 if kind == "US" else BITS[number % 3]
    pixels = _in_bits(plane, bits)
    traits: dict[str, Any] = {"kind": kind, "bits": bits, "text": number % 5 != 0}
    ink, texts = [], []
    if traits["text"]:
        traits |= {
            "size": rng.choice(SIZES), "turn": rng.choice(TURNS), "ink": rng.choice(INKS),
            "font": rng.choice(["bitmap", "plain", *(p.stem for p in fonts())]),
        }  # fmt: skip
        for _ in range(rng.choice((1, 1, 2))):
            placed = _write(pixels, rng, traits, ink)
            if placed is not None:
                ink.append(placed[0])
                texts.append(placed[1])
    if rng.random() < 0.2 and kind != "US":
        pixels = pixels.max() + pixels.min() - pixels
        traits["shown"] = "MONOCHROME1"
    return Drawn(pixels, tuple(ink), tuple(texts), traits)


def _in_bits(plane: NDArray[np.float32], bits: int) -> NDArray[Any]:
    """Return a plane in the values of so many bits. Of 16, two thirds are left for text, as Hounsfield units leave."""
    low, high = float(plane.min()), float(np.percentile(plane, 99.9))
    part = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    if bits == 8:
        return (part * 255).astype(np.uint8)
    if bits == 12:
        return (part * 4095 * 0.8).astype(np.uint16)
    return (part * 10_000 - 1024).astype(np.int16)


def _write(
    pixels: NDArray[Any], rng: random.Random, traits: dict[str, Any], taken: list[NDArray[np.bool_]]
) -> tuple[NDArray[np.bool_], str] | None:
    """Draw somebody's data into a picture, where nothing is written yet. Return its ink, None if there is no room."""
    text = human(rng).written(rng.choice(KINDS), rng)
    letters = _letters(text, rng, traits)
    rows, columns = letters.shape
    if rows + 6 >= pixels.shape[0] or columns + 6 >= pixels.shape[1]:
        return None
    for _ in range(20):
        top, left = rng.randrange(3, pixels.shape[0] - rows - 2), rng.randrange(3, pixels.shape[1] - columns - 2)
        around = np.s_[top - 3 : top + rows + 3, left - 3 : left + columns + 3]
        if not any(other[around].any() for other in taken):
            break
    else:
        return None
    here = np.s_[top : top + rows, left : left + columns]
    largest, smallest = _ends(pixels)
    under = pixels[here].astype(np.float32)
    value = float(largest)
    if traits["ink"] == "grey":
        value = float(pixels.max()) if pixels[here].mean() < 0.5 * pixels.max() else float(smallest)
    elif traits["ink"] in ("inverted", "boxed"):
        plate = float(pixels.max()) if traits["ink"] == "inverted" else float(smallest)
        pixels[around] = plate
        under[:] = plate
        value = float(smallest) if traits["ink"] == "inverted" else float(largest)
    pixels[here] = under * (1 - letters) + value * letters
    ink = np.zeros(pixels.shape, np.bool_)
    ink[here] = letters > 0.4
    return ink, text


def _ends(pixels: NDArray[Any]) -> tuple[int, int]:
    """Return the largest and smallest value that a program would write with."""
    if pixels.dtype == np.int16:
        return 32767, int(pixels.min())
    return (255 if pixels.dtype == np.uint8 else 4095), int(pixels.min())


def _letters(text: str, rng: random.Random, traits: dict[str, Any]) -> NDArray[np.float32]:
    """Return (row, column) how much of each pixel the letters cover."""
    name, size = traits["font"], traits["size"]
    font: Any
    if name == "bitmap":
        font = ImageFont.load_default_imagefont()
    elif name == "plain":
        font = ImageFont.load_default(size)
    else:
        font = ImageFont.truetype(str(next(p for p in fonts() if p.stem == name)), size)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(picture).text((1 - left, 1 - top), text, font=font, fill=255)
    if name == "bitmap" and size > 14:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    turned = {"level": 0.0, "up": 90.0, "down": 270.0}.get(traits["turn"], rng.uniform(-15, 15))
    if turned:
        picture = picture.rotate(turned, expand=True, resample=Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float32) / np.float32(255)
