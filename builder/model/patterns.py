"""Regular expressions of a spec, run by RE2, whose time is linear in the text whatever the expression.

Python's own expressions backtrack: one of 20 characters can keep a process busy for years over 40 characters of text.
RE2 comes with pyarrow, which the expressions of cohort rules use too.
"""

from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

_REMEMBERED = 1 << 16
_LONGEST = 1 << 12


def check_pattern(pattern: str) -> str:
    """Return the expression after checking it.

    Raises
    ------
    ValueError
        When RE2 cannot run it: an error of syntax, or a look-around or back-reference, which only backtracking can.
    """
    if len(pattern) > _LONGEST:
        raise ValueError(f"found a regular expression of {len(pattern)} characters, expected {_LONGEST} at most")
    try:
        pc.match_substring_regex(pa.nulls(1, pa.string()), pattern)
    except pa.ArrowInvalid as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise ValueError(
            f"found the regular expression {pattern!r}, expected one that RE2 runs, without look-around and "
            f"back-references: {reason}"
        ) from None
    return pattern


@lru_cache(maxsize=_REMEMBERED)
def occurs(pattern: str, text: str) -> bool:
    """Return whether a checked expression is found anywhere in a text."""
    return bool(pc.match_substring_regex(pa.array([text], pa.string()), pattern)[0].as_py())


def fits(pattern: str, text: str) -> bool:
    """Return whether a checked expression matches a whole text."""
    return occurs(rf"\A(?:{pattern})\z", text)


def which_fit(pattern: str, texts: Sequence[str]) -> list[bool]:
    """Return for each text whether an expression matches all of it."""
    found: list[bool] = pc.match_substring_regex(pa.array(texts, pa.string()), rf"\A(?:{pattern})\z").to_pylist()
    return found


def first_group(pattern: str, text: str) -> str | None:
    """Return what the first group of a checked expression matches in a text, or the text if there is no group.

    None where the expression does not fit the whole text.
    """
    if not fits(pattern, text):
        return None
    whole = rf"\A(?:{pattern})\z"
    try:
        found = pc.replace_substring_regex(pa.array([text], pa.string()), whole, r"\1")
    except pa.ArrowInvalid:
        return text  # the expression has no group
    return str(found[0].as_py())


def groups_of(pattern: str, texts: Sequence[str]) -> list[dict[str, str] | None]:
    """Return, for each text, the named groups of a checked expression that fits all of it, or None if it does not."""
    found: list[dict[str, str] | None] = []
    for row in pc.extract_regex(pa.array(texts, pa.string()), rf"\A(?:{pattern})\z").to_pylist():
        found.append(None if row is None else dict(row))
    return found
