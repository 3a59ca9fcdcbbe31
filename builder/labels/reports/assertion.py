"""Verdict of a report on each finding, from its mentions and the cues whose scope they fall in."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from operator import itemgetter

from builder.labels.reports.lexicon import Lexicon

MAX_CHARACTERS = 1_000_000
SCOPE_WORDS = 12
"""Maximum reach of a cue in words. NegEx used 5 to 6, but chest reports list many findings after one "no"."""

SILENT_SECTIONS = (
    "indication", "clinical indication", "history", "clinical history", "clinical information", "comparison",
    "comparisons", "technique", "exam", "examination", "procedure", "reason for exam", "reason for examination",
)  # fmt: skip
"""Headings of sections that say what was asked or done rather than what was found."""

Span = tuple[int, int]


class Status(StrEnum):
    """What a report says about a finding."""

    POSITIVE = "positive"
    ALTERNATIVE = "alternative"
    UNCERTAIN = "uncertain"
    NEGATIVE = "negative"
    ABSENT = "absent"


def label_report(text: str, lexicon: Lexicon) -> Mapping[str, Status]:
    """Return the verdict on every finding of the lexicon.

    Sections that do not report findings are skipped, and sentences are judged one by one. The strongest mention counts,
    in the order positive, one of several alternatives, uncertain, negative. A finding is absent if nobody mentions it
    or if it is only asked about ("evaluation for pneumonia"). The work grows with the length of the text, not with its
    square.
    """
    found: dict[str, set[Status]] = {finding: set() for finding in lexicon.findings}
    for sentence in split_sentences(reported_text(text[:MAX_CHARACTERS])):
        for finding, status in judge_sentence(sentence, lexicon):
            found[finding].add(status)
    order = (Status.POSITIVE, Status.ALTERNATIVE, Status.UNCERTAIN, Status.NEGATIVE)
    return {finding: next((s for s in order if s in statuses), Status.ABSENT) for finding, statuses in found.items()}


def reported_text(text: str) -> str:
    """Return the text without the sections that say what was asked or done."""
    kept, silent = [], False
    for part in re.split(r"(?im)(^[ \t]*[A-Za-z][A-Za-z /]{2,40}:)", text):
        heading = part.strip().rstrip(":").strip().lower()
        if part.strip().endswith(":") and len(heading) <= 40 and "\n" not in part.strip():
            silent = heading in SILENT_SECTIONS
            if "differential" in heading:
                kept.append(part)  # the heading itself is a cue
        elif not silent:
            kept.append(part)
    return "\n".join(kept)


def split_sentences(text: str) -> list[str]:
    """Split at a full stop before white space, and at the start of a list item or after a blank line."""
    text = re.sub(r"(?m)^[ \t]*\d{1,2}[.)]\s+", ". ", text)
    text = re.sub(r"(?<=\s)\d{1,2}\.\s+(?=[A-Z])", ". ", text)
    parts = re.split(r"(?<=[.!?])\s+(?=\S)|\n\s*\n", text)
    return [re.sub(r"\s+", " ", part).strip() for part in parts if part.strip(" .\n")]


def judge_sentence(sentence: str, lexicon: Lexicon) -> list[tuple[str, Status]]:
    """Return (finding, status) of every mention in one sentence."""
    if not lexicon.any_finding.search(sentence):
        return []
    mentions = [
        (finding, mention)
        for finding, expressions in lexicon.findings.items()
        for mention in _outside(_longest(_matches(sentence, expressions)), _apparent(sentence, lexicon, finding))
    ]
    if not mentions:
        return []
    scopes = _Scopes(sentence, lexicon)
    judged = [(finding, scopes.judge(mention)) for finding, mention in mentions]
    return [(finding, status) for finding, status in judged if status is not None]


class _Scopes:
    """The cues of one sentence, and the mentions that they reach."""

    def __init__(self, sentence: str, lexicon: Lexicon) -> None:
        cues = {role: _matches(sentence, expressions) for role, expressions in lexicon.cues.items()}
        apparent = _longest(cues.pop("apparent", []))
        doubts = [*cues.get("uncertain before", []), *cues.get("uncertain after", [])]
        for role in ("negated before", "negated after", "other"):
            # "cannot exclude" expresses doubt, although "exclude" alone denies.
            cues[role] = _outside(_uncovered(cues.get(role, []), doubts), apparent)
        words = [m.span() for m in re.finditer(r"\S+", sentence)]
        self._sentence = sentence
        self._word_starts, self._word_ends = [w[0] for w in words], [w[1] for w in words]
        self._stops = _outside(_longest(cues.pop("stop", [])), apparent)
        self._by_start = cues
        self._by_end = {role: sorted(spans, key=itemgetter(1)) for role, spans in cues.items()}

    def judge(self, mention: Span) -> Status | None:
        """Return what the sentence says about a mention, or None unless it is about this patient's present state."""
        asked, denied = self._before(mention, "other"), self._before(mention, "negated before")
        if asked is not None and (denied is None or denied <= asked):
            return None
        doubted = (
            self._before(mention, "uncertain before") is not None
            or self._after(mention, "uncertain after")
            or self._next(mention, "uncertain next")
        )
        offered = (
            self._before(mention, "alternative before") is not None
            or self._after(mention, "alternative after")
            or self._next(mention, "alternative next")
            or self._joined(mention)
        )
        if self._within(mention, "negated before"):
            return Status.NEGATIVE  # "the heart is not enlarged" names the finding around its denial
        if denied is not None or self._after(mention, "negated after"):
            return Status.NEGATIVE
        return Status.UNCERTAIN if doubted else Status.ALTERNATIVE if offered else Status.POSITIVE

    def _before(self, mention: Span, role: str) -> int | None:
        """Return where the nearest cue before the mention ends, or None if no cue reaches it."""
        cues = self._by_end.get(role, [])
        for place in range(bisect_right(cues, mention[0], key=itemgetter(1)) - 1, -1, -1):
            if not self._reaches(cues[place][1], mention[0]):
                return None
            if cues[place][0] < mention[0]:
                return cues[place][1]
        return None

    def _after(self, mention: Span, role: str) -> bool:
        cues = self._by_start.get(role, [])
        place = bisect_left(cues, mention[1], key=itemgetter(0))
        return place < len(cues) and self._reaches(mention[1], cues[place][0])

    def _next(self, mention: Span, role: str) -> bool:
        """Return whether a cue follows immediately."""
        cues = self._by_start.get(role, [])
        place = bisect_left(cues, mention[1], key=itemgetter(0))
        near = place < len(cues) and cues[place][0] - mention[1] <= 2
        return near and not self._sentence[mention[1] : cues[place][0]].strip(" ,")

    def _joined(self, mention: Span) -> bool:
        """Return whether a slash joins the mention to another word (``atelectasis/scarring``)."""
        after, before = mention[1], max(0, mention[0] - 1)
        return "/" in (self._sentence[after : after + 1], self._sentence[before : mention[0]])

    def _within(self, mention: Span, role: str) -> bool:
        cues = self._by_start.get(role, [])
        first = bisect_left(cues, mention[0], key=itemgetter(0))
        last = bisect_right(cues, mention[1], key=itemgetter(0))
        return any(cue[1] <= mention[1] for cue in cues[first:last])

    def _reaches(self, start: int, end: int) -> bool:
        """Return whether two places are close enough, with nothing between them that ends a scope."""
        stop = bisect_left(self._stops, start, key=itemgetter(0))
        if stop < len(self._stops) and self._stops[stop][1] <= end:
            return False
        return bisect_left(self._word_starts, end) - bisect_right(self._word_ends, start) <= SCOPE_WORDS


