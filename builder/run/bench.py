"""Measure how fast a spec is built here, by stage and number of workers, to compare machines, options and releases."""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from builder.errors import SpecError, counted
from builder.model.canonical import Json
from builder.plan import ShardSummary
from builder.run.clusters import Cluster, load_cluster
from builder.run.pipeline import build, plan
from builder.run.progress import Item
from builder.stages.graph import Outcome, Runner, Task
from builder.stages.shard import ShardArgument
from builder.stages.timing import Steps, measure_case

RECORD_VERSION = 1
MOST_CASES = 8
"""Most cases whose steps are measured one by one."""


@dataclass(frozen=True)
class Building:
    """One build from an empty folder to a published dataset.

    Parameters
    ----------
    workers
        0 for serial in one process, otherwise the number of worker processes of a local cluster.
    stage_s
        Wall seconds by stage. ``start`` is everything before the first, ``finish`` everything after the last shard.
    total_s
        Wall seconds in total.
    cases_per_s, input_mb_per_s, output_mb_per_s
        Rates of the stage ``build``: cases, stored bytes, and bytes of transformed volumes and masks (estimated from
        the cases whose steps were measured), the bytes in 10^6 per second.
    cpu_s_per_case
        Processor time of this process and all workers, from start to end, divided by the number of cases.
    idle_share
        Share of the workers' time in stage ``build`` not spent in tasks: scheduling, waiting, an uneven end.
    """

    workers: int
    stage_s: Mapping[str, float]
    total_s: float
    cases_per_s: float
    input_mb_per_s: float
    output_mb_per_s: float
    cpu_s_per_case: float
    idle_share: float


@dataclass(frozen=True)
class Record:
    """All measurements of a spec."""

    dataset: str
    cases: int
    steps: Steps
    builds: tuple[Building, ...]

    def facts(self) -> dict[str, Json]:
        """Return the measurements for JSON, with a description of the machine."""
        machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
        return {"record_version": RECORD_VERSION, "machine": machine, **asdict(self)}

    def text(self, before: Mapping[int, float] | None = None) -> str:
        """Return the measurements for a person. ``before`` maps workers to cases per second of an earlier record."""
        megabytes = ", ".join(f"{name} {rate:.0f}" for name, rate in self.steps.megabytes_per_s().items())
        lines = [f"{self.dataset}: {counted(self.cases, 'case')}", f"  one case alone, MB/s a step: {megabytes}"]
        first = next((b for count in (1, 0) for b in self.builds if b.workers == count), None)
        for b in self.builds:
            stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in b.stage_s.items())
            scaled = "" if first is None or first is b else f", {b.cases_per_s / first.cases_per_s:.2f} x one"
            change = f" ({b.cases_per_s / before[b.workers]:.2f} x before)" if before and b.workers in before else ""
            name = "serial" if b.workers == 0 else f"{b.workers} workers"
            lines += [
                f"  {name}: {b.cases_per_s:.2f} cases/s{change}{scaled}, "
                f"{b.input_mb_per_s:.0f} MB/s in, {b.output_mb_per_s:.0f} MB/s out, "
                f"{b.cpu_s_per_case:.2f} CPU s a case, "
                f"{100 * b.idle_share:.1f} % of the workers' time outside tasks",
                f"    {b.total_s:.1f} s in all: {stages}",
            ]
        return "\n".join(lines)


