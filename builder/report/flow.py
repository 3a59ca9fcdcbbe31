"""Trace the way from everything found to the dataset: what left, at which stage, by which rule, from which group."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builder.model.canonical import Json
from builder.model.tables import is_used, used_rows
from builder.report.bias import proportion
from builder.report.masking import masked_cells
from builder.report.people import Levels, is_measured, levels, one_row_each

STAGES = ("index", "survey", "persons", "clinical", "labels", "cohort", "split", "shard", "samples")
"""Stages in the order in which they run; unknown stages come last, in alphabetical order."""

RULES_FIRST = ("image", "geometry", "clinical")
RULES_LAST = ("labels", "one_per", "leave_out")
LOST = "build: "
"""Prefix of the reason why the build lost a case; it stands where other rows have the rule of the cohort."""


def flow(
    *,
    index: pa.Table,
    cohort: pa.Table,
    exclusions: pa.Table,
    splits: Sequence[str],
    rules: Sequence[str] = (),
    totals: Mapping[str, Any] | None = None,
) -> Json:
    """Return the boxes of an inclusion and exclusion diagram (as in STARD and CONSORT), top to bottom.

    Parameters
    ----------
    index, cohort, exclusions
        Samples in the dataset; candidate series with ``included``, ``rule``, ``reason``; things left out, by stage.
    rules
        Names of the cohort's rules in the order in which they ran; unknown rules follow by name.
    totals
        Maps each level to its statuses and their counts; the sum of a level is what was found.

    Returns
    -------
    dict
        ``boxes``, each with ``title``, ``counts`` (series, persons, ...), ``persons_gone`` (persons with nothing in the
        next box; null for the last box) and ``left``, which lists what left before the next box with ``stage``,
        ``rule``, ``reason``, ``level``, ``things``, ``persons`` (those who lost anything) and ``instances``; and
        ``splits``.
    """
    included = used_rows(cohort)
    before = [row for row in _exclusions(exclusions) if _rank(row["stage"]) < _rank("cohort")]
    after = [row for row in _exclusions(exclusions) if _rank(row["stage"]) > _rank("cohort")]
    boxes: list[Json] = [
        {"title": "Found", "counts": _found(totals or {}), "left": before},
        {"title": "Candidate series", "counts": _series(cohort), "left": _removed(cohort, rules)},
        {"title": "In the cohort", "counts": {**_cases(cohort), **_series(included)}, "left": after},
        {"title": "In the dataset", "counts": _samples(index), "left": []},
    ]
    if not before and not boxes[0]["counts"]:
        boxes = boxes[1:]
    for box, after_it in zip(boxes, [*boxes[1:], None], strict=True):
        box["persons_gone"] = None if after_it is None else _gone(box["counts"], after_it["counts"])
    split_of = pc.fill_null(index["split"], "")
    return {
        "boxes": boxes,
        "splits": [{"split": s, "counts": _samples(index.filter(pc.equal(split_of, s)))} for s in splits],
    }


def _gone(before: Mapping[str, int], after: Mapping[str, int]) -> int | None:
    return before["persons"] - after["persons"] if "persons" in before and "persons" in after else None


def decided_finally(cohort: pa.Table, exclusions: pa.Table) -> pa.Table:
    """Return the cohort with the cases that the build lost marked as excluded by the rule ``build: <reason>``."""
    lost = exclusions.filter(pc.equal(exclusions["stage"], "shard"))
    if not lost.num_rows or "case_key" not in cohort.column_names:
        return cohort
    reasons = dict(zip(*(lost[name].to_pylist() for name in ("key", "reason")), strict=True))
    found = [reasons.get(key) for key in cohort["case_key"].to_pylist()]
    if "serves" in cohort.column_names:
        cohort, found = _without_lost(cohort, found, reasons)
    before = {name: cohort[name].to_pylist() for name in ("included", "rule", "reason")}
    columns = {
        "included": [kept and reason is None for kept, reason in zip(before["included"], found, strict=True)],
        "rule": [LOST + reason if reason else rule for reason, rule in zip(found, before["rule"], strict=True)],
        "reason": [reason or earlier for reason, earlier in zip(found, before["reason"], strict=True)],
    }
    for name, values in columns.items():
        place = cohort.schema.get_field_index(name)
        field = cohort.schema.field(place)
        cohort = cohort.set_column(place, field, pa.array(values, field.type))
    return cohort


def _without_lost(
    cohort: pa.Table, found: list[str | None], reasons: Mapping[str, str]
) -> tuple[pa.Table, list[str | None]]:
    """Take lost cases from ``serves``, and return the reasons of rows that no case uses any more."""
    serves = cohort["serves"].to_pylist()
    left = [[case for case in cases if case not in reasons] for cases in serves]
    found = [
        reason or (reasons[cases[0]] if cases and not kept else None)
        for reason, cases, kept in zip(found, serves, left, strict=True)
    ]
    place = cohort.schema.get_field_index("serves")
    return cohort.set_column(place, cohort.schema.field(place), pa.array(left, pa.list_(pa.string()))), found


def attrition(cohort: pa.Table, groups: Sequence[str], *, rules: Sequence[str] = (), mask_below: int = 0) -> list[Json]:
    """Count by group the persons among the candidates, those who stayed, and how many each rule removed.

    ``cohort`` comes from ``decided_finally``, so a person whom only the build lost did not stay either. A person leaves
    when none of the person's series stays, and is counted under the latest rule that removed any of them. ``p`` tests
    whether staying depends on the group (chi-square over its levels).
    """
    names = [g for g in groups if g in cohort.column_names and not is_measured(cohort[g])]
    if not names or not cohort.num_rows:
        return []
    stay = one_row_each(cohort.filter(cohort["included"]), [])["person_key"]
    rows = one_row_each(cohort, [*names, "rule"])
    staying = set(stay.to_pylist())
    stays = np.array([person in staying for person in rows["person_key"].to_pylist()], dtype=bool)
    removed_by = _last_rule(cohort, rules)
    entries = []
    for name in names:
        coded = levels(rows[name])
        total = np.bincount(coded.codes, minlength=len(coded.names))
        kept = np.bincount(coded.codes[stays], minlength=len(coded.names))
        hidden = masked_cells(np.stack([kept, total - kept, total], axis=1), mask_below)
        removals = _removed_by(coded, rows["person_key"].to_pylist(), stays, removed_by)
        entries.append(
            {
                "column": name,
                "levels": [
                    {
                        "level": level,
                        "candidates": None if hidden[i, 2] else int(total[i]),
                        "stayed": proportion(int(kept[i]), int(total[i]), hidden=bool(hidden[i].any())),
                        "removed_by": {} if hidden[i].any() else dict(sorted(removals[i].items())),
                    }
                    for i, level in enumerate(coded.names)
                ],
                "p": _independence(kept, total),
            }
        )
    return entries


def _removed_by(coded: Levels, persons: list[str], stays: Any, rule_of: Mapping[str, str]) -> list[dict[str, int]]:
    """Return, for each level, how many persons each rule removed."""
    rules: list[dict[str, int]] = [{} for _ in coded.names]
    for code, person, stayed in zip(coded.codes.tolist(), persons, stays.tolist(), strict=True):
        if not stayed:
            rule = rule_of.get(person, "")
            rules[code][rule] = rules[code].get(rule, 0) + 1
    return rules


def _independence(kept: Any, total: Any) -> float | None:
    table = np.stack([kept, total - kept])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return None
    from scipy import stats

    return float(stats.chi2_contingency(table, correction=False).pvalue)


def _last_rule(cohort: pa.Table, rules: Sequence[str]) -> Mapping[str, str]:
    """Map each person to the latest rule that removed one of the person's series."""
    out = cohort.filter(pc.invert(is_used(cohort)))
    last: dict[str, str] = {}
    pairs = out.group_by(["person_key", "rule"], use_threads=False).aggregate([])
    for person, rule in zip(pairs["person_key"].to_pylist(), pairs["rule"].to_pylist(), strict=True):
        if person not in last or _rule_rank(rule, rules) > _rule_rank(last[person], rules):
            last[person] = rule or ""
    return last


