"""A withdrawal killed at every named step, and continued by the same command."""

import shutil
import signal
from pathlib import Path

import pytest

import builder
from builder.storage import CRASH_VARIABLE
from tests.faults.builds import RUN, Case, Server, leftovers, tree

OFTEN = ("publish.done:1", "withdraw.version:5")
"""Those that CI tries."""
POINTS = (
    *OFTEN, "copy.case:2", "publish.current:1", "withdraw.private:3", "withdraw.begun:1",
    "withdraw.planned:1", "copy.case:1", "shard.finish:1", "shard.receipt:1",
    "publish.manifest:1",
    "swap.guarded:1", "withdraw.published:1", "withdraw.needles:1", "withdraw.marked:1",
    "withdraw.version:1", "withdraw.shard:1", "withdraw.shard:7", "withdraw.private:1", "withdraw.private:12",
    "withdraw.certified:1",
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
    assert sum(1 for sample in found if sample["image"].size) in (20, 18)
    assert tree(_finished(case)) == tree(withdrawn)
    assert leftovers(case.target) == []


def _copied(server: Server, spec: Path, undisturbed: Path, folder: Path) -> Case:
    for home in (undisturbed, undisturbed.with_name(undisturbed.name + ".private")):
        shutil.copytree(home, folder / home.name)
    (folder / "who.txt").write_text("W005\n")
    return Case(server, spec, folder / undisturbed.name)


def _words(case: Case) -> tuple[str, ...]:
    return ("withdraw", str(case.target), "--file", str(case.target.with_name("who.txt")), "--reason", "consent")


def _finished(case: Case) -> Path:
    again = case.command(*_words(case))
    assert again.wait() == 0, again.said()
    gc = case.command("gc", str(case.target))
    assert gc.wait() == 0, gc.said()
    return case.target
