"""Of documents every text is searched: keys and values, at every depth, whatever stands beside them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.deid.documents import texts_of
from builder.deid.leaks import Canaries, assert_clean
from builder.errors import PrivacyError

CANARIES = Canaries.of(["DOE^JANE", "55512345"])


def _texts(data: bytes) -> bytes:
    return "\0".join(texts_of(json.loads(data))).encode()


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
DOCUMENTS = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_every_text_is_there_once(document: object) -> None:
    said: list[str] = []
    todo = [document]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            said.append(one)
        todo += [*one, *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else []
    assert sorted(_texts(json.dumps(document).encode()).decode().split("\0")) == sorted({*said} or {""})


@pytest.mark.parametrize(
    "document",
    [
        {"a": [{"b": "of doe^jane"}]},
        {"a": [{"Doe^Jane": 1}]},
        ["DOE^JANE"],
        ["see:", "55512345", ", and more"],
        ["x", "x", {"x": ["note [", "55512345", "]"]}],
        "55512345",
    ],
)
def test_an_identifier_is_found_wherever_it_stands(document: object) -> None:
    with pytest.raises(PrivacyError):
        assert_clean(_texts(json.dumps(document).encode()), CANARIES, where="thing")


def test_numbers_are_no_texts() -> None:
    assert_clean(_texts(b'{"bytes": 55512345, "counts": [55512345]}'), CANARIES, where="thing")
