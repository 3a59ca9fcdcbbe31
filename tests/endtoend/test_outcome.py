"""What a build comes to: nothing gutted is published, every loss is counted, and a plan says so before."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

import builder
from builder.cli import main
from builder.errors import OutcomeError
from builder.publishing.outcome import Loss, check_build
from builder.run import pipeline
from builder.run.pipeline import build, plan
from builder.spec.blocks import MostLost
from tests.endtoend.trees import KEY, ROOT, environment
from tests.report.recount import wrong_tables
from tests.synthetic import ct_series

SPEC = """\
name: outcome
license: CC0-1.0
sources:
  - {{kind: folder, url: "{home}/in"}}
cohort:
  image: "modality == 'CT'"
deid: {{patient_key: "${{env:BUILDER_KEY}}", retain: [sex]}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 0.5, test: 0.5}}}}
leaks: {{pixels: exact}}
report: {{groups: [sex, vendor], thumbnails: 0}}
shards: {{cases: 4}}
"""
LOST = "max_lost: {cases: 0.6, persons: 0.6}\n"
PERSONS = 12


@pytest.fixture(scope="module", autouse=True)
def _key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        yield


def write(home: Path, *, persons: int = PERSONS, more: str = "") -> Path:
    """An archive of two vendors, a file that is no DICOM, and its spec."""
    for number in range(persons):
        vendor = "SIEMENS" if number % 2 else "GE MEDICAL SYSTEMS"
        ct_series(
            home / "in" / f"p{number:02d}", patient_id=f"W{number:02d}", study=str(number), slices=4, shape=(8, 8),
            voxels=np.random.default_rng(number).integers(0, 1000, (4, 8, 8)).astype(float),
            attributes={"Manufacturer": vendor, "PatientSex": "FM"[number % 3 == 0]},
        )  # fmt: skip
    (home / "in" / "notes.txt").write_text("see the other disk\n")
    (home / "in" / "blob").write_bytes(bytes(range(256)))
    (home / "spec.yaml").write_text(SPEC.format(home=home) + more)
    return home / "spec.yaml"


def spoil(home: Path, numbers: range) -> None:
    """Cut the pixels of some persons off, which only a build can notice."""
    for number in numbers:
        for path in (home / "in" / f"p{number:02d}").glob("*.dcm"):
            image = pydicom.dcmread(path)
            image.PixelData = image.PixelData[:64]
            image.save_as(path)


def typed(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture(scope="module")
def gutted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset that was good, then lost a vendor, was refused, and was published once the spec allowed it."""
    home = tmp_path_factory.mktemp("gutted")
    spec, to = write(home), home / "dataset"
    build(spec, to=to)
    good = (to / "CURRENT").read_bytes()
    spoil(home, range(1, PERSONS, 2))
    with pytest.raises(OutcomeError) as refused:
        build(spec, to=to)
    after = (to / "CURRENT").read_bytes()
    receipts = len(list((to / "data").glob("*/receipt.json")))
    spec.write_text(SPEC.format(home=home) + LOST)
    published = build(spec, to=to)
    return {"home": home, "to": to, "good": good, "after": after, "error": str(refused.value),
            "receipts": receipts, "published": published}  # fmt: skip


def test_a_gutted_dataset_never_replaces_a_good_one(gutted: dict[str, Any]) -> None:
    assert gutted["after"] == gutted["good"]
    text = gutted["error"]
    assert "the build lost 6 of 12 planned cases (50%), expected at most 10% (max_lost.cases)" in text
    assert "the build lost 6 of 12 planned persons (50%), expected at most 5% (max_lost.persons)" in text
    assert "undecodable_pixels: 6 cases of 6 persons" in text
    assert "write max_lost: {cases: 0.5, persons: 0.5}" in text
    # finished shards are kept: with another word in the spec nothing is built again
    assert gutted["receipts"] > gutted["published"].shards
    assert gutted["published"].resumed == gutted["published"].shards
    assert "lost in the build: 6 cases of 6 persons, undecodable_pixels" in gutted["published"].text()


