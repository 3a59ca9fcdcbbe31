"""A report recomputed from the tables beside it, with other libraries: every number must be met, and none left out."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep, proportion_confint

EXEMPT = ("lock", "report_version", "mask_below", "thumbnails", "clinical", "persons", "splits_of")
"""Not counts of anything in the tables."""

PERMUTATIONS = 600


@dataclass
class Book:
    """The document, and which of its numbers have been met."""

    document: dict[str, Any]
    met: set[tuple[int, Any]] = field(default_factory=set)

    def expect(self, entry: Any, key: Any, value: Any, *, within: float = 1e-6) -> None:
        """The number under ``key`` is ``value``."""
        found = entry[key]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            assert found is None, (key, found)
        else:
            assert found is not None, (key, value)
            assert abs(found - value) <= within * max(1.0, abs(value)), (key, found, value, entry)
        self.met.add((id(entry), key))

    def all(self, entry: dict[str, Any], values: dict[str, Any]) -> None:
        """The numbers under several keys."""
        for key, value in values.items():
            self.expect(entry, key, value)

    def forgotten(self) -> list[str]:
        """Numbers nobody recomputed."""
        return sorted({path for path, entry, key in _numbers(self.document, "") if (id(entry), key) not in self.met})


def _numbers(node: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if not path and key in EXEMPT:
            continue
        here = f"{path}.{'*' if isinstance(node, list) else key}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield here, node, key
        yield from _numbers(value, here)


def people(frame: pd.DataFrame, key: str = "person_key") -> pd.DataFrame:
    """One row a person: the only value, the smallest number, ``several`` for texts that disagree."""
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
    """Level names as the report shows them."""
    known = values.dropna()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and known.nunique() > 10:
        middle = sorted(known)[len(known) // 2]
        return values.map(lambda v: "missing" if pd.isna(v) else f"below {middle:g}" if v < middle
                          else f"{middle:g} and above")  # fmt: skip
    return values.map(lambda v: "missing" if v is None or pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v))


def is_measured(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and values.dropna().nunique() > 10


def share(count: int, total: int) -> dict[str, Any]:
    """Count, share and Wilson interval, by statsmodels."""
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
    seed: int = 0,
) -> list[str]:
    """Meet every number of the document; returns the paths of those that nothing here recomputes."""
    book = Book(document)
    persons = people(index)
    cases = people(index, "case_key")
    _flow(book, index, cohort, exclusions, ledger)
    _attrition(book, cohort)
    _table_one(book, persons)
    _balance(book, splits, persons, cohort, ratios)
    _labels(book, cases)
    _shift(book, cases, cohort)
    _agreement(book, cases)
    _associations(book, persons)
    _intersections(book, persons)
    _representativeness(book, persons)
    _baseline(book, persons, seed)
    _power(book, persons)
    _leakage(book, index, cohort, splits, prints)
    _quarantine(book, exclusions)
    _unmapped(book, cases)
    _matched(book, cohort)
    _evidence(book, index)
    _physics(book, index)
    _structures(book, index)
    return book.forgotten()


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
            for level, number in box["counts"].items():
                assert number == sum(book.document["totals"][level].values())
                book.expect(box["counts"], level, sum(book.document["totals"][level].values()))
        for left in box["left"]:
            _left(book, left, cohort, exclusions)
    for entry in book.document["flow"]["splits"]:
        _samples(book, entry["counts"], index[index.split == entry["split"]])
    whole = index.person_key.nunique()
    for entry in book.document["splits"]:
        mine = index[index.split == entry["split"]]
        _samples(book, entry, mine)
        book.expect(entry, "share", mine.person_key.nunique() / whole)


def _totals(book: Book, ledger: pd.DataFrame) -> None:
    """Files and objects by status; a series, study or person counts once, by the best fate of its objects."""
    rank = ["used", "label", "excluded", "quarantined", "duplicate"]
    objects = ledger[ledger.series_key.notna()]
    found = {"files": ledger.status, "instances": objects.status}
    for level, key in (("series", "series_key"), ("studies", "study_key"), ("persons", "person_key")):
        found[level] = objects.groupby(key).status.agg(lambda s: min(s, key=rank.index))
    for level, values in book.document["totals"].items():
        counts = found[level].value_counts()
        for status in list(values):
            book.expect(values, status, int(counts.get(status, 0)))


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


def _attrition(book: Book, cohort: pd.DataFrame) -> None:
    entries = book.document["attrition"]
    if not entries:
        return
    every = people(cohort[["person_key", *(e["column"] for e in entries)]])
    stayed = every.index.isin(cohort[cohort["included"]].person_key)
    met_by = {rule: every.index.isin(rows.person_key) for rule, rows in cohort.groupby(cohort.rule.fillna(""))}
    for entry in entries:
        level = levels(every[entry["column"]])
        table = pd.crosstab(level, stayed).reindex(columns=[False, True], fill_value=0)
        for row in entry["levels"]:
            mine = (level == row["level"]).to_numpy()
            book.expect(row, "candidates", int(mine.sum()))
            book.all(row["stayed"], share(int((mine & stayed).sum()), int(mine.sum())))
            assert sum(row["removed_by"].values()) == int((mine & ~stayed).sum())
            for rule, number in row["removed_by"].items():
                assert number <= (mine & ~stayed & met_by[rule]).sum(), "each of them did meet the rule"
                book.expect(row["removed_by"], rule, number)
        if len(table) > 1 and table.sum().all():
            expected = np.outer(table.sum(axis=1), table.sum()) / table.to_numpy().sum()
            statistic = ((table - expected) ** 2 / expected).to_numpy().sum()
            book.expect(entry, "p", stats.chi2.sf(statistic, len(table) - 1))
        else:
            assert entry["p"] is None


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
            assert {row["level"] for row in entry["levels"]} == set(table.index)
            for row in entry["levels"]:
                for split, cells in row["cells"].items():
                    book.all(cells, share(int(table.loc[row["level"], split]), int(table[split].sum())))
            gaps = [gap_of_levels(table[a], table[b]) for a, b in combinations(order, 2)]
        book.expect(entry, "difference", largest(gaps))


def _balance(
    book: Book, splits: pd.DataFrame, persons: pd.DataFrame, cohort: pd.DataFrame, ratios: dict[str, float]
) -> None:
    found = book.document["balance"]
    names = list(ratios)
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
    included = people(cohort[cohort["included"]])
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


def _shift(book: Book, cases: pd.DataFrame, cohort: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    acquired = cohort[cohort["included"]].set_index("case_key") if "case_key" in cohort else cases
    for entry in book.document["shift"]:
        source = acquired if entry["quantity"] in acquired else cases
        values, group = source[entry["quantity"]].reindex(cases.index).astype(float), levels(cases[entry["by"]])
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
        chances = []
        for distance, a, b in apart:  # the test's p is that of dealing the values anew
            mixed = np.concatenate([a, b])
            drawn = [rng.permutation(mixed) for _ in range(300)]
            far = sum(_distance(np.sort(d[: len(a)]), np.sort(d[len(a) :])) >= distance - 1e-9 for d in drawn)
            chances.append((1 + far) / 301)
        found = [stats.kstwo.sf(d, round(len(a) * len(b) / (len(a) + len(b)))) for d, a, b in apart]
        book.expect(entry, "p", min(1.0, len(apart) * min(found)))
        assert entry["p"] >= min(1.0, len(apart) * min(chances)) - 0.15, "never much smaller than dealing anew says"


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest gap of two empirical distributions of sorted values."""
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


