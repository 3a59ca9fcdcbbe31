"""Whole offers of an archive that changes, and of parts of it: no small number follows from all of them together."""

from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import csr_array

from builder.errors import PrivacyError
from builder.federation.documents import Offer
from builder.federation.local import Terms
from builder.federation.offers import Newcomers, make_offer
from builder.federation.told import Ledger
from tests.federation.test_receipts import KEY, POLICY, SPEC

K = 5
COLUMNS = {"sex": ["F", "M or other"], "grade": ["high", "low or other"], "slices": []}
OWN = POLICY.model_copy(update={"columns": {"sex": ("F", "M"), "grade": ("high", "low")}, "histograms": ("slices",)})
ASKED = SPEC.model_copy(update={"columns": {"sex": ["F", "M"], "grade": ["high", "low"]}})


def archive(seed: int, size: int = 70) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "person_key": [f"p{n}" for n in range(size)], "included": [True] * size,
            "sex": random.choice(["F", "M"], size, p=[0.3, 0.7]), "grade": random.choice(["high", "low"], size),
            "slices": random.choice([10, 30, 70, 150], size, p=[0.05, 0.3, 0.45, 0.2]),
        }
    )  # fmt: skip


def offers(ledger: Ledger, *asked: tuple[pa.Table, Terms]) -> list[Offer]:
    """Those that the site makes; it refuses others."""
    made = []
    for rows, terms in asked:
        known = ledger.memory()
        try:
            found = Newcomers(rows.select(["person_key", *terms.strata]), rows, {})
            made.append(make_offer(ASKED, OWN, terms, found, ledger, key=KEY, nonce="0" * 32))
        except PrivacyError:
            ledger.told = known
    return made


class Attacker:
    """Somebody who holds all offers, and knows that each archive is a part of the first."""

    def __init__(self, made: list[Offer]) -> None:
        bands = next(c.levels for t in made[0].tables for c in t.columns if c.name == "slices")
        self.columns = {**COLUMNS, "slices": bands}
        self.cells = list(product(*self.columns.values()))
        self.offers = len(made)
        rows, numbers = [], []
        self.hidden = []
        for place, offer in enumerate(made):
            for table in (offer.strata, *offer.tables):
                names = [column.name for column in table.columns]
                for row in table.rows:
                    pattern = dict(zip(names, row.levels, strict=True))
                    if row.persons is None:
                        self.hidden.append(self.row(place, pattern))
                    else:
                        rows.append(self.row(place, pattern))
                        numbers.append(row.persons)
        whole = len(self.cells)
        parts = [np.hstack([np.eye(whole), *[-np.eye(whole) * (n == p) for n in range(1, self.offers)]])
                 for p in range(1, self.offers)]  # fmt: skip
        self.rules = [LinearConstraint(csr_array(np.array(rows)), numbers, numbers)]
        self.rules += [LinearConstraint(csr_array(part), 0, np.inf) for part in parts]

    def row(self, place: int, pattern: dict[str, str]) -> np.ndarray:
        inside = [
            all(pattern.get(c, "*") in ("*", level) for c, level in zip(self.columns, cell, strict=True))
            for cell in self.cells
        ]
        wide = np.zeros((self.offers, len(self.cells)))
        wide[place] = inside
        return wide.reshape(-1)

    def ends(self, goal: np.ndarray) -> tuple[float, float]:
        whole = np.ones(len(goal), dtype=int)
        answers = [milp(sign * goal, constraints=self.rules, integrality=whole) for sign in (1, -1)]
        return float(answers[0].fun or 0), -float(answers[1].fun or 0)

    def learns(self) -> list[tuple[float, float]]:
        """What is known too well: of hidden numbers, and of those who are in one archive and not in the next."""
        found = [self.ends(goal) for goal in self.hidden]
        narrow = [(low, high) for low, high in found if high - low < K]
        margins = [{}, *({c: level} for c in ("sex", "grade", "slices") for level in self.columns[c])]
        for place in range(1, self.offers):
            for pattern in margins:
                low, high = self.ends(self.row(0, pattern) - self.row(place, pattern))
                if high - low < K and low < K and (low, high) != (0, 0):
                    narrow.append((low, high))
        return narrow


TERMS = Terms("all", K, ("sex",), ("train", "test"))


def test_one_who_withdraws_between_offers_with_nested_strata(tmp_path):
    rows = archive(1)
    made = offers(
        Ledger.open(str(tmp_path / "ledger.json")), (rows, TERMS), (rows, replace(TERMS, strata=("sex", "grade"))),
        (rows.slice(1), replace(TERMS, strata=("grade", "sex"))),
    )  # fmt: skip
    assert len(made) >= 2
    assert Attacker(made).learns() == []


@pytest.mark.parametrize("rule", ["sex", "one"])
def test_a_rule_that_halves_the_cohort_or_leaves_one_out(rule, tmp_path):
    rows = archive(3)
    inside = {
        "sex": [sex == "F" for sex in rows["sex"].to_pylist()],
        "one": [n > 0 for n in range(rows.num_rows)],
    }[rule]
    made = offers(Ledger.open(str(tmp_path / "ledger.json")), (rows, TERMS),
                  (rows.filter(pa.array(inside)), replace(TERMS, question="rule")))  # fmt: skip
    assert len(made) == (1 if rule == "one" else 2)
    assert Attacker(made).learns() == []


@pytest.mark.parametrize("without", [3, 8])
def test_coverage_beside_a_rule_that_excludes_who_lacks_the_label(without, tmp_path):
    """Persons without a structure, everybody, and who is excluded later: of 3 nothing may follow, of 8 their number."""
    rows, ledger = archive(4), Ledger.open(str(tmp_path / "ledger.json"))
    policy = OWN.model_copy(update={"tell": ("exclusions", "coverage")})
    terms = replace(TERMS, structures=1, outcomes=("in the dataset", "label_missing", "other"))
    totals = []
    for required in (False, True):
        kept = [not required or n >= without for n in range(rows.num_rows)]
        series = rows.set_column(1, "included", pa.array(kept)).append_column("rule", pa.nulls(len(kept), pa.string()))
        reasons = pa.array([None if own else "label_missing" for own in kept], pa.string())
        own = replace(terms, question="required" if required else "all")
        people = series.filter(pa.array(kept)).select(["person_key", "sex"])
        covered = {f"p{n}": int(n >= without) for n, in_it in enumerate(kept) if in_it}
        found = Newcomers(people, series.append_column("reason", reasons), {}, covered)
        try:
            made = make_offer(ASKED, policy, own, found, ledger, key=KEY, nonce="0" * 32)
        except PrivacyError:
            continue
        shown = {t.name: {tuple(r.levels): r.persons for r in t.rows if r.persons} for t in (made.strata, *made.tables)}
        totals += [n for table in shown.values() for pattern, n in table.items() if {*pattern} <= {"*", "1 of 1"}]
        assert without >= K or shown["coverage"].keys() <= {("*",)}
    assert 70 in totals
    assert {70 - n for n in totals} <= {0, *range(K, 71)}
    assert (without in {70 - n for n in totals}) == (without >= K)
