"""Offers tell of how many persons the structures of a spec take the names in the archive, and never a name."""

from dataclasses import replace

import pyarrow as pa
import pytest
from pydantic import ValidationError

from builder.federation.coverage import covered, structures, tell_coverage
from builder.federation.local import local_spec
from builder.federation.offers import Newcomers, make_offer
from builder.federation.policy import Policy
from builder.federation.told import Ledger, Teller
from tests.federation.test_receipts import KEY
from tests.federation.test_sites import POLICY, TEXT, signed

BOTH = TEXT.replace(
    'roi: {tumor: "(?i)gtv|tumor|mass"}}',
    'roi: {tumor: "(?i)gtv", node: "(?i)node"}}\n  organ: {kind: rtstruct, roi: {liver: "(?i)liver"}}',
)
NAMES = [["GTV Smith", "node 3"], ["gtv"], ["LIVER", "Node"], ["shell"], None]


def archive(*persons: tuple[str, int]) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Cases of persons with the annotation of each, whose names are those of ``NAMES``."""
    cases = [f"c{n}" for n in range(len(persons))]
    cohort = pa.table(
        {
            "case_key": [*cases, "out"], "person_key": [*(p for p, _ in persons), "gone"],
            "included": [True] * len(cases) + [False],
        }
    )  # fmt: skip
    rows = [
        {"annotation": place, "case_key": case, "label": label, "how": "series"}
        for case, (_, place) in zip([*cases, "out"], [*persons, ("gone", 0)], strict=True)
        for label in ("tumor", "organ")
    ]
    return cohort, pa.Table.from_pylist(rows), pa.table({"label_names": NAMES})


def spec():
    return local_spec(signed(BOTH), POLICY)


def test_structures_are_counted_by_person():
    labels = spec()[0].labels
    assert structures(labels) == spec()[1].structures == 3
    found = covered(labels, *archive(("a", 0), ("b", 1), ("c", 2), ("c", 1), ("d", 3), ("e", 4)))
    assert found == {"a": 2, "b": 1, "c": 3, "d": 0, "e": 0}


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger.open(str(tmp_path / "ledger.json"))


def test_an_offer_tells_them_without_a_name(ledger):
    local, terms = spec()
    people = [(f"p{n}", 0 if n < 30 else 1) for n in range(50)]
    found = covered(local.labels, *archive(*people))
    rows = pa.table({"person_key": [p for p, _ in people], "included": [True] * 50, "sex": ["F", "M"] * 25})
    policy = POLICY.model_copy(update={"tell": ("coverage",), "k": 5})
    newcomers = Newcomers(rows.select(["person_key", "sex"]), rows, {}, found)
    made = make_offer(signed(BOTH), policy, terms, newcomers, ledger, key=KEY, nonce="0" * 32)
    (table,) = [t for t in made.tables if t.name == "coverage"]
    assert [(c.name, c.levels) for c in table.columns] == [("structures", ["0 of 3", "1 of 3", "2 of 3", "3 of 3"])]
    told = {r.levels[0]: r.persons for r in table.rows}
    assert told["*"] == 50
    assert told["2 of 3"] == 30
    assert told["1 of 3"] is None  # else the two that are empty would follow
    assert "Smith" not in made.model_dump_json()


def test_a_structure_made_to_leave_one_name_out_tells_nobody_who_has_it(ledger):
    """Of two structures that are the same but for one name, 20 and 19 of 40 would tell that somebody has it."""
    found = {f"p{n}": 2 if n < 19 else 1 if n == 19 else 0 for n in range(40)}
    (table,) = tell_coverage(Teller(ledger, 5, "people", "question"), found, 2, [])
    told = {r.levels[0]: r.persons for r in table.rows}
    assert told["*"] == 40
    assert told["1 of 2"] is None
    assert sum(n is None for n in told.values()) == 2


def test_an_unchanged_coverage_under_other_structures_is_not_told(ledger):
    """That nothing changed would tell of everybody that the new expression takes no further name of theirs."""
    local, terms = spec()
    found = covered(local.labels, *archive(*[(f"p{n}", n % 2) for n in range(40)]))
    rows = pa.table({"person_key": list(found), "included": [True] * 40, "sex": ["F"] * 20 + ["M"] * 20})
    policy = POLICY.model_copy(update={"tell": ("coverage",), "k": 5})
    newcomers = Newcomers(rows.select(["person_key", "sex"]), rows, {}, found)
    told = []
    for question in ("question", "question", "another"):
        own = replace(terms, question=question)
        made = make_offer(signed(BOTH), policy, own, newcomers, ledger, key=KEY, nonce="0" * 32)
        told.append([t for t in made.tables if t.name == "coverage"])
    assert told[0] == told[1] != []
    assert told[2] == []
    assert "coverage: not told beside what was told before" in made.withheld


def test_coverage_and_sizes_are_not_told_together():
    with pytest.raises(ValidationError, match="expected one of the two"):
        Policy(**{**POLICY.model_dump(), "tell": ("coverage",), "histograms": ("label_ml of tumor.tumor",)})
