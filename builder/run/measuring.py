"""Measure the cases of a plan and build nothing: a hospital may tell of them before there is a joint plan."""

from collections.abc import Sequence
from os import environ

import pyarrow as pa

from builder.plan import ShardSummary
from builder.protocols import Progress
from builder.run.clusters import load_cluster
from builder.run.pipeline import opened
from builder.sources.contents import FOLDER
from builder.stages.boundary import default_action
from builder.stages.graph import Task
from builder.stages.isolate import isolate_shard
from builder.stages.measuring import Measures, measure_shard
from builder.stages.shard import ShardArgument
from builder.storage import private_store

UNIT, LOW, HIGH = "unit", "clip_low", "clip_high"
"""Columns of the limits that ``clip_percent`` gives a case, and of their unit."""


def measure(plan: str, shards: Sequence[ShardSummary], to: str, *, cluster: str, progress: Progress) -> pa.Table:
    """Return one row a case that can be used: its key, limits and their unit, and ``label.LABEL.PART.volume_mm3``.

    Nothing is written but what a build keeps of objects that come from servers. Killed, it begins again.

    Parameters
    ----------
    plan, shards
        Store of a plan, and its shards.
    to
        Where the dataset would be built.
    """
    content = private_store(to).join(FOLDER).url
    tasks = [
        Task(
            f"measure-{shard.fingerprint}",
            measure_shard,
            ShardArgument(plan, "", shard.fingerprint, on_internal_error=default_action(environ), content=content),
            memory=shard.peak_bytes,
            isolate=isolate_shard,
            deadly=shard.encoded,
        )
        for shard in shards
    ]
    found: list[Measures] = []
    errors = 0
    with opened(load_cluster(cluster), None) as runner:
        for outcome in progress.track(runner.run(tasks), stage="measure", total=len(tasks)):
            found += outcome.value.cases
            errors += len(outcome.value.internal_errors)
    cases = sum(len(shard.cases) for shard in shards)
    lost = cases - len(found)
    if lost:
        progress.say(f"measure: {lost} of {cases} cases cannot be used, {errors} for a fault of builder")
    return table_of(sorted(found, key=lambda case: case.case_key))


def table_of(cases: list[Measures]) -> pa.Table:
    """Return measures as a table."""
    sizes = sorted({name for case in cases for name in case.sizes})
    limits = [case.limits or (None, None) for case in cases]
    columns = {
        "case_key": pa.array([case.case_key for case in cases], pa.string()),
        UNIT: pa.array([case.unit for case in cases], pa.string()),
        LOW: pa.array([low for low, _ in limits], pa.float64()),
        HIGH: pa.array([high for _, high in limits], pa.float64()),
    }
    for name in sizes:
        columns["label." + name.replace("/", ".")] = pa.array([case.sizes.get(name) for case in cases], pa.float64())
    return pa.table(columns)