def _representativeness(book: Book, persons: pd.DataFrame) -> None:
    for entry in book.document["representativeness"]:
        level = levels(persons[entry["column"]])
        counts = {row["level"]: int((level == row["level"]).sum()) for row in entry["levels"]}
        total = sum(counts.values())
        scale = sum(row["reference"] for row in entry["levels"])
        assert abs(scale - 1) < 1e-9
        statistic = 0.0
        for row in entry["levels"]:
            book.all(row, {**share(counts[row["level"]], total), "reference": row["reference"]})
            statistic += (counts[row["level"]] - total * row["reference"]) ** 2 / (total * row["reference"])
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
        if entry["auc"] is None:
            assert min(target.sum(), (~target).sum()) < 10 or not entry["columns"]
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
        book.expect(entry, "auc", area, within=0.01)
        width = 1.959963984540054 * _hanley(entry["auc"], int(target.sum()), int((~target).sum()))
        book.all(entry, {"low": max(0.0, entry["auc"] - width), "high": min(1.0, entry["auc"] + width)})


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
            for row in entry[name]:
                assumed = row["assumed"]
                book.all(row, {"assumed": assumed, "half_width": _half(assumed, number)})
        for row in entry["auc"]:
            width = z * _hanley(row["assumed"], yes, no) if yes and no else None
            book.all(row, {"assumed": row["assumed"], "half_width": width})
        for assumed in list(entry["positives_needed"]):
            share_ = float(assumed)
            book.expect(entry["positives_needed"], assumed, math.ceil(share_ * (1 - share_) * (z / 0.05) ** 2 - 1e-9))
        _needed(book, entry["needed"], int((answers == True).sum()), int((answers == False).sum()))  # noqa: E712
        for row in entry["groups"]:
            inside = int(((levels(persons[row["column"]]) == row["level"]) & tested & (answers == True)).sum())  # noqa: E712
            book.all(row, {"positives": inside, "half_width": _half(0.9, inside)})
            drop = row["detectable_difference"]
            if drop is not None:
                others = yes - inside
                power = power_proportions_2indep(-drop, 0.9, inside, ratio=others / inside, alpha=0.05).power
                assert abs(power - 0.80) < 0.03 or abs(drop - _smallest_drop(inside, others)) < 0.02, (row, power)
                book.expect(row, "detectable_difference", drop)


