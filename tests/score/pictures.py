"""Score pictures: text drawn into real pixels is hidden where the spec states a region, and nothing else changes."""

import random
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from builder.deid import Deid, MaskRegion
from builder.deid.pixels import blank, judge_pixels
from builder.errors import CaseError
from tests.score.actions import Tally
from tests.score.people import KINDS, human

_FOLDERS = (
    *("ct_ge_tilt18", "toshiba_mr_adc", "patient_positions", "orthanc_brainix", "lidc_0314_slab", "xray_mammo"),
    *("qin_hn_0024_pet_seg", "qin_prostate_adc_seg", "pseudo_phi_burned_in", "ucsf_br06_dce4d", "rtutils_ct_rtstruct"),
)
_DECLARED = ("nothing", "BurnedInAnnotation", "capture", "ultrasound")
"""What the header says about the text that is drawn into its pixels."""


def score_pictures(corpus: Path, tally: Tally, *, pictures: int, seed: int = 17) -> None:
    """Draw a person's data into real planes, one rectangle each, and blank what the spec names."""
    planes, rng = _planes(corpus), random.Random(seed)
    for number in range(pictures):
        plane = planes[number % len(planes)]
        region = _region(plane, rng)
        _score(plane, region, rng, _DECLARED[number % len(_DECLARED)], tally)


def _planes(corpus: Path) -> list[NDArray[np.int32]]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in _FOLDERS:
            paths = sorted(p for p in (corpus / folder).rglob("*") if p.is_file() and "json" not in p.suffix)
            for path in paths[:: max(len(paths) // 3, 1)][:4]:
                try:
                    stored = dcmread(path).pixel_array
                except (ValueError, AttributeError, RuntimeError, NotImplementedError, TypeError, OSError, KeyError):
                    continue
                except Exception as error:  # noqa: BLE001 - pydicom's decoders raise what they like; counted as no plane
                    print(f"{folder}: no pixels ({type(error).__name__})")
                    continue
                if stored.ndim == 2 and min(stored.shape) >= 64:
                    found.append(stored.astype(np.int32))
    return found


def _region(plane: NDArray[np.int32], rng: random.Random) -> MaskRegion:
    height, width = plane.shape
    top = rng.choice((0, height - 24, rng.randrange(0, height - 24)))
    left = rng.randrange(0, max(width - 240, 1))
    return MaskRegion(rows=(top, top + 24), columns=(left, min(left + 240, width)), size=(height, width))


def _score(plane: NDArray[np.int32], region: MaskRegion, rng: random.Random, declared: str, tally: Tally) -> None:
    who = human(rng)
    picture = Image.fromarray(plane, mode="I")
    said = f"{who.name} {who.written(rng.choice(KINDS), rng)}"
    ImageDraw.Draw(picture).text((region.columns[0], region.rows[0] + 4), said, fill=int(plane.max()) + 1)
    drawn = np.where(_inside(plane, region), np.asarray(picture), plane)
    written = int((drawn != plane).sum())
    try:
        verdict = judge_pixels(_header(plane, declared), deid=_spec(region))
        kept = blank(drawn, verdict.blank)
    except CaseError:
        tally.count("pixels_hidden", declared, done=True)
        tally.count("pixels_retained", declared, done=False)
        return
    inside = kept[_inside(plane, region)]
    tally.count("pixels_hidden", declared, done=written > 0 and int(inside.min()) == int(inside.max()))
    outside = ~_inside(plane, region)
    tally.count("pixels_retained", declared, done=bool((kept[outside] == plane[outside]).all()))


def _inside(plane: NDArray[np.int32], region: MaskRegion) -> NDArray[np.bool_]:
    inside = np.zeros(plane.shape, dtype=np.bool_)
    inside[slice(*region.rows), slice(*region.columns)] = True
    return inside


def _header(plane: NDArray[np.int32], declared: str) -> Dataset:
    header = Dataset()
    header.Rows, header.Columns = plane.shape
    header.Modality = "US" if declared == "ultrasound" else "CT"
    header.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.6.1" if declared == "ultrasound" else "1.2.840.10008.5.1.4.1.1.2")
    if declared == "BurnedInAnnotation":
        header.BurnedInAnnotation = "YES"
    if declared == "capture":
        header.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    return header


def _spec(region: MaskRegion) -> Deid:
    return Deid(patient_key="${env:BUILDER_KEY}", burned_in="mask", mask_regions=(region,))