def test_the_tables_count_what_the_build_lost(gutted: dict[str, Any]) -> None:
    """Flow, attrition and balance, rebuilt by pandas from the index and the ledger."""
    version = gutted["to"] / "versions" / (gutted["to"] / "CURRENT").read_text().split()[0]
    tables = {name: pd.read_parquet(version / f"{name}.parquet")
              for name in ("index", "cohort", "exclusions", "splits", "ledger")}  # fmt: skip
    report = json.loads((version / "report" / "report.json").read_bytes())
    assert wrong_tables(report, **tables, ratios={"train": 0.5, "test": 0.5}, rules=["image", "geometry"]) == {}
    index, ledger, cohort = tables["index"], tables["ledger"], tables["cohort"]
    entry = next(e for e in report["attrition"] if e["column"] == "vendor")
    for row in entry["levels"]:
        persons = set(cohort[cohort.vendor == row["level"]].person_key)
        lost = ledger[(ledger.stage == "shard") & ledger.person_key.isin(persons - set(index.person_key))]
        assert row["candidates"] == len(persons)
        assert row["stayed"]["count"] == len(persons & set(index.person_key))
        expected = lost.drop_duplicates("person_key").reason.value_counts().to_dict()
        assert row["removed_by"] == {f"build: {reason}": count for reason, count in expected.items()}
    assert {row["stayed"]["count"] for row in entry["levels"]} == {0, 6}
    assert entry["p"] < 0.01
    # what left at each stage, and that it adds up to what was found
    for stage in ("index", "labels", "shard"):
        rows = [row for box in report["flow"]["boxes"] for row in box["left"] if row["stage"] == stage]
        mine = ledger[(ledger.stage == stage) & ledger.series_key.notna()]
        assert sum(row["instances"] for row in rows) == len(mine)
    gone = [box["persons_gone"] for box in report["flow"]["boxes"]]
    assert gone == [0, 0, PERSONS - index.person_key.nunique(), None]
    assert sum(report["balance"]["lost"].values()) == PERSONS - index.person_key.nunique()
    dealt = tables["splits"][tables["splits"].person_key.isin(index.person_key)]
    assert report["balance"]["overall"]["counts"] == {s: int((dealt.split == s).sum()) for s in ("train", "test")}


@pytest.mark.parametrize(
    ("lost", "planned", "refused"),
    [(4, 12, False), (5, 100, False), (5, 99, True), (10, 100, True), (11, 100, True), (0, 10, False)],
)
def test_losses_are_measured_in_shares_and_in_numbers(lost: int, planned: int, refused: bool) -> None:
    if refused:
        with pytest.raises(OutcomeError, match=f"lost {lost} of {planned} planned persons"):
            lose(lost, planned, MostLost())
    else:
        lose(lost, planned, MostLost())