def _half(assumed: float, number: int) -> float | None:
    if not number:
        return None
    low, high = proportion_confint(round(assumed * number), number, method="wilson")
    return (high - low) / 2


def _smallest_drop(first: int, second: int) -> float:
    """By Cohen's arcsine approximation: near, not equal."""
    effect = NormalIndPower().solve_power(nobs1=first, ratio=second / first, alpha=0.05, power=0.8)
    return float(optimize.brentq(lambda d: 2 * (math.asin(0.9**0.5) - math.asin((0.9 - d) ** 0.5)) - effect, 0, 0.9))


def _needed(book: Book, entry: Any, yes: int, no: int) -> None:
    if entry is None:
        assert not yes or not no
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
        "error": math.ceil((math.exp(-0.508) * p**0.259 * 10**0.504 / 0.05) ** (1 / 0.544)),
    }
    book.all(entry["to_develop_by"], riley)
    book.expect(entry, "to_develop", max(riley.values()))


def _leakage(book: Book, index: pd.DataFrame, cohort: pd.DataFrame, splits: pd.DataFrame, prints: Any) -> None:
    found = book.document["leakage"]
    home = dict(zip(splits.person_key, splits.split, strict=True))
    for row in found["keys"]:
        rows = index if row["key"] in index else None
        if rows is not None:
            counts = rows.dropna(subset=[row["key"]]).groupby(row["key"]).split.nunique()
            book.all(row, {"values": len(counts), "in_two_splits": int((counts > 1).sum())})
        else:  # a private key: what the tables can tell is that its persons have one split each
            assert row["in_two_splits"] == 0
            book.all(row, {"values": row["values"], "in_two_splits": 0})
    if found.get("pixels") is not None:
        _pixels(book, found["pixels"], prints, home)
    if "patches" in found:
        frames = index.dropna(subset=["frame_of_reference_key"]).groupby("frame_of_reference_key").split.nunique()
        assert (frames == 1).all()
        book.all(found["patches"], {"frames_of_reference": len(frames), "shared": 0, "pairs": 0, "in_two_splits": 0})
        book.expect(found, "found", 0)
        for row in found["shared"]:
            book.all(row, {"groups": 0, "persons": 0, "too_common": 0})
        for row in found["statistics"]:
            book.expect(row, "persons_outside_train", 0)


