"""Expressions against a row-by-row evaluation in plain Python and against DuckDB."""

import math
import pickle
import re
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.model.expression import compile as compile_expression

ROWS: list[dict[str, Any]] = [
    {"age": 61.0, "n": 3, "sex": "F", "ok": True, "kinds": ["SEG", "SR"], "day": "2020-01-05", "odd name": "x"},
    {"age": None, "n": 0, "sex": "M", "ok": False, "kinds": [], "day": None, "odd name": "x"},
    {"age": 17.5, "n": None, "sex": None, "ok": None, "kinds": None, "day": "2021-06-01", "odd name": None},
    {"age": math.nan, "n": -2, "sex": "O'x", "ok": True, "kinds": ["RTSTRUCT"], "day": "2019-12-31", "odd name": "y"},
]
SCHEMA = pa.schema(
    [
        ("age", pa.float64()),
        ("n", pa.int64()),
        ("sex", pa.string()),
        ("ok", pa.bool_()),
        ("kinds", pa.list_(pa.string())),
        ("day", pa.date32()),
        ("odd name", pa.string()),
    ]
)


def make_table() -> pa.Table:
    columns = {name: [row[name] for row in ROWS] for name in SCHEMA.names}
    arrays = [
        pa.array(columns[f.name], pa.string()).cast(f.type) if f.name == "day" else pa.array(columns[f.name], f.type)
        for f in SCHEMA
    ]
    return pa.table(arrays, schema=SCHEMA)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("age >= 18", [0]),
        ("not (age >= 18)", [1, 2, 3]),
        ("age != 61", [2]),
        ("age is missing", [1, 3]),
        ("AGE is not missing".replace("AGE", "age"), [0, 2]),
        ("n between -2 and 0", [1, 3]),
        ("n not between -2 and 0", [0]),
        ("sex in ['F', 'M']", [0, 1]),
        ("sex not in ['F']", [1, 3]),
        (r"sex = 'O\'x'", [3]),
        ('sex = "O\'x"', [3]),
        ("sex matches '^[FM]$'", [0, 1]),
        ("sex not matches '^[FM]$'", [3]),
        ("sex startswith 'O'", [3]),
        ("kinds contains 'SEG'", [0]),
        ("not kinds contains 'SEG'", [1, 2, 3]),
        ("ok", [0, 3]),
        ("ok = false", [1]),
        ("not ok", [1, 2]),
        ("true", [0, 1, 2, 3]),
        ("day >= '2020-01-01'", [0, 2]),
        ("`odd name` = 'x' AND n > 0", [0]),
        ("n > 1 or sex = 'M' and ok", [0]),
        ("(n > 1 or sex = 'M') and not ok", [1]),
        ("n < age", [0]),
        ("3 = n", [0]),
        ("n > 0.5", [0]),
    ],
)
def test_rows_selected(text: str, rows: list[int]) -> None:
    table = make_table()
    expression = compile_expression(text, SCHEMA)
    mask = pickle.loads(pickle.dumps(expression)).mask(table)  # noqa: S301
    assert [i for i, v in enumerate(mask.to_pylist()) if v] == rows
    assert mask.null_count == 0
    assert expression.filter(table).num_rows == len(rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agee > 3", "column 1: found the unknown column 'agee'; did you mean 'age'?"),
        ("SeriesInstanceUID == '1.2'", "column 1: found the unknown column 'SeriesInstanceUID'; UIDs are no columns"),
        ("series_uid in ['1.2']", "column 1: .*join a list of them as a clinical table"),
        ("n > 3 and zzzzz", "column 11: found the unknown column 'zzzzz'; if it is a text, .*expected one of"),
        ("age > 'x'", "column 5: found a comparison of age"),
        ("day > '2020-13-01'", "column 5: found a comparison of day"),
        ("age", "column 4: found the end, expected a comparison of age"),
        ("age >", "column 6: found the end"),
        ("(n = 1", "column 7: found the end, expected '\\)'"),
        ("n = 1 n = 2", "column 7: found 'n', expected 'and', 'or' or the end"),
        ("sex matches '['", "column 13: found an invalid regular expression"),
        ("ok < true", "column 4"),
        ("n in []", "column 7"),
        ("n = 99999999999999999999", "64 bits"),
        ("n = 1; drop", "column 6: found ';'"),
        ("kinds = 'x'", "column 7"),
        ("kinds matches 'x'", "column 7"),
        ("", "column 1: found the end"),
        ("(" * 60 + "n = 1", "at most 50 levels"),
        ("not " * 60 + "ok", "at most 50 levels"),
        ("ok and " * 2000 + "ok", "at most 10000"),
        ("__import__('os').system('x')", "column 1"),
    ],
)
def test_faults_name_column_and_expectation(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        compile_expression(text, SCHEMA)


def test_a_table_without_the_column_is_refused() -> None:
    expression = compile_expression("age > 1", SCHEMA)
    with pytest.raises(SpecError, match="found no column 'age'"):
        expression.mask(make_table().drop_columns(["age"]))


def test_columns_are_listed_and_dictionaries_are_text() -> None:
    expression = compile_expression("sex = 'F' or age > 1 or sex = 'M'", SCHEMA)
    assert expression.columns == ("age", "sex")
    table = pa.table({"sex": pa.array(["F", None, "M"]).dictionary_encode()})
    assert compile_expression("sex = 'F'", table.schema).mask(table).to_pylist() == [True, False, False]


signs = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
tests = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["a", "b"]), signs, st.integers(-3, 3)),
    st.builds("{} between {} and {}".format, st.sampled_from(["a", "b"]), st.integers(-3, 3), st.integers(-3, 3)),
    st.builds("{} in [{}, {}]".format, st.sampled_from(["a", "b"]), st.integers(-3, 3), st.integers(-3, 3)),
    st.sampled_from(["a is missing", "b is not missing"]),
)
trees = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=6,
)
cells = st.one_of(st.none(), st.integers(-3, 3))


@settings(max_examples=60, deadline=None)
@given(text=trees, rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
def test_equal_to_duckdb(text: str, rows: list[tuple[int | None, int | None]]) -> None:
    table = pa.table({"a": pa.array([r[0] for r in rows], pa.int64()), "b": pa.array([r[1] for r in rows], pa.int64())})
    mask = compile_expression(text, table.schema).mask(table).to_pylist()
    assert mask == [evaluate_in_duckdb(text, a, b) for a, b in rows]


CONNECTION = duckdb.connect()


def evaluate_in_duckdb(text: str, a: int | None, b: int | None) -> bool:
    """SQL has three truth values: each comparison is made two-valued, as the language states."""
    leaf = re.compile(r"[ab] (?:is not missing|is missing|between -?\d+ and -?\d+|in \[[^]]*\]|[!<>=]+ -?\d+)")

    def two_valued(found: re.Match[str]) -> str:
        sql = found.group().replace("missing", "null").replace("[", "(").replace("]", ")")
        return f"coalesce({sql}, false)"

    sql = leaf.sub(two_valued, text)
    answer = CONNECTION.execute(f"select {sql} from (select ?::bigint as a, ?::bigint as b)", [a, b]).fetchone()
    assert answer is not None
    return bool(answer[0])
