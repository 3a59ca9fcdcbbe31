"""Label tables (CSV, TSV, JSON, COCO): cuts out the rows of one image, with mapped UIDs, and nothing else.

A table covers many patients. ``Table.cut`` runs where the archive's own identifiers are still known. It keeps only the
rows of one image and the columns that a reader asked for, so that readers never see the whole table. ``Table.mentions``
says before the build which images have rows, so that an image without a row counts as one without a label.
"""

import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from builder.errors import CaseError, Reason
from builder.labels.coco import coco_rows
from builder.labels.evidence import reader_name
from builder.labels.linking import check_pattern, select_files
from builder.model.linking import ImageRow, Mentions, Selection
from builder.protocols import LabelObject

FORMATS = ("csv", "tsv", "json", "text")
MAX_BYTES = 2**30
MAX_ROWS_A_CASE = 100_000
READER = "reader"
"""Key under which a cut row holds the keyed name of its reader."""

Fact: TypeAlias = Literal[
    "series", "study", "accession", "patient", "instance", "folder_name", "parent_name", "visit", "case", "file", "path"
]
"""The fact of the image that a column names: its series, study, accession number or patient, one of its instances, or a
folder name. Of an image that is not DICOM also its visit, case, file name (with or without suffix) or path below the
source."""

Cell: TypeAlias = Any
"""Text from a CSV; a number, text, list or mapping from JSON; None if the row has no value."""

Row: TypeAlias = Mapping[str, Cell]


class Table(BaseModel):
    """Where a label table lies and which of its rows belong to an image.

    Parameters
    ----------
    match
        Glob over paths, see ``builder.labels.linking.select_files``.
    by
        Maps a column to the fact of the image that it must equal. All columns must match.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    by: dict[str, Fact] = Field(min_length=1)

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the tables whose path matches the pattern."""
        return select_files(image, candidates, pattern=check_pattern(self.match), formats=FORMATS)

    def mentions(
        self, content: bytes, *, columns: Sequence[str] = (), answers: Callable[[Row], bool] = lambda row: True
    ) -> Mentions:
        """Return a test of whether the table has a row for an image.

        Parameters
        ----------
        answers
            Whether a row, of which it is given ``columns``, says anything; a row that says nothing is as good as none.

        Raises
        ------
        CaseError
            LABEL_UNREADABLE when the table has no such column or does not parse.
        """
        named = _rows_by_name(content, tuple(self.by), tuple(columns))

        def has_row(image: ImageRow) -> bool:
            found = (row for names in self._names(image) for _, row in named.get(names, ()))
            return any(answers(row) for row in found)

        return has_row

    def cut(
        self,
        content: bytes,
        image: ImageRow,
        *,
        columns: Sequence[str],
        map_uid: Callable[[str], str],
        reader: str | None = None,
    ) -> bytes:
        """Return the image's rows with ``columns`` and, under ``instance``, the mapped UID of each row's slice.

        Parameters
        ----------
        reader
            Column with the name of the row's reader, which is kept as a keyed name for ``reader_of``.

        Returns
        -------
        bytes
            A JSON list of rows, for ``load_rows``.

        Raises
        ------
        CaseError
            LABEL_UNREADABLE when the table has no such column or does not parse.
        """
        named = _rows_by_name(content, tuple(self.by), (*columns, *([reader] if reader else [])))
        found = [(*numbered, names) for names in self._names(image) for numbered in named.get(names, ())]
        kept = []
        for _, row, names in sorted(found, key=lambda item: item[0]):
            out: dict[str, Any] = {column: row.get(column) for column in columns}
            for name, fact in zip(names, self.by.values(), strict=True):
                if fact == "instance":
                    out["instance"] = map_uid(name)
            if reader is not None:
                out[READER] = reader_name(str(row.get(reader) or ""), map_uid=map_uid)
            kept.append(out)
        return json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()

    def _names(self, image: ImageRow) -> Iterator[tuple[str, ...]]:
        """Yield the values that the columns of ``by`` may have in a row of the image."""
        facts = _facts(image)
        return itertools.product(*(facts[fact] for fact in self.by.values()))


@lru_cache(maxsize=4)
def _rows_by_name(
    content: bytes, by: tuple[str, ...], columns: tuple[str, ...]
) -> Mapping[tuple[str, ...], Sequence[tuple[int, Row]]]:
    """Index numbered rows by their values of ``by``. The result is cached, because every case asks for its own rows."""
    found: dict[tuple[str, ...], list[tuple[int, Row]]] = {}
    for number, row in enumerate(parse_table(content, needed=[*by, *columns])):
        names = tuple(_text(row, column) for column in by)
        found.setdefault(names, []).append((number, {column: row.get(column) for column in columns}))
    return found


