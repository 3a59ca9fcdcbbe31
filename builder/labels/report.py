"""Reader for report text: class labels for 14 chest findings, from a lexicon and cues of negation and uncertainty."""

import html
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import AfterValidator, model_validator

from builder.errors import CaseError, Reason
from builder.labels.label import Label
from builder.labels.linking import check_pattern, select_files
from builder.labels.reports import Status, label_report, load_lexicon
from builder.model.case import Annotation, Classes, Evidence, Tier
from builder.model.keyed import Key
from builder.model.linking import ImageRow, Selection
from builder.protocols import ImageFacts, LabelObject

MAX_BYTES = 4 * 2**20
FORMATS = ("text", "txt", "xml", "html", "unknown")


class Report(Label):
    """Findings that a report names, denies or doubts. The text itself is not passed on.

    Parameters
    ----------
    match
        Glob over the paths of report files; see ``builder.labels.linking.select_files``.
    lexicon
        ``chest14``: the findings of ChestX-ray14.
    findings
        Findings to keep, in this order. Empty keeps all findings of the lexicon.
    alternatives
        What "atelectasis or infiltrate" and "scar versus nodule" count as: ``uncertain``, or ``positive`` as in the
        Open-I gold table.
    several
        What to do with more than one report: ``refuse`` the case, or ``join`` the findings.
    """

    VERSION: ClassVar[int] = 3
    FUSED_BY: ClassVar[tuple[str, ...]] = ("majority", "dawid_skene")
    TIER: ClassVar[Tier] = "report_text"

    kind: Literal["report"] = "report"
    match: Annotated[str, AfterValidator(check_pattern)]
    lexicon: Literal["chest14"] = "chest14"
    findings: tuple[str, ...] = ()
    alternatives: Literal["uncertain", "positive"] = "uncertain"
    several: Literal["refuse", "join"] = "refuse"

    @model_validator(mode="after")
    def _findings_are_known(self) -> "Report":
        unknown = [finding for finding in self.findings if finding not in load_lexicon(self.lexicon).findings]
        if unknown:
            known = ", ".join(load_lexicon(self.lexicon).findings)
            raise ValueError(f"findings: found {unknown[0]!r}, expected those of the lexicon {self.lexicon}: {known}")
        return self

    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the report files whose path matches the pattern."""
        return select_files(image, candidates, pattern=self.match, formats=FORMATS)

    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Return classes called ``name``: each finding is ``positive``, ``uncertain``, ``negative`` or ``absent``.

        Raises
        ------
        CaseError
            LABEL_MISSING, LABEL_AMBIGUOUS, LABEL_UNREADABLE or, for a report without words, LABEL_EMPTY.
        """
        if not objects:
            raise CaseError(Reason.LABEL_MISSING, "found no report linked to the image")
        if len(objects) > 1 and self.several == "refuse":
            raise CaseError(Reason.LABEL_AMBIGUOUS, f"found {len(objects)} reports, expected one; several: join")
        lexicon = load_lexicon(self.lexicon)
        verdicts = label_report("\n\n".join(report_text(item.content) for item in objects), lexicon)
        wanted = self.findings or tuple(lexicon.findings)
        values = {finding: self._value(verdicts[finding]) for finding in wanted}
        return (Classes(name, values, Evidence(tier=self.tier, tool=f"{self.lexicon}/{self.VERSION}")),)

    def _value(self, status: Status) -> str:
        return self.alternatives if status is Status.ALTERNATIVE else status.value


def draw_review(case_keys: Sequence[str], count: int, *, key: Key) -> list[str]:
    """Draw ``count`` cases for a person to read, by keyed numbers that do not depend on the order of ``case_keys``."""
    return sorted(set(case_keys), key=lambda case: (key.number("review", case), case))[:count]


def report_text(content: object) -> str:
    """Return the text of a report file without its tags. Raises CaseError LABEL_UNREADABLE or LABEL_EMPTY."""
    if not isinstance(content, bytes | bytearray) or len(content) > MAX_BYTES:
        raise CaseError(Reason.LABEL_UNREADABLE, "found an object that is no text file of at most 4 MiB")
    try:
        text = bytes(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaseError(Reason.LABEL_UNREADABLE, "found a report that is not UTF-8 text") from error
    if "\0" in text:
        raise CaseError(Reason.LABEL_UNREADABLE, "found zero bytes in a report, expected text")
    if re.match(r"\s*<", text):
        # Tags become breaks so that two fields never run into one sentence. No XML parser is used, and only character
        # entities are resolved, so a file cannot expand or open others.
        text = html.unescape(re.sub(r"<[^<>]*>", "\n\n", text))
    if not re.search(r"\w\w", text):
        raise CaseError(Reason.LABEL_EMPTY, "found a report without a word")
    return text