def _apparent(sentence: str, lexicon: Lexicon, finding: str) -> list[Span]:
    return _longest(_matches(sentence, lexicon.apparent.get(finding, ())))


def _matches(sentence: str, expressions: Sequence[re.Pattern[str]]) -> list[Span]:
    return sorted({m.span() for e in expressions for m in e.finditer(sentence)})


def _longest(spans: Sequence[Span]) -> list[Span]:
    """Return the longest of overlapping spans, in order."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s[0] - s[1], s[0])):
        place = bisect_left(kept, span)
        if (place == 0 or kept[place - 1][1] <= span[0]) and (place == len(kept) or span[1] <= kept[place][0]):
            kept.insert(place, span)
    return kept


def _uncovered(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Return the spans that are not part of a longer span of ``others``."""
    ordered = sorted(others)
    reached: list[int] = []  # furthest end of the others up to here
    for _, end in ordered:
        reached.append(max(end, reached[-1] if reached else end))
    kept = []
    for span in spans:
        place = bisect_left(ordered, span)  # all before it start earlier, or start there and end earlier
        longer = place > 0 and reached[place - 1] >= span[1]
        same_start = bisect_right(ordered, span[0], key=itemgetter(0))
        if not longer and not (same_start > 0 and reached[same_start - 1] > span[1]):
            kept.append(span)
    return kept


def _outside(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Return the spans that overlap none of ``others``, which must not overlap each other."""
    ordered = sorted(others)
    kept = []
    for span in spans:
        place = bisect_right(ordered, span[0], key=itemgetter(0))
        before = place > 0 and ordered[place - 1][1] > span[0]
        if not before and (place == len(ordered) or ordered[place][0] >= span[1]):
            kept.append(span)
    return kept
