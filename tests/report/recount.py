"""Recompute every number of a report from its tables with other libraries, and notice numbers that are left out."""

import copy
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage, optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import power_proportions_2indep, proportion_confint

from tests.report.originals import Originals

PERMUTATIONS = 600


@dataclass
class Book:
    """The document, the numbers in it that were recomputed, and the differences found."""

    document: dict[str, Any]
    met: set[tuple[int, Any]] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = {(id(node), key): path for path, node, key in numbers(self.document)}

    def expect(self, entry: Any, key: Any, value: Any, *, within: float = 1e-6) -> None:
        """The number under ``key`` is ``value``; None and NaN are null."""
        found = entry[key]
        nothing = value is None or (isinstance(value, float) and math.isnan(value))
        same = found is None if nothing else found is not None and abs(found - value) <= within * max(1.0, abs(value))
        path = self.path.get((id(entry), key), str(key))
        self.claim(path, bool(same), f"found {found}, recomputed {value}")
        self.met.add((id(entry), key))

    def all(self, entry: dict[str, Any], values: dict[str, Any]) -> None:
        """The numbers under several keys."""
        for key, value in values.items():
            self.expect(entry, key, value)

    def claim(self, path: str, holds: bool, text: str) -> None:
        """Something that must hold besides."""
        if not holds:
            self.wrong[path] = text

    def complaints(self) -> dict[str, str]:
        """Path to what is wrong there: another number was recomputed, or none."""
        forgotten = {p: "nobody recomputed it" for place, p in self.path.items() if place not in self.met}
        return self.wrong | forgotten


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield every number of a document: its path, its container, and its key in that container."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        here = f"{path}/{key}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield here, node, key
        yield from numbers(value, here)


