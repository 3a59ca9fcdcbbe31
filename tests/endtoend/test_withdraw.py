"""A person leaves a published dataset: searched for byte by byte, and compared with a build from the sources."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import builder
from builder.cli.runs import keyed_only
from builder.deid import resolve_key
from builder.errors import LayoutError, SpecError
from builder.library.absence import Needles
from builder.library.diff import diff
from builder.library.export import export
from builder.library.training import record_training
from builder.library.verify import verify
from builder.library.versions import open_version
from builder.plan import CasePlan, assign_buckets
from builder.planning.left_out import names_file
from builder.run.elsewhere import Kind, Place, search_places
from builder.run.gc import collect
from builder.run.pipeline import build
from builder.run.withdraw import withdraw
from builder.run.withdrawals import Gone, Policy, parse_policy
from tests.endtoend.published import everything
from tests.endtoend.trees import KEY, tree
from tests.faults.archive import write_archive, write_spec
from tests.synthetic import ct_series, pattern

KEYED = resolve_key("${env:BUILDER_KEY}", {"BUILDER_KEY": KEY})
WITHDRAWN = r"^withdrawn: "
CT, MARKED = "  image: \"modality == 'CT'\"", '  leave_out: "{}/marks.txt"'
PERSONS = int(os.environ.get("BUILDER_WITHDRAW_PERSONS", "10"))
"""Persons of the archive; ``make withdrawals`` takes 200."""


def _merging() -> int:
    """Return a person without whom two shard buckets are one; a test says so of the shards that are there."""
    names = [KEYED.name("patient", "", f"W{n:03d}", "north") for n in range(PERSONS)]

    def buckets(left: list[str]) -> int:
        cases = [CasePlan(name, name, name, 0, 1, 1, 1) for name in left]
        return len(assign_buckets(cases, key=KEYED, most_cases=3, most_bytes=1 << 30))

    return next(n for n in range(3, PERSONS) if buckets([*names[:n], *names[n + 1 :]]) == buckets(names) - 1)


MERGING = _merging()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with an archive of ten persons, its spec, and the dataset that was built of it."""
    folder = tmp_path_factory.mktemp("withdraw")
    spec = write_spec(folder / "spec.yaml", write_archive(folder / "archive", persons=PERSONS))
    rows = [f"W{n:03d},{'low' if n % 2 else 'high'}" for n in range(PERSONS)]
    (folder / "clinical.csv").write_text("\n".join(["id,grade", *rows]) + "\n")
    grade = "grade: {from: grade, type: category, levels: [low, high]}"
    table = f'clinical:\n  - {{url: "{folder / "clinical.csv"}", person_id: id, columns: {{{grade}}}}}\n'
    (folder / "marks.txt").write_bytes(names_file([]))
    spec.write_text(spec.read_text().replace(CT, f"{CT}\n{MARKED.format(folder)}") + table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(spec, to=folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def left(made, tmp_path_factory) -> tuple[Path, Gone]:
    """A dataset that a person has left while its sources were away, and what was said then."""
    dataset = copied(made / "dataset", tmp_path_factory.mktemp("left"))
    run_facts = {"architecture": "U-Net", "loss": "dice", "optimizer": "adam", "learning_rate": 0.1}
    record_training(str(dataset), {**run_facts, "batch_size": 1, "epochs": 1})
    builder.open_dataset(dataset, split="train")
    export(str(dataset), str(dataset.with_name("files")), form="webdataset")
    rows = dataset.with_name("dataset.private") / "extracts" / "1.parquet"
    rows.parent.mkdir()
    pq.write_table(pa.table({"mrn": [f"W{n:03d}" for n in range(10)]}), rows)  # what a plan took out of a database
    (made / "marks.txt").write_bytes(names_file([person(dataset, MERGING)]))  # marked after the dataset was built
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        return dataset, without_sources(made, lambda: gone(dataset, MERGING))


@pytest.fixture(autouse=True)
def _key(monkeypatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


def copied(dataset: Path, folder: Path) -> Path:
    """A copy of a dataset and its private workspace."""
    for name in ("dataset", "dataset.private"):
        shutil.copytree(dataset.with_name(name), folder / name)
    return folder / "dataset"


def without_sources(made: Path, work: Callable[[], Gone]) -> Gone:
    (made / "archive").rename(made / "away")
    try:
        return work()
    finally:
        (made / "away").rename(made / "archive")


def person(dataset: Path, number: int) -> str:
    """The keyed name of a person of the archive, computed here once more."""
    name = KEYED.name("patient", "", f"W{number:03d}", "north")
    assert name in table(dataset, "registry")["person_key"].to_pylist()
    return name


def table(dataset: Path, name: str, version: str = ""):
    return pq.read_table(
        dataset / "versions" / (version or (dataset / "CURRENT").read_text().strip()) / f"{name}.parquet"
    )


def gone(dataset: Path, number: int, *, policy: Policy | None = None) -> Gone:
    return withdraw(str(dataset), people=[person(dataset, number)], policy=policy or Policy("consent"))


def voxels(dataset: Path) -> dict[str, tuple[str, bytes, bytes]]:
    """Sample to person and the bytes of its fields, as a reader gives them."""
    found = builder.open_dataset(dataset, uses="off")
    keys, people = (table(dataset, "index")[c].to_pylist() for c in ("sample_key", "person_key"))
    return {
        key: (who, sample["image"].tobytes(), sample["tumor"].tobytes())
        for key, who, sample in zip(keys, people, found, strict=True)
    }


def test_nothing_of_the_person_is_left_and_everything_of_the_others(made, left) -> None:
    old, (now, outcome) = made / "dataset", left
    assert outcome.certificate is not None
    assert outcome.certificate["absent"]
    assert json.loads(next((now / "withdrawals").iterdir()).read_bytes()) == outcome.certificate
    who, before, after = person(old, MERGING), voxels(old), voxels(now)
    mine = {key for key, (owner, *_) in before.items() if owner == who}
    assert mine
    assert after == {key: held for key, held in before.items() if key not in mine}
    splits = [
        dict(zip(*(table(d, "splits")[c].to_pylist() for c in ("person_key", "split")), strict=True))
        for d in (old, now)
    ]
    assert splits[1] == {name: split for name, split in splits[0].items() if name != who}
    # two buckets are one now, and the shards of nobody else were touched
    shards, there = ({p.parent.name: tree(p.parent) for p in d.glob("data/*/receipt.json")} for d in (old, now))
    assert len(there) == len(shards) - 1
    assert there.keys() & shards.keys()
    assert all(there[name] == shards[name] for name in there.keys() & shards.keys())
    others = b"".join(image for owner, image, _ in before.values() if owner != who)
    images = [before[key][1] for key in mine]
    rows = [image[start : start + 64] for image in images for start in range(0, len(image), 64)]
    needles = {name.encode() for name in names_of(old, who)} | set(sorted({r for r in rows if r not in others})[:24])
    assert outcome.certificate["searched_for"]["image_chunks"] == len(mine)
    assert outcome.certificate["searched_for"]["image_chunks_that_others_have_too"] == 0
    assert len(needles) > 20
    assert [n for n in needles if any(n in data for _, data in everything(old))]
    for home in (now, now.with_name("dataset.private")):
        for where, data in everything(home):
            assert not [n for n in needles if n in data], where


def names_of(dataset: Path, who: str) -> set[str]:
    """Every keyed name that only this person has, and the identifiers that the archive has of it."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for name in ("index", "cohort", "ledger"):
        for row in table(dataset, name).to_pylist():
            found[row["person_key"] == who].update(v for c, v in row.items() if c.endswith("_key") and v)
    private = dataset.with_name("dataset.private")
    inventory = private / json.loads((private / "latest.json").read_text())["inventory"]
    rows = pq.read_table(inventory / "images").to_pylist()
    mine = {v for r in rows if r["patient_id"] == f"W{MERGING:03d}" for v in (r["sop_instance_uid"], r["series_uid"])}
    assert len(mine) == 9
    return found[True] - found[False] | mine | {f"W{MERGING:03d}"}


def test_a_build_from_the_sources_gives_the_same_version(made, left, tmp_path) -> None:
    now = copied(left[0], tmp_path)
    shutil.rmtree(now / "withdrawals")
    found = tree(now)
    old = next(path.name for path in now.glob("versions/*") if not (path / "index.parquet").exists())
    shutil.rmtree(now / "data")
    shutil.rmtree(now.with_name("dataset.private"))
    built = build(made / "spec.yaml", to=now)
    assert built.resumed == 0
    assert tree(now) == found
    flow = json.loads(next(now.glob("versions/*/report/report.json")).read_text())["flow"]["boxes"][0]
    rows = [row for row in flow["left"] if row["reason"] == "withdrawn"]
    assert [(row["rule"], row["persons"], row["things"], row["instances"]) for row in rows] == [("withdrawn", 1, 1, 9)]
    rows = [row for row in table(now, "ledger").to_pylist() if row["reason"] == "withdrawn"]
    assert len(rows) == 9
    assert {row["object_key"] for row in rows} == {row["series_key"] for row in rows} == {None}
    assert verify(str(now)).faults == ()
    # an old version says why it cannot be opened, whoever asks for it, and a clean-up leaves that sign
    collect(str(now), unreferenced="delete")
    for asked in (
        lambda: builder.open_dataset(now, version=old),
        lambda: diff(f"{now}@{old}", str(now)),
        lambda: open_version(f"{now}@{old}"),
    ):
        with pytest.raises(LayoutError, match=WITHDRAWN):
            asked()
    assert verify(f"{now}@{old}").faults[0].startswith("withdrawn: ")


def test_a_person_stays_away_under_an_alias_and_with_new_series(made, left, tmp_path) -> None:
    now, who = copied(left[0], tmp_path), person(made / "dataset", MERGING)
    archive = tmp_path / "archive"
    shutil.copytree(made / "archive", archive)
    ct_series(archive / "new", patient_id="LATER", study="later", voxels=pattern((8, 32, 32)) + 3)
    ct_series(archive / "other", patient_id="STRANGER", study="stranger", voxels=pattern((8, 32, 32)) + 9)
    (tmp_path / "aliases.csv").write_text(f"id,alias\nW{MERGING:03d},LATER\n")
    text = (made / "spec.yaml").read_text().replace(str(made / "archive"), str(archive))
    text = text.replace(MARKED.format(made), "")
    (tmp_path / "marks.txt").write_bytes(names_file([who]))  # an old copy, in which everybody is gone by now
    marked = f'leave_out: "{tmp_path / "marks.txt"}"'
    aliased = (
        f'persons: {{aliases: "{tmp_path / "aliases.csv"}"}}\ncohort: {{labels: optional, {marked}, image: "modality'
    )
    spec = tmp_path / "spec.yaml"
    spec.write_text(text.replace('cohort:\n  image: "modality', aliased).replace("== 'CT'\"", "== 'CT'\"}"))
    later, stranger = (KEYED.name("patient", "", name, "north") for name in ("LATER", "STRANGER"))
    for _ in range(2):  # the alias is remembered once its table is gone, and the old name too
        build(spec, to=now)
        people = table(now, "splits")["person_key"].to_pylist()
        assert stranger in people
        assert {who, later}.isdisjoint(people)
        spec.write_text(spec.read_text().replace("persons:", "#"))
    names = {name for found in table(now, "withdrawn")["members"].to_pylist() for name in found}
    assert names >= {KEYED.name("withdrawn", who), KEYED.name("withdrawn", later)}
    assert names.isdisjoint({who, later})


def test_a_second_person_leaves_and_the_old_version_is_kept(made, left, tmp_path) -> None:
    now = copied(left[0], tmp_path)
    old = (now / "CURRENT").read_text().strip()
    outcome = without_sources(made, lambda: gone(now, 2, policy=Policy("consent", "keep")))
    assert outcome.certificate is not None
    assert outcome.certificate["absent"]
    assert person(made / "dataset", 2) not in table(now, "registry")["person_key"].to_pylist()
    assert builder.open_dataset(now, version=old, uses="off").manifest.version == old
    shutil.rmtree(now / "withdrawals")
    found = tree(now)
    shutil.rmtree(now / "data")
    shutil.rmtree(now.with_name("dataset.private"))
    build(made / "spec.yaml", to=now)
    assert all(found[path] == digest for path, digest in tree(now).items())


def test_old_versions_stay_until_their_day(made, tmp_path) -> None:
    now = copied(made / "dataset", tmp_path)
    old = (now / "CURRENT").read_text().strip()
    days = [date(2026, 11, 29), date(2026, 12, 28), date(2026, 12, 29)]
    steps = [
        withdraw(str(now), people=["W001"], policy=parse_policy("request", "after 30 days"), today=d) for d in days[:2]
    ]
    assert [(step.certificate, step.due) for step in steps] == [(None, "2026-12-29")] * 2
    assert builder.open_dataset(now, version=old, uses="off").manifest.version == old
    last = withdraw(str(now), people=["W001"], policy=parse_policy("request", "after 30 days"), today=days[2])
    assert last.certificate is not None
    assert last.certificate["absent"]
    with pytest.raises(LayoutError, match=WITHDRAWN):
        builder.open_dataset(now, version=old)


def test_reads_exports_and_training_runs_are_listed(made, left) -> None:
    outcome = left[1]
    assert (made / "marks.txt").read_bytes() == names_file([])
    assert [place["place"] for place in outcome.certificate["elsewhere"]] == [
        "log of use beside the dataset", "training reports beside the dataset", "cohort.leave_out",
    ]  # fmt: skip
    export_of_old = Place(str(left[0].with_name("files")), Kind.EXPORT, "")
    names = Needles(names=frozenset(names_of(made / "dataset", person(made / "dataset", MERGING))))
    assert search_places([export_of_old], names)[0][1] > 0
    assert sorted(read.partition(", exported as ")[2] for read in outcome.seen["reads"]) == ["", "webdataset"]
    assert "U-Net" in outcome.seen["training runs"][0]
    assert "U-Net" in outcome.text()


def test_who_cannot_be_withdrawn(made, left, tmp_path) -> None:
    with pytest.raises(SpecError, match=r"found what is no keyed name \(not shown\).*--file"):
        keyed_only(["W001"])
    assert keyed_only([person(made / "dataset", 1)])
    now = copied(left[0], tmp_path)
    with pytest.raises(LayoutError, match="found nobody of the given name"):
        withdraw(str(now), people=["NOBODY"], policy=Policy("consent"))
    with pytest.raises(LayoutError, match="withdrew before"):
        withdraw(str(now), people=[f"W{MERGING:03d}"], policy=Policy("consent"))
    with pytest.raises(SpecError, match="--reason: found 'because'"):
        Policy("because")
    with pytest.raises(SpecError, match="--old: found"):
        parse_policy("consent", "after some days")


def test_another_key_is_refused_even_for_a_new_deal(made, left, tmp_path, monkeypatch) -> None:
    now = copied(left[0], tmp_path)
    monkeypatch.setenv("BUILDER_KEY", KEY[::-1])
    spec = tmp_path / "spec.yaml"
    spec.write_text((made / "spec.yaml").read_text().replace("seed: 3", "seed: 3, fresh: true"))
    with pytest.raises(LayoutError, match="tombstones"):
        build(spec, to=now)
