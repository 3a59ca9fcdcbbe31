"""The way back from a release: encrypted, looked up, destroyed; and two releases that no name joins."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydicom.uid import UID_dictionary

from builder.cli import main
from builder.errors import LayoutError, MissingExtra, SpecError
from builder.library.absence import Needles
from builder.model.keyed import Key
from builder.release.cleaning import IMPLEMENTATION_UID
from builder.release.crosswalk import TABLE, seal, unseal
from builder.run import crosswalk
from builder.run.crosswalk import look_up
from builder.run.elsewhere import Kind, clear_places, find_places, search_places
from builder.run.lease import Lease
from builder.run.release import release
from builder.spec.blocks import ReleaseOptions
from builder.specfile import load_spec
from builder.storage import LocalStore
from tests.endtoend.trees import KEY, tree
from tests.release.test_release import SPEC, objects_of, sources_of, write_person

OWN = "c41a6b0f92d7e3585b7f9e20d4c81a63f05e7b9d2c6418a7e93f50bd716c2e84"
ROW = {"level": "person", "released": "a" * 26, "archive": "HOSP-1", "issuer": "north"}
PERSONS = 2
NAMING = ("(0010,0010)", "(0010,0020)", "(0020,000D)", "(0020,000E)", "(0008,0018)", "(0020,0052)")
"""Names and UIDs of persons, studies, series, instances and frames of reference."""
PIXELS = {"(7FE0,0010)"}


@dataclass(frozen=True)
class Released:
    """An archive; a release of it, one with a crosswalk, and one with a crosswalk under another key of the names."""

    archive: Path
    plain: Path
    kept: Path
    other: Path
    spec: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Released]:
    root = tmp_path_factory.mktemp("crosswalk")
    for number in range(PERSONS):
        write_person(root / "archive" / str(number), number)
    text = SPEC.format(archive=root / "archive", retain="", remove="")
    text = text.replace("{train: 0.34, validation: 0.33, test: 0.33}", "{train: 1.0}")
    (root / "plain.yaml").write_text(text)
    (root / "spec.yaml").write_text(text.replace("release: {", 'release: {crosswalk: "${env:BUILDER_OWN}", '))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_OWN", OWN)
        for name, spec, key in (("plain", "plain", KEY), ("kept", "spec", KEY), ("other", "spec", KEY[::-1])):
            patch.setenv("BUILDER_KEY", key)
            release(root / f"{spec}.yaml", to=root / name)
        patch.setenv("BUILDER_KEY", KEY)
        yield Released(root / "archive", root / "plain", root / "kept", root / "other", root / "spec.yaml")


def sealed(out: Path) -> Path:
    return out.with_name(out.name + ".private") / "release" / "crosswalk.sealed"


def values_of(out: Path) -> dict[tuple[str, str, str], set[str]]:
    """Every value at any depth, after its VR and tag, with the persons whose objects have it."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for clean in objects_of(out):
        for element in (*clean.iterall(), *clean.file_meta):
            if element.VR != "SQ" and element.value not in (None, ""):
                values = element.value if element.VM > 1 else [element.value]
                for value in values:
                    found.setdefault((element.VR, str(element.tag), str(value)), set()).add(str(clean.PatientID))
    return found


def test_no_value_of_two_releases_under_two_keys_tells_who_is_who(made: Released) -> None:
    """What both say, both say of every person, so that it joins nobody; the persons differ in all that identifies."""
    one, two = values_of(made.plain), values_of(made.other)
    both = one.keys() & two.keys()
    assert {tag for _, tag, _ in both if tag in NAMING} == set()
    assert {
        tag for vr, tag, value in both if min(len(one[vr, tag, value]), len(two[vr, tag, value])) < PERSONS
    } <= PIXELS
    assert {value for vr, _, value in both if vr == "UI"} - {*UID_dictionary} == {IMPLEMENTATION_UID}
    same = values_of(made.kept)
    assert len({pair for pair in one.keys() & same.keys() if len(one[pair]) < PERSONS}) > 50  # under one key all joins


