"""How a table met the images and what became of its cells: what may be shown, and what stops a plan."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from builder.clinical.joining import Joined
from builder.clinical.known import Known
from builder.clinical.pick import Pick
from builder.clinical.rows import Rows
from builder.clinical.table import ClinicalTable
from builder.clinical.tally import CellIssue, Tally
from builder.errors import counted

EXAMPLES: Final = 5
LISTED: Final = 1000
"""Cells that a report lists; the private list has all of them."""
LOST_FRACTION: Final = 0.1
LOST_CELLS: Final = 5
"""Without ``max_lost_cells``: a column may lose a tenth of its cells, or up to this many less one."""

WHY_WITHHELD: Final = "why_withheld"
"""Facts for the plan alone, because they tell which kind of date a withheld one is."""

_PLURAL: Final = {"person": "persons", "study": "studies", "series": "series"}


@dataclass(frozen=True)
class TableMatch:
    """One table against the images.

    Parameters
    ----------
    near
        Kind of difference to the number of persons without a row whose PatientID differs from an id of the table by
        nothing else.
    differing
        Column to the persons whose image headers say something else than the table.
    known
        Of every column, when its values were known.
    levels
        Person, study and series to how many have images, and to how many of these a row belongs.
    """

    options: ClinicalTable
    rows: Rows
    joined: Joined
    near: Mapping[str, int] = field(default_factory=dict)
    differing: Mapping[str, int] = field(default_factory=dict)
    known: tuple[Known, ...] = ()
    levels: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Persons (studies, series) with images."""
        return len(self.joined.matched) + len(self.joined.image_only) + len(self.joined.ambiguous)

    @property
    def fraction(self) -> float:
        """Share of the units with images that have exactly one row; 1.0 when there are no images."""
        return len(self.joined.matched) / self.units if self.units else 1.0

    @property
    def issues(self) -> tuple[CellIssue, ...]:
        """Every cell that was not taken, in the order of the file."""
        found = {*self.rows.issues, *self.joined.issues}
        return tuple(sorted(found, key=lambda issue: (issue.row, issue.column, issue.problem)))

    def facts(self, examples: Mapping[str, Collection[str]]) -> dict[str, Any]:
        """Return the counts that may be shown, with examples by keyed name, and neither identifiers nor values."""
        issues = self.issues
        return {
            "columns": [*self.options.columns, *self.options.phenotypes],
            "unit": self.options.unit,
            "matched_fraction": self.fraction,
            "matched": len(self.joined.matched),
            "image_only": len(self.joined.image_only),
            "ambiguous": len(self.joined.ambiguous),
            "clinical_only": len(self.joined.clinical_only),
            "levels": {level: {"with_images": have, "with_a_row": told} for level, (have, told) in self.levels.items()},
            "rows": len(self.rows.rows),
            "rows_without_image": self.joined.homeless,
            "examples": {name: sorted(keys)[:EXAMPLES] for name, keys in examples.items()},
            "rows_that_are_no_person": len(self.rows.not_persons),
            "rows_not_picked_from": self.rows.passed_over,
            "rows_of_several": len(self.joined.shared),
            "near_ids": dict(self.near),
            "differing_from_headers": dict(self.differing),
            "cells_not_taken": [
                {"row": issue.row, "column": issue.column, "problem": issue.problem} for issue in issues[:LISTED]
            ],
            "cells_not_taken_by_column": dict(sorted(Counter(issue.column for issue in issues).items())),
            "unmet_levels": {tally.column: list(tally.unmet) for tally in self.rows.tallies if tally.unmet},
            "encoding": self.rows.encoding,
            "known": [known.facts() for known in self.known],
            **self._phenotypes(),
        }

    def _phenotypes(self) -> dict[str, Any]:
        """Return rule, tier and counts of each phenotype; nothing for a table without any."""
        if not self.options.phenotypes:
            return {}
        found = {
            name: {"rule": block.rule(), "tier": block.tier, "counts": dict(self.joined.decided[name])}
            for name, block in self.options.phenotypes.items()
        }
        return {"phenotypes": found}


