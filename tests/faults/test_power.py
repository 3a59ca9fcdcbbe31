"""The plug is pulled at any time, and the same command typed again: what was not flushed is gone."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.storage import CRASH_VARIABLE
from tests.faults import power
from tests.faults.builds import Case, count, portions

FAILURES = count("POWER", ci=6, long=200)
POINTS = (
    *("folder.made", "write.tmp", "write.renamed", "commit.before", "commit.renamed"),
    *("create.linked", "publish.done"),
)


@pytest.mark.fault("power failure at any time: what was not flushed is lost; the same command again")
@pytest.mark.parametrize("failures", portions(FAILURES, size=20))
def test_the_plug_is_pulled(
    disturb: Callable[..., Case], dice: random.Random, tmp_path: Path, failures: int, record_property
) -> None:
    """At random moments, and as often right after a step whose order matters."""
    done, rounds = 0, 0
    while done < failures:
        case = disturb(name=f"dataset-{rounds}")
        log = tmp_path / f"power-{rounds}.jsonl"
        while done < failures and struck(case, log, dice):
            power.fail(log, [case.target, case.private], dice)
            done += 1
        rounds += 1
        assert rounds < 10 + 2 * failures, "no build could be caught at work"
    record_property("times", done)


class Worst(random.Random):
    """What may be lost is lost."""

    def random(self) -> float:
        return 1.0


@pytest.mark.fault("SIGKILL before a flush, continued and published; then a power failure")
@pytest.mark.parametrize("number", range(count("UNFLUSHED", ci=4, long=40)))
def test_what_a_killed_build_left_unflushed_is_flushed_by_the_next(
    disturb: Callable[..., Case], tmp_path: Path, number: int
) -> None:
    """Names that three builds gave and could not flush are in the fourth one's dataset: the power may not take them."""
    case = disturb()
    log = tmp_path / "power.jsonl"
    for point in (
        f"folder.made:{20 + 11 * number % 70}",
        f"write.renamed:{20 + 7 * number % 40}",
        f"commit.renamed:{1 + number % 4}",
    ):
        build = case.start(env={CRASH_VARIABLE: point}, fault={"power": str(log)})
        assert build.wait() in (0, -9), build.said()
    build = case.start(fault={"power": str(log)})
    assert build.wait() == 0, build.said()
    gc = case.command("gc", str(case.target))
    assert gc.wait() == 0, gc.said()
    lost = power.fail(log, [case.target], Worst())
    assert [name for name in lost if "/journal/" not in name] == [], "a dead build's log may lose its end, nothing else"


@pytest.mark.parametrize("number", [0, -1])
def test_an_object_that_a_disk_lost_is_built_again(disturb: Callable[..., Case], number: int) -> None:
    """A finished shard lacks an object when the same command is typed again: the shard is not taken for finished."""
    case = disturb()
    build = case.start(env={CRASH_VARIABLE: "publish.manifest"})
    assert build.wait() == -9, build.said()
    objects = [p for p in case.target.glob("data/*/**/*") if p.is_file() and p.name != "receipt.json"]
    sorted(objects)[number].unlink()


def struck(case: Case, log: Path, dice: random.Random) -> bool:
    """Start a build and pull the plug; False when it ended before."""
    point = f"{dice.choice(POINTS)}:{dice.randrange(1, 40)}" if dice.random() < 0.5 else ""
    build = case.start(env={CRASH_VARIABLE: point} if point else {}, fault={"power": str(log)})
    if not point:
        for _ in range(dice.randrange(1, 12)):
            build.at_work_after(case, dice)
        if build.poll() is None:
            build.kill()
    status = build.wait()
    assert status in (0, -9), build.said()
    return status == -9


def test_a_build_that_does_not_flush_is_found_out(disturb: Callable[..., Case], tmp_path: Path) -> None:
    """The model is strict: a published dataset without its flushes is not one."""
    case = disturb()
    log = tmp_path / "power.jsonl"
    build = case.start(fault={"power": str(log)})
    assert build.wait() == 0, build.said()
    assert power.fail(log, [case.target], random.Random(1)) == []
    log.write_text("")
    before = sum(p.stat().st_size for p in case.target.rglob("*") if p.is_file())
    copy = tmp_path / "copy"
    shutil.copytree(case.target, copy)
    assert len(power.fail(log, [copy], random.Random(1))) > 20
    assert before > sum(p.stat().st_size for p in copy.rglob("*") if p.is_file()) == 0
