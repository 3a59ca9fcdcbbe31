"""Read the lists of series that TCIA hands out: manifests, and digests of its portal."""

import csv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError, counted

MANIFEST_LIMIT: Final = 256 * 2**20
_DIGEST_COLUMNS = ("seriesinstanceuid", "seriesuid", "seriesid")
_LIST = "ListOfSeriesToDownload="


def read_manifest(path: str) -> Sequence[str]:
    """Return the Series Instance UIDs that a manifest names, in its order.

    In a ``.tcia`` file the list follows the line ``ListOfSeriesToDownload=``. A line of the first version holds several
    fields between bars, of which the UID is one. In a digest of the portal (``.csv``, ``.xlsx``) it is the column of
    Series Instance UIDs.

    Raises
    ------
    SpecError
        When the file cannot be read or names no series.
    """
    suffix = Path(path).suffix.lower()
    try:
        if Path(path).stat().st_size > MANIFEST_LIMIT:
            raise SpecError(
                f"sources.manifest: found a file of more than {MANIFEST_LIMIT:,} bytes, expected a manifest"
            )
        if suffix in (".csv", ".xlsx"):
            return _read_digest(_rows_of_xlsx(path) if suffix == ".xlsx" else _rows_of_csv(path))
        text = Path(path).read_text("utf-8-sig")
    except (OSError, ValueError, csv.Error, KeyError, zipfile.BadZipFile) as error:
        raise SpecError(f"sources.manifest: found no file that can be read ({type(error).__name__})") from None
    _, mark, listed = text.partition(_LIST)
    fields = ([part.strip() for part in line.split("|")] for line in listed.splitlines())
    found = [next((part for part in parts if _is_uid(part)), "") for parts in fields if any(parts)]
    if not mark or not found or not all(found):
        raise SpecError(
            f"sources.manifest: found {counted(len(found), 'line')} after {_LIST!r}, expected a Series Instance UID in "
            "each; download the manifest from TCIA again"
        )
    return list(dict.fromkeys(found))


def _read_digest(rows: Iterator[Sequence[Any]]) -> Sequence[str]:
    """Return the UIDs in the column of a digest that holds them, in its order. Raises SpecError."""
    header = [str(name or "").replace(" ", "").replace("_", "").lower() for name in next(rows, ())]
    place = next((header.index(name) for name in _DIGEST_COLUMNS if name in header), None)
    if place is None:
        raise SpecError("sources.manifest: found no column Series Instance UID, expected one in a digest of the portal")
    found = [str(row[place] or "").strip() if place < len(row) else "" for row in rows if any(row)]
    if not found or not all(map(_is_uid, found)):
        wrong = sum(not _is_uid(uid) for uid in found)
        raise SpecError(
            f"sources.manifest: found {wrong} of {counted(len(found), 'row')} without a Series Instance UID, "
            "expected one in each; download the digest from TCIA again "
            "(a spreadsheet program may have turned UIDs into numbers)"
        )
    return list(dict.fromkeys(found))


def _rows_of_csv(path: str) -> Iterator[Sequence[str]]:
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        yield from csv.reader(stream)


def _rows_of_xlsx(path: str) -> Iterator[Sequence[Any]]:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        yield from book.worksheets[0].iter_rows(values_only=True)
    finally:
        book.close()


def _is_uid(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789.") and "." in text and len(text) <= 64