def parse_table(content: bytes, *, needed: Sequence[str] = ()) -> list[dict[str, Cell]]:
    """Parse the rows of a CSV or TSV with a header, a JSON list of objects, or a COCO file.

    A COCO file gives one row per annotation; see ``builder.labels.coco.coco_rows``.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE.
    """
    if len(content) > MAX_BYTES:
        raise _unreadable(f"found a table of {len(content)} bytes, expected at most {MAX_BYTES}")
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip()[:1] in ("[", "{"):
            rows = _json_rows(_documents(text))
        else:
            rows = _csv_rows(text)
    except (UnicodeDecodeError, ValueError, csv.Error, KeyError, TypeError, RecursionError) as error:
        raise _unreadable("found a label table that does not parse, expected CSV, TSV, JSON or COCO") from error
    missing = [column for column in needed if rows and column not in rows[0]]
    if missing:
        raise _unreadable(f"found no column {', '.join(missing)} in the label table")
    return rows


def _csv_rows(text: str) -> list[dict[str, Cell]]:
    """Return the rows of a CSV or TSV. Blanks round a heading are no part of it (``ImageId, EncodedPixels``)."""
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",\t;", key=header.count))
    named = [name.strip() for name in reader.fieldnames or ()]
    if len({*named}) == len(named):
        reader.fieldnames = named
    return [dict(row) for row in reader]


def load_rows(objects: Sequence[LabelObject]) -> list[Row]:
    """Load the rows returned by ``Table.cut``, from all objects in order.

    Raises
    ------
    CaseError
        LABEL_MISSING without objects or rows, LABEL_UNREADABLE for content that ``Table.cut`` did not write.
    """
    if not objects:
        raise CaseError(Reason.LABEL_MISSING, "found no label table for the image")
    rows: list[Row] = []
    for item in objects:
        if isinstance(item.content, Mapping):
            rows.append(item.content)
            continue
        if not isinstance(item.content, bytes):
            raise _unreadable("found an object that is no rows of a label table")
        try:
            found = json.loads(item.content)
        except (ValueError, RecursionError) as error:
            raise _unreadable("found an object that is no rows of a label table") from error
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise _unreadable("found an object that is no rows of a label table")
        rows.extend(found)
    if not rows:
        raise CaseError(Reason.LABEL_MISSING, "found no row of the label table for the image")
    if len(rows) > MAX_ROWS_A_CASE:
        raise _unreadable(f"found {len(rows)} rows for one image, expected at most {MAX_ROWS_A_CASE}")
    return rows


def is_blank(row: Row, columns: Sequence[str]) -> bool:
    """Return whether all ``columns`` of a row are empty: somebody looked and found nothing to mark."""
    return all(not _text(row, column) for column in columns)


def reader_of(row: Row) -> str:
    """Return the keyed name of a row's reader, or "" if the table names none."""
    return str(row.get(READER) or "")


def number(row: Row, column: str) -> float:
    """Return the finite number in a cell. Raises CaseError LABEL_UNREADABLE."""
    try:
        value = float(str(row[column]).strip())
    except (KeyError, ValueError) as error:
        raise _unreadable(f"found a cell of column {column} that is no number") from error
    if not math.isfinite(value):
        raise _unreadable(f"found a cell of column {column} that is not finite")
    return value


def _text(row: Row, column: str) -> str:
    cell = row.get(column)
    return "" if cell is None else str(cell).strip()


def _facts(image: ImageRow) -> dict[str, frozenset[str]]:
    parts = image.folder.split("/")
    of_file = dict(image.fields)
    return {
        "series": frozenset({image.series_uid}),
        "study": frozenset({image.study_uid}),
        "accession": frozenset({image.accession_number}) - {""},
        "patient": frozenset({image.patient_id}),
        "instance": image.sop_uids,
        "folder_name": frozenset(parts[-1:]),
        "parent_name": frozenset(parts[-2:-1]),
    } | {fact: frozenset(of_file[name] for name in names if name in of_file) for fact, names in _OF_FILES.items()}


_OF_FILES = {"visit": ("visit",), "case": ("case",), "file": ("file", "stem"), "path": ("path",)}
"""Facts of an image that is not DICOM, and the fields of its layout that they are taken from."""


def _documents(text: str) -> Any:
    """Return a JSON document, or the list of the objects of JSON lines."""
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def _json_rows(document: Any) -> list[dict[str, Cell]]:
    if isinstance(document, list):
        return [dict(row) for row in document]
    return coco_rows(document)


def _unreadable(detail: str) -> CaseError:
    return CaseError(Reason.LABEL_UNREADABLE, detail)
