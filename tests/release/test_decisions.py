"""Images that may show text wait for a person, whose table decides what is blanked."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from builder.deid import MaskRegion
from builder.errors import OutcomeError, SpecError
from builder.release.decisions import read_decisions, regions_of
from builder.run.release import release
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series, seg

ALL = pytest.mark.skipif("BUILDER_RELEASES" not in os.environ, reason="long: make releases")
SPEC = """
name: decided
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
release: {{undecided: {undecided}{decisions}}}
"""


def spec(folder: Path, *, undecided: str = "wait", decisions: str = "") -> Path:
    named = f', decisions: "{folder / "table.csv"}"' if decisions else ""
    (folder / "table.csv").write_text("uid,row_from,row_to,column_from,column_to\n" + decisions)
    path = folder / f"{undecided}{len(decisions)}.yaml"
    path.write_text(SPEC.format(archive=folder / "archive", undecided=undecided, decisions=named))
    return path


def test_publishing_waits_for_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    plain = ct_series(tmp_path / "archive" / "a", slices=3, shape=(8, 12))
    doubtful = ct_series(
        tmp_path / "archive" / "b", slices=3, shape=(8, 12), patient_id="P2", attributes={"BurnedInAnnotation": "YES"}
    )
    seg(doubtful, {"Liver": np.ones((3, 8, 12), bool)}, directory=tmp_path / "archive" / "b")
    with pytest.raises(OutcomeError, match=r"3 images that may show text .* decided"):
        release(spec(tmp_path), to=tmp_path / "waits")
    assert not (tmp_path / "waits" / "release.json").exists()
    with (tmp_path / "waits.private" / "release" / "undecided.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["uid"] for row in rows} == {str(image.SOPInstanceUID) for image in doubtful.images}
    assert {row["series"] for row in rows} == {doubtful.series_uid}

    release(spec(tmp_path, decisions=f"{doubtful.series_uid},0,2,3,9\n"), to=tmp_path / "waits")
    codes = {}
    for path in (tmp_path / "waits").rglob("*.dcm"):
        image = dcmread(path)
        codes.setdefault("DCM:113101" in image.DeidentificationMethod, []).append(image)
    assert (len(codes[True]), len(codes[False])) == (3, 4)
    sources = [image.pixel_array for image in doubtful.images]
    for image in codes[True]:
        kept = np.ones((8, 12), bool)
        kept[0:2, 3:9] = False
        assert any(np.array_equal(image.pixel_array[kept], source[kept]) for source in sources)
        assert len(set(image.pixel_array[~kept])) == 1
        assert image.BurnedInAnnotation == "NO"
    untouched = sorted(i.PixelData for i in codes[False] if i.Modality == "CT")
    assert untouched == sorted(i.PixelData for i in plain.images)
    for path in (tmp_path / "waits").rglob("*"):
        assert not path.is_file() or doubtful.series_uid.encode() not in path.read_bytes()


@ALL
def test_images_stay_behind_with_what_is_drawn_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    ct_series(tmp_path / "archive" / "a", slices=3, shape=(8, 12))
    text = {"BurnedInAnnotation": "YES"}
    doubtful = ct_series(tmp_path / "archive" / "b", slices=3, shape=(8, 12), patient_id="P2", attributes=text)
    seg(doubtful, {"Liver": np.ones((3, 8, 12), bool)}, directory=tmp_path / "archive" / "b")
    left = release(spec(tmp_path, undecided="leave_out"), to=tmp_path / "left")
    assert (left.done.objects, left.done.failed) == (3, {"burned_in_annotation": 3, "not_selected": 1})
    clean = f"{doubtful.series_uid},,,,\n"
    with pytest.raises(OutcomeError, match="decided"):  # the images declare text, so that somebody must find it
        release(spec(tmp_path, decisions=clean), to=tmp_path / "clean")


@ALL
def test_objects_of_another_plan_are_not_taken_for_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plans write to the same paths; the receipts of the first say nothing about what the second left there."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    ct_series(tmp_path / "archive" / "a", slices=2, shape=(8, 12))
    text = {"BurnedInAnnotation": "YES"}
    ct_series(tmp_path / "archive" / "b", slices=2, shape=(8, 12), patient_id="P2", attributes=text)
    waiting = spec(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text(waiting.read_text().replace("release: {", "release: {remove: [Manufacturer], "))
    for one in (waiting, other):
        with pytest.raises(OutcomeError):
            release(one, to=tmp_path / "out")
    release(spec(tmp_path, undecided="leave_out"), to=tmp_path / "out")
    assert {dcmread(path).Manufacturer == "REMOVED" for path in (tmp_path / "out").rglob("*.dcm")} == {False}


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("Quentlin,1,2,3,4", "line 2: found no UID"),
        ("1.2,1,2,3", "four whole numbers"),
        ("1.2,1,x,3,4", "four whole numbers"),
        ("1.2,5,2,3,4", "found rows 5 to 2"),
    ],
)
def test_a_line_that_is_no_decision_is_refused_and_not_quoted(tmp_path: Path, line: str, match: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"uid,row_from,row_to,column_from,column_to\n{line}\n")
    with pytest.raises(SpecError, match=match) as error:
        read_decisions(str(table))
    assert "Quentlin" not in str(error.value)


def test_rectangles_of_image_and_series_count_together_and_end_at_the_edge(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("uid,row_from,row_to,column_from,column_to\n1.2,0,9,0,4\n1.3,20,30,0,1\n1.4,,,,\n")
    found = read_decisions(str(table))
    assert found.of({"sop_instance_uid": "1.2", "series_uid": "1.3"}) == [(0, 9, 0, 4), (20, 30, 0, 1)]
    assert found.of({"sop_instance_uid": "1.4", "series_uid": "1.9"}) == []
    assert found.of({"sop_instance_uid": "1.8", "series_uid": "1.9"}) is None
    assert regions_of([(0, 9, 0, 4), (20, 30, 0, 1)], (8, 3)) == (MaskRegion(rows=(0, 8), columns=(0, 3), size=(8, 3)),)
