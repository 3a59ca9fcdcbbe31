"""What a withdrawal deletes from the private workspace."""

from pathlib import Path

from builder.library.absence import Needles
from builder.planning.latest import Latest
from builder.run.purge import purge_private
from builder.storage import open_store


def test_rows_that_a_killed_plan_left_go(tmp_path: Path) -> None:
    """They are compressed, so that the search for a certificate of absence would not see whose they are."""
    private = open_store(tmp_path, directory_mode=0o700)
    left = (".scratch-a/run-000000", ".scratch-a/shards/000000.parquet", "inventory/now/.scratch-b/000000.parquet")
    kept = ("inventory/now/inventory.json", "lease/.scratch-beat", "plan/now/shards/000000.parquet")
    for path in (*left, *kept):
        private.put(path, b"rows of an archive")
    purge_private(private, Latest("plan/now", "inventory/now", ()), Needles(), ())
    assert [path for path in private.list() if path in left + kept] == list(kept)
