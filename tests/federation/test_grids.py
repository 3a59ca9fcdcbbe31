"""Sizes of structures of the same persons on two grids tell of nobody whose structure lies near the edge of a band."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, milp

from builder.errors import PrivacyError
from builder.federation.differencing import Told, tell
from builder.federation.documents import Plan
from builder.federation.local import local_spec
from builder.federation.receipts import Published, make_receipt
from builder.federation.tables import ANY, Column, Disclosed, count
from builder.federation.told import Ledger
from tests.federation.test_receipts import KEY, NOBODY, PLAN
from tests.federation.test_sites import signed
from tests.federation.test_sizes import SIZE, TELLS, index

K = 5
SPLIT, BAND = (
    Column("split", ("train", "test")),
    Column("size", ("0 to 1", "1 to 3", "3 to 10", "10 to 30", "30 and above")),
)
CELLS = list(product(SPLIT.levels, BAND.levels))
EDGES = (1, 3, 10, 30)


def told(volumes, grid: str, ledger=(), *, by_split=True, people="all") -> Told:
    """Every third person is tested on."""
    bands = [BAND.levels[n] for n in np.digitize(volumes, EDGES)]
    rows = [("test" if n % 3 == 0 else "train", band) for n, band in enumerate(bands)]
    counts = count((SPLIT, BAND), rows) if by_split else count((BAND,), [row[1:] for row in rows])
    asked = [(), ("size",), *([("split",), ("split", "size")] if by_split else [])]
    return tell(counts, K, people=people, question="q", asked=asked, ledger=ledger, grids={"size": grid})


def crossed(table: Disclosed, pattern) -> tuple[str, ...]:
    return pattern if len(table.columns) == 2 else (ANY, *pattern)


def row(pattern) -> list[float]:
    return [float(all(want in (ANY, have) for want, have in zip(pattern, cell, strict=True))) for cell in CELLS]


def ends(facts, pattern) -> list[float]:
    """Fewest and most persons of a pattern for somebody who knows these sums."""
    numbers = [n for _, n in facts]
    rules = LinearConstraint(np.array([row(p) for p, _ in facts]), numbers, numbers)
    answers = [
        milp(sign * np.array(row(pattern)), constraints=rules, integrality=np.ones(len(CELLS), dtype=int))
        for sign in (1, -1)
    ]
    return [sign * answer.fun for sign, answer in zip((1, -1), answers, strict=True)]


@pytest.mark.parametrize("by_split", [True, False])
@pytest.mark.parametrize(("seed", "finer"), [(1, 1.02), (2, 0.8)])
def test_whoever_takes_both_grids_for_the_same_learns_no_hidden_number(seed, finer, by_split):
    random = np.random.default_rng(seed)
    volumes = random.lognormal(1.8, 1.1, 90)
    first = told(volumes, "4 mm", by_split=by_split)
    later = volumes * finer * random.normal(1, 0.02, len(volumes))
    second = told(later, "2 mm", [first])
    before = {crossed(first.table, p): n for p, n in first.table.shown.items()}
    for pattern, number in second.table.shown.items():
        assert not 0 < abs(number - before.get(pattern, number)) < K
    bands = [("test" if n % 3 == 0 else "train", BAND.levels[b]) for n, b in enumerate(np.digitize(later, EDGES))]
    now = {p: sum(all(w in (ANY, h) for w, h in zip(p, own, strict=True)) for own in bands) for p in before}
    more = second.table.shown.keys() - before.keys()
    facts = [*now.items(), *second.table.shown.items()] if more else [*before.items()]
    for pattern in (crossed(first.table, p) for p in first.table.hidden):
        assert pattern not in second.table.shown
        low, high = ends(facts, pattern)
        assert high - low >= K
    assert (ANY, ANY) in second.table.shown


def test_what_one_grid_told_of_all_and_another_tells_by_split_is_judged_together():
    """The second table alone hides enough, and beside the first would leave 0 to 3 for the 2 whom that one hides."""
    numbers = {("test", 0): 8, ("train", 0): 7, ("test", 1): 10, ("train", 1): 10, ("train", 2): 2, ("test", 3): 20,
               ("train", 4): 12}  # fmt: skip
    rows = [(split, BAND.levels[band]) for (split, band), n in numbers.items() for _ in range(n)]
    first = tell(count((BAND,), [row[1:] for row in rows]), K, people="all", question="q", grids={"size": "4 mm"})
    assert ("3 to 10",) in first.table.hidden
    rows[rows.index(("train", "1 to 3"))] = ("train", "3 to 10")
    counts = count((SPLIT, BAND), rows)
    second = tell(counts, K, people="all", question="q", grids={"size": "2 mm"}, ledger=[first])
    now = {(ANY, *p): sum(p in ((ANY,), (band,)) for _, band in rows) for p in first.table.shown}
    assert second.table.shown.keys() - now.keys()
    low, high = ends([*now.items(), *second.table.shown.items()], (ANY, "3 to 10"))
    assert high - low >= K


def test_one_structure_over_the_edge_of_a_band_hides_that_band_and_refuses_nothing():
    volumes = np.array([0.5] * 9 + [2.0] * 20 + [5.0] * 21 + [20.0] * 10 + [50.0] * 12)
    first = told(volumes, "4 mm", by_split=False)
    assert first.table.shown["1 to 3",] == 20
    volumes[9] = 0.99
    second = told(volumes, "2 mm", [first], by_split=False)
    assert second.table.shown == {p: n for p, n in first.table.shown.items() if p not in {("0 to 1",), ("1 to 3",)}}
    one_more = told(np.append(volumes, 0.5), "2 mm", [first], by_split=False, people="one more")
    assert {(ANY,), ("0 to 1",)} <= {*one_more.table.hidden}


def test_what_was_hidden_on_one_grid_stays_hidden_on_another_when_persons_come():
    """12 and 2 were hidden as 14: 13 of the next archive and grid would leave about 1."""
    volumes = np.array([0.5] * 30 + [2.0] * 2 + [5.0] * 21 + [20.0] * 15 + [50.0] * 12)
    first = told(volumes, "4 mm", by_split=False)
    assert first.table.hidden == (("1 to 3",), ("30 and above",))
    grown = np.append(volumes, [0.5] * 9 + [2.0] * 20 + [5.0] * 10 + [50.0] * 8)
    second = told(grown, "2 mm", [first], by_split=False, people="more")
    assert second.table.shown["3 to 10",] == 31
    assert {*first.table.hidden} <= {*second.table.hidden}
    alone = told(grown, "4 mm", [first], by_split=False, people="more")
    assert {*alone.table.shown} > {*second.table.shown}


def receipt(volumes: float, ledger: Ledger, plan: Plan):
    table = index(2, 60)
    at = table.schema.get_field_index("label.tumor.tumor.volume_mm3")
    scaled = [None if v is None else v * volumes for v in table[at].to_pylist()]
    table = table.set_column(at, table.schema.names[at], [scaled])
    policy = TELLS.model_copy(update={"histograms": (SIZE,)})
    made = make_receipt(
        (signed(), plan), policy, local_spec(signed(), policy, plan)[1], Published("a" * 32, {}, table, NOBODY), ledger,
        key=KEY, nonce="0" * 32,
    )  # fmt: skip
    ledger.note(made)
    return made


def test_a_receipt_under_a_plan_with_another_spacing_is_made_of_the_same_persons(tmp_path):
    ledger = Ledger.open(str(tmp_path / "ledger.json"))
    first = receipt(1.0, ledger, PLAN)
    ledger.keep()
    ledger = Ledger.open(str(ledger.path))
    plan = PLAN.model_copy(update={"sequence": 2, "spacing_mm": [2.0, 2.0, 2.0]})
    second = receipt(1.01, ledger, plan)
    assert [table.name for table in second.tables] == [table.name for table in first.tables]
    (one, other) = ({tuple(r.levels): r.persons for r in made.tables[-1].rows} for made in (first, second))
    assert {p for p, n in other.items() if n is not None} <= {p for p, n in one.items() if n is not None}
    assert one["*", "*"] == other["*", "*"] == 60
    grids = [own.grids[SIZE] for own in ledger.told[f"histogram of {SIZE}"]]
    assert len({*grids}) == 2


def test_sizes_that_cannot_be_told_on_another_grid_stay_and_the_receipt_is_made(tmp_path, monkeypatch):
    ledger = Ledger.open(str(tmp_path / "ledger.json"))
    receipt(1.0, ledger, PLAN)

    def refused(counts, k, **options):
        if options["grids"]:
            raise PrivacyError("the table is too fine to prove what it hides")
        return tell(counts, k, **options)

    monkeypatch.setattr("builder.federation.told.tell", refused)
    second = receipt(1.01, ledger, PLAN.model_copy(update={"sequence": 2, "spacing_mm": [2.0, 2.0, 2.0]}))
    assert f"{SIZE}: not told beside what was told of it on another grid" in second.withheld
    assert [table.name for table in second.tables] == ["total"]
