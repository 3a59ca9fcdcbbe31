"""What the scheduler costs: empty tasks through the Dask runner, memory and time a task at growing numbers.

    python -m benchmarks.scale --tasks 10000 100000

Prints a line of JSON for each number: seconds, microseconds a task, and how far the driver's peak memory (client and
scheduler; workers are other processes) grew over what it was before. A bounded window means that memory does not grow
with the number of tasks. With --seconds 1 the tasks sleep, and the share of time that workers stood idle is printed.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator

from builder.run.clusters.local import Local
from builder.stages.graph import Task


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


def measure(count: int, *, workers: int, seconds: float) -> dict[str, float]:
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    for count in given.tasks:
        print(json.dumps(measure(count, workers=given.workers, seconds=given.seconds)), flush=True)


if __name__ == "__main__":
    main()
