"""Sorted and distinct rows are those of Arrow's query engine, which is not loaded for them."""

import subprocess
import sys
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from builder.model.sorting import changes, distinct, ordered, runs

TEXTS = st.sampled_from([None, "", "a", "ab", "b", "é", "\U0001f600"])
NUMBERS = st.sampled_from([None, -1, 0, 1])
TABLES = st.lists(st.tuples(TEXTS, NUMBERS, TEXTS), max_size=30).map(
    lambda rows: pa.table(
        {
            "a": pa.array([a for a, _, _ in rows], pa.string()),
            "b": pa.array([b for _, b, _ in rows], pa.int64()),
            "c": pa.array([c for _, _, c in rows], pa.string()),
        }
    )
)


@given(table=TABLES, cut=st.integers(0, 30))
def test_distinct_is_a_group_by_that_is_sorted(table: pa.Table, cut: int) -> None:
    names = table.column_names
    grouped = table.group_by(names, use_threads=False).aggregate([]).select(names)
    expected = grouped.sort_by([(name, "ascending") for name in names]).to_pylist()
    pieces = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert distinct(pieces).to_pylist() == expected
    assert distinct(pieces).schema == table.schema


@given(table=TABLES)
def test_equal_rows_keep_their_order(table: pa.Table) -> None:
    numbered = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    expected = numbered.sort_by([("b", "ascending"), ("row", "ascending")])
    assert ordered(numbered, ["b"]).equals(expected)


@given(table=TABLES)
def test_runs_give_every_row_again_and_no_row_twice_in_a_row(table: pa.Table) -> None:
    first, numbers = runs(table)
    assert first.take(pa.array(numbers)).equals(table)
    told = first.to_pylist()
    assert all(one != other for one, other in pairwise(told))


def test_the_query_engine_is_not_loaded() -> None:
    code = """
import sys
import pyarrow as pa
from builder.model.sorting import distinct
assert distinct(pa.table({"a": [2, 1, 2, None]}))["a"].to_pylist() == [1, 2, None]
print("pyarrow._acero" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "False"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([None, 0.0, -0.0, 1.0]),
            st.sampled_from([None, [], [1.0], [1.0, None], [1.0, 2.0], [2.0]]),
        ),
        max_size=8,
    )
)
def test_a_change_is_a_difference_to_the_row_before(rows: list[tuple[object, ...]]) -> None:
    types = (pa.string(), pa.float64(), pa.list_(pa.float64()))
    columns = list(zip(*rows, strict=True)) or [()] * 3
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=["text", "number", "list"])
    expected = [n == 0 or repr(row) != repr(rows[n - 1]) for n, row in enumerate(rows)]
    assert changes(table).tolist() == expected
    coded = table.set_column(0, "text", table["text"].dictionary_encode())
    assert changes(coded).tolist() == expected
