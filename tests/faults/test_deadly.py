"""Cases that kill their process or take memory without end, and innocents beside them."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import builder
from builder.errors import ResourceError
from builder.run.clusters.local import Local
from builder.stages.graph import WORKER_BYTES, Task
from tests.faults.builds import INNOCENTS, POISON, Case, Server, count, leftovers, portions, tree

KILLERS = count("KILLERS", ci=1, long=20)
MEMORY = count("MEMORY", ci=1, long=30)
LIMIT_GIB = 0.75
PROFILE = f"kind: local\nworkers: 2\nmemory_gib: {LIMIT_GIB}\n"


def spread(number: int, total: int) -> list[str]:
    """``total`` persons' folders, others for every number."""
    persons = INNOCENTS + 3
    return [f"p{(7 + 11 * number + persons // 3 * i) % persons:03d}" for i in range(total)]


def excluded(case: Case, reason: str) -> list[str]:
    """The details of the cases excluded for a reason."""
    version = (case.target / "CURRENT").read_text().strip()
    rows = pq.read_table(case.target / "versions" / version / "exclusions.parquet").to_pylist()
    return [row["detail"] for row in rows if row["reason"] == reason]


def seed(request: pytest.FixtureRequest) -> int:
    return int(request.node.callspec.id.partition("-")[2])


@pytest.mark.fault(f"a case that kills its process, with {INNOCENTS} innocents beside it")
@pytest.mark.parametrize("deadly", portions(KILLERS, size=2))
def test_deadly_cases_are_excluded_and_innocents_are_not(
    server: Server, innocents: Path, tmp_path: Path, request: pytest.FixtureRequest, deadly: int, record_property
) -> None:
    names = spread(seed(request), deadly)
    poison = ",".join(f"{name}={('segv', 'exit')[i % 2]}" for i, name in enumerate(names))
    env = {"PYTHONPATH": POISON, "FAULTS_POISON": poison}
    case = Case(server, innocents, tmp_path / "dataset", ("--cluster", "local", "--workers", "2"), env)
    case.finish()
    found = builder.open_dataset(case.target)
    assert found.manifest.totals["cases"] == len(set(found.table["case_key"].to_pylist())) == INNOCENTS + 3 - deadly
    assert len(excluded(case, "crashed")) == deadly
    before = tree(case.target)
    shutil.rmtree(case.target)
    case.finish()  # what was found out about the deadly cases is kept with the plan
    assert tree(case.target) == before
    assert leftovers(case.target) == []
    record_property("times", deadly)


@pytest.mark.fault(f"a case that takes memory without end, with {INNOCENTS} innocents beside it")
@pytest.mark.parametrize("deadly", portions(MEMORY, size=3))
def test_out_of_memory_is_a_reason_with_the_number(
    server: Server, innocents: Path, tmp_path: Path, request: pytest.FixtureRequest, deadly: int, record_property
) -> None:
    """Its worker is killed for it, alone too; the others are all there."""
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE)
    names = spread(seed(request), deadly)
    env = {"PYTHONPATH": POISON, "FAULTS_POISON": ",".join(f"{name}=memory" for name in names)}
    case = Case(server, innocents, tmp_path / "dataset", ("--cluster", str(profile)), env)
    case.finish()
    details = excluded(case, "out_of_memory")
    assert len(details) == deadly
    assert all(f"{int(LIMIT_GIB * 2**10)} MiB" in detail for detail in details)
    assert builder.open_dataset(case.target).manifest.totals["cases"] == INNOCENTS + 3 - deadly
    assert leftovers(case.target) == []
    record_property("times", deadly)


def test_tasks_that_cannot_fit_are_refused_before_any_starts() -> None:
    ran = Task("small", abs, 1)
    with Local(workers=1, memory_gib=1).open(None) as runner:
        with pytest.raises(ResourceError, match="1 of 2 tasks") as refused:
            list(runner.run([ran, Task("large", abs, 1, memory=1 << 30)]))
        assert (refused.value.projected, refused.value.available) == ((1 << 30) + WORKER_BYTES, 1 << 30)
