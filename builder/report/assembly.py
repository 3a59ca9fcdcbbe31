"""Compute every number of a dataset's report from its tables; the page and the JSON file show nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.headers.vendors import unmapped
from builder.model.canonical import Json
from builder.model.classes import is_class, levels_of
from builder.report.agreement import agreement
from builder.report.association import associations, missingness
from builder.report.balance import balance
from builder.report.baseline import metadata_baseline
from builder.report.bias import intersections, representativeness, table_one
from builder.report.classes import with_classes
from builder.report.crossings import crossings
from builder.report.evidence import evidence
from builder.report.flow import attrition, decided_finally, flow
from builder.report.histograms import histograms
from builder.report.labels import AGREEMENT, agreement_by_group, is_measure, label_statistics, outcomes
from builder.report.ordinal import in_stated_order
from builder.report.people import is_number, levels, one_row_each
from builder.report.physics import physics, without_assumed_spacing
from builder.report.power import power
from builder.report.protocols import protocols
from builder.report.shift import GEOMETRY, INTENSITIES, shift

REPORT_VERSION = 1

USUAL_ORDER = ("train", "validation", "test")
ALWAYS_SHOWN = ("sex", "age_years", "age_band", "vendor", "modality", "site", "country", "collection")
"""Columns shown in Table 1 beside the groups that the spec names, if the index has them."""

HEADER_FACTS = (
    "vendor",
    "manufacturer_model",
    "site",
    "modality",
    "kvp",
    "convolution_kernel",
    "magnetic_field_strength",
    "slice_thickness_mm",
)
"""Acquisition facts from which a model could guess a label without looking at the image."""

SITES = ("site", "vendor", "collection", "country")
"""Columns, beside the split, by which geometry and intensities are compared."""

MOST_QUARANTINED = 500
"""Most rows in the quarantine list; the counts by reason are always complete."""

MOST_INTERSECTED = 4
"""How many groups are crossed with each other (the first with several levels); four give six tables of pairs."""


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """What a report is computed from.

    Parameters
    ----------
    index
        One row per sample: ``sample_key``, ``case_key``, ``person_key``, ``split``, and any of the groups and labels.
    cohort
        One row per candidate series: ``series_key``, ``person_key``, ``included``, ``rule``, ``reason``. If it also
        has group columns, attrition by group is reported.
    exclusions
        Everything that was left out, in schema EXCLUSIONS.
    splits
        ``person_key``, ``split``, ``stratum``, ``pooled`` and the strata columns.
    totals
        Counts by level (instance, series, study, person) and status, shown unchanged.
    lock
        Versions and fingerprints, shown unchanged.
    groups, labels
        Columns of ``index`` to break down by, and columns that hold labels. Class labels in ``class_names`` and
        ``class_values`` are added to the labels.
    thumbnails
        Each has ``sample_key``, ``split`` and ``png`` (a data URI), and may have ``before``, ``after`` (more slices),
        ``why`` and ``classes``.
    ratios, strata
        What the split aimed at. Without ratios no balance is reported; without strata the columns of ``splits`` are
        used.
    reference
        Population to compare with: maps each column to its levels and their shares.
    images
        Names of the images of a case, the reference first; empty where cases have one.
    certificate
        The leak certificate of a build (``leaks.json``). Without it, only the keys of ``index`` are checked, here.
    consensus
        The spec's ``consensus`` block: maps each name to its ``method`` and ``of``.
    unproven
        ``case_key``, ``detail`` and ``png`` (a data URI) of each case whose labels failed their proof.
    mask_below
        Smallest count that is shown where persons are broken down by group; smaller counts are masked.
    seed
        Seed of the permutation tests.
    orders
        Columns with levels that have an order, which the spec states: low before high. Class labels state their own.
    """

    index: pa.Table
    cohort: pa.Table
    exclusions: pa.Table
    splits: pa.Table
    totals: Mapping[str, Any]
    lock: Mapping[str, Any]
    groups: Sequence[str]
    labels: Sequence[str]
    thumbnails: Sequence[Mapping[str, Any]] = ()
    title: str = ""
    ratios: Mapping[str, float] | None = None
    strata: Sequence[str] | None = None
    rules: Sequence[str] = ()
    reference: Mapping[str, Mapping[str, float]] | None = None
    images: Sequence[str] = ()
    certificate: Mapping[str, Any] | None = None
    consensus: Mapping[str, Mapping[str, Any]] | None = None
    unproven: Sequence[Mapping[str, Any]] = ()
    mask_below: int = 0
    seed: int = 0
    orders: Mapping[str, Sequence[str]] = field(default_factory=dict)


def assemble(inputs: ReportInputs) -> dict[str, Json]:
    """Return the report of one dataset version as values that JSON can hold; ``render`` turns it into a page."""
    cohort, exclusions, ratios = inputs.cohort, inputs.exclusions, inputs.ratios
    mask_below, seed = inputs.mask_below, inputs.seed
    seen = _views(inputs)
    index, order, persons, known = seen.index, seen.order, seen.persons, seen.known
    named = inputs.strata
    if named is None:
        named = [c for c in inputs.splits.column_names if c not in _SPLIT_COLUMNS]
    dealt = _with_columns(inputs.splits, named, (cohort.filter(cohort["included"]), index))
    tested = "test" if "test" in order else order[-1] if order else ""
    acquired = without_assumed_spacing(_as_acquired(seen.cases, cohort), index)
    document = {
        "report_version": REPORT_VERSION,
        "title": inputs.title,
        "groups": list(inputs.groups),
        "groups_absent": [g for g in inputs.groups if g not in persons.column_names],
        "mask_below": mask_below,
        "totals": inputs.totals,
        "flow": flow(
            index=index, cohort=cohort, exclusions=exclusions, splits=order, rules=inputs.rules, totals=inputs.totals
        ),
        "attrition": attrition(
            decided_finally(cohort, exclusions), inputs.groups, rules=inputs.rules, mask_below=mask_below
        ),
        "splits": _sizes(index, order),
        "table_one": table_one(persons, seen.described, splits=order, mask_below=mask_below),
        "balance": None if ratios is None else _balance(dealt, index, ratios=ratios, columns=named),
        "labels": label_statistics(seen.cases, seen.labels, splits=order, mask_below=mask_below),
        "evidence": evidence(index, splits=order),
        "agreement": agreement(index, inputs.consensus or {}, seed=seed),
        "unproven": [dict(u) for u in inputs.unproven],
        "agreement_by_group": agreement_by_group(seen.cases, known, mask_below=mask_below),
        "histograms": histograms(acquired, persons, mask_below=mask_below),
        "shift": shift(acquired, by=["split", *SITES], mask_below=mask_below),
        "associations": associations(persons, seen.stated, known, seed=seed),
        "missingness": missingness(persons, seen.stated, known, seed=seed),
        "protocols": protocols(index, cohort, inputs.images, splits=order, mask_below=mask_below),
        "intersections": intersections(persons, seen.crossed, split=tested, mask_below=mask_below),
        "representativeness": representativeness(persons, inputs.reference or {}, mask_below=mask_below),
        "baseline": metadata_baseline(persons, seen.answers, HEADER_FACTS, seed=seed),
        "power": power(persons, seen.answers, split=tested, groups=known, mask_below=mask_below),
        "leakage": _leakage(index, inputs.certificate),
        "vendors_unmapped": _unmapped(index),
        "physics": physics(index, cohort),
        "quarantine": _quarantine(exclusions),
        "thumbnails": [dict(t) for t in inputs.thumbnails],
        "lock": inputs.lock,
    }
    stated = {f.name: levels_of(f) for f in index.schema if is_class(f) and levels_of(f)}
    return dict(_plain(in_stated_order(document, {**stated, **inputs.orders})))


@dataclass(frozen=True)
class _Views:
    """The index in the forms that the parts of the report need, computed once.

    Parameters
    ----------
    index
        One row per sample, with class labels as columns of their own.
    labels
        The columns that hold labels.
    order
        The splits in the order in which they are shown.
    described
        Columns of Table 1.
    persons, cases
        One row per person and one row per case.
    known, crossed
        Groups that the index has, and those with several levels that are crossed with each other.
    stated
        Labels of persons, without numbers about how the labels were made.
    answers
        Labels that are yes or no.
    """

    index: pa.Table
    labels: Sequence[str]
    order: Sequence[str]
    described: Sequence[str]
    persons: pa.Table
    cases: pa.Table
    known: Sequence[str]
    crossed: Sequence[str]
    stated: Sequence[str]
    answers: Any


def _views(inputs: ReportInputs) -> _Views:
    groups = inputs.groups
    index, classes = with_classes(inputs.index)
    columns = [field.name for field in index.schema if is_class(field)]
    labels = list(dict.fromkeys([*inputs.labels, *columns, *classes]))
    described = list(dict.fromkeys([*groups, *ALWAYS_SHOWN]))
    persons = one_row_each(index, list(dict.fromkeys(["split", *described, *labels, *HEADER_FACTS])))
    agreed = [c for c in index.column_names if c.startswith("label.") and c.rsplit(".", 1)[-1] in AGREEMENT]
    by = list(dict.fromkeys(["split", *SITES, *groups]))
    columns = list(dict.fromkeys([*by, "modality", *labels, *agreed, *GEOMETRY, *INTENSITIES]))
    known = [g for g in groups if g in persons.column_names]
    return _Views(
        index=index,
        labels=labels,
        order=split_order(index["split"].to_pylist(), inputs.ratios),
        described=described,
        persons=persons,
        cases=one_row_each(index, columns, key="case_key"),
        known=known,
        crossed=[g for g in known if len(levels(persons[g]).names) > 1][:MOST_INTERSECTED],
        stated=[n for n in labels if n in persons.column_names and not _is_making(n, persons)],
        answers=outcomes(persons, labels),
    )


def _leakage(index: pa.Table, certificate: Mapping[str, Any] | None) -> dict[str, Json]:
    return {"keys": crossings(index), "pixels": None} if certificate is None else dict(certificate)


def _balance(dealt: pa.Table, index: pa.Table, *, ratios: Mapping[str, float], columns: Sequence[str]) -> Json:
    """Return the balance of the persons who reached the dataset, and how many persons of each split the build lost."""
    there = pc.is_in(dealt["person_key"], value_set=index["person_key"].unique())
    lost = dealt.filter(pc.invert(there))["split"].value_counts()
    names = {row["values"]: row["counts"] for row in lost.to_pylist()}
    return {**balance(dealt.filter(there), ratios=ratios, columns=columns), "lost": dict(sorted(names.items()))}


def split_order(names: Sequence[str | None], ratios: Mapping[str, float] | None) -> list[str]:
    """Order the splits as the spec does, else train, validation, test; other splits follow in alphabetical order."""
    found = {n for n in names if n is not None}
    first = [*(ratios or {}), *USUAL_ORDER]
    return [*dict.fromkeys(n for n in first if n in found or n in (ratios or {})), *sorted(found - set(first))]


_SPLIT_COLUMNS = ("person_key", "split", "stratum", "pooled", "folds", "members", "series")


def _with_columns(splits: pa.Table, columns: Sequence[str], others: Sequence[pa.Table]) -> pa.Table:
    """Add ``columns`` to the splits, each from the first other table that has it.

    A person gets the first known value, because that is the value by which the split was drawn.
    """
    for name in columns:
        source = next((t for t in others if name in t.column_names), None)
        if name in splits.column_names or source is None:
            continue
        rows = source.select(["person_key", name]).filter(pc.is_valid(source[name]))
        if is_class(source.schema.field(name)):
            rows = one_row_each(rows, [name])
        value = dict(zip(*(rows[c].to_pylist()[::-1] for c in ("person_key", name)), strict=True))
        cells = pa.array([value.get(k) for k in splits["person_key"].to_pylist()], rows[name].type)
        splits = splits.append_column(name, cells)
    return splits


def _as_acquired(cases: pa.Table, cohort: pa.Table) -> pa.Table:
    """Replace the geometry of the samples with that of the source images, since resampling makes all samples alike."""
    if "case_key" not in cohort.column_names:
        return cases
    names = [n for n in GEOMETRY if n in cohort.column_names]
    rows = one_row_each(cohort.filter(cohort["included"]), names, key="case_key")
    place = {key: i for i, key in enumerate(rows["case_key"].to_pylist())}
    order = pa.array([place.get(key) for key in cases["case_key"].to_pylist()], pa.int64())
    for name in names:
        values = rows[name].combine_chunks().take(order)
        found = cases.schema.get_field_index(name)
        cases = cases.append_column(name, values) if found < 0 else cases.set_column(found, name, values)
    return cases


def _is_making(name: str, persons: pa.Table) -> bool:
    """Return whether a column holds a number about how a label was made."""
    return is_measure(name) and is_number(persons[name].type)


def _sizes(index: pa.Table, order: Sequence[str]) -> list[Json]:
    rows = []
    for split in order:
        mine = index.filter(pc.equal(index["split"], split))
        counts = {
            "persons": len(mine["person_key"].unique()),
            "cases": len(mine["case_key"].unique()),
            "samples": mine.num_rows,
        }
        rows.append({"split": split, **counts})
    everyone = sum(r["persons"] for r in rows)
    return [{**r, "share": r["persons"] / everyone if everyone else None} for r in rows]


def _unmapped(index: pa.Table) -> dict[str, int]:
    column = next((c for c in ("manufacturer", "vendor") if c in index.column_names), None)
    if column is None:
        return {}
    return unmapped(one_row_each(index, [column], key="case_key")[column].to_pylist())


def _quarantine(exclusions: pa.Table) -> Json:
    """Return everything that was left out: complete counts by reason, and the first rows of the list."""
    keys = ["stage", "level", "reason"]
    counted = exclusions.group_by(keys, use_threads=False).aggregate([([], "count_all")]).to_pylist()
    reasons = sorted(({**{k: r[k] or "" for k in keys}, "things": r["count_all"]} for r in counted), key=_in_order)
    order = ("stage", "level", "reason", "rule", "key")
    shown = ("level", "key", "stage", "rule", "reason", "detail", "instances")
    first = exclusions.sort_by([(c, "ascending") for c in order]).slice(0, MOST_QUARANTINED)
    return {"reasons": reasons, "rows": first.select(list(shown)).to_pylist(), "all": exclusions.num_rows}


def _in_order(row: Json) -> tuple[str, str, str]:
    return row["stage"], row["level"], row["reason"]


def _plain(value: Json) -> Json:
    """Convert a value to what JSON can hold: numbers become Python numbers, and those not finite become null."""
    if isinstance(value, (str, bool)) or value is None:  # most frequent types first: isinstance with Mapping is slow
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        return _plain(value.item())
    return str(value)