def near_misses(without: Mapping[str, Collection[str]], known: Iterable[str]) -> dict[str, int]:
    """Return how many persons without a row have an id that differs from one of the table only in its form.

    Parameters
    ----------
    without
        Person without a row to the person's PatientIDs.
    known
        Ids of the table.
    """
    names = {*known}
    forms = {kind: {form(name) for name in names} for kind, form in _FORMS.items()}
    found: Counter[str] = Counter()
    for ids in without.values():
        if names & {*ids}:
            continue  # the table has the id itself; its rows were not used for another reason
        kind = next((k for k, form in _FORMS.items() if any(form(i) in forms[k] for i in ids)), None)
        if kind is not None:
            found[kind] += 1
    return dict(sorted(found.items()))


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _without_marks(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


def _without_exponent(text: str) -> str:
    """Return an id that a spreadsheet wrote as a number, such as 12.0 or 1.23E+11, in plain digits."""
    if re.fullmatch(r"\d+\.0*|\d(\.\d+)?[eE]\+?\d{1,2}", text):
        whole = Decimal(text)
        if whole == whole.to_integral_value():
            return str(int(whole))
    return text


_ZEROS: Final = "leading zeros"
_FORMS: Final[Mapping[str, Callable[[str], str]]] = {
    _ZEROS: _without_zeros,
    "the form of a number (12.0 or 1.2E+11)": _without_exponent,
    "upper and lower case": str.casefold,
    "spaces, dashes or other marks": _without_marks,
    "several of zeros, case and marks": lambda text: _without_marks(_without_zeros(text.casefold())),
}


_ADVICE: Final = {_ZEROS: ": store the column as text, or write persons: {leading_zeros: join}"}


def faults(match: TableMatch) -> Iterator[str]:
    """Yield why the table must not be used as it is; nothing when it may."""
    options = match.options
    least = options.min_matched
    units = _PLURAL[options.unit]
    if least != 0 and not match.rows.rows and match.rows.passed_over and options.pick is not None:
        yield (
            f"found no row that meets pick.where ({_conditions(options.pick)}) among "
            f"{counted(match.rows.passed_over, 'row')}, expected some; compare the values with those of the table, "
            "or set min_matched: 0"
        )
        return  # that nobody matches and that columns are empty follows from it
    if match.units and (not match.joined.matched if least is None else match.fraction < least):
        expected = "at least one" if least is None else f"at least {least:.1%}"
        yield (
            f"found a row for {len(match.joined.matched)} of {counted(match.units, options.unit, units)} "
            f"({match.fraction:.1%}), expected {expected}{_why(match)}; check {_joined_by(options)}, or set "
            f"min_matched: {0 if least is None else math.floor(1000 * match.fraction) / 1000}"
        )
    if least != 0:
        yield from _dead_columns(match)
    yield from _lost_cells(match)


def summary_lines(tables: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a person wants to know of each table at the end of a plan or build, from ``TableMatch.facts``."""
    for number, facts in enumerate(tables, start=1):
        by = "" if facts["unit"] == "person" else f" ({_PLURAL[facts['unit']]})"
        yield (
            f"  clinical table {number}: {facts['matched']} matched, {facts['image_only']} image only, "
            f"{facts['clinical_only']} clinical only, {facts['ambiguous']} ambiguous{by}"
        )
        if facts["rows_without_image"]:
            levels = (f"{n['with_a_row']} of {n['with_images']} {_PLURAL[u]}" for u, n in facts["levels"].items())
            yield (
                f"    {facts['rows_without_image']} of {counted(facts['rows'], 'row')} belong to no image here; others "
                f"to {', '.join(levels)}"
            )
        for name, told in facts.get("phenotypes", {}).items():
            counts = ", ".join(f"{n} {what}" for what, n in told["counts"].items())
            yield f"    {name}: {counts} (persons on the days of their studies; evidence: {told['tier']})"
        yield from _known_lines(facts)
        yield from _cell_lines(facts)
        yield from _row_lines(facts)


def _known_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the inputs of which nobody said when they were known."""
    undated = [known["column"] for known in facts.get("known", ()) if known["how"] == "undated"]
    if undated:
        yield (
            f"    {', '.join(undated)}: nothing says when {'this was' if len(undated) == 1 else 'these were'} known; "
            "state dated_by, timeless, or outcomes in report.outcomes"
        )


def _cell_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what became of single cells."""
    for column, count in facts["cells_not_taken_by_column"].items():
        problems = sorted({i["problem"] for i in facts["cells_not_taken"] if i["column"] == column})
        yield f"    {column}: cells not taken: {count} ({'; '.join(problems)})"
    if facts["cells_not_taken_by_column"]:
        yield "    their values are listed in clinical-cells.csv of the private workspace"
    for column, count in facts.get("times_withheld", {}).items():
        why = "; ".join(f"{reason}: {n}" for reason, n in facts[WHY_WITHHELD][column].items())
        yield f"    {column}: {counted(count, 'time')} withheld ({why}; docs/privacy-rules.md, Dates)"
    for column, levels in facts["unmet_levels"].items():
        yield f"    {column}: no cell has the levels {', '.join(levels)}"


def _row_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what became of whole rows, and how the table was read."""
    for kind, count in facts["near_ids"].items():
        yield (
            f"    persons without a row whose PatientID differs from an id of the table by {kind} only: {count}; "
            "nothing is merged unasked"
        )
    for column, count in facts["differing_from_headers"].items():
        verb = "has" if count == 1 else "have"
        persons = counted(facts["matched"], "person")
        yield f"    {column}: {count} of {persons} {verb} another value in their images' headers"
    if facts["rows_of_several"]:
        yield f"    rows that name several persons (or series): {facts['rows_of_several']}; state a site or source"
    if facts["rows_that_are_no_person"]:
        yield f"    rows without an id, or with nothing but a note: {facts['rows_that_are_no_person']}"
    if facts["encoding"] not in ("", "utf-8", "utf-16"):
        yield f"    read as {facts['encoding']}; if letters come out wrong, state the table's encoding"


def _joined_by(options: ClinicalTable) -> str:
    return " and ".join(f"{heading!r} ({fact})" for heading, fact in options.joins.items())


def _why(match: TableMatch) -> str:
    """Return what is known of the reason that so few rows met an image."""
    found = [
        f"{counted(n, 'id differs', 'ids differ')} by {kind} only{_ADVICE.get(kind, '')}"
        for kind, n in match.near.items()
    ]
    found += [
        f"{counted(n, 'cell')} of {tally.heading!r} {'is' if n == 1 else 'are'} {problem}"
        for tally in match.rows.tallies
        for problem, n in tally.problems
        if tally.heading in match.options.joins and tally.column == tally.heading
    ]
    if match.rows.passed_over:
        found.append(f"{counted(match.rows.passed_over, 'row does', 'rows do')} not meet pick.where")
    if match.joined.shared:
        found.append(
            f"{counted(len(match.joined.shared), 'row names', 'rows name')} several persons or series: "
            f"{'write more of the path, or ' if 'file' in match.options.joins.values() else ''}state site or source"
        )
    if match.joined.ambiguous:
        unit, n = match.options.unit, len(match.joined.ambiguous)
        found.append(
            f"{counted(n, f'{unit} has', f'{_PLURAL[unit]} have')} rows that differ: {_which_row(match.options)}"
        )
    rows = len(match.rows.rows)
    found.append(f"the table has {counted(rows, 'row') if rows else 'no rows'} with an id")
    return f" ({'; '.join(found)})"


def _conditions(pick: Pick) -> str:
    """Return the conditions of ``pick.where``, as in "Type primary or relapse"."""
    listed = {h: [values] if isinstance(values, str) else values for h, values in pick.where.items()}
    return ", ".join(f"{heading} {' or '.join(values)}" for heading, values in listed.items())


def _which_row(options: ClinicalTable) -> str:
    """Return what a spec can say so that one row of several counts."""
    if options.pick is None:
        return "say which one counts with cardinality: many and pick"
    if options.pick.by is None:
        return "say which one of them counts with pick.by and pick.take"
    return "pick.by takes several that differ; narrow pick.where"


def _dead_columns(match: TableMatch) -> Iterator[str]:
    options = match.options
    for n, name in enumerate(options.phenotypes):
        if match.rows.rows and not any(row.coded[n].counts for row in match.rows.rows):
            yield (
                f"{name}: found none of its codes in any row, expected some, or everybody is a control; compare code, "
                "system and any_of with the table, or set min_matched: 0"
            )
    for tally in _columns(match):
        column = options.columns[tally.column]
        if tally.filled and tally.filled == tally.lost:
            yield (
                f"{tally.column}: found no {column.type} among {counted(tally.filled, 'filled cell')} of "
                f"{tally.heading!r} "
                f"({_problems(tally)}), expected some{_levels_hint(tally)}; correct the declaration, "
                "or set min_matched: 0"
            )
        elif not tally.filled and match.rows.rows and column.type in ("number", "integer"):
            yield (
                f"{tally.column}: found no {column.type} in {tally.heading!r}, whose cells are all empty or missing "
                "codes, expected some; leave the column out, or set min_matched: 0"
            )
        elif tally.near:
            yield (
                f"{tally.column}: found no cell with the levels {', '.join(tally.near)}, expected some: cells "
                "differ from them by case or white space only; write the levels as the table does, "
                "or set min_matched: 0"
            )


def _lost_cells(match: TableMatch) -> Iterator[str]:
    most = match.options.max_lost_cells
    for tally in match.rows.tallies:
        if tally.filled == tally.lost and match.options.min_matched != 0 and tally in [*_columns(match)]:
            continue  # a column without a value is told already
        share = tally.lost / tally.filled if tally.filled else 0.0
        too_many = share > most if most is not None else tally.lost >= LOST_CELLS and share > LOST_FRACTION
        if too_many:
            yield (
                f"{tally.column}: found {tally.lost} of {counted(tally.filled, 'cell')} of {tally.heading!r} that "
                "cannot be taken "
                f"({_problems(tally)}), expected at most {LOST_FRACTION if most is None else most:.1%}; "
                "clinical-cells.csv in the private workspace lists them; correct them, add codes to missing, or raise "
                "max_lost_cells"
            )


def _columns(match: TableMatch) -> Iterator[Tally]:
    """Yield the tallies of the declared columns, without the headings that rows are joined by, which come first."""
    yield from match.rows.tallies[len(match.options.joins) :]


def _problems(tally: Tally) -> str:
    return "; ".join(f"{count} {problem}" for problem, count in tally.problems[:3])


def _levels_hint(tally: Tally) -> str:
    return f"; {', '.join(tally.near)} differ from cells by case or white space only" if tally.near else ""
