"""The score on a few synthetic headers: it finds nothing left, and it does notice what is left."""

import io
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from builder.deid.headers import deidentify
from tests.score import headers
from tests.score.actions import KINDS, RETENTIONS, Tally
from tests.score.headers import _found, released, score_headers
from tests.score.released import KEY, VARIABLE, Drawn, score_release
from tests.score.tables import score_persons, score_tables
from tests.synthetic import ct_series, pt_series


def _no_text(path: Path, drawn: dict[str, Drawn]) -> None:
    """A table in which somebody saw no text anywhere."""
    path.write_text("uid,row_from,row_to,column_from,column_to\n" + "".join(f"{uid},,,,\n" for uid in drawn))


@pytest.fixture
def some(tmp_path: Path) -> list[bytes]:
    ct_series(tmp_path / "ct", slices=1, shape=(4, 4))
    pt_series(tmp_path / "pt", slices=1, shape=(4, 4))
    found = []
    for path in sorted(tmp_path.rglob("*.dcm")):
        dataset = dcmread(path)
        del dataset.PixelData
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        found.append(buffer.getvalue())
    return found


def test_nothing_planted_is_left_and_nothing_needed_is_lost(some: list[bytes]) -> None:
    tally = Tally()
    identities = score_headers(some, tally, actions=4000)
    score_persons(identities, tally)
    score_tables(tally, rows=10)
    assert not tally.missed, tally.text()
    assert {kind for kind in KINDS if tally.asked[kind]} == {*KINDS} - {"pixels_hidden", "pixels_retained"}


def test_a_release_leaves_nothing_planted_and_loses_nothing_needed(some: list[bytes]) -> None:
    tally = Tally()
    score_headers(some, tally, actions=3000, clean=released)
    assert not tally.missed, tally.text()


def test_a_release_has_one_name_for_each_person_and_hides_what_was_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    tally = Tally()
    score_release(tmp_path, tally, persons=2)
    assert not tally.missed, tally.text()
    asked = {kind: tally.asked[kind] for kind in ("pixels_hidden", "pixels_retained", "patid_consistent")}
    assert asked == {"pixels_hidden": 12, "pixels_retained": 20, "patid_consistent": 60}


def test_text_that_nobody_decided_about_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setattr("tests.score.released._decide", _no_text)
    monkeypatch.setattr("tests.score.released.DECLARED", ("NO",))
    tally = Tally()
    score_release(tmp_path, tally, persons=2)
    assert tally.share(("pixels_hidden",)) == 0
    assert tally.share(("pixels_retained",)) == 100


def test_a_walk_that_lets_all_through_scores_badly(some: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(dataset: Dataset, **options: object) -> Dataset:
        return dataset

    monkeypatch.setattr(headers, "deidentify", careless)
    tally = Tally()
    score_headers(some, tally, actions=1000)
    assert tally.share(("text_removed", "uid_changed", "date_shifted")) < 5
    assert vars(headers)["deidentify"] is not deidentify


def test_a_refused_object_is_removed_and_lost(some: list[bytes]) -> None:
    refused = []
    for data in some:
        dataset = dcmread(io.BytesIO(data))
        dataset.BurnedInAnnotation = "YES"
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        refused.append(buffer.getvalue())
    tally = Tally()
    score_headers(refused, tally, actions=500)
    assert tally.share(("text_removed", "uid_changed")) == 100
    assert tally.share(tuple(k for k in RETENTIONS if tally.asked[k])) == 0
    assert tally.refused["burned_in_annotation"] > 0


@pytest.mark.parametrize("text", ["1234567", "a1234567b", "12345678", "x\\01234567", "1.2.1234567.4"])
def test_a_number_counts_wherever_it_is_not_by_chance(text: str) -> None:
    assert _found("1234567", text.encode()) is not None


@pytest.mark.parametrize("text", ["2.25." + "9" * 20 + "1234567" + "9" * 12, "-12.51234567", "123456"])
def test_a_number_in_a_keyed_uid_or_in_decimals_is_chance(text: str) -> None:
    assert _found("1234567", text.encode()) is None
