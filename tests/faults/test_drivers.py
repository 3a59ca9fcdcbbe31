"""Drivers and schedulers killed at random moments, and the same command typed again."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.builds import Build, Case, Server, count, portions
from tests.faults.roles import ALONE, Roles, open_roles

LOCAL = ("--cluster", "local", "--workers", "1")
SERIAL_KILLS = count("SERIAL_KILLS", ci=4, long=100)
LOCAL_DRIVER_KILLS = count("LOCAL_DRIVER_KILLS", ci=3, long=40)
REMOTE_DRIVER_KILLS = count("REMOTE_DRIVER_KILLS", ci=3, long=60)
SCHEDULER_KILLS = count("SCHEDULER_KILLS", ci=4, long=120)
"""More than the table asks for: some builds end before their scheduler is killed."""
AT_ONCE = 8


def kill_again_and_again(disturb: Callable[..., Case], place: tuple[str, ...], kills: int, dice: random.Random) -> None:
    """Build the same dataset until it is published, each time killed with all it started; then another one."""
    done, rounds = 0, 0
    while done < kills:
        assert rounds < 10 + 2 * kills, "no build could be caught at work"
        case = disturb(*place, name=f"dataset-{rounds}")
        while done < kills and caught(case, dice):
            done += 1
        case.more = ()
        rounds += 1


def caught(case: Case, dice: random.Random) -> bool:
    """Start a build and kill it and all it started when it got on for a random number of times; False if it ended."""
    build = case.start()
    for _ in range(dice.randrange(1, 12)):
        if not build.at_work_after(case, dice):
            assert build.wait() == 0, build.said()
            return False
    build.kill()
    return build.wait() == -9


@pytest.mark.fault("SIGKILL of the driver and all it started; the same command again")
@pytest.mark.parametrize("kills", portions(SERIAL_KILLS, size=20))
def test_serial_drivers(disturb: Callable[..., Case], dice: random.Random, kills: int, record_property) -> None:
    kill_again_and_again(disturb, (), kills, dice)
    record_property("times", kills)


@pytest.mark.fault("SIGKILL of the driver and all it started; the same command again")
@pytest.mark.parametrize("kills", portions(LOCAL_DRIVER_KILLS, size=10))
def test_drivers_with_workers(disturb: Callable[..., Case], dice: random.Random, kills: int, record_property) -> None:
    kill_again_and_again(disturb, LOCAL, kills, dice)
    record_property("times", kills)


@pytest.mark.fault("SIGKILL of the driver and all it started; the same command again")
@pytest.mark.parametrize("kills", portions(REMOTE_DRIVER_KILLS, size=20))
def test_drivers_of_a_running_cluster(
    server: Server, disturb: Callable[..., Case], dice: random.Random, tmp_path: Path, kills: int, record_property
) -> None:
    """The workers live on, and what they still write comes late."""
    with open_roles(server, tmp_path / "roles", *ALONE) as roles:
        kill_again_and_again(disturb, roles.place, kills, dice)
    record_property("times", kills)


@pytest.mark.fault("SIGKILL of the scheduler; the same command with a new one")
@pytest.mark.parametrize("kills", portions(SCHEDULER_KILLS, size=AT_ONCE))
def test_schedulers(
    server: Server, disturb: Callable[..., Case], dice: random.Random, tmp_path: Path, kills: int, record_property
) -> None:
    """The driver ends by itself and says what to do; several such builds at once, for it waits before it gives up."""
    cases = [disturb(name=f"dataset-{number}") for number in range(kills)]
    killed = 0
    with ExitStack() as stack:
        for build in list(struck(server, cases, dice, stack, tmp_path)):
            if build.wait() == 0:  # it had published when the scheduler died
                continue
            killed += 1
            assert build.wait() == 1, build.said()
            assert "run the same command again" in build.said()
            assert "Traceback" not in build.said()
    with open_roles(server, tmp_path / "roles", *ALONE) as roles:
        for case in cases:
            case.more = roles.place
            case.finish()
            case.more = ()
    record_property("times", killed)


def struck(server: Server, cases: list[Case], dice: random.Random, stack: ExitStack, folder: Path) -> Iterator[Build]:
    """A build of each case, its scheduler killed when it got on for a random number of times."""
    for number, case in enumerate(cases):
        roles: Roles = stack.enter_context(open_roles(server, folder / f"roles-{number}", *ALONE, workers=1))
        case.more = roles.place
        build = case.start()
        for _ in range(dice.randrange(1, 9)):
            build.at_work_after(case, dice)
        roles.scheduler.kill()
        yield build
