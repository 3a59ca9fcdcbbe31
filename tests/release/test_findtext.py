"""Text in pixels is found before the plan; the release depends on the table of it, and blanks or waits."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import LayoutError, OutcomeError, SpecError
from builder.pixeltext.engines import Reading, characters_in
from builder.pixeltext.finding import OF_THICK, Found, find_text, merged
from builder.pixeltext.views import ends_of, tiles_of, views_of
from builder.release.found import FOUND, Seen, found_table, parse_found
from builder.release.searching import window_of
from builder.run.findtext import find_text as search
from builder.run.release import release
from tests.endtoend.trees import KEY
from tests.release.test_decisions import SPEC
from tests.synthetic import ct_series

NAME = "ZIMMERLI CORDELIA"


def write_into(path: Path, text: str = NAME) -> np.ndarray:
    """Write a name into the pixels of a file, and return where its ink is."""
    image = dcmread(path)
    values = image.pixel_array.copy()
    picture = Image.new("L", values.shape[::-1])
    ImageDraw.Draw(picture).text((8, 10), text, font=ImageFont.load_default(14), fill=255)
    ink = np.asarray(picture) > 100
    values[ink] = values.max() + 400
    image.PixelData = values.tobytes()
    image.save_as(path)
    return ink


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two series: one that a rule clears, and a derived one with a name in the pixels of one of its two images."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    place = tmp_path / "archive"
    ct_series(place / "a", slices=2, shape=(96, 200), attributes={"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]})
    derived = {"ImageType": ["DERIVED", "SECONDARY"]}
    ct_series(place / "b", slices=2, shape=(96, 200), patient_id="P2", attributes=derived)
    return place


def spec(folder: Path, text: str, decisions: str = "") -> Path:
    path = folder / "spec.yaml"
    filled = SPEC.format(archive=folder / "archive", undecided="wait", decisions=decisions)
    path.write_text(filled.replace("undecided: wait", f"undecided: wait, text: {{{text}}}"))
    return path


def test_found_text_is_blanked_or_waits(archive: Path, tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    marked = sorted((archive / "b").iterdir())[0]
    ink, uid = write_into(marked), str(dcmread(marked).SOPInstanceUID)
    blanking = spec(tmp_path, "found: blank")
    with pytest.raises(OutcomeError, match="2 images that may show text"):
        release(blanking, to=tmp_path / "out")
    outcome = search(blanking, to=tmp_path / "out")
    assert (outcome.images, outcome.with_text, outcome.cleared, outcome.failed) == (2, 1, 2, 0)
    table = (tmp_path / "out.private" / FOUND).read_bytes()
    assert NAME[:8].encode() not in table
    seen = parse_found(table).images
    assert [len(one.found) > 0 for name, one in seen.items() if name == uid] == [True]
    again = search(blanking, to=tmp_path / "out")
    assert again.resumed > 0
    assert (tmp_path / "out.private" / FOUND).read_bytes() == table

    assert release(blanking, to=tmp_path / "out").done.objects == 4
    sources = [dcmread(path).pixel_array for path in archive.rglob("*") if path.is_file()]
    touched = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    touched = [image for image in touched if "DCM:113101" in image.DeidentificationMethod]
    assert len(touched) == 1
    pixels = touched[0].pixel_array
    assert len(set(pixels[ink])) == 1
    gone = np.zeros(pixels.shape, bool)
    for (top, bottom, left, right), _, _ in seen[uid].found:
        gone[top:bottom, left:right] = True
    assert gone.mean() < 0.35
    assert any(np.array_equal(pixels[~gone], source[~gone]) for source in sources)

    shutil.copytree(tmp_path / "out.private" / "text", tmp_path / "queue.private" / "text")
    with pytest.raises(OutcomeError, match="2 images that may show text"):  # the stack of the one that shows it
        release(spec(tmp_path, "found: queue"), to=tmp_path / "queue")
    waiting = (tmp_path / "queue.private" / "release" / "undecided.csv").read_text()
    assert uid in waiting
    assert "found text in the pixels" in waiting


def test_the_release_depends_on_the_table_alone(archive: Path, tmp_path: Path) -> None:
    """No engine is asked: a table that somebody wrote gives the rectangles, in the bytes of two releases alike."""
    images = [dcmread(path) for path in sorted((archive / "b").iterdir())]
    rows = [
        Seen(str(i.SOPInstanceUID), str(i.SeriesInstanceUID), "", (((0, 9, 3, 50), 0.9, "by hand"),)) for i in images
    ]
    for name in ("one", "two"):
        place = tmp_path / f"{name}.private" / FOUND
        place.parent.mkdir(parents=True)
        place.write_bytes(found_table(rows))
        assert release(spec(tmp_path, "found: blank"), to=tmp_path / name).done.objects == 4
    assert (tmp_path / "one" / "SHA256SUMS").read_bytes() == (tmp_path / "two" / "SHA256SUMS").read_bytes()
    assert '"found_text"' in (tmp_path / "one" / "release.json").read_text()


@pytest.mark.parametrize(("policy", "released"), [("queue", False), ("release", True)])
def test_nothing_found_in_a_doubtful_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, released: bool
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    screen = {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}
    made = ct_series(tmp_path / "archive", slices=2, shape=(8, 12), attributes=screen)
    table = tmp_path / "out.private" / FOUND
    table.parent.mkdir(parents=True)
    table.write_bytes(found_table([Seen(str(i.SOPInstanceUID), made.series_uid, "is a capture") for i in made.images]))
    named = spec(tmp_path, f"found: blank, nothing_found: {policy}")
    named.write_text(named.read_text() + "volumes: {secondary_capture: keep}\n")
    if released:
        assert release(named, to=tmp_path / "out").done.objects == 2
    else:
        with pytest.raises(OutcomeError, match="2 images that may show text"):
            release(named, to=tmp_path / "out")


def test_a_spec_must_say_what_happens_to_text(archive: Path, tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    with pytest.raises(SpecError, match="expected blank or queue"):
        search(spec(tmp_path, ""), to=tmp_path / "out")
    refused = CliRunner().invoke(
        app, ["find-text", str(spec(tmp_path, "nothing_found: release")), "--to", str(tmp_path / "o")]
    )
    assert isinstance(refused.exception, SpecError)


def test_a_table_that_was_changed_badly_is_refused() -> None:
    good = found_table([Seen("1.2", "1", "x", (((1, 2, 3, 4), 0.5, "e"),)), Seen("1.1", "1", "")])
    assert parse_found(good).boxes == {"1.1": (), "1.2": ((1, 2, 3, 4),)}
    with pytest.raises(LayoutError, match="line 3: found no rectangle"):
        parse_found(good.replace(b"1,2,3,4", b"1,2,3,x"))
    with pytest.raises(LayoutError, match="another first line"):
        parse_found(good.replace(b"uid", b"name"))


class _Scripted:
    """An engine that reads what it is told, in pixels of what it is shown."""

    name = "scripted"

    def __init__(self, *readings: Reading) -> None:
        self.readings, self.shown = readings, []

    def read(self, picture: np.ndarray) -> list[Reading]:
        self.shown.append(picture.shape)
        return list(self.readings)


def test_rectangles_are_scaled_back_widened_and_joined() -> None:
    frame = np.tile(np.arange(320, dtype=np.uint8) % 251, (320, 1))
    engine = _Scripted(
        Reading((20, 40, 20, 100), 0.9, 5),
        Reading((20, 40, 104, 124), 0.1, 1),  # an unsure piece beside a sure one
        Reading((200, 600, 200, 600), 0.9, 1),  # a round organ
        Reading((400, 420, 20, 100), 0.4, 3),
        Reading((300, 320, 20, 100), 0.3, 4),
    )
    found = find_text(frame, [engine])
    assert engine.shown == [(640, 640)] * 2, "all values, and the brightest alone"
    assert [f.box for f in found] == [(7, 23, 7, 53), (7, 23, 49, 65), (147, 163, 7, 53)]
    joined = merged([Found((0, 10, 0, 10), 0.5, "a"), Found((2, 12, 1, 9), 0.8, "b"), Found((50, 60, 0, 5), 0.6, "a")])
    assert joined == [Found((0, 12, 0, 10), 0.8, "b"), Found((50, 60, 0, 5), 0.6, "a")]
    assert [characters_in(t) for t in ("00", "A1b", "—.", "李明")] == [1, 3, 0, 2]


def test_views_show_text_beyond_the_values_of_the_anatomy() -> None:
    """Letters at the largest value of the format, and letters hardly above the anatomy, each stand out in some view."""
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 1000, (64, 64)).astype(np.int16)
    plane[10:12, 10:20] = 32767
    views = list(views_of(plane, window=(0, 1000)))
    assert max(int(v[10, 10]) - int(np.percentile(np.delete(v, (10, 11), axis=0), 99)) for v in views) > 200
    assert len(list(views_of(np.zeros((8, 8), np.uint8)))) == 1
    red = np.zeros((8, 8, 3), np.uint8)
    red[2, 2] = (255, 0, 0)
    assert [int(v[2, 2]) for v in views_of(red)] == [255, 0]


def test_text_over_speckle_stands_out_among_the_brightest_values() -> None:
    rng = np.random.default_rng(1)
    frame = np.clip(rng.rayleigh(70, (64, 64)), 0, 220).astype(np.uint8)
    frame[:, :10] = 0  # beside the sector
    frame[10:12, 10:20] = 255
    (bright,) = ends_of(frame)
    assert bright[10, 10] == 255
    assert np.percentile(bright, 90) == 0
    assert not [*ends_of(np.full((8, 8), 7, np.uint8)), *ends_of(frame.astype(np.int16) * 16)]


def test_a_whole_section_is_not_read_as_a_few_letters() -> None:
    frame = np.zeros((400, 400), np.uint8)
    for characters, found in ((OF_THICK - 1, 0), (OF_THICK, 1)):
        assert len(find_text(frame, [_Scripted(Reading((0, 400, 0, 400), 0.9, characters))])) == found


def test_tiles_cover_a_large_picture() -> None:
    covered = np.zeros((2300, 1000), int)
    for top, left, tile in tiles_of(covered.astype(np.uint8), largest=960, overlap=160):
        assert max(tile.shape) <= 960
        covered[top : top + tile.shape[0], left : left + tile.shape[1]] += 1
    assert covered.min() == 1


def test_the_window_of_a_header_is_in_stored_values() -> None:
    header = Dataset()
    assert window_of(header) is None
    header.WindowCenter, header.WindowWidth, header.RescaleSlope, header.RescaleIntercept = [40, 50], [400, 1], 2, -1000
    assert window_of(header) == (420.0, 620.0)
