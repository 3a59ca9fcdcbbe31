"""A withdrawal killed at every named step, and continued by the same command."""

import hashlib
import json
import shutil
import signal
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import builder
from builder.deid import resolve_key
from builder.planning.left_out import names_file
from builder.sources.recordings import Recording, check_recorded, recording
from builder.storage import CRASH_VARIABLE, LocalStore
from tests.endtoend.trees import KEY
from tests.faults.builds import PERSONS, RUN, Case, Server, leftovers, tree

OFTEN = ("publish.done:1", "withdraw.version:5", "withdraw.elsewhere:3")
"""Those that CI tries."""
POINTS = (
    *OFTEN, "copy.case:2", "publish.current:1", "withdraw.private:3", "withdraw.begun:1",
    "withdraw.planned:1", "copy.case:1", "shard.finish:1", "shard.receipt:1",
    "publish.manifest:1",
    "swap.guarded:1", "withdraw.published:1", "withdraw.needles:1", "withdraw.marked:1",
    "withdraw.version:1", "withdraw.shard:1", "withdraw.shard:7", "withdraw.private:1", "withdraw.private:12",
    "withdraw.certified:1", "withdraw.elsewhere:1", "withdraw.elsewhere:2", "withdraw.elsewhere:4",
    "withdraw.elsewhere:6", "withdraw.elsewhere:9",
)  # fmt: skip


@pytest.fixture(scope="module")
def withdrawn(server: Server, spec: Path, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset after a withdrawal that nothing disturbed."""
    return _finished(_copied(server, spec, undisturbed, tmp_path_factory.mktemp("withdrawn")))


@pytest.mark.fault("SIGKILL at a named point of a withdrawal")
@pytest.mark.parametrize("point", POINTS if RUN == "long" else OFTEN)
def test_killed_while_withdrawing(
    server: Server, spec: Path, undisturbed: Path, withdrawn: Path, tmp_path: Path, point: str
) -> None:
    case = _copied(server, spec, undisturbed, tmp_path)
    killed = case.command(*_words(case), env={CRASH_VARIABLE: point})
    assert killed.wait() == -signal.SIGKILL, killed.said()
    found = builder.open_dataset(case.target, uses="off")  # the old version or the new one, whole
    assert sum(1 for sample in found if sample["image"].size) in (2 * PERSONS, 2 * PERSONS - 2)
    assert tree(_finished(case)) == tree(withdrawn)
    assert leftovers(case.target) == []
    _check_places(undisturbed, case.target.parent)


def _copied(server: Server, spec: Path, undisturbed: Path, folder: Path) -> Case:
    for home in (undisturbed, undisturbed.with_name(undisturbed.name + ".private")):
        shutil.copytree(home, folder / home.name)
    case = Case(server, spec, folder / undisturbed.name)
    case.target.with_name("who.txt").write_text(f"W{_who(undisturbed):03d}\n")
    _fill_places(spec, case)
    return case


def _fill_places(spec: Path, case: Case) -> None:
    """A recording of the dataset's builds, a reader's cache, and marks; each has the person, and others too."""
    folder = case.target.parent
    with recording(record=str(folder / "recording")):
        check_recorded(LocalStore(case.private), "nothing-read-before")
    who = _who(case.target)
    slices = [path for n in (who - 1, who) for path in sorted((spec.parent / "archive" / f"p{n:03d}" / "ct").iterdir())]
    for number, path in enumerate(slices):
        Recording(str(folder / "recording"), "record").put(("GET", str(number)), path.read_bytes())
    for _ in builder.open_dataset(case.target, cache=folder / "cache", uses="off"):
        pass
    (folder / f"{case.target.name}.leave-out.txt").write_bytes(names_file(_keys(case.target, who)[:1]))


def _who(dataset: Path) -> int:
    """The number of a person whose shard has two others, so that cases of two others are copied."""
    index = pq.read_table(next(dataset.glob("versions/*/index.parquet")), columns=["person_key", "shard"]).to_pylist()
    shards = {row["person_key"]: row["shard"] for row in index}
    held = Counter(shards.values())
    return next(n for n in range(5, PERSONS) if held[shards[_name(n)]] > 2)


def _name(number: int) -> str:
    return resolve_key("${env:BUILDER_KEY}", {"BUILDER_KEY": KEY}).name("patient", "", f"W{number:03d}", "north")


def _keys(dataset: Path, number: int) -> list[str]:
    """The keyed name of a person, and the names of shards that the person is in."""
    private = dataset.with_name(f"{dataset.name}.private")
    latest = json.loads((private / "latest.json").read_bytes())
    rows = pq.read_table(private / latest["inventory"] / "images", columns=["patient_id", "series_uid"]).to_pylist()
    assert f"W{number:03d}" in {row["patient_id"] for row in rows}
    name = _name(number)
    index = pq.read_table(next(dataset.glob("versions/*/index.parquet")), columns=["person_key", "shard"]).to_pylist()
    return [name, *sorted({row["shard"] for row in index if row["person_key"] == name})]


def _check_places(undisturbed: Path, folder: Path) -> None:
    """Search every byte beside the dataset for the person's name, files and shards; those of others are there."""
    who = _who(undisturbed)
    person, *shards = _keys(undisturbed, who)
    digests = {path: _digest(path) for path in undisturbed.rglob("data/**/*") if path.is_file()}
    own = {d for path, d in digests.items() if path.relative_to(undisturbed).parts[1] in shards}
    own -= {d for path, d in digests.items() if path.relative_to(undisturbed).parts[1] not in shards}
    cached = {path.name for path in (folder / "cache").rglob("*") if path.is_file()}
    assert len(own) > 2
    assert cached
    assert own.isdisjoint(cached)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "who.txt"]
    assert not [p for p in files if own & {_digest(p)} or person.encode() in p.read_bytes()]
    assert not [p for p in files if f"W{who:03d}".encode() in p.read_bytes()]
    assert not list((folder / "recording").rglob("*.json"))
    assert (folder / f"{undisturbed.name}.leave-out.txt").read_bytes() == names_file([])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _words(case: Case) -> tuple[str, ...]:
    who, cache = (str(case.target.with_name(name)) for name in ("who.txt", "cache"))
    return ("withdraw", str(case.target), "--file", who, "--reason", "consent", "--also", cache)


def _finished(case: Case) -> Path:
    again = case.command(*_words(case))
    assert again.wait() == 0, again.said()
    gc = case.command("gc", str(case.target))
    assert gc.wait() == 0, gc.said()
    return case.target
