"""Rows have the same digest if, and only if, every cell of them is the same."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import INSTANCES
from builder.planning.withdrawn import _without_digests
from builder.stages.row_digests import row_digests

TABLE = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in "ab"),
        *(pa.field(f"{kind}", kind) for kind in (pa.int32(), pa.int64(), pa.float64())),
        *(pa.field(f"list-{n}", pa.list_(kind)) for n, kind in enumerate((pa.string(), pa.float64()))),
    ]
)
TEXTS = st.none() | st.sampled_from(["", "a", "b", "ab", "\0", "é"])
REALS = st.none() | st.sampled_from([0.0, -0.0, 1.5, float("inf")])
ROWS = st.tuples(
    TEXTS, TEXTS, st.none() | st.integers(-2, 2), st.none() | st.integers(-2, 2), REALS,
    st.none() | st.lists(TEXTS, max_size=3), st.none() | st.lists(REALS, max_size=3),
)  # fmt: skip


def table_of(rows: list[tuple[object, ...]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(TABLE.names, row, strict=True)) for row in rows], schema=TABLE)


def value(kind: pa.DataType) -> object:
    """A value of a column of INSTANCES."""
    if pa.types.is_list(kind):
        return [value(kind.value_type)] * 2
    return "1" if pa.types.is_string(kind) else 1


def changed(kind: pa.DataType) -> object:
    """Another one."""
    if pa.types.is_list(kind):
        return [value(kind.value_type), changed(kind.value_type)]
    return "2" if pa.types.is_string(kind) else 2


@pytest.mark.parametrize("name", INSTANCES.names)
@pytest.mark.parametrize("filled", [True, False])
def test_a_cell_of_any_column_changes_it(name: str, filled: bool):
    row = {field.name: value(field.type) if filled else None for field in INSTANCES}
    kind = INSTANCES.field(name).type
    others = [changed(kind), None if filled else value(kind), *([[]] if pa.types.is_list(kind) else [])]
    rows = [row, row, *(row | {name: other} for other in others)]
    first, again, *found = row_digests(pa.Table.from_pylist(rows, schema=INSTANCES), [[n] for n in range(len(rows))])
    assert first == again
    assert len({first, *found}) == 1 + len(others)


@given(rows=st.lists(ROWS, min_size=2, max_size=6))
def test_different_rows_differ_and_equal_ones_do_not(rows):
    found = row_digests(table_of(rows), [[n] for n in range(len(rows))])
    for one, first in zip(rows, found, strict=True):
        for other, second in zip(rows, found, strict=True):
            assert (repr(one) == repr(other)) == (first == second)  # repr tells 0.0 from -0.0


@given(rows=st.lists(ROWS, min_size=1, max_size=6), cut=st.integers(1, 5))
def test_it_depends_on_nothing_but_the_rows(rows, cut):
    table = table_of(rows)
    own = [list(range(len(rows)))]
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    beside = pa.concat_tables([table_of([("x", None, 7, 7, 7.0, ["x"], [7.0])] * 3), table])
    (digest,) = row_digests(table, own)
    assert row_digests(chunked, own) == [digest]
    assert row_digests(read_parquet(parquet_bytes(table)), own) == [digest]
    assert row_digests(beside, [[3 + row for row in own[0]]]) == [digest]


def test_the_order_and_the_number_of_rows_count():
    table = table_of([("a", None, 1, 1, 1.0, [], []), ("b", None, 1, 1, 1.0, [], [])])
    assert len({*row_digests(table, [[0, 1], [1, 0], [0], [1], [0, 0], []])}) == 6


def test_what_lies_under_missing_values_does_not_count():
    schema = pa.schema([pa.field("number", pa.int32()), pa.field("text", pa.string())])
    none = pa.py_buffer(b"\0")
    numbers = pa.Array.from_buffers(pa.int32(), 1, [none, pa.py_buffer(b"left")])
    texts = pa.Array.from_buffers(pa.string(), 1, [none, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"left")])
    clean = pa.table([pa.nulls(1, pa.int32()), pa.nulls(1, pa.string())], schema=schema)
    assert row_digests(pa.table([numbers, texts], schema=schema), [[0]]) == row_digests(clean, [[0]])


def test_many_rows_are_taken_in_batches():
    table = table_of([(str(n), None, n, n, 1.0, ["x"] * (n % 3), None) for n in range(5_000)])
    whole = row_digests(table, [[4_095], [4_096], list(range(4_090, 4_100))])
    part = row_digests(table.slice(4_090, 10), [[5], [6], list(range(10))])
    assert whole == part
    assert row_digests(table.slice(0, 0), [[]]) == row_digests(table, [[]])


def test_series_of_which_rows_were_taken_out_have_none():
    rows = [{"series_uid": uid, "rows_digest": uid * 2} for uid in "abc"]
    left = _without_digests(pa.Table.from_pylist(rows), pa.chunked_array([["b", "b"]], pa.string()))
    assert left["rows_digest"].to_pylist() == ["aa", None, "cc"]
