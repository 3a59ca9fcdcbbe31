"""The plug is pulled at any time, and the same command typed again: what was not flushed is gone."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.storage import CRASH_VARIABLE
from tests.faults import power
from tests.faults.builds import Case, count, portions

FAILURES = count("POWER", ci=10, long=200)
POINTS = ("write.tmp", "write.renamed", "commit.before", "commit.renamed", "create.linked", "publish.done")


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
    assert power.fail(log, [case.target], random.Random(1)) == 0
    log.write_text("")
    before = sum(p.stat().st_size for p in case.target.rglob("*") if p.is_file())
    copy = tmp_path / "copy"
    case.target.rename(copy)
    assert power.fail(log, [copy], random.Random(1)) > 20
    assert before > sum(p.stat().st_size for p in copy.rglob("*") if p.is_file()) == 0
