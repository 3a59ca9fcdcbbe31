"""The scanner finds every planted value in every kind of column, and quickly."""

import json
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.deid.leaks import _RUN, Canaries, _runs, assert_clean, values_to_find
from builder.errors import PrivacyError
from builder.model.keyed import Key

VALUES = ["DOE^JANE", "MRN-55512345", "1.2.840.113619.2.55.3.604688", "Müller", "ACC9912"]
CANARIES = Canaries.of(VALUES)


def leaks(data: object, canaries: Canaries = CANARIES) -> bool:
    try:
        assert_clean(data, canaries, where="thing")
    except PrivacyError:
        return True
    return False


def test_the_message_says_where_the_value_is_and_does_not_show_it() -> None:
    with pytest.raises(PrivacyError, match="column 'a'") as caught:
        assert_clean(pa.table({"a": [VALUES[0]]}), CANARIES, where="index")
    assert VALUES[0] not in str(caught.value)


@pytest.mark.parametrize("value", VALUES)
def test_found_in_every_kind_of_column(value: str) -> None:
    arrays = [
        pa.array([None, "x", value]),
        pa.array(["x", f"prefix {value.lower()} suffix"]),
        pa.array([value]).dictionary_encode(),
        pa.array([value], pa.large_string()),
        pa.array([[], ["a", value]]),
        pa.array([{"a": {"b": value}}]),
        pa.array([value.encode()]),
        pa.array([[("k", value)]], pa.map_(pa.string(), pa.string())),
        pa.chunked_array([["a"] * 40_000, ["b", value]]),
    ]
    for array in arrays:
        assert leaks(pa.table({"column": array})), array.type
    assert leaks(pa.table({value: [1]}))
    assert leaks(pa.table({"a": [1]}).replace_schema_metadata({"note": value}))
    assert leaks(json.dumps({"a": [value]}, ensure_ascii=False).encode())


def test_numbers_and_dates_are_searched() -> None:
    assert leaks(pa.table({"a": [55512345]}), Canaries.of(["55512345"]))
    assert leaks(pa.table({"a": pa.array([0], pa.date32())}), Canaries.of(["1970-01-01"]))


def test_clean_output_passes() -> None:
    table = pa.table({"a": ["912345", "doe", "jane", "1.2.840.113619.2.55.3.6046881"], "b": [1.5] * 4, "c": [None] * 4})
    assert not leaks(table)
    assert not leaks(pa.table({"a": ["91234567"]}), Canaries.of(["123456"]))
    assert not leaks(b"")


def test_counts_are_not_leaks() -> None:
    canaries = Canaries.of(["55512345", "12345"])
    assert not leaks(b'{"bytes": 55512345, "sizes": [1,55512345 ]}', canaries)
    assert leaks(b'{"id": "55512345"}', canaries)
    assert leaks(b"patient 55512345 was", canaries)
    assert not leaks(b"patient 12345 was", canaries)
    assert_clean(pa.table({"bytes": [55512345]}), canaries, where="index", counts=frozenset({"bytes"}))


def test_a_short_value_within_a_hash_is_not_a_leak() -> None:
    canaries = Canaries.of(["F012", "ab12", "0123456789abcdef"])
    digest = "ab1f012c" + "5" * 24
    name = Key(b"k" * 32).name("person", "x")
    assert not leaks(f'{{"data/{digest}/image": "{digest * 2}"}}'.encode(), canaries)
    assert not leaks(name.encode(), Canaries.of([name[4:9]]))
    assert not leaks(digest.encode(), canaries), "a hash that begins the text"
    assert leaks(digest[:31].encode(), canaries)
    assert leaks(f"{digest} F012".encode(), canaries)
    assert leaks(b"0123456789abcdef" * 2, canaries)
    assert leaks(digest.encode(), Canaries.of([digest]))


def test_values_of_an_inventory() -> None:
    columns = {"patient_id": ["a-1234", "a-1234", None], "modality": ["CT"] * 3}
    uids = {"frame_of_reference_uid": ["1.2.840.10008.1.4.1.1", "1.2.3", ""]}
    assert list(values_to_find(pa.table({**columns, **uids}))) == ["a-1234", "1.2.3"]


def test_short_values_and_ordinary_words_are_not_searched() -> None:
    canaries = Canaries.of(["CT", "abc", "brain", "Chest"], ordinary=frozenset({"brain", "chest"}))
    assert not canaries.anchors


@given(st.text(st.characters(codec="ascii"), max_size=60), st.integers(0, 4), st.integers(0, 60))
def test_found_wherever_it_stands(around: str, which: int, where: int) -> None:
    value = VALUES[which]
    text = f"{around[:where]} {value} {around[where:]}"
    assert leaks(text.encode())


def test_found_across_the_border_of_two_pieces() -> None:
    for offset in (4_194_290, 4_194_300, 4_194_304, 4_195_300):
        assert leaks(b" " * offset + VALUES[2].encode() + b" " * 100)


def test_a_search_for_many_values_costs_about_as_much_as_for_one() -> None:
    many = Canaries.of([f"1.2.840.{n}.{n * 7919}" for n in range(100_000, 200_000)])
    data = b" ".join(b"%d" % (n * 104_729 % 10**9) for n in range(300_000))
    start = time.perf_counter()
    assert many.count_in(data) == 0
    with_many = time.perf_counter() - start
    start = time.perf_counter()
    assert CANARIES.count_in(data) == 0
    assert with_many < 10 * (time.perf_counter() - start)


@given(st.binary(max_size=200))
def test_a_text_is_cut_where_letters_and_digits_meet(text: bytes) -> None:
    assert _runs(text.lower()) == set(_RUN.findall(text.lower()))
