"""Workers and nannies killed at random while a build is at work."""

import random
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.builds import Build, Case, Server, count, portions
from tests.faults.roles import NANNY, Roles, kill, open_roles, worker_processes

LOCAL = ("--cluster", "local", "--workers", "2")
LOCAL_KILLS = count("LOCAL_KILLS", ci=5, long=100)
REMOTE_KILLS = count("REMOTE_KILLS", ci=5, long=400)
NANNY_KILLS = count("NANNY_KILLS", ci=3, long=100)
Strike = Callable[[Build], bool]


def strike_again_and_again(
    disturb: Callable[..., Case], place: tuple[str, ...], kills: int, dice: random.Random, strike: Strike
) -> None:
    """Build after build, each struck whenever it got on, until there were ``kills`` of them."""
    done, rounds = 0, 0
    while done < kills:
        assert rounds < 10 + kills, "no build could be caught at work"
        case = disturb(*place, name=f"dataset-{rounds}")
        build = case.start()
        while done < kills and build.at_work_after(case, dice):
            done += strike(build)
        assert build.wait() == 0, build.said()
        case.more = ()  # the last look is the serial runner's
        rounds += 1


@pytest.mark.fault("SIGKILL of a random worker")
@pytest.mark.parametrize("kills", portions(LOCAL_KILLS, size=20))
def test_workers_of_a_local_cluster(
    disturb_crowd: Callable[..., Case], dice: random.Random, kills: int, record_property
) -> None:
    def strike(build: Build) -> bool:
        victims = worker_processes(build.pid)
        return bool(victims) and kill(dice.choice(victims))

    strike_again_and_again(disturb_crowd, LOCAL, kills, dice, strike)
    record_property("times", kills)


@pytest.mark.fault("SIGKILL of a random worker")
@pytest.mark.parametrize("kills", portions(REMOTE_KILLS, size=40))
def test_workers_of_a_running_cluster(
    server: Server, disturb_crowd: Callable[..., Case], dice: random.Random, tmp_path: Path, kills: int, record_property
) -> None:
    with open_roles(server, tmp_path / "roles", *NANNY) as roles:

        def strike(build: Build) -> bool:
            victims = [process for nanny in roles.workers for process in worker_processes(nanny.pid)]
            return bool(victims) and kill(dice.choice(victims))

        strike_again_and_again(disturb_crowd, roles.place, kills, dice, strike)
    record_property("times", kills)


@pytest.mark.fault("SIGKILL of nanny and worker at once")
@pytest.mark.parametrize("kills", portions(NANNY_KILLS, size=20))
def test_nannies_and_their_workers(
    server: Server, disturb_crowd: Callable[..., Case], dice: random.Random, tmp_path: Path, kills: int, record_property
) -> None:
    with open_roles(server, tmp_path / "roles", *NANNY) as roles:
        strike_again_and_again(disturb_crowd, roles.place, kills, dice, lambda build: replace_one(roles, dice))
    record_property("times", kills)


def replace_one(roles: Roles, dice: random.Random) -> bool:
    """Kill a nanny and its worker that had both started, and start another pair; False when none had."""
    ready = [nanny for nanny in roles.workers if worker_processes(nanny.pid)]
    if len(ready) < len(roles.workers):
        return False
    victim = dice.choice(ready)
    victim.kill()
    victim.wait()
    roles.workers.remove(victim)
    roles.add()
    return True


def test_driver_alone_killed_leaves_no_worker_behind(disturb: Callable[..., Case]) -> None:
    build = disturb(*LOCAL).start()
    while not (orphans := worker_processes(build.pid)):
        assert build.poll(0.05) is None
    kill(psutil.Process(build.pid))
    assert build.wait() == -9
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive
