"""How many persons each rule keeps out is told like every other number, and gives none of the others away."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import PrivacyError
from builder.federation.documents import Offer, Receipt
from builder.federation.exclusions import KEPT, OTHER, exclusions_of, outcomes
from builder.federation.local import local_spec
from builder.federation.merging import join
from builder.federation.offers import Newcomers, make_offer
from builder.federation.receipts import Published, make_receipt
from builder.federation.showing import shown
from builder.federation.told import Ledger
from tests.federation.test_receipts import KEY, PLAN
from tests.federation.test_sites import POLICY, TEXT, signed
from tests.federation.test_suppression import attacked

RULES = "  one_per: person\n  rules:\n    - {name: thin, keep: 'spacing_slice_mm <= 3'}\n"
LEVELS = (KEPT, "not_selected", "gapped", "rule thin", "label_missing", OTHER)
TELLS = POLICY.model_copy(update={"tell": ("exclusions",), "k": 5})


def series(**numbers: int) -> pa.Table:
    """One series a person, whose names say what becomes of them."""
    rows: list[dict[str, Any]] = []
    for reason, number in numbers.items():
        for n in range(number):
            kept = reason == "kept"
            rule = None if kept else "thin" if reason == "cohort_rule" else "step"
            rows.append(
                {
                    "person_key": f"{reason}{n}", "included": kept, "rule": rule, "reason": None if kept else reason,
                    "sex": "M" if n % 2 else "F",
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows)


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger.open(str(tmp_path / "ledger.json"))


def terms():
    return replace(local_spec(signed(), TELLS)[1], outcomes=LEVELS)


def offered(ledger: Ledger, rows: pa.Table, *, known: int = 0) -> Offer:
    """Return an offer in which the first persons are known to the site's registry."""
    kept = rows.filter(rows["included"]).slice(known).select(["person_key", "sex"])
    made = make_offer(signed(), TELLS, terms(), Newcomers(kept, rows, {}), ledger, key=KEY, nonce="0" * 32)
    ledger.note(made)
    return made


def received(ledger: Ledger, rows: pa.Table, version: str = "a") -> Receipt:
    index = rows.filter(rows["included"]).append_column(
        "split", pa.array(["train"] * sum(rows["included"].to_pylist()))
    )
    made = make_receipt(
        (signed(), PLAN), TELLS, terms(), Published(version * 32, {}, index, rows), ledger, key=KEY, nonce=version * 32
    )
    ledger.note(made)
    return made


def of(made: Offer | Receipt, name: str = "exclusions") -> dict[str, int | None]:
    (table,) = [table for table in (made.strata, *made.tables) if table.name == name]
    return {"/".join(row.levels): row.persons for row in table.rows}


def test_the_levels_are_those_of_the_spec_at_every_site():
    north, _ = local_spec(signed(TEXT.replace("  one_per: person\n", RULES)), POLICY)
    levels = outcomes(north)
    assert levels[:3] == (KEPT, "not_selected", "unknown_geometry")
    assert levels[-1] == OTHER
    assert levels.index("gapped") < levels.index("rule thin") < levels.index("label_missing")
    assert "image_missing" not in levels
    local, terms_of_site = local_spec(signed(), POLICY)
    assert terms_of_site.outcomes == outcomes(local)


def test_a_person_counts_once_under_the_last_step_that_was_reached():
    rows = pa.Table.from_pylist(
        [
            {"person_key": person, "rule": rule, "reason": reason}
            for person, rule, reason in [
                ("kept", None, None), ("kept", "image", "not_selected"), ("late", "image", "not_selected"),
                ("late", "thin", "cohort_rule"), ("late", "geometry", "gapped"), ("rare", "burned", "burned_in"),
                ("rarer", "burned", "burned_in"), ("rarer", "geometry", "gapped"), (None, "image", "not_selected"),
                ("made", "a name", "cohort_rule"),
            ]
        ]
    )  # fmt: skip
    found = exclusions_of(rows, {"kept"}, LEVELS)
    assert found.of == {"kept": KEPT, "late": "rule thin", "rare": OTHER, "rarer": "gapped", "made": OTHER}


def test_an_offer_and_a_receipt_tell_them(ledger):
    rows = series(kept=40, not_selected=31, gapped=22, label_missing=2)
    made = offered(ledger, rows)
    numbers = of(made)
    assert numbers["*"] == 95
    assert numbers[KEPT] == 40
    assert numbers["not_selected"] == 31
    assert numbers["label_missing"] is None
    assert numbers["gapped"] is None  # 2 labels would follow from 22
    assert "exclusions (outcome; of candidates)" in shown(made)
    assert of(received(ledger, rows)) == numbers


def test_a_policy_that_does_not_name_them_tells_none(ledger):
    rows = series(kept=40, not_selected=31)
    kept = rows.filter(rows["included"]).select(["person_key", "sex"])
    policy = TELLS.model_copy(update={"tell": ()})
    made = make_offer(signed(), policy, terms(), Newcomers(kept, rows, {}), ledger, key=KEY, nonce="0" * 32)
    assert "exclusions" not in [table.name for table in made.tables]


def test_hidden_exclusions_stay_unknown_over_versions(ledger):
    """All that was told of the candidates, and the totals beside it, leave each hidden number k wide."""
    versions = [
        series(kept=40, not_selected=31, gapped=22, label_missing=2),
        series(kept=48, not_selected=31, gapped=23, label_missing=2),  # eight came, and one who is left out
    ]
    made = [offered(ledger, rows) for rows in versions]
    told = [{level: n for level, n in of(offer).items() if n is not None} for offer in made if any(
        t.name == "exclusions" for t in offer.tables)]  # fmt: skip
    assert told
    for before, after in pairwise(told):
        assert all(abs(after[p] - n) >= 5 or after[p] == n for p, n in before.items() if p in after)
    levels = terms().outcomes
    for entry in ledger.told["candidates: exclusions"]:
        for pattern in entry.table.hidden[:5]:
            low, high = attacked(entry.table.columns, [entry.table], pattern)
            assert high - low >= 5, pattern
        assert entry.table.columns[0].levels == levels


def test_nothing_is_told_of_them_where_the_persons_are_not_counted(ledger):
    """Otherwise the candidates less the excluded would be the hidden number."""
    made = offered(ledger, series(kept=3, not_selected=31, gapped=22))
    assert of(made, "total") == {"": None}
    assert "exclusions" not in [table.name for table in made.tables]
    assert "exclusions: the number of persons in the dataset is not told" in made.withheld


def test_three_who_came_do_not_show_in_the_sum_of_kept_and_excluded(ledger):
    """Fifty and thirty, then fifty-eight and twenty-five: each differs by five or more, their sum by three."""
    offered(ledger, series(kept=50, not_selected=30))
    second = offered(ledger, series(kept=58, not_selected=25))
    assert of(second, "total") == {"": 58}
    told = of(second)
    assert told[KEPT] == 58
    assert told["*"] is None


def test_an_offer_counts_newcomers_for_the_plan_and_everybody_for_the_rest(ledger):
    rows = series(kept=60)
    first = offered(ledger, series(kept=40))
    assert (first.strata.of, first.tables[0].of) == ("newcomers", "everybody")
    assert of(first, "sex")["*"] == of(first, "total")[""] == 40
    received(ledger, series(kept=40))
    second = offered(ledger, rows, known=40)
    assert of(second, "total") == {"": 60}
    assert of(second, "sex") == {"*": 20, "F": 10, "M or other": 10}
    assert "sex (sex; of newcomers)" in shown(second)


def test_who_left_does_not_show_beside_newcomers(ledger):
    """Forty, then fifty-nine of whom twenty are new: one left. The newcomers stay, and the ratios deal them."""
    offered(ledger, series(kept=40))
    received(ledger, series(kept=40))
    second = offered(ledger, series(kept=60).filter(pa.array([False] + [True] * 59)), known=39)
    assert of(second, "total") == {"": 59}
    assert set(of(second, "sex").values()) == {None}
    assert "newcomers: their number is not told; the ratios deal them" in second.withheld


def test_few_who_are_left_out_hide_no_newcomers(ledger):
    """They are dealt as if kept, so that nobody moves; their number does not leave."""
    rows = series(kept=40, left_out=2)
    everybody = rows.select(["person_key", "sex"])
    made = make_offer(signed(), TELLS, terms(), Newcomers(everybody, rows, {}), ledger, key=KEY, nonce="0" * 32)
    assert of(made, "sex")["*"] == of(made, "total")[""] == 40
    assert of(made)[OTHER] is None


def test_newcomers_are_not_told_where_everybody_is_not(ledger):
    """Forty, then forty-two, which would tell of two: the twenty newcomers among them stay too."""
    offered(ledger, series(kept=40))
    received(ledger, series(kept=40))
    second = offered(ledger, series(kept=60).slice(18), known=22)
    assert second.tables == []
    assert set(of(second, "sex").values()) == {None}
    assert "everybody: not told beside what was told before" in second.withheld


def test_who_leaves_between_the_second_offer_and_its_receipt_does_not_show(ledger):
    received(ledger, series(kept=40))
    offered(ledger, series(kept=60), known=40)
    ledger.receipts.clear()
    with pytest.raises(PrivacyError, match="changed by fewer than 5 persons"):
        received(ledger, series(kept=59), "b")


def test_few_who_are_not_dealt_do_not_show_beside_the_others(ledger):
    """Two of forty are barred from the test split: thirty-eight newcomers would tell so."""
    made = offered(ledger, series(kept=40), known=2)
    assert of(made, "total") == {"": 40}
    assert set(of(made, "sex").values()) == {None}


def test_the_joint_report_holds_the_numbers_of_all_sites(tmp_path):
    sizes = {
        "north": {"kept": 40, "not_selected": 31, "gapped": 22, "label_missing": 2},
        "lakeside": {"kept": 70, "not_selected": 9, "gapped": 1, "label_missing": 14, "burned_in": 6},
    }
    pooled: Counter[str] = Counter()
    receipts = {}
    for site, numbers in sizes.items():
        receipts[site] = received(Ledger.open(str(tmp_path / f"{site}.json")), series(**numbers))
        pooled.update({{"kept": KEPT, "burned_in": OTHER}.get(name, name): n for name, n in numbers.items()})
    joined = join(signed(TEXT), PLAN, receipts)
    (entry,) = [e for e in joined.report["statistics"] if e["table"] == "exclusions"]
    assert entry["persons"] == pooled.total()
    for row in entry["outcomes"]:
        own = pooled[row["outcome"]]
        assert row["persons"]["low"] <= own <= row["persons"]["high"]
        assert row["share"]["low"] - 1e-9 <= own / pooled.total() <= row["share"]["high"] + 1e-9
    exact = {row["outcome"] for row in entry["outcomes"] if row["persons"]["low"] == row["persons"]["high"]}
    assert exact >= {KEPT}
    assert "195 candidates" in joined.files()["index.html"].decode()