def test_the_release_is_the_same_with_and_without(made: Released) -> None:
    assert tree(made.kept) == tree(made.plain)


def test_names_lead_back_and_forth(made: Released) -> None:
    private = sealed(made.kept).parents[1]
    assert OWN.encode() not in b"".join(
        p.read_bytes() for p in (*made.kept.rglob("*"), *private.rglob("*")) if p.is_file()
    )
    sources = {str(s.SOPInstanceUID): s for s in sources_of(made.archive)}
    objects = objects_of(made.kept)
    uids = [str(o.SOPInstanceUID) for o in objects]
    found = look_up(str(made.kept), uids, key="${env:BUILDER_OWN}")
    assert found.not_found == ()
    back = {pair["released"]: sources[pair["archive"]] for pair in found.pairs}
    assert sorted(back) == sorted(uids)
    for clean in objects:
        source = back[str(clean.SOPInstanceUID)]
        assert clean.SOPClassUID == source.SOPClassUID
        assert clean.get("PixelData") == source.get("PixelData")
        names = [str(source.PatientID), str(clean.StudyInstanceUID), str(source.SeriesInstanceUID)]
        pairs = look_up(str(made.kept), names, key="${env:BUILDER_OWN}").pairs
        assert [(pair["level"], pair["released"], pair["archive"]) for pair in pairs] == [
            ("person", str(clean.PatientID), names[0]),
            ("series", str(clean.SeriesInstanceUID), names[2]),
            ("study", names[1], str(source.StudyInstanceUID)),
        ]


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process; return exit code and what it prints."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0), *capsys.readouterr()


