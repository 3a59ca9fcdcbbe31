"""The time to process a text grows only with its length, whatever the text looks like."""

import time
from collections.abc import Callable

import pytest

from builder.deid.identifiers import NOTHING_KNOWN, Identifiers
from builder.deid.text import scrub
from builder.errors import CaseError
from builder.labels.aim import parse_aim
from builder.labels.report import report_text
from builder.labels.reports import label_report, load_lexicon

SIZE = 1 << 16
UNITS = (
    "a", "A", "1", " ", "\n", "-", ".", "@", "^", "A.", "1-", "1 ", "11 ", "1.1", "Dr ", "Dr A", "jan ", "1 jan ",
    "name: ", "A-", "A'", "no ", "nodule, ", "\n ", "1.\n", "<", "Aa ", "St. ", "12:30 ", "[...] ", "\t", "1) ", "A1-",
    "no evidence of ", "is ", "9-", "\u00c4", "(11", "+1 ", "a@", "x^", "99 year", "1/1/", "heart ",
)  # fmt: skip
SHAPES = [(unit * (SIZE // len(unit) + 1))[:SIZE] for unit in UNITS]
SHAPES += ["1" + " " * (SIZE - 2) + "x", "A" * 64 + " " + "B" * (SIZE - 65), "Dr" + "\n" * (SIZE - 3) + "A"]


def slowest(work: Callable[[str], object]) -> float:
    worst = 0.0
    for text in SHAPES:
        start = time.process_time()
        work(text)
        worst = max(worst, time.process_time() - start)
    return worst


def test_the_scrubber() -> None:
    names = frozenset({"a", "simpson"} | {f"name{n}" for n in range(50)})
    known = Identifiers(names, frozenset({"1111", "no evidence"}))
    scrub("warm", known=known)
    assert slowest(lambda text: scrub(text, known=NOTHING_KNOWN)) < 2
    assert slowest(lambda text: scrub(text, known=known)) < 2


def test_the_labeler() -> None:
    lexicon = load_lexicon()
    assert slowest(lambda text: label_report(text, lexicon)) < 5


def test_a_long_list_of_findings() -> None:
    start = time.process_time()
    verdicts = label_report("nodule, " * 100_000, load_lexicon())
    assert verdicts["nodule"] == "positive"
    assert time.process_time() - start < 20


@pytest.mark.parametrize("tag", ["ImageAnnotation", "MarkupEntity", "x"])
def test_nested_annotations_are_refused_at_once(tag: str) -> None:
    deep = f"<{tag}>" * 10_000 + f"</{tag}>" * 10_000
    start = time.process_time()
    with pytest.raises(CaseError, match=r"nested deeper|does not parse"):
        parse_aim(f"<ImageAnnotationCollection>{deep}</ImageAnnotationCollection>".encode())
    assert time.process_time() - start < 5


def test_unterminated_tags() -> None:
    start = time.process_time()
    report_text(b"<" * (1 << 20) + b" text")
    assert time.process_time() - start < 5
