"""Globs fit what Python's regular expressions fit, in a time that grows with the path only."""

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.labels.linking import check_pattern
from builder.model.globs import MOST_WILDCARDS, OneOf, WordEdge, check_glob, fits, pieces_of

BOMBS = ["*a" * 60 + "b", "**/" * 60 + "b", "**a" * 60 + "b", "?*" * 30 + "b", "[a-z]*" * 30 + "b", "*" * 60 + "b"]


def as_expression(glob: str) -> str:
    """The same glob as a regular expression that may backtrack."""
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", glob)
    return "".join(meaning.get(p) or (p if p.startswith("[") and "]" in p[1:] else re.escape(p)) for p in parts)


@given(st.text("ab/*?", max_size=7), st.text("ab/", max_size=8))
def test_it_fits_what_an_expression_fits(glob: str, path: str) -> None:
    expected = re.fullmatch(as_expression(glob), path, re.DOTALL) is not None
    assert fits(pieces_of(glob), path) == expected


@pytest.mark.parametrize("glob", BOMBS)
def test_bombs_end_at_once(glob: str) -> None:
    start = time.process_time()
    assert not fits(pieces_of(check_glob(glob)), "a" * 4096 + "c/")
    assert not fits(pieces_of(glob), "a/" * 2048 + "c")
    assert time.process_time() - start < 2


def test_sets_edges_and_choices() -> None:
    assert fits(pieces_of("x[0-9][!a].nii"), "x7b.nii")
    assert not fits(pieces_of("x[0-9][!a].nii"), "x7a.nii")
    before = (*pieces_of("*"), WordEdge("before"), "P1", WordEdge("after"), *pieces_of("*"))
    assert [fits(before, path) for path in ("a_P1_b", "P1", "aP1", "P12", "a-P1.x")] == [True, True, False, False, True]
    assert [fits((OneOf(("liver", "lung")), ".nii"), path) for path in ("lung.nii", "spleen.nii")] == [True, False]


def test_too_many_wildcards_are_refused_in_a_spec() -> None:
    with pytest.raises(ValueError, match=f"expected {MOST_WILDCARDS} at most"):
        check_pattern("*a" * (MOST_WILDCARDS + 1))
    assert check_pattern("{patient}/**/*_{modality}.nii.gz")


def test_globs_of_a_folder_are_linear_too() -> None:
    """``include`` and ``exclude`` use fnmatch, whose expressions never try a part again."""
    start = time.process_time()
    assert not fnmatch.fnmatchcase("a" * 4096, "*a" * 200 + "b")
    assert time.process_time() - start < 2
