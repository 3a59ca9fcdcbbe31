"""Keyed names are what an HMAC and a base 32 of others give, one by one and many at a time."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.model.keyed import Key

KEY = Key(b"0123456789abcdef")
ALPHABET = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def expected(*parts: str) -> str:
    """RFC 2104 and RFC 4648, which fills up behind the last bit: two zeros in front make the 26 letters whole."""
    framed = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    number = int.from_bytes(hmac.digest(KEY.secret, framed, hashlib.sha256)[:16], "big")
    return base64.b32encode((number << 30).to_bytes(20, "big"))[:26].translate(ALPHABET).decode()


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_name_is_the_hash_of_its_parts_in_base_32(parts: list[str]) -> None:
    assert KEY.name(*parts) == expected(*parts)


@given(TEXTS, st.lists(TEXTS, max_size=5))
def test_many_names_are_those_of_each(kind: str, values: list[str]) -> None:
    assert list(KEY.names(kind, values)) == [expected(kind, value) for value in values]


@given(TEXTS, st.lists(st.lists(TEXTS, max_size=3), max_size=5))
def test_names_of_many_rows_are_those_of_each(kind: str, rows: list[list[str]]) -> None:
    assert list(KEY.names_of(kind, rows)) == [expected(kind, *parts) for parts in rows]


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_number_is_the_first_64_bits_of_the_hash(parts: list[str]) -> None:
    framed = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    assert KEY.number(*parts) == int(hmac.digest(KEY.secret, framed, hashlib.sha256).hex()[:16], 16)


@given(TEXTS, st.lists(TEXTS, max_size=5))
def test_many_numbers_are_those_of_each(kind: str, values: list[str]) -> None:
    assert list(KEY.numbers(kind, values)) == [KEY.number(kind, value) for value in values]


@given(TEXTS)
def test_a_uid_is_the_first_128_bits_of_the_hash_in_decimal(source: str) -> None:
    framed = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in ("uid", source))
    assert KEY.uid(source) == "2.25." + str(int(hmac.digest(KEY.secret, framed, hashlib.sha256).hex()[:32], 16))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(SpecError, match="found 15 bytes"):
        Key(b"0123456789abcde")


def test_a_key_does_not_show_its_secret() -> None:
    assert "0123" not in repr(KEY)
    assert "30" not in repr(KEY), "nor in hexadecimal"


@pytest.mark.parametrize("length", [16, 63, 64, 65, 200])
def test_many_names_are_those_of_each_under_a_key_of_any_length(length: int) -> None:
    """Keys longer than a block of the hash are hashed first (RFC 2104)."""
    key = Key(bytes(range(length)))
    assert list(key.names("series", ["a", "b"])) == [key.name("series", "a"), key.name("series", "b")]
