"""Globs over paths, matched in a time that grows with the length of the path, whatever the glob.

A glob turned into one of Python's regular expressions backtracks: ``*a*a*a*a*b`` keeps a process busy for years over a
long name. Here the places that a piece can end at are carried from piece to piece, so that nothing is tried twice.
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

MOST_WILDCARDS: Final = 64
"""Wildcards of a glob: with the length of paths they bound the work of a match."""

Wildcard = Literal["*", "**", "**/", "?"]
_PIECES = re.compile(r"(\*\*/?|\*|\?|\[[^\]]+\])")


@dataclass(frozen=True)
class OneOf:
    """One of several texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Class:
    """A character of a set: ``[abc]``, ``[!a-z]``."""

    stated: str

    def holds(self, letter: str) -> bool:
        """Return whether the set holds a character."""
        return fnmatch.fnmatchcase(letter, self.stated)


@dataclass(frozen=True)
class WordEdge:
    """A place where no word goes on: no letter or digit before it, or after it."""

    side: Literal["before", "after"]


@dataclass(frozen=True)
class Wild:
    """``*`` stays inside a folder, ``**`` crosses folders, ``**/`` is any folders or none, ``?`` is a character."""

    kind: Wildcard


Piece = str | OneOf | Class | WordEdge | Wild


def pieces_of(glob: str) -> tuple[Piece, ...]:
    """Return a glob as the pieces that ``fits`` takes."""
    return tuple(_piece(part) for part in _PIECES.split(glob) if part)


def check_glob(glob: str) -> str:
    """Return the glob itself.

    Raises
    ------
    ValueError
        If it has more than ``MOST_WILDCARDS`` wildcards.
    """
    count = sum(not isinstance(piece, str) for piece in pieces_of(glob))
    if count > MOST_WILDCARDS:
        raise ValueError(f"found a pattern with {count} wildcards, expected {MOST_WILDCARDS} at most")
    return glob


def fits(pieces: Sequence[Piece], path: str) -> bool:
    """Return whether a path as a whole fits the pieces."""
    if pieces and isinstance(pieces[-1], str) and not path.endswith(pieces[-1]):
        return False
    ends: set[int] = {0}
    for piece in pieces:
        ends = _ends(piece, path, ends)
        if not ends:
            return False
    return len(path) in ends


def _piece(part: str) -> Piece:
    if part in ("*", "**", "**/", "?"):
        return Wild(part)  # type: ignore[arg-type]
    return Class(part) if part.startswith("[") and part.endswith("]") and len(part) > 2 else part


def _ends(piece: Piece, path: str, starts: set[int]) -> set[int]:
    """Return where a piece can end that begins at one of ``starts``."""
    if isinstance(piece, str):
        return {start + len(piece) for start in starts if path.startswith(piece, start)}
    if isinstance(piece, OneOf):
        return {start + len(text) for text in piece.texts for start in starts if path.startswith(text, start)}
    if isinstance(piece, Class):
        return {start + 1 for start in starts if start < len(path) and piece.holds(path[start])}
    if isinstance(piece, WordEdge):
        back = 1 if piece.side == "before" else 0
        return {start for start in starts if not path[max(start - back, 0) : start - back + 1].isalnum()}
    return _wild_ends(piece.kind, path, starts)


def _wild_ends(kind: Wildcard, path: str, starts: Iterable[int]) -> set[int]:
    if kind == "?":
        return {start + 1 for start in starts if start < len(path) and path[start] != "/"}
    first = min(starts)
    if kind == "**":
        return set(range(first, len(path) + 1))
    if kind == "**/":
        return {*starts, *(place + 1 for place in range(first, len(path)) if path[place] == "/")}
    ends: set[int] = set()
    reached = -1
    for start in sorted(starts):
        if start > reached:
            slash = path.find("/", start)
            reached = len(path) if slash < 0 else slash
            ends.update(range(start, reached + 1))
    return ends
