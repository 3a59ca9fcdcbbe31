"""Find the files that DICOMDIR files list and the source does not hold."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pydicom

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.model.tables import INSTANCES
from builder.protocols import Entry, Source

DIRECTORY_LIMIT: Final = 64 * 2**20
"""Most bytes of a DICOMDIR that is read; a larger one is not compared."""

Place: TypeAlias = tuple[int, str, str]
"""Source, path and member of a file."""

_PLACE = ("source", "path", "member")
LISTED: Final = (*_PLACE, "size", "stamp", "format")
"""Columns of INSTANCES that ``missing_files`` reads."""


def missing_files(parts: Callable[[], Iterable[pa.Table]], sources: Sequence[Source]) -> pa.Table:
    """Return rows of INSTANCES for files that a DICOMDIR lists and that do not exist beside it (PS3.10 section 8).

    Names are compared without regard to case, because copied media often have lower-case names. Each row is
    ``quarantined`` with reason ``source_missing``, size 0 and the path the DICOMDIR gives.

    Parameters
    ----------
    parts
        Called twice. Gives tables of INSTANCES one at a time, with the columns ``LISTED`` at least.
    sources
        By position.
    """
    wanted: dict[Place, Place] = {}
    for part in parts():
        for row in part.filter(pc.equal(part["format"], "dicomdir")).to_pylist():
            for path, member in _listed(sources[row["source"]], row):
                place = (row["source"], path, member)
                wanted[folded(place)] = place
    if wanted:
        for part in parts():
            for place in places(part):
                wanted.pop(folded(place), None)
    rows = [_row(place) for place in sorted(wanted.values())]
    return pa.Table.from_pylist(rows, schema=INSTANCES)


def places(table: pa.Table) -> Iterator[Place]:
    """Yield where the file of each row is."""
    yield from zip(*(table[name].to_pylist() for name in _PLACE), strict=True)


def folded(place: Place) -> Place:
    """Return a place as it is compared with what a DICOMDIR lists."""
    source, path, member = place
    return (source, path if member else path.casefold(), member.casefold())


def _listed(source: Source, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (path, member) of every file that a DICOMDIR lists; nothing when it cannot be read."""
    if row["size"] > DIRECTORY_LIMIT:
        return
    try:
        data = source.read(Entry(row["path"], row["size"], row["stamp"], row["member"]))
        with warnings.catch_warnings(), parsing(Reason.UNREADABLE, "pydicom cannot parse a DICOMDIR"):
            warnings.simplefilter("ignore")
            records = pydicom.dcmread(io.BytesIO(data), force=True).get("DirectoryRecordSequence") or ()
            names = [_parts(record.get("ReferencedFileID")) for record in records]
    except CaseError:
        return
    home = PurePosixPath(row["member"] or row["path"]).parent
    for name in names:
        if name and not any(part in ("", ".", "..") or "/" in part for part in name):
            place = home.joinpath(*name).as_posix()
            yield (row["path"], place) if row["member"] else (place, "")


def _parts(file_id: Any) -> tuple[str, ...]:
    """Return the components of a Referenced File ID (0004,1500)."""
    if file_id is None:
        return ()
    return (file_id,) if isinstance(file_id, str) else tuple(str(part) for part in file_id)


def _row(place: Place) -> dict[str, Any]:
    detail = "a DICOMDIR lists this file and the source does not hold it"
    return {
        **dict(zip(_PLACE, place, strict=True)),
        "size": 0,
        "stamp": "",
        "status": "quarantined",
        "reason": Reason.SOURCE_MISSING.value,
        "detail": detail,
        "format": "unknown",
        "referenced_series_uids": (),
        "referenced_sop_uids": (),
        "referenced_frame_of_reference_uids": (),
        "label_names": (),
    }
