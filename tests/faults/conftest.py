"""One small archive, one undisturbed build of it, and the process that forks the disturbed ones."""

import fcntl
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import counts
from tests.faults.archive import write_archive, write_spec
from tests.faults.builds import INNOCENTS, PERSONS, Case, Poller, Server, leftovers, open_server, tree


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process of a run to need it makes, and the others find."""
    home = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        home = home.parent
    folder, done = home / name, home / f"{name}.done"
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of the small archive: 10 cases in some 5 shards, unless ``make withdrawals`` asks for more."""
    made = once(
        tmp_path_factory,
        "small",
        lambda at: write_spec(at / "spec.yaml", write_archive(at / "archive", persons=PERSONS)),
    )
    return made / "spec.yaml"


@pytest.fixture(scope="session")
def server(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_server() as opened:
        opened.warm(spec, tmp_path_factory.mktemp("warm"))
        yield opened


@pytest.fixture(scope="session")
def undisturbed(server: Server, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as the serial runner builds it when nothing happens."""
    made = once(tmp_path_factory, "undisturbed", lambda at: Case(server, spec, at / "dataset").finish())
    return made / "dataset"


@pytest.fixture
def disturb(server: Server, spec: Path, undisturbed: Path, tmp_path: Path) -> Iterator[Callable[..., Case]]:
    """A target that is watched by a reader and compared with the undisturbed dataset at the end of the test."""
    yield from _disturb(server, spec, undisturbed, tmp_path)


@pytest.fixture
def disturb_crowd(
    server: Server, crowd: Path, crowd_undisturbed: Path, tmp_path: Path
) -> Iterator[Callable[..., Case]]:
    """As ``disturb``, with the crowd."""
    yield from _disturb(server, crowd, crowd_undisturbed, tmp_path)


def _disturb(server: Server, spec: Path, undisturbed: Path, tmp_path: Path) -> Iterator[Callable[..., Case]]:
    cases: list[tuple[Case, Poller]] = []

    def make(*more: str, name: str = "dataset", env: dict[str, str] | None = None) -> Case:
        case = Case(server, spec, tmp_path / name, more, env or {})
        cases.append((case, Poller(case.target)))
        cases[-1][1].start()
        return case

    yield make
    for case, poller in cases:
        case.finish()
        poller.stop()
        assert poller.faults == []
        assert tree(case.target) == tree(undisturbed)
        assert leftovers(case.target) == []
        assert len(poller.versions) == case.versions


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Chance, the same in every run of a test and another one in each test."""
    return random.Random(request.node.name)


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of 63 persons, one a shard: many tasks, so that a build can be caught at work again and again."""
    return write_crowd(tmp_path_factory, persons=63)


@pytest.fixture(scope="session")
def crowd_undisturbed(server: Server, crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = once(tmp_path_factory, "crowd-undisturbed", lambda at: Case(server, crowd, at / "dataset").finish())
    return made / "dataset"


@pytest.fixture(scope="session")
def innocents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of so many innocents, one a shard, and of 3 persons beside them who may become deadly."""
    return write_crowd(tmp_path_factory, persons=INNOCENTS + 3)


def write_crowd(factory: pytest.TempPathFactory, *, persons: int) -> Path:
    """The spec of an archive of ``persons``, one a shard."""

    def make(at: Path) -> None:
        write_spec(at / "spec.yaml", write_archive(at / "archive", persons=persons), cases=1)

    return once(factory, f"crowd-{persons}", make) / "spec.yaml"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what passed in the run that is continued; mix the faults, so that an unfinished run has tried each.

    Sockets that a fault left open may be collected during any later test of the process, which is not to blame.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))
    if os.environ.get(counts.VARIABLE) is None:
        return
    passed = counts.passed()
    done = [item for item in items if item.nodeid in passed]
    config.hook.pytest_deselected(items=done)
    items[:] = sorted(
        (item for item in items if item.nodeid not in passed),
        key=lambda item: hashlib.sha256(item.nodeid.encode()).hexdigest(),
    )


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Which row of the table a test belongs to."""
    marker = request.node.get_closest_marker("fault")
    if marker is not None:
        parameters = getattr(getattr(request.node, "callspec", None), "params", {})
        record_property("fault", marker.args[0].format(**parameters))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        counts.note(report)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in counts.table():
        terminalreporter.write_line(line)
