"""Reader for the text of reports, from files or a table: chosen sections, published only through the text gate."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import pyarrow as pa
from pydantic import AfterValidator, Field

from builder.errors import CaseError, Reason
from builder.labels.label import Label
from builder.labels.linking import check_pattern, select_files
from builder.labels.report import FORMATS, MAX_BYTES, report_text
from builder.labels.rows import load_rows
from builder.labels.tables import TableLabel
from builder.model.case import Annotation, Evidence, Text, Tier
from builder.model.linking import ImageRow, Selection
from builder.protocols import ImageFacts, LabelObject

Sections: TypeAlias = tuple[Annotated[str, Field(min_length=1)], ...]
Several: TypeAlias = Literal["refuse", "join"]

_HEADING = re.compile(r"(?im)^[ \t]*([a-z][a-z /]{2,40}):")
_LABELLED_TAG = re.compile(r"<[^<>]*\blabel\s*=\s*[\"']([^\"'<>]{3,40})[\"'][^<>]*>", re.IGNORECASE)
"""A tag that names a section, as in Open-I's ``<AbstractText Label="FINDINGS">``."""


class ReportText(Label):
    """The text of report files as a field of the sample.

    Parameters
    ----------
    match
        Glob over the paths of report files; see ``builder.labels.linking.select_files``.
    sections
        Headings of the sections to keep (``findings``, ``impression``), in this order and without regard to case. None
        keeps the whole text.
    several
        What to do with more than one report: ``refuse`` the case, or ``join`` the texts.
    sentences
        Lexicon by which the sentences of the published text are searched for findings (``sentences.parquet``).

    The text passes the privacy gate before it is written: names, dates, times, numbers and addresses are replaced by
    ``[...]``.
    """

    VERSION: ClassVar[int] = 1
    TIER: ClassVar[Tier] = "report_text"

    kind: Literal["text"] = "text"
    match: Annotated[str, AfterValidator(check_pattern)]
    sections: Sections = ()
    several: Several = "refuse"
    sentences: Literal["chest14"] | None = None

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the report files whose path matches the pattern."""
        return select_files(image, candidates, pattern=self.match, formats=FORMATS)

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return the text called ``name``.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_UNREADABLE, or LABEL_EMPTY for a report without the chosen sections.
        """
        if not objects:
            raise CaseError(Reason.LABEL_MISSING, "found no report linked to the image")
        reports = [sections_of(item.content, self.sections) for item in objects]
        return (_text(name, reports, self.sections, self.several, self.tier),)


class TextTable(TableLabel):
    """The text of reports in a table (CSV, TSV, JSON or JSON lines) with a row for each, as a field of the sample.

    Parameters
    ----------
    table
        Where the table lies, and which rows are the image's: by accession number, study, file name, ...
    sections
        Columns that hold the text, in this order.
    several, sentences
        As of the kind ``text``, whose privacy gate this text passes too.
    """

    VERSION: ClassVar[int] = 1
    TIER: ClassVar[Tier] = "report_text"

    kind: Literal["text_table"] = "text_table"
    sections: Sections = Field(min_length=1)
    several: Several = "refuse"
    sentences: Literal["chest14"] | None = None

    @property
    def columns(self) -> Sequence[str]:
        """Return the columns of the text."""
        return self.sections

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return the text called ``name``. Raises CaseError as the kind ``text`` does."""
        rows = [{c: str(row.get(c) or "") for c in self.sections} for row in load_rows(objects)]
        return (_text(name, rows, self.sections, self.several, self.tier),)


TEXTS = (ReportText, TextTable)
"""The readers whose label is a text."""


def _text(name: str, reports: Sequence[Mapping[str, str]], wanted: Sequence[str], several: Several, tier: Tier) -> Text:
    """Join the sections of the reports of one image."""
    parts = [[text.strip() for text in report.values() if text.strip()] for report in reports]
    texts = list(dict.fromkeys("\n\n".join(own) for own in parts if own))
    if not texts:
        raise CaseError(Reason.LABEL_EMPTY, f"found a report without {' or '.join(wanted) or 'a word'}")
    if len(texts) > 1 and several == "refuse":
        raise CaseError(Reason.LABEL_AMBIGUOUS, f"found {len(texts)} reports that differ, expected one; several: join")
    return Text(name, "\n\n".join(texts), Evidence(tier=tier))


def sections_of(content: object, wanted: Sequence[str]) -> dict[str, str]:
    """Return the wanted sections of a report file by name, or its whole text under "" if none is named.

    Raises
    ------
    CaseError
        LABEL_UNREADABLE, or LABEL_EMPTY for a file without a word.
    """
    if not isinstance(content, bytes | bytearray) or len(content) > MAX_BYTES:
        raise CaseError(Reason.LABEL_UNREADABLE, "found an object that is no text file of at most 4 MiB")
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<", content):
        marked = _LABELLED_TAG.sub(
            lambda tag: f"\n\n{html.unescape(tag[1])}:\n", bytes(content).decode("utf-8", "replace")
        )
        content = marked.encode()
    text = report_text(content)
    if not wanted:
        return {"": text.strip()}
    parts = _HEADING.split(text)
    found: dict[str, str] = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        key = heading.strip().lower()
        found[key] = f"{found[key]}\n\n{body.strip()}" if key in found else body.strip()
    return {name: found[name.lower()] for name in wanted if name.lower() in found}
