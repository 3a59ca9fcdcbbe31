"""Two columns are crossed where a policy says so, and give nothing away beside all tables that share a column."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from scipy.optimize import LinearConstraint, milp

from builder.federation.counting import tell_pair
from builder.federation.documents import Receipt, Spec, digest
from builder.federation.local import Terms
from builder.federation.merging import join
from builder.federation.policy import Policy
from builder.federation.receipts import Published, make_receipt
from builder.federation.told import Ledger, Teller
from builder.report.association import cramers_v
from tests.federation.test_documents import HEAD, PUBLIC
from tests.federation.test_receipts import KEY, NOBODY, PLAN
from tests.federation.test_sites import TEXT

K = 5
SPLITS = ("train", "test")
TERMS = Terms("question", K, ("sex",), SPLITS)
LEVELS = {"sex": ["F", "M"], "grade": ["high", "low"], "ward": ["A", "B", "C"]}
SPEC = Spec(**HEAD, spec=TEXT, columns=LEVELS, sites={"north": PUBLIC})
POLICY = Policy(
    site="north", coordinator=PUBLIC, dataset="/data", columns={n: tuple(levels) for n, levels in LEVELS.items()},
    pairs=(("sex", "grade"), ("grade", "ward")),
)  # fmt: skip
ASSERTED = 12


def index(seed: int, size: int, start: int = 0) -> pa.Table:
    """Persons whose grade follows their sex, and whose ward follows their grade; some wards are nearly empty."""
    random = np.random.default_rng(seed)
    sexes = random.choice(["F", "M"], size)
    high = random.random(size) < np.where(sexes == "F", 0.75, 0.3)
    wards = np.where(random.random(size) < 0.08, "C", np.where(high ^ (random.random(size) < 0.2), "A", "B"))
    return pa.table(
        {
            "person_key": [f"p{seed}-{n}" for n in range(start, start + size)],
            "split": random.choice(SPLITS, size, p=(0.7, 0.3)), "sex": sexes.tolist(),
            "grade": np.where(high, "high", "low").tolist(), "ward": wards.tolist(),
        }
    )  # fmt: skip


def received(table: pa.Table, ledger: Ledger, site: str = "north", version: str = "a") -> Receipt:
    policy = POLICY.model_copy(update={"site": site})
    published = Published(version * 32, {}, table, NOBODY)
    made = make_receipt((SPEC, PLAN), policy, TERMS, published, ledger, key=KEY, nonce=version * 32)
    ledger.note(made)
    return made


def widest(made: Receipt, count: int) -> list[tuple[tuple[str, ...], float]]:
    """Solve for hidden numbers of the pairs with every number of the receipt: the attacker's own arithmetic."""
    tables = [made.strata, *made.tables]
    names = ("split", *LEVELS)
    levels = {c.name: c.levels for t in tables for c in t.columns}
    cells = list(product(*[levels[name] for name in names]))

    def row(table, pattern):
        want = dict(zip((c.name for c in table.columns), pattern, strict=True))
        return [float(all(want.get(n, "*") in ("*", own) for n, own in zip(names, c, strict=True))) for c in cells]

    facts = [(row(t, r.levels), r.persons) for t in tables for r in t.rows if r.persons is not None]
    numbers = [n for _, n in facts]
    rules = LinearConstraint(np.array([own for own, _ in facts]), numbers, numbers)
    pairs = [t for t in tables if t.name.startswith("pair of ")]
    hidden = [(t, tuple(r.levels)) for t in pairs for r in t.rows if r.persons is None]
    found = []
    for table, pattern in hidden[:count]:
        goal, ends = np.array(row(table, pattern)), []
        for sign in (1, -1):
            answer = milp(sign * goal, constraints=rules, integrality=np.ones(len(cells), dtype=int))
            ends.append(sign * answer.fun)
        found.append((pattern, ends[1] - ends[0]))
    return found


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger.open(str(tmp_path / "ledger.json"))


@pytest.mark.parametrize("seed", range(2))
def test_no_hidden_number_follows_from_all_tables_of_a_receipt(ledger, seed):
    found = widest(received(index(seed, 90), ledger), ASSERTED)
    assert found
    assert all(width >= K for _, width in found), found


def test_the_association_over_sites_holds_that_of_all_rows(tmp_path):
    tables = {site: index(n, size) for n, (site, size) in enumerate({"north": 300, "lakeside": 180}.items())}
    made = {site: received(t, Ledger.open(str(tmp_path / f"{site}.json")), site) for site, t in tables.items()}
    pooled = pa.concat_tables(tables.values())
    joined = join(SPEC, PLAN, made)
    for one, other in POLICY.pairs:
        counts = np.zeros((len(LEVELS[one]), len(LEVELS[other])), dtype=np.int64)
        for a, b in zip(pooled[one].to_pylist(), pooled[other].to_pylist(), strict=True):
            counts[LEVELS[one].index(a), LEVELS[other].index(b)] += 1
        (entry,) = [e for e in joined.report["statistics"] if e["table"] == f"pair of {one} and {other}"]
        ends = entry["association"]["cramers_v"]
        assert entry["association"]["of"][0] == one
        assert ends["low"] - 1e-9 <= cramers_v(counts) <= ends["high"] + 1e-9
        assert ends["high"] - ends["low"] < 0.3
    exact = next(e for e in joined.report["statistics"] if e["table"] == "pair of sex and grade")
    ends = exact["association"]["cramers_v"]
    assert ends["high"] - ends["low"] < 1e-9, "nothing of it is hidden"
    assert "Association of sex and grade" in joined.files()["index.html"].decode()


def test_few_who_came_do_not_show_in_a_pair(ledger):
    first = index(1, 90)
    received(first, ledger)
    second = received(pa.concat_tables([first, index(7, 2, start=1000)]), ledger, version="b")
    assert second.counted == "a" * 32
    before, after = (
        {(t.name, *r.levels): r.persons for t in made.tables for r in t.rows if t.name.startswith("pair")}
        for made in (ledger.receipts[digest(PLAN)], second)
    )
    assert before == after


@pytest.mark.parametrize("pair", [("sex", "religion"), ("sex", "sex")])
def test_a_pair_is_of_two_columns_of_the_policy(pair):
    with pytest.raises(ValidationError, match="expected two names of columns or histograms"):
        Policy(**{**POLICY.model_dump(), "pairs": [pair]})


def test_a_pair_that_is_too_fine_stays_and_the_rest_is_told(ledger):
    levels = {name: [str(n) for n in range(60)] for name in ("day", "minute")}
    persons = pa.table({"day": ["1"] * 30, "minute": ["2"] * 30})
    withheld: list[str] = []
    teller = Teller(ledger, K, "people", "question")
    assert not list(tell_pair(teller, persons, ("day", "minute"), levels, withheld))
    assert withheld == [
        "pair of day and minute: beside what is told it would tell of few persons, or is too fine to be proved"
    ]
    assert not list(tell_pair(teller, persons, ("day", "sex"), levels, withheld))
    assert withheld[-1] == "pair of day and sex: nothing of sex is told"
    assert not ledger.told


def test_a_coordinator_cannot_ask_for_a_pair():
    with pytest.raises(ValidationError, match="pairs"):
        Spec(**{**SPEC.model_dump(), "pairs": [["sex", "grade"]]})