def _pixels(book: Book, entry: Any, prints: pd.DataFrame, home: dict[str, str]) -> None:
    same = sum(n * (n - 1) // 2 for n in prints.person_key.value_counts())
    equal = [
        (a, b) for _, rows in prints.groupby("digest") for a, b in combinations(rows.person_key, 2) if a != b
    ]
    book.all(
        entry,
        {
            "volumes": len(prints),
            "planes": int(prints.planes.map(len).sum()),
            "persons": prints.person_key.nunique(),
            "pairs_of_different_persons": len(prints) * (len(prints) - 1) // 2 - same,
            "equal_pixels": len(equal),
            "near_duplicates": len(entry["matches"]) - len(equal),
            "in_two_splits": sum(home[m["persons"][0]] != home[m["persons"][1]] for m in entry["matches"]),
            "shared_planes": 0.5,
            "across_modalities": 0.9,
        },
    )
    assert entry["digest_of_digests"] == hashlib.sha256("".join(sorted(prints.digest)).encode()).hexdigest()
    book.all(entry["thin"], {"planes_below": 4, "threshold": 0.95})
    for modality in entry["thresholds"]:
        assert modality in set(prints.modality)
        book.expect(entry["thresholds"], modality, 0.85)


def _quarantine(book: Book, exclusions: pd.DataFrame) -> None:
    found = book.document["quarantine"]
    book.expect(found, "all", len(exclusions))
    for row in found["reasons"]:
        rows = exclusions
        for name in ("stage", "level", "reason"):
            rows = rows[rows[name].fillna("") == row[name]]
        book.expect(row, "things", len(rows))
    for row in found["rows"]:
        if row["instances"] is not None:
            assert ((exclusions.key == row["key"]) & (exclusions.instances == row["instances"])).any()
            book.expect(row, "instances", row["instances"])


def _unmapped(book: Book, cases: pd.DataFrame) -> None:
    """Cases under each name the vendor table does not know; blanks tidied."""
    column = "manufacturer" if "manufacturer" in cases else "vendor"
    names = cases.get(column, pd.Series(dtype=object)).dropna().map(lambda name: " ".join(name.split()))
    for name in book.document["vendors_unmapped"]:
        book.expect(book.document["vendors_unmapped"], name, int((names == name).sum()))


def _matched(book: Book, cohort: pd.DataFrame) -> None:
    """Persons with images, and those of them with a clinical row: told by a declared column that is not empty."""
    entry = book.document.get("clinical_persons")
    if entry is not None:
        clinical = cohort.groupby("person_key").grade.agg(lambda values: values.notna().any())
        book.expect(entry, "persons", cohort.person_key.nunique())
        assert clinical.sum() <= entry["matched"] <= len(clinical)
        book.expect(entry, "matched", sum(c["matched"] for c in book.document["clinical"]))


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


def _structures(book: Book, index: pd.DataFrame) -> None:
    """Cases a label has, and each of its structures; which names stand in the archive only the archive knows."""
    cases = index.drop_duplicates("case_key")
    for label, entry in book.document.get("structures", {}).items():
        book.expect(entry, "cases", len(cases))
        for name in entry["structures"]:
            volumes = cases[f"label.{label}.{name}.volume_mm3"]
            book.expect(entry["structures"], name, int((volumes > 0).sum()))
        for name in ("names", "names_taken_by_none"):
            book.expect(entry, name, entry[name])
