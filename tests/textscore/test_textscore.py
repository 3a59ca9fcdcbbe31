"""A sample of what ``make text-score`` measures, and the images with made-up identities that others published."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread

from builder.pixeltext.engines import rapid, tesseract
from builder.pixeltext.finding import find_text
from builder.release.searching import text_in
from tests.textscore import drawing
from tests.textscore.drawing import draw, real_planes
from tests.textscore.scoring import GONE, score, table, wilson


def test_a_sample_of_drawn_texts_is_found(corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidocr")
    monkeypatch.setattr(drawing, "fonts", list)  # Pillow's own: the fonts of machines differ
    planes = [(kind, plane[:256, :256]) for kind, plane in real_planes([corpus("geometry")], most=6)]
    scored = []
    for number in (1, 2, 3, 4, 6, 7, 8, 9, 10):
        drawn = draw(number, planes)
        boxes = [one.box for one in find_text(drawn.pixels, [rapid()])]
        scored.append(score(drawn.traits, drawn.ink, boxes, drawn.pixels.shape))
    shares = [share for one in scored for share in one.inside]
    assert len(shares) >= 8
    assert sum(share >= GONE for share in shares) >= 0.8 * len(shares), table(scored)
    assert all(one.blanked == 0 for one in scored if not one.inside)


PADDED = 25
"""Pixels that the tool of the answer key puts around an image before it counts."""


def test_the_identity_in_a_scout_of_others_is_found(corpus) -> None:
    """Five words, whose places somebody else noted; the name is written far beyond the values of the anatomy."""
    pytest.importorskip("rapidocr")
    place = corpus("layouts") / "pseudo_phi_burned_in"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = dcmread(next(place.rglob("2_ORIGINAL.dicom")))
    gone = np.zeros((image.Rows, image.Columns), bool)
    for found in text_in(image, [rapid()]):
        top, bottom, left, right = found.box
        gone[top:bottom, left:right] = True
    truth = json.loads((place / "ground_truth.json").read_text())
    words = next(iter(truth.values()))
    assert len(words) == 5
    for word in words:
        top, left = word["top"] - PADDED, word["left"] - PADDED
        inside = gone[top : top + word["height"], left : left + word["width"]]
        assert inside.mean() > 0.95, word["label"]
    assert gone.mean() < 0.06


def test_tesseract_reads_plain_text_as_a_second_opinion() -> None:
    import shutil

    if shutil.which("tesseract") is None:
        pytest.skip("no tesseract on this machine")
    frame = np.zeros((120, 400), np.uint8)
    drawn = Image.fromarray(frame)
    ImageDraw.Draw(drawn).text((20, 40), "ZIMMERLI 1943", font=ImageFont.load_default(28), fill=255)
    found = find_text(np.asarray(drawn), [tesseract()])
    assert found
    assert found[0].source.startswith("tesseract")


def test_intervals_are_those_of_statsmodels() -> None:
    from statsmodels.stats.proportion import proportion_confint

    for hits, count in ((0, 10), (9, 10), (1767, 1921), (16, 515)):
        assert wilson(hits, count) == pytest.approx(proportion_confint(hits, count, method="wilson"), abs=1e-6)
