"""What is kept of the last listing of a folder, beside the index, so that the next one goes on from it."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

from builder.model.parquet import read_parquet
from builder.protocols import Entry
from builder.sources.walking import Row, Seen
from builder.storage import Store

VERSION: Final = 1
"""Raised whenever a listing would come out differently, or is kept in another form. All files are then looked at."""

_PREFIX: Final = "listed-"


class Part(NamedTuple):
    """A part of a listing."""

    name: str
    files: int
    bytes: int


@dataclass
class Listing:
    """A listing that came to its end. Its entries are those that are stored of its parts.

    Parameters
    ----------
    store
        Store of the index.
    parts
        The parts, in order.
    folders
        Maps the path of each folder to how it was seen.
    digest
        Of what is kept of it.
    """

    store: Store
    parts: Sequence[Part]
    folders: dict[str, Seen]
    digest: str
    _starts: list[int] = field(init=False)
    """Where each part begins in the listing, and where the last one ends."""
    _read: tuple[int, list[Row]] = (-1, [])

    def __post_init__(self) -> None:
        """Count where the parts begin."""
        self._starts = [0, *accumulate(part.files for part in self.parts)]

    def rows(self, start: int, stop: int) -> list[Row]:
        """Return the entries from one place to another. Raises FileNotFoundError, LayoutError."""
        found: list[Row] = []
        while start < stop:
            number = self.part_at(start)
            first, start = start - self._starts[number], self._starts[number + 1]
            found += self._rows(number)[first : stop - self._starts[number]]
        return found

    def entries(self, start: int, stop: int) -> list[Entry]:
        """Return the entries from one place to another, as they are. Raises FileNotFoundError, LayoutError."""
        return [Entry(*row) for row in self.rows(start, stop)]

    def ends(self, number: int) -> tuple[int, int]:
        """Return the places where a part begins and ends."""
        return self._starts[number], self._starts[number + 1]

    def part_at(self, place: int) -> int:
        """Return the number of the part that the entry at a place is in."""
        return bisect_right(self._starts, place) - 1

    def _rows(self, number: int) -> list[Row]:
        if self._read[0] != number:
            table = read_parquet(self.store.read(entries_of(self.parts[number].name)))
            columns = (table[name].to_pylist() for name in ("path", "size", "stamp", "member"))
            self._read = number, list(zip(*columns, strict=True))
        return self._read[1]


def entries_of(part: str) -> str:
    """Return the path of the entries of a part."""
    return f"{part}.entries.parquet"


def read_listing(store: Store, name: str, *, sizes: tuple[int, int]) -> Listing:
    """Read what is kept of a listing.

    One of nothing where nothing is kept, where it is damaged or of another version, or where parts had other ``sizes``
    (least and most files).
    """
    try:
        digest, data = store.read(f"{_PREFIX}{name}.json").split(b"\n", 1)
        found = json.loads(data)
    except (FileNotFoundError, ValueError):
        return Listing(store, [], {}, "")
    if digest.decode() != _digest(data) or (found["version"], *found["sizes"]) != (VERSION, *sizes):
        return Listing(store, [], {}, "")
    folders = {seen[0]: Seen(*seen) for seen in found["folders"]}
    return Listing(store, [Part(*part) for part in found["parts"]], folders, digest.decode())


def keep_listing(
    store: Store, name: str, parts: Sequence[Part], folders: Sequence[Seen], *, sizes: tuple[int, int], earlier: str
) -> None:
    """Keep a listing, after the entries of its parts. ``earlier`` is the digest of what is kept already."""
    found = {"version": VERSION, "sizes": sizes, "parts": parts, "folders": folders}
    data = json.dumps(found, separators=(",", ":")).encode()
    if _digest(data) != earlier:
        store.put(f"{_PREFIX}{name}.json", f"{_digest(data)}\n".encode() + data)


def forget_listings(store: Store) -> None:
    """Remove what is kept of all listings, so that every folder is looked through again."""
    for path in [path for path in store.list() if is_listing(path)]:
        store.delete(path)


def is_listing(path: str) -> bool:
    """Return whether this is the path of a listing that is kept."""
    return path.rpartition("/")[2].startswith(_PREFIX)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