@pytest.mark.parametrize("planned", [7, 12, 29, 53, 100, 1000])
def test_the_bounds_that_a_message_tells_to_write_are_met(planned: int) -> None:
    for lost in range(5, planned, max(1, planned // 90)):
        with pytest.raises(OutcomeError) as refused:
            lose(lost, planned, MostLost(cases=0, persons=0))
        words = str(refused.value).partition("write max_lost: ")[2].splitlines()[0]
        told = {name: float(share) for name, share in re.findall(r"(\w+): ([\d.]+)", words)}
        assert told.keys() == {"cases", "persons"}
        lose(lost, planned, MostLost(cases=told["cases"], persons=told["persons"]))
        with pytest.raises(OutcomeError, match=r"\(max_lost.persons\)"):
            lose(lost, planned, MostLost(cases=told["cases"], persons=round(told["persons"] - 0.01, 2)))


def test_a_bound_of_numbers_alone() -> None:
    lose(40, 100, MostLost(cases=0, persons=0, at_least=41))
    with pytest.raises(OutcomeError, match="or fewer than 40"):
        lose(40, 100, MostLost(cases=0, persons=0, at_least=40))
    lose(40, 100, MostLost(cases=0.4, persons=0.4, at_least=1))
    with pytest.raises(OutcomeError, match=r"lost 1 of 100 planned cases \(1%\), expected at most 0%"):
        lose(1, 100, MostLost(cases=0, persons=1, at_least=1))


@pytest.mark.parametrize(
    ("lost", "planned", "each", "refused"),
    [
        (5, 50, 50, ""),  # exactly a tenth of the cases; whoever lost some keeps others
        (5, 49, 49, r"5 of 49 planned cases \(10\.2%\), expected at most 10% \(max_lost\.cases\)"),
        (4, 30, 30, ""),  # more than a tenth, but fewer than five
        (6, 59, 59, r"6 of 59 planned cases \(10\.17%\), expected at most 10% \(max_lost\.cases\)"),
        (10, 200, 2, ""),  # exactly a twentieth of the persons: 5 of 100
        (10, 198, 2, r"5 of 99 planned persons \(5\.05%\), expected at most 5% \(max_lost\.persons\)"),
        (8, 80, 2, ""),  # 4 of 40 persons are a tenth of them, but fewer than five
        (19, 190, 2, r"9 of 95 planned persons \(9\.47%\)"),  # exactly a tenth of the cases all the same
    ],
)
def test_cases_and_persons_are_judged_apart(lost: int, planned: int, each: int, refused: str) -> None:
    if not refused:
        return lose(lost, planned, MostLost(), each=each)
    with pytest.raises(OutcomeError, match=refused) as told:
        lose(lost, planned, MostLost(), each=each)
    assert str(told.value).count("the build lost") == 1


def lose(lost: int, planned: int, most: MostLost, *, each: int = 1) -> None:
    """Judge a build that lost the first of its planned cases, of which each person has so many."""
    cases = [SimpleNamespace(case_key=f"c{n}", person_key=f"p{n // each}") for n in range(planned)]
    splits = SimpleNamespace(ratios={}, hold_out=(), may_be_empty=(), model_fields_set=set())
    made = SimpleNamespace(spec=SimpleNamespace(max_lost=most, splits=splits, sources=()), cases=cases,
                           cohort=SimpleNamespace(num_rows=planned))  # fmt: skip
    left = [{"person_key": case.person_key, "split": "train"} for case in cases[lost:]]
    losses = [Loss("crashed", lost, lost, ("c0",), "it crashed")] if lost else []
    check_build(made, losses, builder_table(left))  # type: ignore[arg-type]


def builder_table(rows: list[dict[str, str]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=pa.schema([("person_key", pa.string()), ("split", pa.string())]))


def test_a_plan_says_what_a_build_will_do_and_explains_it(tmp_path: Path, capsys) -> None:
    rules = "  rules: [{name: maker, keep: \"vendor in ['siemens', 'Philips']\"}]\n"
    spec = write(tmp_path, persons=4)
    text = spec.read_text().replace(
        "  image: \"modality == 'CT'\"\n", "  image: \"modality in ['CT', 'DX']\"\n" + rules
    )
    spec.write_text(text + "volumes: {single_slice: exclude}\n")
    image = ct_series(tmp_path / "in" / "dx", patient_id="DX1", slices=1, shape=(8, 8)).images[0]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    image.Modality = "DX"
    image.save_as(next((tmp_path / "in" / "dx").glob("*.dcm")))
    assert typed("plan", spec, "--to", tmp_path / "d") == 1
    out = capsys.readouterr().out
    assert "rule image (modality in ['CT', 'DX']) keeps 5 of 5 stacks: modality CT 4, DX 1" in out
    assert "no vendor is 'siemens': found GE 2, Siemens 2" in out
    assert "did you mean 'Siemens'?" in out
    assert "geometry: 1 projection, unsupported_object (volumes: {projection: keep}, or samples: {kind: images}" in out
    assert "a build would publish nothing: no case is left of 5 image stacks" in out
    assert "0 shards (0 are there already)" in out
    for name, told in (
        ("W01", "excluded at stage cohort: cohort_rule"),
        (tmp_path / "in" / "p01", "rule maker, reason cohort_rule"),
        ("p01", "rule maker, reason cohort_rule"),
        (tmp_path / "in" / "blob", "quarantined at stage index: not_dicom"),
        ("blob", "rule readable, reason not_dicom"),
        ("./p01/", "rule maker, reason cohort_rule"),
        (tmp_path / "in", "quarantined at stage index: not_dicom"),
    ):
        assert typed("explain", tmp_path / "d", name) == 0
        assert told in capsys.readouterr().out, name
    assert typed("explain", tmp_path / "d", "nobody") == 1
    said = capsys.readouterr().err
    assert "found nothing by that name in the last plan, expected a UID, PatientID or path of the archive, or" in said


def test_a_plan_says_which_pixels_the_build_will_refuse(tmp_path: Path) -> None:
    spec = write(tmp_path, persons=6)
    for path in (tmp_path / "in" / "p01").glob("*.dcm"):
        image = pydicom.dcmread(path)
        image.BurnedInAnnotation = "YES"
        image.save_as(path)
    planned = plan(spec, to=tmp_path / "d")
    assert sum(planned.forecast["pixels_refused"].values()) == 1
    assert "burned-in text: the build will refuse 1 case: found an image that declares burned-in" in planned.text()
    spec.write_text(spec.read_text().replace("test: 0.5}}", "test: 0.5}, may_be_empty: [train, test]}"))
    assert build(spec, to=tmp_path / "d").published.lost[0]["reason"] == "burned_in_annotation"


def test_explain_prefers_what_is_newer(tmp_path: Path, capsys) -> None:
    spec = write(tmp_path, persons=2)
    build(spec, to=tmp_path / "d")
    version = (tmp_path / "d" / "CURRENT").read_text().split()[0]
    assert typed("explain", tmp_path / "d", "W01") == 0
    assert f"4 objects found by version {version}" in capsys.readouterr().out
    spec.write_text(spec.read_text().replace("'CT'", "'MR'"))
    assert typed("plan", spec, "--to", tmp_path / "d") == 1
    capsys.readouterr()
    assert typed("explain", tmp_path / "d", tmp_path / "in" / "p01") == 0
    assert "4 objects found by the last plan" in capsys.readouterr().out
    planned = plan(tmp_path / "spec.yaml", to=tmp_path / "e")
    assert planned.refused


def test_a_build_that_is_refused_before_it_begins_explains_itself(tmp_path: Path, capsys) -> None:
    spec = write(tmp_path, persons=2)
    spec.write_text(spec.read_text().replace("'CT'", "'MR'"))
    assert typed("build", spec, "--to", tmp_path / "d") == 1
    capsys.readouterr()
    assert typed("explain", tmp_path / "d", tmp_path / "in" / "p01") == 0
    assert "4 objects found by the last plan" in capsys.readouterr().out


def test_an_empty_split_is_refused_unless_the_spec_lets_it_be(tmp_path: Path) -> None:
    spec = write(tmp_path, persons=1)
    with pytest.raises(OutcomeError, match=r"write splits: \{may_be_empty: \[test\]\}"):
        build(spec, to=tmp_path / "d")
    assert not (tmp_path / "d" / "CURRENT").exists()
    spec.write_text(spec.read_text().replace("test: 0.5}}", "test: 0.5}, may_be_empty: [test]}"))
    assert build(spec, to=tmp_path / "d").published.samples == 1


def test_copies_that_empty_a_split_are_told(tmp_path: Path) -> None:
    spec = write(tmp_path, persons=2)
    for path in (tmp_path / "in" / "p01").glob("*.dcm"):
        image = pydicom.dcmread(path)
        twin = next(p for p in (tmp_path / "in" / "p00").glob("*.dcm") if p.name == path.name)
        image.PixelData = pydicom.dcmread(twin).PixelData
        image.save_as(path)
    with pytest.raises(OutcomeError, match=r"2 persons were put into one split with others, .* \{on_match: report\}"):
        build(spec, to=tmp_path / "d")


def test_ctrl_c_says_that_the_same_command_continues(tmp_path: Path, capsys, monkeypatch) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    spec = write(tmp_path, persons=1)
    monkeypatch.setattr(pipeline, "take_inventory", press)
    assert typed("build", spec, "--to", tmp_path / "d") == 130
    assert "interrupted; nothing was published and finished shards stay: the same command continues" in (
        capsys.readouterr().err
    )


def test_names_in_any_encoding_cost_nothing(tmp_path: Path, capsys, monkeypatch) -> None:
    """As from an old server, and where the locale knows ASCII alone."""
    spec = write(tmp_path, persons=2)
    (tmp_path / "in" / "p00").rename(tmp_path / "in" / os.fsdecode(b"M\xfcller"))
    (tmp_path / "in" / "p01").rename(tmp_path / "in" / "Müller 日本語")
    ascii_only = {
        **environment(),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "builder", "build", str(spec), "--to", str(tmp_path / "d ü")]
    done = subprocess.run(command, env=ascii_only, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"2 samples of 2 cases and 2 persons" in done.stdout
    current = (tmp_path / "d ü" / "CURRENT").read_bytes()
    build(spec, to=tmp_path / "e")
    assert (tmp_path / "e" / "CURRENT").read_bytes() == current
    for place in (tmp_path / "in" / os.fsdecode(b"M\xfcller"), tmp_path / "in" / "Müller 日本語"):
        assert typed("explain", tmp_path / "e", place) == 0
        assert typed("explain", tmp_path / "e", next(place.iterdir())) == 0
    for verb in ("explain", "inspect"):
        assert typed(verb, tmp_path / "e", os.fsdecode(b"M\xfcller 2")) == 1
    spec.write_text(spec.read_text().replace(f"{tmp_path}/in", "${data}"))
    odd = os.fsdecode(b"M\xfcller")
    assert typed("plan", spec, "--to", tmp_path / "f", "--param", f"data={tmp_path}/in/{odd}") == 2
    assert re.search(r"parameter data: found .*, which is not UTF-8", capsys.readouterr().err)
    assert typed("plan", spec, "--to", os.fsdecode(b"\xfc"), "--param", f"data={tmp_path}/in") == 2
    assert re.search(r"--to: found '.*udcfc', which is not UTF-8", capsys.readouterr().err)
    (tmp_path / os.fsdecode(b"\xfc")).mkdir()
    monkeypatch.chdir(tmp_path / os.fsdecode(b"\xfc"))
    assert typed("plan", spec, "--to", "d", "--param", f"data={tmp_path}/in") == 2
    assert re.search(r"--to: found '.*udcfc/d', which is not UTF-8", capsys.readouterr().err)
    for words in (
        ("scan", "."),
        ("init", "."),
        ("volumes", tmp_path / "in", "--to", "v"),
        ("volumes", ".", "--to", "/v"),
    ):
        assert typed(*words) == 2
        assert "which is not UTF-8" in capsys.readouterr().err


def test_a_file_that_was_written_again_is_told_or_read_again(tmp_path: Path, capsys) -> None:
    spec = write(tmp_path, persons=2)
    command = ("build", spec, "--to", tmp_path / "d")
    assert typed(*command) == 0
    before = [sample["image"].astype(float) for sample in builder.open_dataset(tmp_path / "d", uses="off")]
    path = next((tmp_path / "in" / "p00").glob("*.dcm"))
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    path.rename(path.with_name("renamed.dcm"))
    capsys.readouterr()
    assert typed(*command) == 0
    said = capsys.readouterr()
    assert "nothing to do" in said.out
    assert "files were written again since then, with the same headers and lengths" in said.out
    assert "1 file was written again after the shards were planned" in said.err
    spec.write_text(spec.read_text().replace('/in"}', '/in", identity: content}'))
    assert typed(*command) == 0
    assert "written again" not in "".join(capsys.readouterr())
    after = [sample["image"].astype(float) for sample in builder.open_dataset(tmp_path / "d", uses="off")]
    assert np.count_nonzero(np.stack(after) != np.stack(before)) == 1


def test_a_dataset_is_read_from_a_plain_web_server(tmp_path: Path) -> None:
    """One that gives no ranges, such as python -m http.server."""
    spec = write(tmp_path, persons=2)
    build(spec, to=tmp_path / "a set")
    quiet: Callable[..., Any] = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        far = builder.open_dataset(f"http://127.0.0.1:{server.server_address[1]}/a%20set", uses="off")
        near = builder.open_dataset(tmp_path / "a set", uses="off")
        assert len(far) == len(near) == 2
        assert all(np.array_equal(far[i]["image"], near[i]["image"]) for i in range(2))
        server.shutdown()
