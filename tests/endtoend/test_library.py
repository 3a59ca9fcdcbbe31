"""Published datasets as a library: compared, searched, and reported on, by the command line as a user does."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import builder
from builder.cli import main
from builder.phantom import write_archive
from builder.run.pipeline import build
from tests.catalog.records import check_records
from tests.endtoend.trees import KEY, ROOT

SPEC = (ROOT / "specs" / "phantom.yaml").read_text()
SIX = ("--architecture", "U-Net", "--loss", "Dice", "--optimizer", "Adam", "--learning-rate", "1e-3",
       "--batch-size", "4", "--epochs", "50")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two datasets: ``one`` in three versions, and ``two`` made with another key; and their versions."""
    top = tmp_path_factory.mktemp("library")
    write_archive(top / "phantom", patients=8, seed=20251121)
    report = "report: {groups: [sex, age_band, race, vendor, site, grade]}"
    assert report in SPEC
    small = SPEC.replace("per_case: 4", "per_case: 1").replace(report, "report: {groups: [sex], thumbnails: 0}")
    owned = small + "governance: {owner: A hospital, responsible: Its archive}\n"
    years = '  years: ranges\n  published: "2026-01-31"\n'
    dated = owned.replace("governance:", f"{years}governance:").replace("0.6, validation: 0.2", "0.8")
    specs = {"one": (small, owned, owned.replace("  seed: 7", "  seed: 23\n  fresh: true")), "two": (dated,)}
    versions = {}
    for name, texts in specs.items():
        for text in texts:
            (top / "spec.yaml").write_text(text)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("BUILDER_KEY", KEY if name == "one" else KEY[::-1])
                done = build(top / "spec.yaml", to=top / name, parameters={"phantom": str(top / "phantom")})
            versions.setdefault(name, []).append(done.published.version)
    return top, versions


@pytest.fixture
def run(capsys):
    """A command line, its exit code checked: what it printed, errors too."""

    def call(*arguments, expect=0):
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert left.value.code == expect, printed
        return printed.out + printed.err

    return call


def test_every_record_is_valid_and_every_number_of_it_recomputed(made):
    check_records(made[0] / "two")
    (facts,) = (made[0] / "two").glob("versions/*/catalog/facts.json")
    told = json.loads(facts.read_bytes())
    assert told["periods"]
    assert {one["dimension"] for one in told["figures"]} >= {"timeliness", "coverage"}


def test_words_of_the_owner_change_no_shard(made, run):
    top, versions = made
    first, second, _ = versions["one"]
    found = json.loads(run("diff", f"{top}/one@{first}", f"{top}/one@{second}", "--json"))
    assert {c["path"]: c["b"] for c in found["spec"]} == {
        "governance.owner": "A hospital", "governance.responsible": "Its archive",
    }  # fmt: skip
    assert found["shards"]["shared"] == found["shards"]["shared"] + found["shards"]["only_a"] > 0
    assert found["persons"]["moved"] == []
    assert found["cases"]["changed"] == []


def test_persons_who_moved_are_counted(made, run):
    top, versions = made
    _, second, third = versions["one"]
    tables = [pq.read_table(top / "one" / "versions" / v / "splits.parquet").to_pandas() for v in (second, third)]
    both = tables[0].merge(tables[1], on="person_key", suffixes=("_a", "_b"))
    moved = both[both.split_a != both.split_b]
    expected = {(a, b): sum(map(len, rows.members_a)) for (a, b), rows in moved.groupby(["split_a", "split_b"])}
    found = json.loads(run("diff", f"{top}/one@{second}", f"{top}/one", "--json"))
    assert {(m["from"], m["to"]): m["members"] for m in found["persons"]["moved"]} == expected != {}
    assert found["persons"]["shared"] == len(both)
    text = run("diff", f"{top}/one@{second}", f"{top}/one")
    assert "splits.seed: 7 -> 23" in text
    assert "moved from" in text


def test_other_keys_cannot_be_matched(made, run):
    top, _ = made
    found = json.loads(run("diff", top / "one", top / "two", "--json"))
    assert found["persons"] is found["cases"] is found["samples"] is None
    assert not found["same_key"]
    assert "made with different keys" in run("diff", top / "one", top / "two")
    assert "the same version" in run("diff", top / "one", top / "one")
    assert "found no version 0" in run("diff", f"{top}/one@0", top / "one", expect=1)


def test_training_runs_and_uses_reach_the_page_and_the_search(made, run):
    top, versions = made
    builder.open_dataset(top / "two", split="train", uses="beside")
    told = run("record-training", top / "two", *SIX, "--metric", "dice=0.75", "--evaluated-on", "test")
    assert "dice 0.75 on test" in told
    assert "was recorded before" in run("record-training", top / "two", *SIX, "--metric", "dice=0.75",
                                        "--evaluated-on", "test")  # fmt: skip
    assert "expected one of" in run("record-training", top / "two", *SIX, "--evaluated-on", "hold-out", expect=1)
    assert "found nothing" in run("record-training", top / "two", *SIX[:4], expect=2)
    assert "expected a number" in run("record-training", top / "two", *SIX, "--metric", "dice=high", expect=2)
    uses = json.loads(run("uses", top / "two", "--json"))
    assert uses["by_version_and_split"] == [{"version": versions["two"][0], "split": "train", "sessions": 1}]
    records = json.loads(run("records", top / "two", "--json"))
    assert records["uses"] == 1
    assert len(records["training_runs"]) == 1
    page = Path(records["page"]).read_text()
    assert "U-Net: loss Dice" in page
    assert "1 read sessions" in page
    found = json.loads(run("catalog", top, "--modality", "ct", "--label", "tumor", "--json"))
    assert [(d["place"], d["training_runs"]) for d in found["datasets"]] == [(f"{top}/one", 0), (f"{top}/two", 1)]
    assert json.loads(run("catalog", top, "--modality", "MR", "--json"))["datasets"] == []
    assert "2 of 2 datasets" in run("catalog", top, top / "one")
