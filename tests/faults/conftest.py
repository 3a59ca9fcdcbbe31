"""One small archive, one undisturbed build of it, and the process that forks the disturbed ones."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
        assert len(poller.versions) == case.versions


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of the run: how often each fault was tried, and how likely one still does harm (95 %: 3/n)."""
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            if "tests/faults/" not in report.nodeid:
                continue
            name = report.nodeid.partition("::")[2].partition("[")[0]
            if outcome == "passed":
                tried[name] += int(dict(report.user_properties).get("times", 1))
            else:
                failed[name] += 1
    if tried or failed:
        terminalreporter.write_line(f"{'fault':60} {'tried':>6} {'harm':>5}  95 % bound")
    for name in sorted({*tried, *failed}):
        bound = f"{3 / tried[name]:.4f}" if tried[name] and not failed[name] else ""
        terminalreporter.write_line(f"{name:60} {tried[name]:6} {failed[name]:5}  {bound}")