def test_the_command_takes_names_from_a_file(
    made: Released, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person = str(sources_of(made.archive)[0].PatientID)
    (tmp_path / "names").write_text(f"{person}\n\nnobody\n")
    arguments = ("crosswalk", made.kept, "--file", tmp_path / "names", "--key", "${env:BUILDER_OWN}")
    code, said, complained = told(capsys, *arguments)
    assert (code, complained) == (1, "not found, counted from 1: 2\n")
    head, row = said.splitlines()
    assert head == "level,released,archive,issuer"
    assert row.endswith(f",{person},")
    assert json.loads(told(capsys, *arguments, "--json")[1])["not_found"] == [2]


def test_it_is_encrypted_as_the_page_says(made: Released) -> None:
    """Read with the library alone, as somebody would who has the file, the key and the page."""
    head, _, body = sealed(made.kept).read_bytes().partition(b"\n")
    facts = json.loads(head)
    made_of = HKDF(hashes.SHA256(), 60, bytes.fromhex(facts["salt"]), b"builder crosswalk 1").derive(OWN.encode())
    data = AESGCM(made_of[:32]).decrypt(made_of[32:44], body, head + b"\n")
    assert (facts["format"], facts["version"], facts["bytes"]) == ("builder crosswalk", 1, len(data))
    rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    assert {row["archive"] for row in rows if row["level"] == "instance"} == {
        str(source.SOPInstanceUID) for source in sources_of(made.archive)
    }
    assert sealed(made.kept).stat().st_mode & 0o777 == 0o600


def test_nothing_plain_has_both_names(made: Released) -> None:
    """No file of the private folder has names of both sides."""
    sides = []
    for dicoms in (sources_of(made.archive), objects_of(made.kept)):
        sides.append({str(d[name].value).encode() for d in dicoms for name in ("PatientID", "StudyInstanceUID")})

    def both(out: Path) -> set[str]:
        found = set()
        for path in out.with_name(out.name + ".private").rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                data = repr((table.to_pylist(), table.schema.metadata)).encode()
            if all(any(name in data for name in side) for side in sides):
                found.add(path.parent.name)
        return found

    assert both(made.plain) == {"shards", "units"}  # what the search must be able to find
    assert both(made.kept) == set()


def test_again_it_is_kept_or_made_anew(made: Released) -> None:
    before = sealed(made.kept).read_bytes()
    assert release(made.spec, to=made.kept).done.unchanged
    assert sealed(made.kept).read_bytes() == before
    sealed(made.kept).unlink()
    assert release(made.spec, to=made.kept).done.unchanged
    key = Key(OWN.encode())
    assert sealed(made.kept).read_bytes() != before  # another salt
    assert unseal(sealed(made.kept).read_bytes(), key).equals(unseal(before, key))


def test_killed_after_the_manifest_it_goes_on(made: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that published it never came to note what it had done."""
    spec, before = made.spec.with_name("plain.yaml"), tree(made.plain)
    (made.plain / "release.json").unlink()
    (made.plain.with_name("plain.private") / "release" / "published.json").unlink()

    def stop(done: object) -> dict[str, object]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("builder.run.release.asdict", stop)
        with pytest.raises(KeyboardInterrupt):
            release(spec, to=made.plain)
    assert tree(made.plain) == before
    assert not release(spec, to=made.plain).done.unchanged
    assert tree(made.plain) == before
    assert release(spec, to=made.plain).done.unchanged


def test_a_literal_key_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="found a literal value") as error:
        ReleaseOptions.model_validate({"crosswalk": OWN})
    assert OWN not in str(error.value)


def cut(data: bytes) -> bytes:
    return data[:-7]


def flip(data: bytes) -> bytes:
    return data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (cut, r"expected \S+; it was cut off"),
        (flip, "changed after it was written"),
        (lambda data: data.replace(b'"version":1', b'"version": 1'), "changed after it was written"),
        (lambda data: data.replace(b'"version":1', b'"version":2'), "found version 2 .* expected 1"),
        (lambda data: data[40:], "no first line"),
        (lambda data: b"", "no first line"),
    ],
)
def test_damage_is_told(damage: Callable[[bytes], bytes], match: str) -> None:
    key = Key(OWN.encode())
    data = seal(pa.Table.from_pylist([ROW], schema=TABLE), key, salt=bytes(range(32)))
    assert unseal(data, key).to_pylist() == [ROW]
    assert b"HOSP-1" not in data
    with pytest.raises(LayoutError, match=match):
        unseal(damage(data), key)


def test_another_key_is_told(made: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_OWN", OWN[::-1])
    with pytest.raises(SpecError, match="another key wrote it"):
        look_up(str(made.kept), ["x"], key="${env:BUILDER_OWN}")
    with pytest.raises(SpecError, match="another key wrote it"):
        release(made.spec, to=made.kept)


@pytest.mark.parametrize("own", [KEY, KEY.upper()])
def test_the_key_of_the_names_is_refused(
    made: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    monkeypatch.setenv("BUILDER_OWN", own)
    with pytest.raises(SpecError, match=r"release\.crosswalk: found the key of deid\.patient_key") as error:
        release(made.spec, to=tmp_path / "out")
    assert KEY not in str(error.value)
    assert [*tmp_path.rglob("*.dcm")] == []


def test_without_the_library_or_the_key_nothing_is_read(
    made: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cryptography", None)
        with pytest.raises(MissingExtra, match=r"medical-dataset-builder\[crosswalk\]"):
            release(made.spec, to=tmp_path / "out")
    monkeypatch.delenv("BUILDER_OWN")
    with pytest.raises(SpecError, match=r"release\.crosswalk: environment variable BUILDER_OWN is not set"):
        release(made.spec, to=tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_a_person_who_withdraws_leaves_the_crosswalk(made: Released, tmp_path: Path) -> None:
    """And the release, which cannot be changed, is found to have the person still."""
    out = tmp_path / "release"
    for suffix in ("", ".private"):
        shutil.copytree(made.kept.with_name(f"kept{suffix}"), tmp_path / f"release{suffix}")
    mine, other = (next((made.archive / str(n)).rglob("*.dcm")) for n in range(PERSONS))
    objects = [pydicom.dcmread(path, stop_before_pixels=True) for path in (mine, other)]
    names = [[str(o.PatientID), str(o.SOPInstanceUID), str(o.StudyInstanceUID)] for o in objects]
    keyed = {look_up(str(out), [n[0]], key="${env:BUILDER_OWN}").pairs[0]["released"] for n in names[:1]}
    uids = {str(o.SOPInstanceUID) for o in sources_of(made.archive) if o.PatientID == names[0][0]}
    needles = Needles(frozenset(keyed), uids=frozenset(uids | {names[0][2]}), ids=frozenset({names[0][0]}))
    private = LocalStore(tmp_path / "private")
    spec = load_spec(made.spec)
    places, _ = find_places([LocalStore(tmp_path / "dataset")], private, spec, [str(out)])
    assert [place.kind for place in places] == [Kind.RELEASE]
    clear_places(places, needles, private, guard=lambda: None)
    found = look_up(str(out), [*names[0], *names[1]], key="${env:BUILDER_OWN}")
    assert found.not_found == (1, 2, 3)
    assert search_places(places, needles)[0][1] > 0
    assert tree(out) == tree(made.kept)


def test_forgotten_it_is_gone_for_good(made: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle, the same command ends it; nothing that names anybody is left, and nothing comes back."""
    out, private = made.other, sealed(made.other).parents[1]
    before, inode = tree(out), os.open(sealed(out), os.O_RDONLY)
    passed = []

    def stop(name: str) -> None:
        passed.append(name)
        if passed.count("forget.file") == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crosswalk, "checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            run_forget(out)
    with pytest.raises(LayoutError, match="was destroyed on 2026-11-29"):
        release(made.spec, to=out)
    done = run_forget(out)
    assert done.removed == 0
    assert done.overwritten > 5
    assert "backups" in done.text()
    assert set(os.pread(inode, 1000, 0)) == {0}
    os.close(inode)
    left = {p.relative_to(private).as_posix() for p in private.rglob("*") if p.is_file()}
    assert {path for path in left if not path.startswith("lease/")} == {"release/forgotten.json"}
    assert json.loads((private / "release" / "forgotten.json").read_text()) == {"date": "2026-11-29"}
    assert tree(out) == before
    with pytest.raises(LayoutError, match="was destroyed on 2026-11-29"):
        look_up(str(out), ["x"], key="${env:BUILDER_OWN}")


def test_forgotten_while_a_run_waited_nothing_comes_back(
    made: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = LocalStore(tmp_path / "out.private")

    @contextmanager
    def waited(store: LocalStore, *, say: Callable[[str], None]) -> Iterator[Lease]:
        private.put("release/forgotten.json", b'{"date":"2026-11-29"}')
        yield Lease(store, 1)

    monkeypatch.setattr("builder.run.release.hold_lease", waited)
    with pytest.raises(LayoutError, match="was destroyed on 2026-11-29"):
        release(made.spec, to=tmp_path / "out")
    assert not [path for path in private.list() if path.startswith("index/")]


def run_forget(out: Path) -> crosswalk.Forgotten:
    return crosswalk.forget(str(out), today=date(2026, 11, 29), say=print)


def test_only_the_folder_of_a_published_release_is_emptied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thesis = tmp_path / "data.private" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("x")
    code, _, complained = told(capsys, "forget-crosswalk", tmp_path / "data")
    assert code == 1
    assert "nothing was removed" in complained
    assert thesis.read_text() == "x"


def test_what_has_another_name_is_not_overwritten(tmp_path: Path) -> None:
    """A cache may hold a link to the archive."""
    (tmp_path / "archive").write_bytes(b"scan")
    store = LocalStore(tmp_path / "private")
    store.put("own", b"secret")
    (store.root / "hard").hardlink_to(tmp_path / "archive")
    (store.root / "soft").symlink_to(tmp_path / "archive")
    assert [store.destroy(name) for name in ("own", "hard", "soft", "absent")] == [True, False, False, False]
    assert [*store.list()] == []
    assert (tmp_path / "archive").read_bytes() == b"scan"
