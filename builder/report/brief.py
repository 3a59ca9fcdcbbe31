"""The first lines of a report: what is in the dataset, what was lost, and which findings to look at first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from builder.report import association, shift
from builder.report.wording import fixed, number_of, percent, stated, words

MOST: Final = 6
"""Findings that are named at the top."""

CHANCE: Final = 0.05
"""p below which the share of persons who stayed differs between groups by more than chance."""


@dataclass(frozen=True)
class Point:
    """A finding: how large it is (from 0 to 1; leaks and losses come first), what it says, and where it is shown."""

    size: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Points:
    """The top of the page.

    Parameters
    ----------
    facts
        Sentences about all persons and series.
    look
        The largest findings, the largest first.
    more
        How many findings are not among them.
    """

    facts: tuple[str, ...]
    look: tuple[Point, ...]
    more: int


def points(report: Mapping[str, Any]) -> Points:
    """Return what a reader should know first.

    Parameters
    ----------
    report
        The result of ``assemble``. Figures that it masks are left out.
    """
    found = sorted(_findings(report), key=lambda point: (-point.size, point.text))
    return Points(tuple(_facts(report)), tuple(found[:MOST]), len(found[MOST:]))


def _facts(report: Mapping[str, Any]) -> Iterator[str]:
    boxes = report["flow"]["boxes"]
    if not boxes:
        return
    found, last = boxes[0]["counts"], boxes[-1]["counts"]
    planned = report.get("planned", False)
    things = [number_of(last[name], name) for name in ("cases", "samples") if last.get(name) is not None]
    persons = f"{last.get('persons', 0)} of {number_of(found.get('persons', 0), 'persons')} found"
    if report.get("description"):
        yield report["description"]
    yield f"{persons} {'would be' if planned else 'are'} in the dataset{': ' if things else ''}{' and '.join(things)}."
    if report.get("license"):
        owner = f"; owner: {report['owner']}" if report.get("owner") else ""
        yield f"Licence: {report['license']}{owner}."
    made = report.get("lock") or {}
    if "engine" in made and "packages" in made:
        version = made["packages"].get("medical-dataset-builder")
        yield f"Made with builder {version} (engine {made['engine']}); the folder of the page is named by the version."
    left = [row for box in boxes for row in box["left"] or () if row["level"] != "file"]
    if left:
        most = max(left, key=lambda row: row["things"] or 0)
        gone = sum(box["persons_gone"] or 0 for box in boxes)
        level = "series" if most["level"] == "series" else f"{most['level']}s"
        total = sum(row["things"] or 0 for row in left if row["level"] == most["level"])
        whom = f", and {number_of(gone, 'persons')} with them" if gone else ""
        reason = f"{words(most['reason'])} ({most['things']}, rule {most['rule']})"
        yield f"Left out: {number_of(total, level)}, most of them as {reason}{whom}."


def _findings(report: Mapping[str, Any]) -> Iterator[Point]:
    yield from _of_leaks(report.get("leakage") or {})
    for box in report["flow"]["boxes"]:
        for row in box["left"] or ():
            if row["stage"] == "shard":
                text = f"The build lost {number_of(row['things'], row['level'] + 's')}: {words(row['reason'])}"
                yield Point(1.0, text, "flow")
    yield from _of_groups(report)
    yield from _of_quantities(report)
    for row in report.get("associations") or ():
        if association.is_worth_a_look(row):
            text = f"{words(row['group']).capitalize()} goes with {words(row['label'])} (V {fixed(row['cramers_v'])})"
            yield Point(row["cramers_v"], text, "associations")
    for row in report.get("baseline") or ():
        if row["auc"] is not None and row["low"] > 0.5:
            text = f"Headers alone predict {row['outcome']}: AUC {fixed(row['auc'])}, from {fixed(row['low'])}"
            yield Point(2 * row["auc"] - 1, text, "associations")


def _of_leaks(leakage: Mapping[str, Any]) -> Iterator[Point]:
    for row in leakage.get("keys", ()):
        if row["in_two_splits"]:
            yield Point(2.0, f"In two splits: {row['in_two_splits']} of the {words(row['key'])} values", "leaks")
    if leakage.get("found"):
        pairs = number_of(leakage["found"], "pairs")
        yield Point(1.5, f"{pairs} of volumes of two persons show one image (on_match: {leakage['on_match']})", "leaks")


def _of_quantities(report: Mapping[str, Any]) -> Iterator[Point]:
    """Yield where each quantity differs most: it often differs by vendor and by site for one reason."""
    largest: dict[str, Mapping[str, Any]] = {}
    for row in report.get("shift") or ():
        if shift.is_worth_a_look(row):
            before = largest.setdefault(row["quantity"], row)
            if row["distance"] > before["distance"]:
                largest[row["quantity"]] = row
    for quantity, row in largest.items():
        one, two = row["between"]
        text = f"{words(quantity).capitalize()} differs by {words(row['by'])}: {one} against {two}"
        yield Point(row["distance"], f"{text} (distance {fixed(row['distance'])})", "shift")


def _of_groups(report: Mapping[str, Any]) -> Iterator[Point]:
    for entry in report.get("attrition") or ():
        levels = [row for row in entry["levels"] if row["stayed"]["share"] is not None]
        if levels and entry["p"] is not None and entry["p"] < CHANCE:
            least = min(levels, key=lambda row: (row["stayed"]["share"], row["level"]))
            most = max(row["stayed"]["share"] for row in levels)
            share = least["stayed"]["share"]
            group = f"{words(entry['column'])} {stated(least['level'])}"
            text = f"Of {group}, {percent(share)} of the persons stayed; of others up to {percent(most)}"
            yield Point(most - share, text, "flow")
    for row in (report.get("balance") or {}).get("levels", ()):
        if row["off_persons"] is not None and row["off_persons"] >= 1:
            group = f"{words(row['column']).capitalize()} {stated(row['level'])}"
            text = f"{group} is {fixed(row['off_persons'], 1)} persons off its share of a split"
            yield Point(row["off_persons"] / max(1, row["persons"]), text, "balance")
    if report.get("groups_absent"):
        yield Point(0.5, f"Nothing can be said by {', '.join(map(words, report['groups_absent']))}", "table1")
