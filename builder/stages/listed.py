"""Where an object of the index lies in its source, and how its bytes are read."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from builder.errors import CaseError, Reason, SourceError
from builder.protocols import Entry
from builder.sources import AnySource, Folder


class Listed(NamedTuple):
    """An object of the index: where it lies and what its bytes are. The columns are those of INSTANCES."""

    source: int
    path: str
    size: int
    stamp: str
    member: str = ""
    format: str = ""
    pixel_offset: int | None = None
    pixel_length: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Listed":
        """Make one of a row, which may lack the columns with defaults."""
        return cls(**{name: row[name] for name in cls._fields if row.get(name) is not None})

    @property
    def entry(self) -> Entry:
        """The entry in the listing of its source."""
        return Entry(self.path, self.size, self.stamp, self.member)

    @property
    def place(self) -> str:
        """Its path, and its name inside an archive, as messages show them."""
        return f"{self.path}!{self.member}" if self.member else self.path


def bring(rows: pa.Table, sources: Sequence[AnySource]) -> None:
    """Have servers send the objects of some rows, many at once, so that each is there when it is read.

    Raises SourceError when a source does not answer.
    """
    places = rows.column("source").to_pylist()
    for number in sorted(set(places)):
        if sources[number].at_once > 1:
            own = rows.filter(pa.array([place == number for place in places]))
            sources[number].bring(list(dict.fromkeys(Listed.of(row).entry for row in own.to_pylist())))


def read_object(listed: Listed, sources: Sequence[AnySource], *, start: int = 0, length: int | None = None) -> bytes:
    """Read bytes of an object.

    Raises
    ------
    CaseError
        If the object is gone.
    SourceError
        If a source does not answer, or the object has changed since it was indexed.
    """
    try:
        return sources[listed.source].read(listed.entry, start=start, length=length)
    except CaseError as error:
        if error.reason != Reason.SOURCE_CHANGED:
            raise
        source = sources[listed.source]
        unseen = isinstance(source, Folder) and source.files == "write_once"  # a listing does not show that it changed
        # an exclusion would stay in the shard permanently, although the object that is there now may be sound
        raise SourceError(
            "source: found an object that changed after it was indexed, expected the same one during a build; nothing "
            f"was published: run the same command again{', with files: mutable' if unseen else ''}, it takes the "
            "object as it is then"
        ) from error
