"""What a withdrawal does beside a dataset: which place is what, and what is taken out of it."""

from pathlib import Path

import pytest

from builder.errors import ResourceError, SpecError
from builder.library import absence
from builder.library.absence import Needles, Search
from builder.planning.left_out import names_file
from builder.run.elsewhere import Kind, Place, find_places, search_places, take_out_lines, without_rows
from builder.sources.recordings import Recording, check_recorded, empty_recording, recorded_at, recording
from builder.spec import DatasetSpec
from builder.specfile import load_spec
from builder.storage import LocalStore
from tests.faults.archive import write_spec

GONE, STAYS = "a" * 26, "b" * 26


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    return load_spec(write_spec(tmp_path / "spec.yaml", tmp_path / "archive"))


def test_a_place_is_what_it_holds(tmp_path: Path, spec: DatasetSpec) -> None:
    dataset = LocalStore(tmp_path / "dataset")
    for name in ("cache", "export", "recording"):
        (tmp_path / name).mkdir()
    (tmp_path / "export" / "builder-export.json").write_bytes(b"{}")
    (tmp_path / "recording" / "recording.json").write_bytes(b"{}")
    (tmp_path / "marks.txt").write_bytes(names_file([GONE]))
    (tmp_path / "review.csv").write_text("case_key,finding,value,correct,text\n")
    (tmp_path / "copies.csv").write_text("own,person_key,site,number,exact,planes,bands\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    names = ("cache", "export", "recording", "marks.txt", "review.csv", "copies.csv", "picture.png")
    found, _ = find_places([dataset], LocalStore(tmp_path / "private"), spec, [str(tmp_path / n) for n in names])
    kinds = [Kind.FOLDER, Kind.EXPORT, Kind.RECORDING, Kind.NAMES, Kind.TABLE, Kind.TABLE, Kind.FILE]
    assert [place.kind for place in found] == kinds
    assert not [place for place in found if str(tmp_path) in place.told]  # the certificate is shared
    for wrong, said in ((tmp_path / "nowhere", "nothing at"), (tmp_path / "dataset" / "data", "the dataset itself")):
        with pytest.raises(SpecError, match=f"^--also: found {said}"):
            find_places([dataset], LocalStore(tmp_path / "private"), spec, [str(wrong)])


def test_what_is_known_without_being_named(tmp_path: Path, spec: DatasetSpec) -> None:
    for name in ("dataset.leave-out.txt", "marks.txt", "alike.txt", "decisions.csv"):
        (tmp_path / name).write_bytes(b"\n")
    (tmp_path / "dataset.uses").mkdir()
    (tmp_path / "dataset.uses" / "1.json").write_bytes(b"{}")
    stated = replace_in(spec, leave_out=str(tmp_path / "marks.txt"), decisions=str(tmp_path / "decisions.csv"))
    stated = stated.model_copy(update={"splits": spec.splits.model_copy(update={"alike": str(tmp_path / "alike.txt")})})
    found, others = find_places([LocalStore(tmp_path / "dataset")], LocalStore(tmp_path / "private"), stated, ())
    assert [(Path(place.url).name, place.kind) for place in found] == [
        ("dataset.leave-out.txt", Kind.NAMES),
        ("dataset.uses", Kind.FOLDER),
        ("marks.txt", Kind.NAMES),
        ("alike.txt", Kind.NAMES),
        ("decisions.csv", Kind.TABLE),
    ]
    assert any("exports" in text for text in others)


def replace_in(spec: DatasetSpec, *, leave_out: str, decisions: str) -> DatasetSpec:
    cohort = spec.cohort.model_copy(update={"leave_out": leave_out})
    release = spec.release.model_copy(update={"decisions": decisions})
    return spec.model_copy(update={"cohort": cohort, "release": release})


def test_only_lines_of_the_person_go(tmp_path: Path) -> None:
    marks, table = tmp_path / "marks.txt", tmp_path / "table.csv"
    marks.write_text(f"# looked at in May\n{GONE}  # twice the same\n{STAYS}\n{GONE} train\n{STAYS} test\n")
    table.write_bytes(f'case_key,finding,text\r\n{GONE},mass,"a\nb"\r\n{STAYS},mass,"c, d"\r\n'.encode())
    table.chmod(0o600)
    places = [Place(str(marks), Kind.NAMES, "marks"), Place(str(table), Kind.TABLE, "table")]
    assert [found for _, found in search_places(places, Needles(names=frozenset({GONE})))] == [1, 1]
    take_out_lines(places, {GONE})
    assert marks.read_text() == f"# looked at in May\n{STAYS}\n{STAYS} test\n"
    assert table.read_bytes() == f'case_key,finding,text\r\n{STAYS},mass,"c, d"\r\n'.encode()
    assert table.stat().st_mode & 0o777 == 0o600
    assert [found for _, found in search_places(places, Needles(names=frozenset({GONE})))] == [0, 0]
    assert without_rows(b"\xff\xfe\x00", {GONE}) == b"\xff\xfe\x00"


def test_a_file_that_cannot_be_written_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "marks.txt").write_text(f"{GONE}\n")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(LocalStore, "put", refuse)
    with pytest.raises(ResourceError, match=r"cohort\.leave_out: found that the file cannot be written"):
        take_out_lines([Place(str(tmp_path / "marks.txt"), Kind.NAMES, "cohort.leave_out")], {GONE})


def test_a_recording_goes_whole_and_nothing_else(tmp_path: Path) -> None:
    private, place = LocalStore(tmp_path / "private"), str(tmp_path / "recording")
    with recording(record=place):
        check_recorded(private, "index")
        Recording(place, "record").put(("GET", "x"), b"pixels")
    (tmp_path / "recording" / "notes.txt").write_text("mine")
    assert recorded_at(private) == [place]
    empty_recording(place, private, before=lambda: None)
    assert [p.name for p in (tmp_path / "recording").rglob("*") if p.is_file()] == ["notes.txt"]
    assert recorded_at(private) == []


def test_a_name_is_found_across_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "_PIECE", 64)
    (tmp_path / "file").write_bytes(b"." * 50 + GONE.encode() + b"." * 500)
    (tmp_path / "other").write_bytes(b"." * 50 + STAYS.encode() + b"." * 500)
    search = Search(Needles(names=frozenset({GONE})))
    search.store(LocalStore(tmp_path))
    assert search.found == ["file"]
