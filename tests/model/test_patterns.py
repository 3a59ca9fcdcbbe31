"""Expressions of a spec run in linear time, and what RE2 cannot do is refused."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model.patterns import check_pattern, first_group, fits, groups_of, occurs

BOMBS = [r"(a+)+$", r"(a|aa)+$", r"(.*a){20}$", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(x+x+)+y"]


@pytest.mark.parametrize("pattern", BOMBS)
def test_bombs_end_at_once(pattern: str) -> None:
    start = time.process_time()
    assert not occurs(check_pattern(pattern), "a" * 50_000 + "!" if "x" not in pattern else "x" * 50_000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("pattern", [r"(?=a)b", r"(?<!a)b", r"(a)\1", "(", "[", "a{2000}", "a" * 5000])
def test_what_re2_cannot_do_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        check_pattern(pattern)


@given(st.from_regex(r"[ab]{0,4}\|?[abc.*+]{0,4}", fullmatch=True), st.text("abcAB", max_size=8))
def test_it_finds_what_pythons_expressions_find(pattern: str, text: str) -> None:
    try:
        expected = re.search(pattern, text)
        check_pattern(pattern)
    except (re.error, ValueError):
        return
    assert occurs(pattern, text) == (expected is not None)
    assert fits(pattern, text) == (re.fullmatch(pattern, text) is not None)


def test_the_first_group() -> None:
    assert first_group(r"PAT-(\d+)-.*", "PAT-12-x") == "12"
    assert first_group(r"PAT-\d+", "PAT-12") == "PAT-12"
    assert first_group(r"PAT-(\d+)", "PAT-12x") is None


def test_groups_by_name() -> None:
    assert groups_of(r"(?P<who>[a-z]+)-(?P<n>\d)", ["ab-1", "x"]) == [{"who": "ab", "n": "1"}, None]
