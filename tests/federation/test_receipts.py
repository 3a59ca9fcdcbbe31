"""Two receipts of one site tell nothing of the few who came or left between them."""

import json
import re

import pyarrow as pa
import pytest

from builder.errors import LayoutError, PrivacyError
from builder.federation.documents import Plan, Receipt, Spec, Table
from builder.federation.local import Terms
from builder.federation.policy import Policy
from builder.federation.receipts import Published, make_receipt
from builder.federation.showing import shown
from builder.federation.told import Ledger
from builder.model.keyed import Key
from tests.federation.test_documents import HEAD, PUBLIC, SHA

K = 5
SPEC = Spec(**HEAD, spec="name: lungs\n", columns={"sex": ["F", "M"]}, sites={"north": PUBLIC})
PLAN = Plan(
    **HEAD, spec=SHA, offers={}, ratios={}, columns=[], quotas={}, held_out={}, rules=[], differences=[], tables=[]
)
POLICY = Policy(site="north", coordinator=PUBLIC, dataset="/data", columns={"sex": ("F", "M")}, histograms=("slices",))
TERMS = Terms("question", K, ("sex",), ("train", "test"))
KEY = Key(bytes(range(32)))
NOBODY = pa.table({name: pa.array([], pa.string()) for name in ("person_key", "rule", "reason")})


def index(women: int, men: int) -> pa.Table:
    rows = [
        {"person_key": f"{sex}{n}", "sex": sex, "split": "train" if n % 3 else "test", "slices": 60}
        for sex, number in (("F", women), ("M", men))
        for n in range(number)
    ]
    return pa.Table.from_pylist(rows)


def received(ledger: Ledger, persons: pa.Table, version: str, terms: Terms = TERMS, policy: Policy = POLICY) -> Receipt:
    made = make_receipt(
        (SPEC, PLAN), policy, terms, Published(version * 32, {}, persons, NOBODY), ledger, key=KEY, nonce=version * 32
    )
    ledger.note(made)
    return made


def numbers(made: Receipt) -> list[Table]:
    return [made.strata, *made.tables]


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger.open(str(tmp_path / "ledger.json"))


def test_what_the_index_does_not_have_is_named(ledger):
    policy = POLICY.model_copy(
        update={"columns": {"sex": ("F", "M"), "grade": ("low", "high")}, "histograms": ("slices", "age_years")}
    )
    spec = SPEC.model_copy(update={"columns": {"sex": ["F", "M"], "grade": ["low", "high"]}})
    published = Published("a" * 32, {}, index(40, 30), NOBODY)
    made = make_receipt((spec, PLAN), policy, TERMS, published, ledger, key=KEY, nonce="a" * 32)
    assert made.withheld == [f"{n}: the tables of the site have no such column" for n in ("grade", "age_years")]
    assert "withheld: grade" in shown(made)


def test_few_changes_are_told_by_the_earlier_numbers(ledger):
    first = received(ledger, index(40, 30), "a")
    assert first.counted == first.version
    assert any(row.persons == 70 for row in first.strata.rows)
    told = ledger.memory()
    for version, persons in {"b": index(39, 30), "c": index(38, 29), "d": index(41, 33)}.items():
        again = received(ledger, persons, version)
        assert (again.version, again.counted) == (version * 32, first.version)
        assert numbers(again) == numbers(first)
        assert ledger.told == told
        assert f"the numbers are those of version {first.version}" in shown(again)
    assert again.sequence == 4


def test_many_changes_are_told(ledger):
    first = received(ledger, index(40, 30), "a")
    later = received(ledger, index(52, 45), "b")
    assert later.counted == later.version != first.version
    assert any(row.persons == 97 for row in later.strata.rows)


def test_numbers_that_are_far_off_are_not_told_again(ledger):
    received(ledger, index(40, 30), "a")
    with pytest.raises(PrivacyError, match="wait until more persons have come"):
        received(ledger, index(48, 21), "b")  # one person less, and yet no number holds


def test_what_the_policy_no_longer_allows_is_not_told_again(ledger):
    received(ledger, index(40, 30), "a")
    narrower = received(ledger, index(39, 30), "b", policy=POLICY.model_copy(update={"histograms": ()}))
    assert [table.name for table in narrower.tables] == ["total"]
    with pytest.raises(PrivacyError, match="fewer than 12 persons"):
        received(ledger, index(39, 30), "c", Terms("question", 12, ("sex",), ("train", "test")))


def test_the_ledger_keeps_receipts_and_refuses_two_commands_at_once(ledger):
    one, other = Ledger.open(str(ledger.path)), Ledger.open(str(ledger.path))
    first = received(one, index(40, 30), "a")
    one.keep()
    one.keep()
    received(other, index(39, 30), "b")
    with pytest.raises(LayoutError, match=re.escape("another command of this site has told something")):
        other.keep()
    again = Ledger.open(str(ledger.path))
    assert again.told == one.told
    assert numbers(received(again, index(39, 30), "b")) == numbers(first)


def test_a_ledger_from_before_receipts_were_kept_still_opens(ledger):
    received(ledger, index(40, 30), "a")
    ledger.keep()
    facts = json.loads(ledger.path.read_bytes())
    del facts["receipts"]
    ledger.path.write_text(json.dumps(facts))
    again = Ledger.open(str(ledger.path))
    assert again.told == ledger.told
    assert again.receipts == {}