def measure_building(
    spec: Path, *, parameters: Mapping[str, str], workers: Sequence[int], folder: Path | None = None
) -> Record:
    """Plan once, measure the steps of a few cases alone, then build again with each number of workers.

    Parameters
    ----------
    workers
        0 is the serial runner.
    folder
        Where the datasets are built and removed again; None for the system's temporary folder.

    Raises
    ------
    SpecError, SourceError, LayoutError, ResourceError
        As ``build``.
    """
    with tempfile.TemporaryDirectory(prefix="builder-bench-", dir=folder) as place:
        planned = plan(spec, to=f"{place}/plan", parameters=parameters)
        steps = _steps(planned.plan.url, planned.plan.shards)
        cases = planned.plan.cases
        sizes = (sum(c.input_bytes for c in cases), len(cases) * steps.output_bytes // max(1, steps.cases))
        builds = tuple(_measure(spec, place, parameters, count, len(cases), sizes) for count in workers)
    return Record(planned.plan.spec.name, len(planned.plan.cases), steps, builds)


def rates_of(path: Path) -> dict[int, float]:
    """Read cases per second by number of workers from an earlier record. Raises SpecError."""
    try:
        record = json.loads(path.read_text())
        if record["record_version"] != RECORD_VERSION:
            raise ValueError
        return {b["workers"]: b["cases_per_s"] for b in record["builds"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise SpecError(f"{path}: found no record of 'builder bench build', expected one kept with --keep") from None


def _steps(url: str, shards: Sequence[ShardSummary]) -> Steps:
    """Measure evenly spaced cases, each after an uncounted case, because the first pays for loading kernels."""
    chosen = [shards[i * len(shards) // MOST_CASES] for i in range(MOST_CASES)] if len(shards) > MOST_CASES else shards
    total = Steps()
    for number, shard in enumerate([*chosen[:1], *chosen]):
        with tempfile.TemporaryDirectory(prefix="builder-") as folder:
            found = measure_case(ShardArgument(url, folder, shard.fingerprint), time.perf_counter)
        total = total + found if number else total
    return total


def _measure(
    spec: Path, place: str, parameters: Mapping[str, str], workers: int, cases: int, sizes: tuple[int, int]
) -> Building:
    """Measure one build in a folder inside ``place``, which is removed before the next build needs the room."""
    clock, watched = _Clock(), _WatchedCluster(load_cluster("local" if workers else "serial"))
    with tempfile.TemporaryDirectory(dir=place) as folder:
        began, cpu = time.perf_counter(), _processor_s()
        build(
            spec,
            to=f"{folder}/dataset",
            parameters=parameters,
            cluster=watched,
            workers=workers or None,
            progress=clock,
        )
        total, finish, cpu = time.perf_counter() - began, clock.finish_s(), _processor_s() - cpu
    clock.stages |= {"start": max(0.0, total - finish - sum(clock.stages.values())), "finish": finish}
    wall = max(clock.stages.get("build", 0.0), 1e-9)
    return Building(
        workers=workers,
        stage_s={name: round(seconds, 3) for name, seconds in clock.stages.items()},
        total_s=round(total, 3),
        cases_per_s=cases / wall,
        input_mb_per_s=sizes[0] / wall / 1e6,
        output_mb_per_s=sizes[1] / wall / 1e6,
        cpu_s_per_case=cpu / max(1, cases),
        idle_share=max(0.0, 1 - watched.seconds.get("shard", 0.0) / (max(1, workers) * wall)),
    )


def _processor_s() -> float:
    """Return processor seconds of this process and the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class _Clock:
    """Progress that records the seconds of each stage."""

    stages: dict[str, float] = field(default_factory=dict)
    _ended: float = 0.0

    def track(self, items: Iterable[Item], *, stage: str, total: int | None) -> Iterator[Item]:
        began = time.perf_counter()
        yield from items
        self._ended = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + self._ended - began

    def say(self, message: str) -> None:
        return

    def finish_s(self) -> float:
        """Return the seconds since the last stage ended."""
        return time.perf_counter() - self._ended


@dataclass(frozen=True)
class _Call:
    """A task's function with its argument, which is timed where it runs."""

    function: Callable[[Any], Any]
    argument: Any
    isolate: Callable[[Any, int], Any] | None


def _timed(call: _Call) -> tuple[Any, float]:
    began = time.perf_counter()
    value = call.function(call.argument)
    return value, time.perf_counter() - began


def _isolated(call: _Call, memory: int) -> Any:
    return call.isolate(call.argument, memory) if call.isolate is not None else None


@dataclass
class _WatchedCluster:
    """A cluster that records how long tasks took on its workers, in seconds by the first word of their keys."""

    inner: Cluster
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.inner.kind

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open the cluster with a runner that is watched."""
        with self.inner.open(workers) as runner:
            yield _Watched(runner, self.seconds)


@dataclass(frozen=True)
class _Watched:
    """A runner that records how long tasks took."""

    inner: Runner
    seconds: dict[str, float]

    @property
    def width(self) -> int:
        return self.inner.width

    def dismiss(self) -> None:
        """Pass this on to the watched runner."""
        self.inner.dismiss()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Run tasks on the watched runner."""
        tasks = list(tasks)
        asked = {task.key: task for task in tasks}
        calls = [
            replace(
                task,
                function=_timed,
                argument=_Call(task.function, task.argument, task.isolate),
                isolate=_isolated if task.isolate is not None else None,
            )
            for task in tasks
        ]
        for outcome in self.inner.run(calls):
            value, seconds = outcome.value
            kind = outcome.task.key.split("-")[0]
            self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
            yield Outcome(asked[outcome.task.key], value)
