"""Real clusters on this machine: only ``make test-cluster`` starts them (it sets BUILDER_CLUSTER_TESTS)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.daemons import daemon
from tests.endtoend.trees import KEY, ROOT, SARCOMA, run, tree
from tests.faults.archive import write_archive, write_spec

HERE = Path(__file__).resolve().parent
WANTED = bool(os.environ.get("BUILDER_CLUSTER_TESTS"))
DAEMONS = ("test_slurm.py", "test_ssh.py", "test_tls.py", "test_s3.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.path.name in DAEMONS and not WANTED:
            item.add_marker(pytest.mark.skip(reason="starts daemons: make test-cluster"))


@pytest.fixture(scope="session")
def arguments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """SPEC and parameters: the sarcoma cohort, or with BUILDER_CLUSTER_SMALL the archive of the fault tests."""
    if os.environ.get("BUILDER_CLUSTER_SMALL"):
        folder = tmp_path_factory.mktemp("small")
        return (write_spec(folder / "spec.yaml", write_archive(folder / "archive")),)
    return (SARCOMA, "--param", f"corpus={request.getfixturevalue('corpus')('sts')}")


@pytest.fixture(scope="session")
def serial(arguments: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree that the serial runner builds."""
    target = tmp_path_factory.mktemp("serial") / "dataset"
    run("build", *arguments, "--to", target)
    return tree(target)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from daemon("slurm", tmp_path_factory)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from daemon("ssh", tmp_path_factory)
