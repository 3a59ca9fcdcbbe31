"""Patterns of layouts fit what Python's expressions with back-references fit, in bounded time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import SpecError
from builder.sources.layout import Layout, fits_of

BOMBS = [
    "{patient:(?:a+)+}b", "{patient:(?:a|aa)+}b", "{patient}{b}{c}{d}{e}{f}{g}{h}b", "*a*a*a*a*a*a*a*a*{patient}b",
    "**/**/**/**/**/**/{patient}b", "{patient}_{patient}_{patient}b",
]  # fmt: skip


@pytest.mark.parametrize("pattern", BOMBS)
def test_bombs_end_at_once(pattern: str) -> None:
    Layout(kind="pattern", pattern=pattern)
    start = time.process_time()
    assert fits_of(pattern, ["a" * 4000 + "!", "a/" * 2000 + "!", "a_" * 2000 + "!"]) == {}
    assert time.process_time() - start < 5


@given(st.text("ab_", min_size=1, max_size=8))
def test_repeated_fields_are_equal(path: str) -> None:
    expected = re.fullmatch(r"(?P<patient>[^/]+)_(?P=patient)_(?P<image>[^/]+)", path)
    found = fits_of("{patient}_{patient}_{image}", [path])
    assert (path in found) == (expected is not None)
    if expected is not None:
        assert found[path].longest == expected.groupdict()


def test_what_may_be_two_things_is_no_guess() -> None:
    fit = fits_of("{patient}_{image}", ["a_b_c"])["a_b_c"]
    with pytest.raises(SpecError, match="more than one way"):
        fit.fields()
    assert fits_of("{patient}/{patient}_{image:t1|t2}.nii", ["P_1/P_1_t1.nii"])["P_1/P_1_t1.nii"].fields() == {
        "patient": "P_1", "image": "t1",
    }  # fmt: skip


def test_a_repeated_field_with_too_many_meanings_is_a_fault_of_the_spec() -> None:
    path = "".join(f"{n:03d}" for n in range(700)) * 2 + "_x"
    start = time.process_time()
    with pytest.raises(SpecError, match="a repeated field may be more than"):
        fits_of("{patient}{b}{patient}_x", [path])
    assert time.process_time() - start < 5
