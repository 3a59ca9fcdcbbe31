"""The first lines of a report: facts with their numbers, and findings the largest first."""

import re
from pathlib import Path
from typing import Any

from builder.report import brief
from builder.report.brief import MOST, points


def report(**more: Any) -> dict[str, Any]:
    boxes = [
        {"title": "Found", "counts": {"persons": 9, "series": 20}, "left": [], "persons_gone": 0},
        {"title": "Candidate series", "counts": {"persons": 9}, "persons_gone": 2, "left": [
            {"level": "series", "things": 3, "reason": "gapped", "rule": "geometry", "stage": "cohort"},
            {"level": "series", "things": 8, "reason": "not_selected", "rule": "image", "stage": "cohort"},
        ]},
        {"title": "In the dataset", "counts": {"persons": 7, "cases": 7, "samples": 21}, "left": [], "persons_gone": 0},
    ]  # fmt: skip
    return {"flow": {"boxes": boxes}, **more}


def moved(quantity: str, by: str, distance: float, p: float = 0.0001) -> dict[str, Any]:
    return {"quantity": quantity, "by": by, "between": ["A", "B"], "distance": distance, "p": p}


def test_facts_say_how_many_are_in_and_what_was_left_out():
    assert points(report(license="CC-BY-4.0")).facts == (
        "7 of 9 persons found are in the dataset: 7 cases and 21 samples.",
        "Licence: CC-BY-4.0.",
        "Left out: 11 series, most of them as not selected (8, rule image), and 2 persons with them.",
    )
    assert "would be in the dataset" in points(report(planned=True)).facts[0]
    assert points(report()).look == ()


def test_the_largest_finding_comes_first_and_a_quantity_is_named_once():
    shift = [moved("spacing_row_mm", "site", 0.6), moved("spacing_row_mm", "vendor", 0.9), moved("kvp", "site", 0.7)]
    shift += [moved("age_years", "site", 0.9, p=0.5), moved("age_years", "vendor", 0.01)]
    leaks = {"keys": [{"key": "study_key", "in_two_splits": 2}, {"key": "series_key", "in_two_splits": 0}], "found": 0}
    found = points(report(shift=shift, leakage=leaks))
    assert [p.text for p in found.look] == [
        "In two splits: 2 of the study key values",
        "Spacing row (mm) differs by vendor: A against B (distance 0.90)",
        "Kvp differs by site: A against B (distance 0.70)",
    ]
    assert [p.anchor for p in found.look] == ["leaks", "shift", "shift"]


def test_groups_that_lost_more_persons_than_others_are_named():
    def level(name: str, share: float | None) -> dict[str, Any]:
        return {"level": name, "stayed": {"share": share}}

    uneven = {"column": "sex", "p": 0.01, "levels": [level("F", 0.9), level("M", 0.25), level("O", None)]}
    even = {"column": "site", "p": 0.4, "levels": [level("a", 0.1), level("b", 1.0)]}
    (found,) = points(report(attrition=[uneven, even])).look
    assert found.text == "Of sex M, 25.0 % of the persons stayed; of others up to 90.0 %"


def test_a_build_s_losses_and_splits_that_are_off_are_named():
    document = report(balance={"levels": [
        {"column": "grade", "level": "high", "off_persons": 2.5, "persons": 10},
        {"column": "grade", "level": "low", "off_persons": 0.5, "persons": 10},
    ]})  # fmt: skip
    lost = {"level": "case", "things": 4, "reason": "label_empty", "rule": "prepare", "stage": "shard"}
    document["flow"]["boxes"][1]["left"].append(lost)
    assert [p.text for p in points(document).look] == [
        "The build lost 4 cases: label empty",
        "Grade high is 2.5 persons off its share of a split",
    ]


def test_no_more_findings_are_named_than_a_reader_takes_in():
    many = [moved(f"q{n}", "site", 0.5 + n / 100) for n in range(MOST + 3)]
    found = points(report(shift=many))
    assert (len(found.look), found.more) == (MOST, 3)
    assert found.look[0].text.startswith("Q8 differs")


def test_every_finding_leads_to_a_section_of_the_page():
    folder = Path(brief.__file__).parent
    sections = {*re.findall(r'<section id="([a-z0-9-]+)"', (folder / "page.html.jinja").read_text())}
    anchors = {*re.findall(r'"(flow|shift|associations|leaks|balance|table1)"\)', Path(brief.__file__).read_text())}
    assert len(anchors) >= 5
    assert anchors <= sections