def _rule_rank(rule: str | None, rules: Sequence[str]) -> tuple[int, str]:
    """Return a sort key for when a rule ran: by ``rules`` if given, else fixed rules first and last, others between."""
    name = rule or ""
    order = [*rules] or [*RULES_FIRST]
    if name.startswith(LOST):
        return len(order) + len(RULES_LAST) + 1, name
    if name in order:
        return order.index(name), name
    late = next((i for i, last in enumerate(RULES_LAST, 1) if name.startswith(last)), 0)
    return len(order) + late, name


def _found(totals: Mapping[str, Any]) -> dict[str, int]:
    """Return how much was found at each level, whether or not it was used."""
    return {
        level: sum(values.values())
        for level, values in totals.items()
        if isinstance(values, Mapping) and all(isinstance(v, int) for v in values.values())
    }


def _cases(cohort: pa.Table) -> dict[str, int]:
    """Return the numbers of cases and of their images; nothing where every case is one image."""
    if "serves" not in cohort.column_names:
        return {}
    images = sum(len(cases) for cases in cohort["serves"].to_pylist())
    return {"cases": pc.sum(cohort["included"]).as_py() or 0, "images": images}


def _series(rows: pa.Table) -> dict[str, int]:
    counts = {"series": pc.count_distinct(rows["series_key"]).as_py()}
    if "study_key" in rows.column_names:
        counts["studies"] = pc.count_distinct(rows["study_key"]).as_py()
    return {**counts, "persons": pc.count_distinct(rows["person_key"]).as_py()}


