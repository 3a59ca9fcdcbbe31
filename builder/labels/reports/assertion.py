"""What a report says of each finding: mentions, the cues in whose scope they stand, and the verdict of the whole."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from builder.labels.reports.lexicon import Lexicon

MAX_CHARACTERS = 1_000_000
SCOPE_WORDS = 12
"""A cue reaches this many words at most (NegEx used 5 to 6; chest reports list findings after one "no")."""

SILENT_SECTIONS = (
    "indication", "clinical indication", "history", "clinical history", "clinical information", "comparison",
    "comparisons", "technique", "exam", "examination", "procedure", "reason for exam", "reason for examination",
)  # fmt: skip
"""Headings whose text tells what was asked or done, not what was found."""


class Status(StrEnum):
    """What a report says of a finding."""

    POSITIVE = "positive"
    ALTERNATIVE = "alternative"
    UNCERTAIN = "uncertain"
    NEGATIVE = "negative"
    ABSENT = "absent"


def label_report(text: str, lexicon: Lexicon) -> Mapping[str, Status]:
    """The verdict on every finding of the lexicon.

    Sections that do not report findings are left out, sentences are judged one by one, and the strongest mention
    counts: positive, one of several alternatives, uncertain, negative; a finding nobody mentions is absent.
    """
    found: dict[str, set[Status]] = {finding: set() for finding in lexicon.findings}
    for sentence in split_sentences(reported_text(text[:MAX_CHARACTERS])):
        for finding, status in judge_sentence(sentence, lexicon):
            found[finding].add(status)
    order = (Status.POSITIVE, Status.ALTERNATIVE, Status.UNCERTAIN, Status.NEGATIVE)
    return {finding: next((s for s in order if s in statuses), Status.ABSENT) for finding, statuses in found.items()}


def reported_text(text: str) -> str:
    """The text without the sections that tell what was asked or done."""
    kept, silent = [], False
    for part in re.split(r"(?im)(^[ \t]*[A-Za-z][A-Za-z /]{2,40}:)", text):
        heading = part.strip().rstrip(":").strip().lower()
        if part.strip().endswith(":") and len(heading) <= 40 and "\n" not in part.strip():
            silent = heading in SILENT_SECTIONS
        elif not silent:
            kept.append(part)
    return "\n".join(kept)


def split_sentences(text: str) -> list[str]:
    """Sentences: they end with a full stop before white space, or where a blank line or a list item begins."""
    text = re.sub(r"(?m)^\s*\d{1,2}[.)]\s+", ". ", text)
    text = re.sub(r"(?<=\s)\d{1,2}\.\s+(?=[A-Z])", ". ", text)
    parts = re.split(r"(?<=[.!?])\s+(?=\S)|\n\s*\n", text)
    return [re.sub(r"\s+", " ", part).strip() for part in parts if part.strip(" .\n")]


def judge_sentence(sentence: str, lexicon: Lexicon) -> list[tuple[str, Status]]:
    """(finding, status) of every mention in one sentence."""
    apparent = _spans(sentence, lexicon.cues.get("apparent", ()))
    stops = _outside(_spans(sentence, lexicon.cues.get("stop", ())), apparent)
    cues = {role: _matches(sentence, expressions) for role, expressions in lexicon.cues.items()}
    doubts = cues.get("uncertain before", [])
    for role in ("negated before", "negated after"):
        # "cannot exclude" doubts, although "exclude" denies
        cues[role] = _outside(_uncovered(cues.get(role, []), doubts), apparent)
    verdicts = []
    for finding, expressions in lexicon.findings.items():
        for mention in _outside(_spans(sentence, expressions), _spans(sentence, lexicon.apparent.get(finding, ()))):
            status = _judge(sentence, mention, cues, stops)
            if status is not None:
                verdicts.append((finding, status))
    return verdicts


Span = tuple[int, int]


def _judge(sentence: str, mention: Span, cues: Mapping[str, Sequence[Span]], stops: Sequence[Span]) -> Status | None:
    if _before(sentence, mention, cues.get("other", ()), stops):
        return None
    doubted = _before(sentence, mention, cues.get("uncertain before", ()), stops) or _after(
        sentence, mention, cues.get("uncertain after", ()), stops
    )
    offered = (
        _before(sentence, mention, cues.get("alternative before", ()), stops)
        or _after(sentence, mention, cues.get("alternative after", ()), stops)
        or _beside(sentence, mention, cues.get("alternative next", ()))
    )
    if any(mention[0] <= cue[0] and cue[1] <= mention[1] for cue in cues.get("negated before", ())):
        return Status.NEGATIVE  # "the heart is not enlarged" names the finding around its denial
    if _before(sentence, mention, cues.get("negated before", ()), stops) or _after(
        sentence, mention, cues.get("negated after", ()), stops
    ):
        return Status.NEGATIVE
    return Status.UNCERTAIN if doubted else Status.ALTERNATIVE if offered else Status.POSITIVE


def _before(sentence: str, mention: Span, cues: Sequence[Span], stops: Sequence[Span]) -> bool:
    return any(
        cue[1] <= mention[0] and _reaches(sentence, cue[1], mention[0], stops) for cue in cues if cue[0] < mention[0]
    )


def _after(sentence: str, mention: Span, cues: Sequence[Span], stops: Sequence[Span]) -> bool:
    return any(mention[1] <= cue[0] and _reaches(sentence, mention[1], cue[0], stops) for cue in cues)


def _beside(sentence: str, mention: Span, cues: Sequence[Span]) -> bool:
    """Whether a cue follows at once, or a stroke joins the mention to another word (``atelectasis/scarring``)."""
    joined = sentence[mention[1] :].startswith("/") or sentence[: mention[0]].endswith("/")
    return joined or any(mention[1] <= cue[0] and not sentence[mention[1] : cue[0]].strip() for cue in cues)


def _reaches(sentence: str, start: int, end: int, stops: Sequence[Span]) -> bool:
    """Whether nothing that ends a scope stands between two places, and they are near enough."""
    if any(start <= stop[0] and stop[1] <= end for stop in stops):
        return False
    return len(sentence[start:end].split()) <= SCOPE_WORDS


def _spans(sentence: str, expressions: Sequence[re.Pattern[str]]) -> list[Span]:
    """Where expressions match, the longest of overlapping ones only."""
    spans = sorted(_matches(sentence, expressions), key=lambda s: (s[0] - s[1], s[0]))
    kept: list[Span] = []
    for span in spans:
        if all(span[1] <= other[0] or other[1] <= span[0] for other in kept):
            kept.append(span)
    return sorted(kept)


def _matches(sentence: str, expressions: Sequence[re.Pattern[str]]) -> list[Span]:
    return sorted({m.span() for e in expressions for m in e.finditer(sentence)})


def _uncovered(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Spans that are no part of a longer one of ``others``."""
    return [s for s in spans if not any(o[0] <= s[0] and s[1] <= o[1] and o != s for o in others)]


def _outside(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The spans that do not overlap any of the others."""
    return [s for s in spans if all(s[1] <= o[0] or o[1] <= s[0] for o in others)]
