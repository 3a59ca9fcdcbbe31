"""Cleaning up in a bucket."""

from pathlib import Path

from builder.planning.shard_plans import UNFINISHED
from builder.run.gc import collect
from builder.storage import private_store


def test_what_a_killed_plan_left_goes_and_plans_stay(tmp_path: Path) -> None:
    private = private_store(f"memory://{tmp_path.name}")
    plan = [f"plan/{'0' * 32}/shards/000000.parquet", f"plan/{'0' * 32}/shards/index"]
    for path in (*plan, f"{UNFINISHED}{'1' * 16}/run-000000", f"{UNFINISHED}{'1' * 16}/shards/000000.parquet"):
        private.put(path, b"rows of an archive")
    assert collect(f"memory://{tmp_path.name}").scratch == 2
    assert list(private.list("plan")) == plan
