"""Files that were written again after their shards were planned are counted."""

import pyarrow as pa
import pytest

from builder.plan import PLANNED, ShardPlan
from builder.planning.shard_plans import count_touched


def plan(*stamps: str) -> ShardPlan:
    rows = [{"case": 0, "role": "image", "source": 0, "path": f"{n}.dcm", "member": "", "stamp": stamp, "size": 9}
            for n, stamp in enumerate(stamps)]  # fmt: skip
    return ShardPlan("f" * 32, "", (), pa.Table.from_pylist(rows, schema=PLANNED))


@pytest.mark.parametrize(
    ("before", "now", "touched"),
    [("abc", "abc", 0), ("abc", "abd", 1), ("abc", "xyz", 3), ("abc", "ab", 0), ("", "", 0)],
)
def test_other_stamps_are_counted(before: str, now: str, touched: int):
    assert count_touched(plan(*before), plan(*now)) == touched
