"""One small archive, one undisturbed build of it, and the process that forks the disturbed ones."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.archive import write_archive, write_spec
from tests.faults.builds import Case, Poller, Server, leftovers, open_server, tree


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with open_server() as opened:
        yield opened


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of the small archive: 10 cases in some 5 shards."""
    folder = tmp_path_factory.mktemp("faults")
    return write_spec(folder / "spec.yaml", write_archive(folder / "archive"))


@pytest.fixture(scope="session")
def undisturbed(server: Server, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as the serial runner builds it when nothing happens."""
    case = Case(server, spec, tmp_path_factory.mktemp("undisturbed") / "dataset")
    case.finish()
    return case.target


@pytest.fixture
def disturb(server: Server, spec: Path, undisturbed: Path, tmp_path: Path) -> Iterator[Callable[..., Case]]:
    """A target that is watched by a reader and compared with the undisturbed dataset at the end of the test."""
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
        assert len(poller.versions) == 1
