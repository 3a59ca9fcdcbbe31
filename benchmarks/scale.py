"""What the scheduler costs: empty tasks through the Dask runner, memory and time a task at growing numbers.

    python benchmarks/scale.py --tasks 10000 100000
    python benchmarks/scale.py --shards 100000

Prints a line of JSON for each number: seconds, microseconds a task, and how far the driver's peak memory (client and
scheduler; workers are other processes) grew over what it was before. A bounded window means that memory does not grow
with the number of tasks. With --seconds 1 the tasks sleep, and the share of time that workers stood idle is printed.
--shards deals as many cases of one person each to shards, writes every shard's plan, and lets the workers read them
all back: what planning and scheduling cost when nothing is decoded.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
from figures import figure

from builder.model.keyed import Key
from builder.model.zarr_format import checksum
from builder.plan import PLANNED, CasePlan, assign_buckets, shard_fingerprint
from builder.run.clusters.local import Local
from builder.stages.graph import Task
from builder.stages.planned import INDEX, Place, Rows, index_of, laid_out, load_plan, plan_line
from builder.stages.planned import write_plans as write_lines
from builder.storage import open_store

SLICES = 8


def work(seconds: float) -> None:
    """An empty task, or one that only takes time."""
    if seconds:
        time.sleep(seconds)


def tasks(count: int, seconds: float) -> Iterator[Task]:
    """Tasks as the pipeline makes them, one at a time."""
    return (Task(f"empty-{number:08x}", work, seconds) for number in range(count))


def peak_mib() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count: int, *, workers: int, seconds: float) -> dict[str, float | None]:
    """Run ``count`` tasks on fresh workers."""
    with Local(memory_gib=1).open(workers) as runner:
        for _ in runner.run(list(tasks(100, 0.0))):
            pass
        before, start = peak_mib(), time.perf_counter()
        done = sum(1 for _ in runner.run(tasks(count, seconds)))
        elapsed = time.perf_counter() - start
    assert done == count
    return {
        "tasks": count,
        "workers": workers,
        "seconds": round(elapsed, 2),
        "us_per_task": round(1e6 * elapsed / count, 1),
        "peak_mib_before": round(before, 1),
        "peak_mib_grown": round(peak_mib() - before, 1),
        "idle_percent": round(100 * (1 - count * seconds / (elapsed * workers)), 2) if seconds else None,
    }


def measure_shards(count: int, *, workers: int) -> dict[str, float]:
    """Plan ``count`` shards of one case each, and schedule a task for each that reads its plan."""
    with tempfile.TemporaryDirectory(prefix="builder-scale-") as folder:
        before, start = peak_mib(), time.perf_counter()
        names = write_plans(count, Path(folder))
        planned = time.perf_counter() - start
        peak = peak_mib()
        with Local(memory_gib=1).open(workers) as runner:
            start = time.perf_counter()
            cases = sum(o.value for o in runner.run([Task(f"shard-{n}", cases_of, (folder, n)) for n in names]))
            scheduled = time.perf_counter() - start
    assert cases == count
    return {
        "shards": len(names),
        "plan_seconds": round(planned, 2),
        "plan_ms_per_shard": round(1e3 * planned / count, 3),
        "plan_peak_mib_grown": round(peak - before, 1),
        "schedule_seconds": round(scheduled, 2),
        "schedule_us_per_shard": round(1e6 * scheduled / count, 1),
        "schedule_peak_mib_grown": round(peak_mib() - peak, 1),
    }


def write_plans(count: int, folder: Path) -> list[str]:
    """Plans of cases with a few objects each, as planning writes them; returns the shards' names."""
    key, store = Key(b"scale" * 8), open_store(folder)
    cases = [CasePlan(key.name("case", f"{n}"), key.name("person", f"{n}"), "s", 0, 1, 1, 1) for n in range(count)]
    columns = [pa.nulls(SLICES, field.type) for field in PLANNED]
    objects = pa.Table.from_arrays(columns, schema=PLANNED)
    shards = assign_buckets(cases, key=key, most_cases=1, most_bytes=1 << 30).items()
    names = [shard_fingerprint({"format": 1}, held, objects) for _, held in shards]
    rows = Rows.of(objects)
    lines = [plan_line(name, held, rows, {}) for name, (_, held) in zip(names, shards, strict=True)]
    places = [*laid_out(Place(0, 0, len(line), checksum(line)) for line in lines)]
    write_lines(store, places, lines)
    store.put(INDEX, index_of(zip(names, places, strict=True)))
    return names


def cases_of(argument: tuple[str, str]) -> int:
    """On a worker: how many cases a shard's plan has."""
    folder, name = argument
    return len(load_plan(open_store(folder), name).cases)


def show(found: Mapping[str, float | None]) -> None:
    """Print what was measured, the count first, and keep all but the counts."""
    print(json.dumps(found), flush=True)
    (what, count), *rest = found.items()
    for name, value in rest:
        if name != "workers" and value is not None:
            figure(f"{count} {what}, {name}", value, "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="*", default=[])
    parser.add_argument("--shards", type=int, nargs="*", default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    for count in given.tasks:
        show(measure(count, workers=given.workers, seconds=given.seconds))
    for count in given.shards:
        show(measure_shards(count, workers=given.workers))


if __name__ == "__main__":
    main()
