"""The on-disk documents: canonical bytes, inverse parsers, and refusals that say what was found."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import LayoutError, Reason
from builder.model.canonical import canonical_json, fingerprint
from builder.model.fields import FieldLayout, Packing
from builder.model.layout import (
    ExcludedCase,
    Manifest,
    Receipt,
    ShardEntry,
    StoredObject,
    check_field_name,
    parse_current,
    parse_manifest,
    parse_receipt,
    shard_path,
    version_path,
    write_current,
)
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.samples import index_schema, sample_schema

ROOT = Path(__file__).resolve().parents[2]
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_canonical_json_is_json_and_loses_nothing(document: Any) -> None:
    data = canonical_json(document)
    assert json.loads(data) == document
    assert canonical_json(json.loads(data)) == data


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_order_of_keys_is_lost(document: dict[str, int]) -> None:
    assert canonical_json(document) == canonical_json(dict(reversed(list(document.items()))))


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_numbers_json_lacks_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": [{None: 1}]}, {True: 1}, {"a": {1, 2}}, b"x"])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@given(st.lists(st.one_of(st.binary(), documents), max_size=4), st.lists(st.one_of(st.binary(), documents), max_size=4))
def test_fingerprints_tell_lists_apart(one: list[Any], other: list[Any]) -> None:
    same = [(type(x) is bytes, x if isinstance(x, bytes) else canonical_json(x)) for x in one] == [
        (type(x) is bytes, x if isinstance(x, bytes) else canonical_json(x)) for x in other
    ]
    assert (fingerprint(*one) == fingerprint(*other)) == same


def test_fingerprints_do_not_depend_on_the_process() -> None:
    code = "from builder.model.canonical import fingerprint; print(fingerprint({'b': 1, 'a': [1.5, None]}, b'x', 'y'))"
    command = [sys.executable, "-c", code]
    found = {
        subprocess.run(command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def make_receipt() -> Receipt:
    return Receipt(
        fingerprint="0" * 32,
        objects=(StoredObject("image/c/0/0/0/0/0", 12, "c0ffeeab" * 8),),
        rows=3,
        cases=2,
        excluded=(ExcludedCase("k", Reason.LABEL_EMPTY, "found none"),),
        fields=(
            FieldLayout("image", 1, (1, 2, 3), (1, 2, 3), "int16", "HU", packing=Packing(0.5, -3.0)),
            FieldLayout("tumor", 2, None, (4, 4, 4), "uint8", "", {"core": (0, 1)}),
        ),
        tallies={"ages": {"60-69": 2}},
    )


def make_manifest() -> Manifest:
    receipt = make_receipt()
    shards = (ShardEntry(receipt.fingerprint, receipt.rows, receipt.objects),)
    return Manifest("set", "v1", {"a": 1}, {"b": []}, receipt.fields, shards, receipt.objects, {"samples": 3})


def test_parsers_are_inverse() -> None:
    assert parse_receipt(make_receipt().to_json()) == make_receipt()
    assert parse_manifest(make_manifest().to_json()) == make_manifest()
    assert parse_current(write_current("v1.2-a")) == "v1.2-a"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format_version"], 99, "found format version 99, expected 2"),
        (["rows"], "3", "found str as rows, expected int"),
        (["rows"], -1, "0 or more"),
        (["rows"], True, "found bool as rows"),
        (["objects", 0, "sha256"], None, r"objects\[0\]: found NoneType as sha256"),
        (["objects", 0], 3, r"found int as objects\[0\]"),
        (["excluded", 0, "reason"], "because", "found the reason 'because'"),
        (["fields", 0, "shape"], [1, 2], "expected three positive counts"),
        (["fields", 0, "shape"], [0, 1, 2], "expected three positive counts"),
        (["fields", 1, "segments", "core"], [1], "expected \\[channel, value\\]"),
    ],
)
def test_parse_faults_say_where(path: list[Any], value: Any, message: str) -> None:
    document = json.loads(make_receipt().to_json())
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(LayoutError, match=message):
        parse_receipt(canonical_json(document))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_no_document_at_all(data: bytes) -> None:
    for parse in (parse_receipt, parse_manifest):
        with pytest.raises(LayoutError):
            parse(data)


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "v 1", "x" * 65, "v1\n"])
def test_names_that_could_leave_the_folder(name: str) -> None:
    with pytest.raises(LayoutError):
        version_path(name)
    with pytest.raises(LayoutError):
        shard_path(name)
    for line in (name, f"{name}\n\n", f"{name}\nv2\n"):
        with pytest.raises(LayoutError):
            parse_current(line.encode() if line != "v1\n" else b"v1")


@pytest.mark.parametrize("name", ["", "a/b", ".x", "zarr.json", "receipt.json", "a b", "ä"])
def test_field_names(name: str) -> None:
    with pytest.raises(ValueError, match="field"):
        check_field_name(name)
    assert check_field_name("image_T1.core-2") == "image_T1.core-2"


def test_parquet_bytes_depend_on_content_alone() -> None:
    whole = pa.table({"a": ["x", "y", "x", None], "b": [1, 2, 3, None]})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    noted = whole.replace_schema_metadata({"pandas": "{}"})
    assert parquet_bytes(whole) == parquet_bytes(pieces) == parquet_bytes(noted)
    assert read_parquet(parquet_bytes(whole)) == whole
    assert read_parquet(parquet_bytes(whole), columns=["b"]).schema.names == ["b"]


def test_facts_follow_by_name_and_never_hide_a_column() -> None:
    facts = pa.schema([("vendor", pa.string()), ("age_years", pa.float64())])
    assert sample_schema(facts).names[-2:] == ["age_years", "vendor"]
    assert index_schema(facts).names[:3] == ["split", "shard", "row"]
    with pytest.raises(ValueError, match="shard"):
        sample_schema(pa.schema([("shard", pa.string())]))