def _samples(index: pa.Table) -> dict[str, int]:
    return {
        "samples": index.num_rows,
        "cases": pc.count_distinct(index["case_key"]).as_py(),
        "persons": pc.count_distinct(index["person_key"]).as_py(),
    }


def _removed(cohort: pa.Table, rules: Sequence[str]) -> list[Json]:
    """Return what the rules of the cohort removed, in the order in which they ran."""
    out = cohort.filter(pc.invert(is_used(cohort)))
    keys = ["rule", "reason"]
    counts: list[tuple[str, str]] = [("series_key", "count_distinct"), ("person_key", "count_distinct")]
    if "instances" in cohort.column_names:
        counts.append(("instances", "sum"))
    rows = out.group_by(keys, use_threads=False).aggregate(counts).to_pylist()
    return [
        {
            "stage": "cohort",
            "rule": row["rule"] or "",
            "reason": row["reason"] or "",
            "level": "series",
            "things": row["series_key_count_distinct"],
            "persons": row["person_key_count_distinct"],
            "instances": row.get("instances_sum"),
        }
        for row in sorted(rows, key=lambda r: (_rule_rank(r["rule"], rules), r["reason"] or ""))
    ]


def _exclusions(exclusions: pa.Table) -> list[Json]:
    """Count everything that was left out, by stage, rule, reason and level."""
    if not exclusions.num_rows:
        return []
    keys = ["stage", "rule", "reason", "level"]
    counted = exclusions.group_by(keys, use_threads=False).aggregate(
        [("key", "count_distinct"), ("person_key", "count_distinct"), ("instances", "sum")]
    )
    rows = [
        {
            **{k: row[k] or "" for k in keys},
            "things": row["key_count_distinct"],
            "persons": row["person_key_count_distinct"],
            "instances": row["instances_sum"],
        }
        for row in counted.to_pylist()
    ]
    return sorted(rows, key=lambda r: (_rank(r["stage"]), r["stage"], r["rule"], r["reason"], r["level"]))


def _rank(stage: str | None) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)