def spoiled(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with every number changed by more than any tolerance."""
    changed = copy.deepcopy(document)
    for _, node, key in list(numbers(changed)):
        node[key] = 2 * node[key] + 3
    return changed


def people(frame: pd.DataFrame, key: str = "person_key") -> pd.DataFrame:
    """Return one row per person: the only value, the smallest number, ``several`` for texts that disagree."""
    keys = sorted(frame[key].unique())
    out: dict[str, pd.Series] = {}
    for name in frame.columns.drop(key):
        if frame[name].head(50).map(lambda v: isinstance(v, list | np.ndarray)).any():
            continue
        known = frame.dropna(subset=[name])
        if pd.api.types.is_bool_dtype(frame[name]) or not pd.api.types.is_numeric_dtype(frame[name]):
            held = known.groupby(key)[name]
            values = held.first().astype(object).where(held.nunique() == 1, "several")
        else:
            values = known.groupby(key)[name].min()
        out[name] = values.reindex(keys)
    return pd.DataFrame(out, index=keys)


def levels(values: pd.Series) -> pd.Series:
    """Return the level names as the report shows them."""
    known = values.dropna()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and known.nunique() > 10:
        middle = sorted(known)[len(known) // 2]
        return values.map(lambda v: "missing" if pd.isna(v) else f"below {middle:g}" if v < middle
                          else f"{middle:g} and above")  # fmt: skip
    return values.map(lambda v: "missing" if v is None or pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v))


def is_measured(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and values.dropna().nunique() > 10


def share(count: int, total: int) -> dict[str, Any]:
    """Return count, share and Wilson interval, by statsmodels."""
    low, high = proportion_confint(count, total, method="wilson") if total else (None, None)
    return {"count": count, "share": count / total if total else None, "low": low, "high": high}


def moments(values: pd.Series) -> dict[str, Any]:
    known = values.dropna()
    entry = {"count": len(known), "missing": len(values) - len(known)}
    if len(known) < 2:
        return {**entry, "mean": None, "sd": None, "q1": None, "median": None, "q3": None}
    q1, median, q3 = known.quantile([0.25, 0.5, 0.75])
    return {**entry, "mean": known.mean(), "sd": known.std(), "q1": q1, "median": median, "q3": q3}


def gap_of_levels(a: pd.Series, b: pd.Series) -> float | None:
    """Yang & Dalton's distance: each pair of shares whitened by their mean covariance, empty levels dropped."""
    if not a.sum() or not b.sum():
        return None
    used = (a + b) > 0
    p, q = (x[used].to_numpy() / x.sum() for x in (a, b))
    if len(p) == 1 or np.allclose(p, q):
        return 0.0
    p, q = p[:-1], q[:-1]
    s = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    values, vectors = np.linalg.eigh(s)
    keep = values > 1e-10 * values.max() if values.max() > 0 else np.zeros(len(values), bool)
    if not keep.any():
        return None
    return float(np.sqrt((((p - q) @ vectors[:, keep]) ** 2 / values[keep]).sum()))


def gap_of_means(a: pd.Series, b: pd.Series) -> float | None:
    a, b = a.dropna(), b.dropna()
    if len(a) < 2 or len(b) < 2:
        return None
    spread = math.sqrt((a.var() + b.var()) / 2)
    alike = spread <= 1e-9 * max(a.abs().max(), b.abs().max())  # equal values, but for rounding
    return None if alike else abs(a.mean() - b.mean()) / spread


def largest(gaps: Sequence[float | None]) -> float | None:
    return max((g for g in gaps if g is not None), default=None)


def recount(
    document: dict[str, Any],
    *,
    index: pd.DataFrame,
    cohort: pd.DataFrame,
    exclusions: pd.DataFrame,
    splits: pd.DataFrame,
    ratios: dict[str, float],
    ledger: pd.DataFrame | None = None,
    prints: pd.DataFrame | None = None,
    private: pd.DataFrame | None = None,
    archive: Originals | None = None,
    spec: dict[str, Any] | None = None,
    lock: dict[str, Any] | None = None,
    rules: Sequence[str] = ("image",),
    reference: dict[str, dict[str, float]] | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Recompute every number of the document; returns path to complaint, of wrong numbers and of those left out.

    Parameters
    ----------
    index, cohort, exclusions, splits, ledger
        The published tables; ``prints`` and ``private`` (the plan's cohort) those of the private workspace.
    archive
        The original files; needed where the document counts clinical tables, ROI names or private keys.
    spec, lock
        Of the published manifest: the settings the document repeats.
    rules
        The cohort's rules in the order they ran.
    reference
        Column to level to share of the population the document compares with.
    """
    book = Book(document)
    _settings(book, spec or {}, lock or {})
    persons = people(index)
    cases = people(index, "case_key")
    _flow(book, index, cohort, exclusions, ledger)
    _attrition(book, cohort, index, exclusions, rules)
    _table_one(book, persons)
    protocols(book, index, cohort)
    _balance(book, splits, index, cohort, ratios)
    _labels(book, cases)
    _shift(book, cases, cohort)
    _histograms(book, cases, persons, cohort)
    _agreement(book, cases)
    _associations(book, persons)
    _intersections(book, persons)
    _representativeness(book, persons, reference)
    _baseline(book, persons, seed)
    _power(book, persons)
    _leakage(book, index, splits, prints, private)
    _quarantine(book, exclusions)
    _unmapped(book, cases)
    _clinical(book, cohort, private, archive, spec or {})
    _evidence(book, index)
    _physics(book, index)
    _structures(book, index, private, archive, spec or {})
    for told in (book.document, book.document.get("leakage") or {}):
        if told.get("anonymity") is not None:
            _anonymity(book, told["anonymity"], cohort)
    return book.complaints()


def _anonymity(book: Book, found: dict[str, Any], cohort: pd.DataFrame) -> None:
    """Count with pandas the persons in the published cohort who share every released quasi-identifier."""
    columns = found["columns"]
    shown = cohort[["person_key", *columns]].copy()
    if "age_years" in columns:
        shown["age_years"] = shown["age_years"].map(lambda age: None if pd.isna(age) else min(int(age), 90))
    people = shown.groupby("person_key")[columns].agg(lambda own: " + ".join(sorted({str(v) for v in own.dropna()})))
    sizes = people.groupby(columns).size()
    short = sizes[sizes < 5].sort_values()
    if "asked" in found:
        book.expect(found, "asked", 5)
    book.all(found, {"persons": len(people), "groups": len(sizes), "k": sizes.min(), "below": short.sum(),
                     "suppressed": 0})  # fmt: skip
    for group, size in zip(found["smallest"], short, strict=False):
        book.expect(group, "persons", size)
        own = [group["values"][column] or "" for column in columns]
        mine = sizes[tuple(own) if len(own) > 1 else own[0]]
        path = book.path[id(group), "persons"].removesuffix("persons")
        book.claim(f"{path}{group['values']}", bool(mine == size), "other values")


def wrong_tables(
    document: dict[str, Any],
    *,
    index: pd.DataFrame,
    cohort: pd.DataFrame,
    exclusions: pd.DataFrame,
    splits: pd.DataFrame,
    ledger: pd.DataFrame,
    ratios: dict[str, float],
    rules: Sequence[str],
) -> dict[str, str]:
    """Recompute only flow, totals, attrition and balance; return complaints by path, also about numbers left out."""
    book = Book(document)
    _flow(book, index, cohort, exclusions, ledger)
    _attrition(book, cohort, index, exclusions, rules)
    _balance(book, splits, index, cohort, ratios)
    told = ("/flow", "/totals", "/attrition", "/balance")
    return {path: complaint for path, complaint in book.complaints().items() if path.startswith(told)}


def _settings(book: Book, spec: dict[str, Any], lock: dict[str, Any]) -> None:
    """Check the document's own version, and the parts of the manifest that it repeats."""
    book.expect(book.document, "report_version", 1)
    book.expect(book.document, "mask_below", spec.get("report", {}).get("mask_below", 0))
    stated = {path: node[key] for path, node, key in numbers(lock)}
    found = list(numbers(book.document["lock"]))
    book.claim("/lock", {path for path, _, _ in found} == set(stated), "other entries than the manifest's")
    for path, node, key in found:
        book.expect(node, key, stated.get(path))


def _flow(book: Book, index: pd.DataFrame, cohort: pd.DataFrame, exclusions: pd.DataFrame, ledger: Any) -> None:
    if ledger is not None:
        _totals(book, ledger)
    for box in book.document["flow"]["boxes"]:
        rows = {"Candidate series": cohort, "In the cohort": cohort[cohort["included"]]}.get(box["title"])
        if rows is not None:
            book.expect(box["counts"], "series", rows.series_key.nunique())
            book.expect(box["counts"], "persons", rows.person_key.nunique())
            if "studies" in box["counts"]:
                book.expect(box["counts"], "studies", rows.study_key.nunique())
        if box["title"] == "In the dataset":
            _samples(book, box["counts"], index)
        if box["title"] == "Found":
            for level in box["counts"]:
                book.expect(box["counts"], level, sum(_by_status(ledger)[level].values()))
        for left in box["left"]:
            _left(book, left, cohort, exclusions)
    _gone(book, index, cohort)
    _split_samples(book, index)


def _split_samples(book: Book, index: pd.DataFrame) -> None:
    for entry in book.document["flow"]["splits"]:
        _samples(book, entry["counts"], index[index.split == entry["split"]])
    whole = index.person_key.nunique()
    for entry in book.document["splits"]:
        mine = index[index.split == entry["split"]]
        _samples(book, entry, mine)
        book.expect(entry, "share", mine.person_key.nunique() / whole)


def _gone(book: Book, index: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Who is in one box and not in the next; what was found before the candidates is counted by ``_totals``."""
    people_in = {
        "Candidate series": set(cohort.person_key),
        "In the cohort": set(cohort[cohort["included"]].person_key),
        "In the dataset": set(index.person_key),
    }
    boxes = book.document["flow"]["boxes"]
    for box, following in pairwise(boxes):
        if box["persons_gone"] is not None:
            here = people_in.get(box["title"])
            there = len(people_in[following["title"]])
            book.expect(box, "persons_gone", (box["counts"]["persons"] if here is None else len(here)) - there)


def _totals(book: Book, ledger: pd.DataFrame) -> None:
    counted = _by_status(ledger)
    for level, values in book.document["totals"].items():
        book.claim(f"/totals/{level}", set(values) == set(counted[level]), "other statuses than the ledger's")
        for status in values:
            book.expect(values, status, counted[level].get(status, 0))


def _by_status(ledger: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Files and objects by status; a series, study or person counts once, by the best fate of its objects."""
    rank = ["used", "label", "excluded", "quarantined", "duplicate"]
    objects = ledger[ledger.series_key.notna()]
    found = {"files": ledger.status, "instances": objects.status}
    for level, key in (("series", "series_key"), ("studies", "study_key"), ("persons", "person_key")):
        found[level] = objects.groupby(key).status.agg(lambda s: min(s, key=rank.index))
    return {level: {str(k): int(n) for k, n in values.value_counts().items()} for level, values in found.items()}


def _samples(book: Book, entry: Any, rows: pd.DataFrame) -> None:
    book.all(entry, {"samples": len(rows), "cases": rows.case_key.nunique(), "persons": rows.person_key.nunique()})


def _left(book: Book, left: Any, cohort: pd.DataFrame, exclusions: pd.DataFrame) -> None:
    if left["stage"] == "cohort":
        rows = cohort[~cohort["included"] & (cohort.rule.fillna("") == left["rule"])
                      & (cohort.reason.fillna("") == left["reason"])]  # fmt: skip
        things = rows.series_key.nunique()
    else:
        rows = exclusions
        for name in ("stage", "rule", "reason", "level"):
            rows = rows[rows[name].fillna("") == left[name]]
        things = rows.key.nunique()
    book.all(left, {"things": things, "persons": rows.person_key.nunique()})
    if left["instances"] is not None:
        book.expect(left, "instances", int(rows.instances.sum()))


def _attrition(
    book: Book, cohort: pd.DataFrame, index: pd.DataFrame, exclusions: pd.DataFrame, rules: Sequence[str]
) -> None:
    entries = book.document["attrition"]
    if not entries:
        return
    every = people(cohort[["person_key", *(e["column"] for e in entries)]])
    stayed = every.index.isin(index.person_key)
    assert set(cohort.rule.dropna()) <= set(rules), "say in which order the rules ran"
    ran = cohort[~cohort["included"]].assign(ran=lambda rows: rows.rule.map(list(rules).index))
    last = ran.sort_values("ran", kind="stable").groupby("person_key").rule.last().reindex(every.index)
    lost = exclusions[exclusions.stage == "shard"].groupby("person_key").reason.max()  # the build comes after all rules
    last.update("build: " + lost)
    for entry in entries:
        level = levels(every[entry["column"]])
        table = pd.crosstab(level, stayed).reindex(columns=[False, True], fill_value=0)
        for row in entry["levels"]:
            mine = (level == row["level"]).to_numpy()
            book.expect(row, "candidates", int(mine.sum()))
            book.all(row["stayed"], share(int((mine & stayed).sum()), int(mine.sum())))
            gone = last[mine & ~stayed].value_counts()
            where = f"/attrition/{entry['column']}/{row['level']}/removed_by"
            book.claim(where, set(row["removed_by"]) == set(gone.index), "other rules")
            for rule in row["removed_by"]:
                book.expect(row["removed_by"], rule, int(gone.get(rule, 0)))
        if len(table) > 1 and table.sum().all():
            expected = np.outer(table.sum(axis=1), table.sum()) / table.to_numpy().sum()
            statistic = ((table - expected) ** 2 / expected).to_numpy().sum()
            book.expect(entry, "p", stats.chi2.sf(statistic, len(table) - 1))
        else:
            book.expect(entry, "p", None)


def _table_one(book: Book, persons: pd.DataFrame) -> None:
    order = [s["split"] for s in book.document["splits"]]
    for entry in book.document["table_one"]:
        values = persons[entry["column"]]
        groups = {s: values[persons.split == s] for s in order}
        if entry["kind"] == "numbers":
            for split, cells in entry["splits"].items():
                book.all(cells, moments(values if split == "all" else groups[split]))
            gaps = [gap_of_means(a, b) for a, b in combinations(groups.values(), 2)]
        else:
            names = levels(values)
            table = pd.crosstab(names, persons.split).reindex(columns=order, fill_value=0)
            table["all"] = table.sum(axis=1)
            same = {row["level"] for row in entry["levels"]} == set(table.index)
            book.claim(f"/table_one/{entry['column']}", same, "other levels")
            for row in entry["levels"]:
                for split, cells in row["cells"].items():
                    book.all(cells, share(int(table.loc[row["level"], split]), int(table[split].sum())))
            gaps = [gap_of_levels(table[a], table[b]) for a, b in combinations(order, 2)]
        book.expect(entry, "difference", largest(gaps))


def protocols(book: Book, index: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Join the series of every image to its cases, bin its numbers, and count persons."""
    edges = {"magnetic_field_strength": ("T", [0, 1, 2, 4]), "kvp": ("kV", [0, 50, 90, 110, 130]),
             "slice_thickness_mm": ("mm", [0, 1, 2, 3, 5])}  # fmt: skip
    order = [s["split"] for s in book.document["splits"]]
    for number, entry in enumerate(book.document["protocols"]):
        image = entry["image"]
        column = f"{image}.series_key" if number else "series_key"
        cases = index.drop_duplicates("case_key")[["case_key", "person_key", "split", column]]
        served = cohort.explode("serves")
        served = served[served.image_name == image.split(".")[-1]].drop(columns=["case_key", "person_key"])
        joined = cases.merge(
            served, how="left", left_on=["case_key", column], right_on=["serves", "series_key"], suffixes=("", "_of_it")
        )
        for fact in entry["facts"]:
            values = joined[fact["column"]]
            if fact["column"] in edges:
                unit, bins = edges[fact["column"]]
                names = [f"{a} to {b} {unit}" for a, b in pairwise(bins)] + [f"over {bins[-1]} {unit}"]
                values = pd.cut(values, [*bins, np.inf], labels=names, include_lowest=True).astype(object)
            persons = people(joined[["person_key", "split"]].assign(level=values))
            counts = persons["level"].value_counts()
            if len(counts) > 8:
                rare = sorted(counts.index, key=lambda level: (-counts[level], level))[7:]
                persons["level"] = persons["level"].where(~persons["level"].isin(rare), f"others ({len(rare)} values)")
            table = pd.crosstab(levels(persons["level"]), persons.split).reindex(columns=order, fill_value=0)
            table["all"] = table.sum(axis=1)
            same = {row["level"] for row in fact["levels"]} == set(table.index)
            book.claim(f"/protocols/{image}/{fact['column']}", same, "other levels")
            for row in fact["levels"]:
                for split, cells in row["cells"].items():
                    book.all(cells, share(int(table.loc[row["level"], split]), int(table[split].sum())))
            gaps = [gap_of_levels(table[a], table[b]) for a, b in combinations(order, 2)]
            book.expect(fact, "difference", largest(gaps))


def _balance(
    book: Book, splits: pd.DataFrame, index: pd.DataFrame, cohort: pd.DataFrame, ratios: dict[str, float]
) -> None:
    found = book.document["balance"]
    names = list(ratios)
    there = splits.person_key.isin(index.person_key)
    for name in found["lost"]:
        book.expect(found["lost"], name, int((splits[~there].split == name).sum()))
    splits = splits[there]
    dealt = splits[splits.split.isin(names)]

    def row(entry: Any, rows: pd.DataFrame) -> float:
        counts = np.array([(rows.split == n).sum() for n in names])
        exact = len(rows) * np.array([ratios[n] for n in names])
        off = float(np.abs(counts - exact).max())
        downs = [np.floor(exact + 1e-9) + np.array(up) for up in _ups(len(names))]
        bound = min(float(np.abs(d - exact).max()) for d in downs if round(d.sum()) == len(rows))
        if entry is not None:
            book.all(entry, {"persons": len(rows), "off_persons": off, "off_points": 100 * off / len(rows),
                             "bound_persons": bound})  # fmt: skip
        return off

    row(found["overall"], dealt)
    for name, number in found["overall"]["counts"].items():
        book.expect(found["overall"]["counts"], name, int((dealt.split == name).sum()))
        del number
    strata = [row(None, rows) for _, rows in dealt.groupby("stratum")]
    book.all(found["strata"], {"number": len(strata), "worst_persons": max(strata),
                               "one_person_or_more": sum(s >= 1 for s in strata)})  # fmt: skip
    included = cohort[cohort["included"]].groupby("person_key").first()  # the first known value
    offs = []
    for column in dict.fromkeys(entry["column"] for entry in found["levels"]):
        source = splits.set_index("person_key")[column] if column in splits else included[column]
        level = levels(source).reindex(dealt.person_key)
        shown = {e["level"]: e for e in found["levels"] if e["column"] == column}
        for name, rows in dealt.groupby(level.to_numpy()):
            offs.append(row(shown.get(name), rows))
    book.expect(found, "worst_level_persons", max(offs, default=0.0))
    book.expect(found, "two_persons_or_more", sum(o >= 2 for o in offs))
    for name, number in found["held_out"].items():
        book.expect(found["held_out"], name, int((splits.split == name).sum()))
        del number


def _ups(splits: int) -> Iterator[tuple[int, ...]]:
    for code in range(2**splits):
        yield tuple(code >> i & 1 for i in range(splits))


def _labels(book: Book, cases: pd.DataFrame) -> None:
    for entry in book.document["labels"]:
        values = cases[entry["label"]]
        order = [s["split"] for s in book.document["splits"]]
        parts = {s: values if s == "all" else values[cases.split == s] for s in [*order, "all"]}
        if entry["kind"] == "levels":
            for row in entry["levels"]:
                for split, cells in row["cells"].items():
                    names = levels(parts[split])
                    book.all(cells, share(int((names == row["level"]).sum()), len(names)))
            continue
        assert entry["kind"] == "sizes"
        present = {s: v[v.fillna(0) > 0] for s, v in parts.items()}
        for split, cells in entry["splits"].items():
            book.expect(cells, "cases", len(parts[split]))
            book.all(cells, share(len(present[split]), len(parts[split])))
            quartiles = present[split].quantile([0.25, 0.5, 0.75]).tolist()
            book.all(cells, dict(zip(("q1", "median", "q3"), quartiles, strict=True)))
        gaps = [gap_of_means(present[a], present[b]) for a, b in combinations(order, 2)]
        book.expect(entry, "difference", largest(gaps))


def _acquired(cases: pd.DataFrame, cohort: pd.DataFrame) -> pd.DataFrame:
    """Rows of cases with the geometry of the source images; a pixel that is no number of mm has no spacing."""
    rows = (cohort[cohort["included"]].set_index("case_key") if "case_key" in cohort else cases).copy()
    if "notes" in cases:
        unknown = cases.index[[n is not None and "pixel_spacing_unknown" in n for n in cases["notes"]]]
        rows.loc[rows.index.isin(unknown), [n for n in rows if str(n).startswith("spacing_")]] = np.nan
    return rows


def _shift(book: Book, cases: pd.DataFrame, cohort: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    acquired = _acquired(cases, cohort)
    for entry in book.document["shift"]:
        source = acquired if entry["quantity"] in acquired else cases
        mine = cases[cases.modality.fillna("") == entry["modality"]] if "modality" in cases else cases
        values, group = source[entry["quantity"]].reindex(mine.index).astype(float), levels(mine[entry["by"]])
        parts = {n: values[group == n] for n in entry["groups"]}
        for name, cells in entry["groups"].items():
            book.all(cells, moments(parts[name]))
        enough = {n: np.sort(v.dropna().to_numpy().round(3)) for n, v in parts.items() if v.notna().sum() >= 2}
        book.expect(entry, "difference", largest([gap_of_means(pd.Series(a), pd.Series(b))
                                                  for a, b in combinations(enough.values(), 2)]))  # fmt: skip
        apart = [(_distance(a, b), a, b) for a, b in combinations(enough.values(), 2)]
        book.expect(entry, "distance", max((d for d, _, _ in apart), default=None))
        if not apart:
            continue
        found = [_chance_of(d, len(a), len(b)) for d, a, b in apart]
        book.expect(entry, "p", min(1.0, len(apart) * min(found)))
        for p, (distance, a, b) in zip(found, apart, strict=True):
            if len(a) + len(b) > 1000:
                continue
            mixed = np.concatenate([a, b])  # the test's p is at least that of dealing the values anew
            drawn = [rng.permutation(mixed) for _ in range(200)]
            far = sum(_distance(np.sort(d[: len(a)]), np.sort(d[len(a) :])) >= distance - 1e-9 for d in drawn)
            where = f"/shift/{entry['modality']}/{entry['quantity']}/{entry['by']}"
            book.claim(where, p >= (1 + far) / 201 - 0.15, f"found {p}, dealing anew gives {(1 + far) / 201}")


def _histograms(book: Book, cases: pd.DataFrame, persons: pd.DataFrame, cohort: pd.DataFrame) -> None:
    """Count each bin with pandas; its edges are multiples of one nice width, or decades of ages up to 90."""
    acquired = _acquired(cases, cohort)
    for entry in book.document["histograms"]:
        if entry["of"] == "persons":
            values, rows = persons[entry["quantity"]], persons
        else:
            rows = cases[cases.modality.fillna("") == entry["modality"]] if "modality" in cases else cases
            source = acquired if entry["quantity"] in acquired else cases
            values = source[entry["quantity"]].reindex(rows.index).astype(float)
        known = values.dropna().astype(float)
        book.all(entry, {"known": len(known), "missing": len(rows) - len(known)})
        edges = _edges(known, ages=entry["of"] == "persons")
        where = f"/histograms/{entry['modality']}/{entry['quantity']}"
        book.claim(where, len(edges) == len(entry["edges"]), f"found {entry['edges']}, recomputed {edges}")
        for place, edge in enumerate(edges[: len(entry["edges"])]):
            book.expect(entry["edges"], place, edge)
        inside = np.histogram(known, [*edges[:-1], np.inf])[0].tolist()
        for place, count in enumerate(inside[: len(entry["counts"])]):
            book.expect(entry["counts"], place, count)


def _edges(known: pd.Series, *, ages: bool) -> list[float]:
    """Decades of ages up to 90, or multiples of the first of 1, 2, 5, 10, ... that needs at most fifteen bins."""
    low, high = known.min(), known.max()
    if ages:
        return [float(n) for n in range(int(low // 10) * 10, min(90, int(high // 10) * 10) + 11, 10)]
    nice = [float(f"{digit}e{power}") for power in range(-9, 9) for digit in (1, 2, 5)]
    wide = [width for width in nice if width >= (high - low) / 14 * (1 - 1e-9)]
    most = max(abs(low), abs(high))
    if high - low <= most / 1000:
        width = max(w for w in nice if w <= most and f"{w:e}"[0] == "1") if most else 1.0
    else:
        width = wide[0]
    return [width * n for n in range(math.floor(low / width), math.floor(high / width) + 2)]


def _chance_of(distance: float, m: int, n: int) -> float:
    """Share of all orders of m and n values, none twice, that lie as far apart: counted for few, the limit for many."""
    if m * n > 10_000:
        return float(stats.kstwo.sf(distance, round(m * n / (m + n))))
    far = distance * m * n - 1e-6
    paths = [1.0] + [0.0] * n  # share of the orders that stay nearer, by how many of n came among the first
    for i in range(m + 1):
        for j in range(n + 1):
            up = paths[j] * i / (i + j) if i else 0.0
            across = paths[j - 1] * j / (i + j) if j else 0.0
            paths[j] = (up + across if i + j else 1.0) if abs(i * n - j * m) < far else 0.0
    return 1.0 - paths[n]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest gap between two empirical distributions of sorted values."""
    at = np.concatenate([a, b])
    gaps = np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)
    return float(np.abs(gaps).max())


def _agreement(book: Book, cases: pd.DataFrame) -> None:
    for entry in book.document["agreement"]:
        values, group = cases["label." + entry["measure"]], levels(cases[entry["group"]])
        parts = {row["level"]: values[group == row["level"]].dropna() for row in entry["levels"]}
        for row in entry["levels"]:
            mine = parts[row["level"]]
            book.expect(row, "count", len(mine))
            quartiles = mine.quantile([0.25, 0.5, 0.75]).tolist() if len(mine) else [None] * 3
            book.all(row, dict(zip(("q1", "median", "q3"), quartiles, strict=True)))
        if entry["p"] is not None:
            ranks = pd.concat(v for n, v in parts.items() if n != "missing" and len(v) > 1).rank()
            sums = [ranks[v.index] for n, v in parts.items() if n != "missing" and len(v) > 1]
            n = len(ranks)
            h = 12 / (n * (n + 1)) * sum(s.sum() ** 2 / len(s) for s in sums) - 3 * (n + 1)
            ties = ranks.value_counts()
            h /= 1 - (ties**3 - ties).sum() / (n**3 - n)
            book.expect(entry, "p", stats.chi2.sf(h, len(sums) - 1))


def _associations(book: Book, persons: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    for section in ("associations", "missingness"):
        entries = book.document[section]
        for entry in entries:
            rows, columns = (_named(persons, entry[k]) for k in ("label", "group"))
            both = (rows != "missing") & (columns != "missing")
            table = pd.crosstab(rows[both], columns[both])
            chi = stats.chi2_contingency(table, correction=False).statistic
            n, (r, c) = int(both.sum()), table.shape
            corrected = max(0.0, chi / n - (r - 1) * (c - 1) / (n - 1))
            smaller = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
            entropy = stats.entropy(table.sum(axis=1))
            book.all(
                entry,
                {
                    "persons": n,
                    "left_out": len(persons) - n,
                    "cramers_v": min(1.0, math.sqrt(corrected / smaller)) if smaller > 0 else 0.0,
                    "theils_u": mutual_info_score(rows[both], columns[both]) / entropy if entropy else 0.0,
                },
            )
            one, two = pd.factorize(rows[both])[0], pd.factorize(columns[both])[0]
            expected = np.outer(np.bincount(one), np.bincount(two)) / n
            extreme = sum(_chi(rng.permutation(one), two, expected) >= chi * (1 - 1e-9) for _ in range(PERMUTATIONS))
            p = (1 + extreme) / (1 + PERMUTATIONS)
            book.expect(entry, "p", p, within=5 * math.sqrt(max(p * (1 - p), 1e-3) / PERMUTATIONS))
        if entries:
            adjusted = multipletests([e["p"] for e in entries], method="fdr_bh")[1]
            for entry, q in zip(entries, adjusted, strict=True):
                book.expect(entry, "q", q)


def _named(persons: pd.DataFrame, name: str) -> pd.Series:
    if name.endswith(" missing"):
        return persons[name.removesuffix(" missing")].isna().map({True: "true", False: "false"})
    return levels(persons[name])


def _chi(one: np.ndarray, two: np.ndarray, expected: np.ndarray) -> float:
    counts = np.bincount(one * expected.shape[1] + two, minlength=expected.size).reshape(expected.shape)
    return float(((counts - expected) ** 2 / expected).sum())


def _intersections(book: Book, persons: pd.DataFrame) -> None:
    for entry in book.document["intersections"]:
        one, two = (levels(persons[c]) for c in entry["columns"])
        for cell in entry["cells"]:
            mine = (one == cell["levels"][0]) & (two == cell["levels"][1])
            tested = mine & (persons.split == entry["split"])
            book.all(cell, {"persons": int(mine.sum()), "tested": int(tested.sum())})


def _representativeness(book: Book, persons: pd.DataFrame, reference: dict[str, dict[str, float]] | None) -> None:
    for entry in book.document["representativeness"]:
        level = levels(persons[entry["column"]])
        counts = {row["level"]: int((level == row["level"]).sum()) for row in entry["levels"]}
        total = sum(counts.values())
        shares = {name: (reference or {})[entry["column"]][name] for name in counts}
        statistic = 0.0
        for row in entry["levels"]:
            expected = shares[row["level"]] / sum(shares.values())
            book.all(row, {**share(counts[row["level"]], total), "reference": expected})
            statistic += (counts[row["level"]] - total * expected) ** 2 / (total * expected)
        book.expect(entry, "p", stats.chi2.sf(statistic, len(counts) - 1))


def outcome(persons: pd.DataFrame, name: str) -> pd.Series:
    """Yes, no or unknown (null) of each person."""
    if name.endswith(" present"):
        column = "label." + name.removesuffix(" present").replace(" / ", ".") + ".volume_mm3"
        return (persons[column].fillna(0) > 0).astype(object)
    column, _, yes = name.rpartition(" = ")
    return persons[column].map(lambda v: None if v is None or pd.isna(v) else str(v) == yes)


def _baseline(book: Book, persons: pd.DataFrame, seed: int) -> None:
    for entry in book.document["baseline"]:
        answers = outcome(persons, entry["outcome"])
        known = persons[answers.notna()]
        target = answers[answers.notna()].to_numpy(dtype=bool)
        book.expect(entry, "persons", len(known))
        if min(target.sum(), (~target).sum()) < 10 or not entry["columns"]:
            for key in ("auc", "low", "high"):
                book.expect(entry, key, None)
            continue
        parts = []
        for name in entry["columns"]:
            if is_measured(known[name]):
                spread = known[name].std(ddof=0) or 1.0
                parts += [((known[name] - known[name].mean()) / spread).fillna(0), known[name].isna().astype(float)]
            else:
                parts.append(pd.get_dummies(levels(known[name])).astype(float))
        features = pd.concat(parts, axis=1).to_numpy()
        fold = np.zeros(len(known), dtype=int)
        for answer in (False, True):
            mine = [i for i in range(len(known)) if target[i] == answer]
            mine.sort(key=lambda i: hashlib.sha256(f"baseline {seed} {known.index[i]}".encode()).digest())
            fold[mine] = np.arange(len(mine)) % 5
        scores = np.zeros(len(known))
        for k in range(5):
            model = LogisticRegression(C=1.0, max_iter=3000, tol=1e-7).fit(features[fold != k], target[fold != k])
            scores[fold == k] = model.decision_function(features[fold == k])
        area = roc_auc_score(target, np.round(scores, 6))
        width = 1.959963984540054 * _hanley(area, int(target.sum()), int((~target).sum()))
        for key, value in (("auc", area), ("low", max(0.0, area - width)), ("high", min(1.0, area + width))):
            book.expect(entry, key, value, within=2e-3)  # another solver


def _hanley(area: float, positives: int, negatives: int) -> float:
    first, second = area / (2 - area), 2 * area * area / (1 + area)
    spread = area - area**2 + (positives - 1) * (first - area**2) + (negatives - 1) * (second - area**2)
    return math.sqrt(spread / positives / negatives)


def _power(book: Book, persons: pd.DataFrame) -> None:
    found = book.document["power"]
    tested = persons.split == found["split"]
    book.expect(found, "persons", int(tested.sum()))
    z = stats.norm.isf(0.025)
    for entry in found["outcomes"]:
        answers = outcome(persons, entry["outcome"])
        yes, no = int((answers[tested] == True).sum()), int((answers[tested] == False).sum())  # noqa: E712
        book.all(entry, {"positives": yes, "negatives": no})
        for name, number in (("sensitivity", yes), ("specificity", no)):
            for row, assumed in zip(entry[name], (0.80, 0.90, 0.95), strict=True):
                book.all(row, {"assumed": assumed, "half_width": _half(assumed, number)})
        for row, assumed in zip(entry["auc"], (0.75, 0.85, 0.95), strict=True):
            width = z * _hanley(assumed, yes, no) if yes and no else None
            book.all(row, {"assumed": assumed, "half_width": width})
        for assumed in list(entry["positives_needed"]):
            share_ = float(assumed)
            book.expect(entry["positives_needed"], assumed, math.ceil(share_ * (1 - share_) * (z / 0.05) ** 2 - 1e-9))
        _needed(book, entry["needed"], int((answers == True).sum()), int((answers == False).sum()))  # noqa: E712
        for row in entry["groups"]:
            inside = int(((levels(persons[row["column"]]) == row["level"]) & tested & (answers == True)).sum())  # noqa: E712
            drop = _smallest_drop(inside, yes - inside)
            book.all(row, {"positives": inside, "half_width": _half(0.9, inside)})
            book.expect(row, "detectable_difference", drop, within=1e-5)  # statsmodels counts the far tail too


def _half(assumed: float, number: int) -> float | None:
    if not number:
        return None
    low, high = proportion_confint(assumed * number, number, method="wilson")
    return (high - low) / 2


def _smallest_drop(group: int, others: int) -> float | None:
    """The drop from 0.9 for which statsmodels says that its test of two proportions has 80 % power."""
    if not group or not others:
        return None

    def power(drop: float) -> float:
        return float(power_proportions_2indep(-drop, 0.9, group, ratio=others / group, alpha=0.05).power)

    return float(optimize.brentq(lambda d: power(d) - 0.8, 1e-6, 0.9, xtol=1e-12)) if power(0.9) >= 0.8 else None


def _needed(book: Book, entry: Any, yes: int, no: int) -> None:
    book.claim("/power/needed", (entry is None) == (not yes or not no), "needed where both answers are known")
    if entry is None:
        return
    p, z = yes / (yes + no), stats.norm.isf(0.025)
    people_ = 0.9 * 0.1 * (z / 0.05) ** 2
    book.all(entry, {"prevalence": p, "for_sensitivity": math.ceil(people_ / p - 1e-9),
                     "for_specificity": math.ceil(people_ / (1 - p) - 1e-9)})  # fmt: skip
    most = 1 - (p**p * (1 - p) ** (1 - p)) ** 2
    r2 = 0.15 * most
    strict = r2 / (r2 + 0.05 * most)
    riley = {
        "overall_risk": math.ceil(1.96**2 * p * (1 - p) / 0.0025 - 1e-9),
        "shrinkage": math.ceil(-10 / (0.1 * math.log1p(-r2 / 0.9))),
        "optimism": math.ceil(10 / ((strict - 1) * math.log1p(-r2 / strict))),
        "error": math.ceil((math.exp(-0.508) * min(p, 1 - p) ** 0.259 * 10**0.504 / 0.05) ** (1 / 0.544)),
    }
    book.all(entry["to_develop_by"], riley)
    book.expect(entry, "to_develop", max(riley.values()))


def _leakage(book: Book, index: pd.DataFrame, splits: pd.DataFrame, prints: Any, private: Any) -> None:
    found = book.document["leakage"]
    home = dict(zip(splits.person_key, splits.split, strict=True))
    dealt = None if private is None else private[private["included"]].assign(split=lambda t: t.person_key.map(home))
    if found.get("deal") is not None:  # of a first version, which moves nobody
        book.all(found["deal"], {"persons": splits.person_key.nunique(), "absent": 0, "moved": 0})
    crossing = 0
    for row in found["keys"]:
        rows = index if row["key"] in index else dealt  # a key that is not published stands in the plan's cohort
        counts = rows.dropna(subset=[row["key"]]).groupby(row["key"]).split.nunique()
        book.all(row, {"values": len(counts), "in_two_splits": int((counts > 1).sum())})
        crossing += int((counts > 1).sum())
    if found.get("pixels") is not None:
        crossing += _pixels(book, found["pixels"], prints, home)
    if "patches" not in found:
        return
    frames = index.dropna(subset=["frame_of_reference_key"]).groupby("frame_of_reference_key").split.nunique()
    assert (frames == 1).all(), "samples in two splits could overlap"
    book.all(found["patches"], {"frames_of_reference": len(frames), "shared": 0, "pairs": 0, "in_two_splits": 0})
    book.expect(found, "found", crossing)
    for row in found["shared"]:
        holders = dealt.dropna(subset=[row["key"]]).groupby(row["key"]).person_key.agg(lambda k: tuple(sorted(set(k))))
        several = [h for h in holders if len(h) > 1]
        assert all(len(h) <= 10 for h in several)
        persons = {person for group in several for person in group}
        book.all(row, {"groups": len(set(several)), "persons": len(persons), "too_common": 0})
    for row in found["statistics"]:
        assert row["fitted_on"] == "nothing", "count the persons it was fitted on"
        book.expect(row, "persons_outside_train", 0)
    for row in found["labels"]:
        assert row["derived_from"] == "its own case", "count the persons it was derived from"
        book.expect(row, "persons_outside_train", 0)


def _pixels(book: Book, entry: Any, prints: pd.DataFrame, home: dict[str, str]) -> int:
    """Also how many pairs lie in two splits."""
    same = sum(n * (n - 1) // 2 for n in prints.person_key.value_counts())
    equal = [(a, b) for _, rows in prints.groupby("digest") for a, b in combinations(rows.person_key, 2) if a != b]
    alike = _alike(prints)
    crossing = sum(home[a] != home[b] for a, b in [*equal, *alike])
    book.all(
        entry,
        {
            "volumes": len(prints),
            "planes": int(prints.planes.map(len).sum()),
            "persons": prints.person_key.nunique(),
            "pairs_of_different_persons": len(prints) * (len(prints) - 1) // 2 - same,
            "equal_pixels": len(equal),
            "near_duplicates": len(alike),
            "in_two_splits": crossing,
            "shared_planes": 0.5,
            "across_modalities": 0.9,
        },
    )
    digest = hashlib.sha256("".join(sorted(prints.digest)).encode()).hexdigest()
    book.claim("/leakage/pixels/digest_of_digests", entry["digest_of_digests"] == digest, "another digest")
    book.all(entry["thin"], {"planes_below": 4, "threshold": 0.95})
    book.all(entry["another_window"], {"threshold": 0.98, "ranks": 0.6})
    book.all(entry["method"], {"prints_version": 2, "small_edge": 32})
    crops, turned, flips = 8**3, 5, 2**3
    book.all(entry["method"]["hash"], {"planes": 8, "views": crops + turned, "views_of_many": 6**3 + turned,
                                       "flips": flips, "threshold": 0.42,
                                       "promising": 192, "promising_in_all": 2**18, "neighbours": 4,
                                       "listed_from": 16384, "lists_compared": 64,
                                       "starts": 2})  # fmt: skip
    book.all(entry["method"]["fit"], {"edge": 16, "given_up_below": 0.65, "doubtful_below": 0.8,
                                      "seen_alike_from": 0.94, "given_up_below_in_ranks": 0.72,
                                      "unlikely_below_in_ranks": 0.74, "clear_from": 0.92,
                                      "given_up_below_in_one_window": 0.7,
                                      "last_steps_from": 0.8, "for_a_threshold_of": 0.85, "smallest_edge": 0.45,
                                      "outside": 0.06, "last_step": 0.005})  # fmt: skip
    book.claim("/leakage/pixels/thresholds", set(entry["thresholds"]) == set(prints.modality), "other modalities")
    for modality in entry["thresholds"]:
        book.expect(entry["thresholds"], modality, {"MR": 0.86}.get(modality, 0.85))
    return crossing


def _alike(prints: pd.DataFrame) -> list[tuple[str, str]]:
    """Persons of volumes, not equal, that share half their planes or whose fine structure agrees in one of 8 flips."""
    fine = []
    for small in prints.small:
        ranks = np.frombuffer(small, "<u2").reshape(16, 2, 16, 2, 16, 2).mean(axis=(1, 3, 5), dtype=np.float32)
        rest = ranks - ndimage.gaussian_filter(ranks, 16 / 5, mode="nearest", truncate=2.0)
        rest -= rest.mean()
        fine.append(rest / np.linalg.norm(rest))
    flat = np.stack([f.ravel() for f in fine])
    best = np.full((len(fine), len(fine)), -1.0)
    for axes in [axes for n in range(4) for axes in combinations(range(3), n)]:
        best = np.maximum(best, flat @ np.stack([np.flip(f, axes).ravel() for f in fine]).T)
    rows: list[Any] = list(prints.itertuples())
    planes = [set(row.planes) for row in rows]
    found = []
    for (i, a), (j, b) in combinations(enumerate(rows), 2):
        shared = len(planes[i] & planes[j]) / max(1, min(len(planes[i]), len(planes[j])))
        if a.person_key != b.person_key and a.digest != b.digest and (shared >= 0.5 or best[i, j] >= 0.85):
            found.append((a.person_key, b.person_key))
    return found


def _quarantine(book: Book, exclusions: pd.DataFrame) -> None:
    found = book.document["quarantine"]
    book.expect(found, "all", len(exclusions))
    for row in found["reasons"]:
        rows = exclusions
        for name in ("stage", "level", "reason"):
            rows = rows[rows[name].fillna("") == row[name]]
        book.expect(row, "things", len(rows))
    book.claim("/quarantine/rows", len(found["rows"]) == min(500, len(exclusions)), "another number of rows")
    sums = exclusions.groupby(["stage", "level", "rule", "reason", "key"], dropna=False).instances.sum(min_count=1)
    for row in found["rows"]:
        number = sums[tuple(row[n] for n in ("stage", "level", "rule", "reason", "key"))]
        if row["instances"] is not None or not pd.isna(number):
            book.expect(row, "instances", number)


def _unmapped(book: Book, cases: pd.DataFrame) -> None:
    """Cases under each name the vendor table does not know; blanks tidied."""
    column = "manufacturer" if "manufacturer" in cases else "vendor"
    names = cases.get(column, pd.Series(dtype=object)).dropna().map(lambda name: " ".join(name.split()))
    for name in book.document["vendors_unmapped"]:
        book.expect(book.document["vendors_unmapped"], name, int((names == name).sum()))


def _clinical(book: Book, cohort: pd.DataFrame, private: Any, archive: Originals | None, spec: dict[str, Any]) -> None:
    """Persons and PatientIDs, and how many of them have a row in the sheet: names compared in the original files."""
    if "clinical_persons" not in book.document:
        return
    assert archive is not None, "clinical tables are counted in the original files"
    (table,) = book.document["clinical"]
    named = archive.persons_in_sheet(spec["clinical"][0]["person_pattern"])
    matched = archive.patients & named
    published = private[private.clinical_rows > 0].person_key.nunique()
    book.claim("/clinical", published == len(matched), f"{published} persons have rows in the plan's cohort")
    book.all(table, {"matched": len(matched), "image_only": len(archive.patients - named), "ambiguous": 0,
                     "clinical_only": len(named - archive.patients), "matched_fraction": len(matched)
                     / len(archive.patients), "rows_that_are_no_person": len(archive.sheet) - len(named),
                     "rows_not_picked_from": 0, "rows_of_several": 0, "rows": len(named),
                     "rows_without_image": len(named - archive.patients)})  # fmt: skip
    with_row = private[private.clinical_rows > 0]
    for level, entry in table["levels"].items():
        book.all(entry, {"with_images": private[f"{level}_key"].nunique(),
                         "with_a_row": with_row[f"{level}_key"].nunique()})  # fmt: skip
    for entry in table["known"]:
        book.claim(
            "/clinical/known", entry["how"] == "undated" and entry["after_study"] is None, "no date in this sheet"
        )
        book.expect(entry, "values", int(with_row[entry["column"]].notna().sum()))
    for entry in (book.document.get("leakage") or {}).get("known", []):
        book.all(entry, {"table": 1, "values": int(with_row[entry["column"]].notna().sum())})
    book.all(book.document["clinical_persons"], {"persons": cohort.person_key.nunique(), "matched": len(matched)})
    book.all(book.document["persons"], {"persons": cohort.person_key.nunique(), "patient_ids": len(archive.patients)})


def _evidence(book: Book, index: pd.DataFrame) -> None:
    cases = index.drop_duplicates("case_key")
    for entry in book.document["evidence"]:
        facts = {f: cases[f"evidence.{entry['label']}.{f}"] for f in ("tier", "readers", "tool", "days_after_image")}
        stated = facts["tier"].notna()
        readers = facts["readers"][stated].map(lambda names: list(names) if names is not None else [])
        book.all(entry, {"cases": int(stated.sum()), "without": int((~stated).sum()),
                         "readers": len(set(readers.explode().dropna()))})  # fmt: skip
        counts = readers.map(len)
        book.all(entry["readers_a_case"], {"least": int(counts.min()), "most": int(counts.max())})
        for row in entry["tiers"]:
            mine = facts["tier"] == row["tier"]
            book.expect(row, "all", int(mine.sum()))
            for split in row["splits"]:
                book.expect(row["splits"], split, int((mine & (cases.split == split)).sum()))
        for row in entry["tools"]:
            book.expect(row, "cases", int((facts["tool"] == row["tool"]).sum()))
        days = facts["days_after_image"].dropna()
        if entry["days_after_image"] is not None:
            book.all(entry["days_after_image"], {"known": len(days), "first": days.min(), "last": days.max()})


def _physics(book: Book, index: pd.DataFrame) -> None:
    found = book.document["physics"]
    cases = index.drop_duplicates("case_key")
    for name in found["domains"]:
        book.expect(found["domains"], name, int((cases.domain == name).sum()))
    for name in found["notes"]:
        having = cases.notes.map(lambda codes, name=name: any(code.partition("=")[0] == name for code in codes))
        book.expect(found["notes"], name, int(having.sum()))


def _structures(book: Book, index: pd.DataFrame, private: Any, archive: Any, spec: dict[str, Any]) -> None:
    """Return the names of the ROIs on the dataset's images, read by pydicom, and those that the spec takes."""
    cases = set(index.case_key)
    for label, entry in book.document.get("structures", {}).items():
        uids = private[private.case_key.isin(cases)].set_index("case_key").series_uid
        names = {case: archive.outlined[uid] for case, uid in uids.items()}
        taken = {
            name: {n for n in set().union(*names.values()) if re.search(pattern, n)}
            for name, pattern in spec["labels"][label]["roi"].items()
        }
        every = set().union(*names.values())
        book.all(entry, {"cases": len(names), "names": len(every),
                         "names_taken_by_none": len(every - set().union(*taken.values()))})  # fmt: skip
        for name in entry["structures"]:
            book.expect(entry["structures"], name, sum(bool(held & taken[name]) for held in names.values()))
