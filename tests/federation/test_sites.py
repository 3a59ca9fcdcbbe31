"""What a site allows: its policy decides, its ledger remembers, and a joint plan adds up what was told."""

import stat

import pyarrow as pa
import pytest

from builder.errors import LayoutError, PrivacyError
from builder.federation.counting import EDGES, MOST, binned, tell_levels, tell_total
from builder.federation.documents import Offer, Plan, Spec, digest
from builder.federation.joint import make_plan
from builder.federation.local import local_spec
from builder.federation.policy import Policy, permitted
from builder.federation.told import Ledger, Teller
from builder.split import assign_by_quotas, with_homes
from tests.endtoend.trees import ROOT
from tests.federation.conftest import federated_spec

PUBLIC = "ed25519:" + "b" * 64
TEXT = federated_spec((ROOT / "specs" / "phantom.yaml").read_text())
POLICY = Policy(
    site="north", coordinator=PUBLIC, dataset="/data/joint", k=3, columns={"sex": ("F", "M")},
    allow=("clinical", "labels", "leaks"), parameters={"archive": "/pacs", "tables": "/tables"},
)  # fmt: skip


def signed(text: str = TEXT, sequence: int = 1) -> Spec:
    columns = {"sex": ["F", "M"]}
    return Spec(
        federation="joint-lesions",
        sequence=sequence,
        nonce="0" * 32,
        spec=text,
        columns=columns,
        sites={"north": PUBLIC},
    )


WIDER = {
    "a place of its own": ('"${archive}"', '"/etc"', "no parameter of the policy"),
    "a way out of the archive": ('"${archive}"', '"${archive}/../other"', "no parameter of the policy"),
    "an environment variable": ('"${tables}/clinical.csv"', '"${env:BUILDER_KEY}"', "environment variable"),
    "a new deal": ("  seed: 7", "  seed: 7\n  fresh: true", "splits.fresh"),
    "the splits of others": ("  seed: 7", "  seed: 7\n  previous: ${archive}", "splits.previous"),
    "another block": ("samples:", "persons: {shared_ids: true}\nsamples:", "found the block persons"),
}


@pytest.mark.parametrize("what", WIDER)
def test_a_spec_widens_nothing(what):
    old, new, words = WIDER[what]
    assert old in TEXT
    with pytest.raises(PrivacyError, match=words):
        local_spec(signed(TEXT.replace(old, new, 1)), POLICY)


def test_a_site_builds_with_its_own_key_and_name():
    spec, terms = local_spec(signed(), POLICY.model_copy(update={"patient_key": "${env:BUILDER_NORTH}"}))
    assert spec.deid.patient_key == "${env:BUILDER_NORTH}"
    assert [source.site for source in spec.sources] == ["north"]
    assert terms.k >= 3
    assert terms.strata == ("sex",)


def test_one_line_holds_out_a_hospital():
    text = TEXT.replace("  seed: 7", "  seed: 7\n  hold_out: [{column: site, values: [north], split: external}]")
    held, _ = local_spec(signed(text), POLICY)
    assert [rule.split for rule in held.splits.hold_out] == ["external"]
    other, _ = local_spec(signed(text), POLICY.model_copy(update={"site": "lakeside"}))
    assert other.splits.hold_out == ()


def test_a_made_up_level_is_refused_and_an_unnamed_column_withheld():
    with pytest.raises(PrivacyError, match="found 1 levels of sex"):
        permitted({"sex": ["F", "Jane Roe"]}, POLICY)
    found, withheld = permitted({"sex": ["F"], "grade": ["High"]}, POLICY)
    assert found == {"sex": ("F",)}
    assert withheld == ["grade: the policy of the site tells nothing of this column"]


def people(women: int, men: int) -> pa.Table:
    return pa.table(
        {
            "person_key": [f"p{n}" for n in range(women + men)],
            "sex": ["F"] * women + ["M"] * men,
            "age_years": [30.5] * women + [44.0] * men,
        }
    )


def teller(ledger: Ledger, persons: pa.Table, k: int = 3) -> Teller:
    return Teller(ledger, k, f"{persons.num_rows}", "question")


def test_the_ledger_survives_and_is_private(tmp_path):
    ledger = Ledger.open(str(tmp_path / "ledger.json"))
    persons = people(8, 9)
    told = tell_levels(teller(ledger, persons), "sex", persons, {"sex": ["F", "M"]})
    ledger.accept(signed(sequence=2), where="spec")
    ledger.keep()
    assert stat.S_IMODE((tmp_path / "ledger.json").stat().st_mode) == 0o600
    again = Ledger.open(str(tmp_path / "ledger.json"))
    assert again.told == ledger.told
    assert {tuple(row.levels): row.persons for row in told.rows}[("F",)] == 8
    with pytest.raises(LayoutError, match=r"found spec 1 .* expected a later one"):
        again.accept(signed(sequence=1), where="spec")
    with pytest.raises(LayoutError, match="found spec 2"):
        again.accept(signed(TEXT + "\n", sequence=2), where="spec")
    again.accept(signed(sequence=2), where="spec")
    (tmp_path / "ledger.json").write_text("{}")
    with pytest.raises(LayoutError, match="backup"):
        Ledger.open(str(tmp_path / "ledger.json"))


def test_a_person_who_comes_cannot_be_told_from_two_offers(tmp_path):
    ledger = Ledger.open(str(tmp_path / "ledger.json"))
    numbers = []
    for persons in (people(8, 9), people(8, 10)):
        by = teller(ledger, persons)
        try:
            tell_total(by, persons.num_rows)
            table = tell_levels(by, "sex", persons, {"sex": ["F", "M"]})
        except PrivacyError:
            continue
        numbers.append({tuple(row.levels): row.persons for row in table.rows})
    assert numbers[0][("M or other",)] == 9
    assert all(told[("M or other",)] is None and told[("*",)] is None for told in numbers[1:])


def crossed(*cells: tuple[str, str, str, int]) -> pa.Table:
    rows = [{"sex": sex, "grade": grade, "split": split} for sex, grade, split, n in cells for _ in range(n)]
    return pa.Table.from_pylist(rows)


def test_tables_of_other_columns_give_no_cell_away_together(tmp_path):
    persons = crossed(
        ("F", "high", "train", 2), ("F", "low", "train", 18), ("M", "high", "train", 15), ("M", "low", "train", 16)
    )
    columns = {"sex": ["F", "M"], "grade": ["high", "low"]}
    own = teller(Ledger.open(str(tmp_path / "ledger.json")), persons, 5)
    first = {tuple(r.levels): r.persons for r in tell_levels(own, "sex x grade", persons, columns).rows}
    assert first[("F", "high")] is None
    second = {r.levels[0]: r.persons for r in tell_levels(own, "grade", persons, {"grade": columns["grade"]}).rows}
    # 17 of high grade would leave 2 women
    assert second["high"] is None


def test_what_is_hidden_of_the_splits_stays_hidden_in_every_table(tmp_path):
    persons = crossed(
        ("F", "high", "train", 12), ("F", "high", "validation", 2), ("F", "low", "train", 8),
        ("F", "low", "validation", 1),
        ("M", "high", "train", 15), ("M", "high", "validation", 4), ("M", "high", "test", 2), ("M", "low", "train", 2),
        ("M", "low", "validation", 8), ("M", "low", "test", 15),
    )  # fmt: skip
    own = teller(Ledger.open(str(tmp_path / "ledger.json")), persons, 5)
    splits = ("train", "validation", "test")
    told = [tell_levels(own, name, persons, {name: levels}, by=splits)
            for name, levels in {"sex": ["F", "M"], "grade": ["high", "low"]}.items()]  # fmt: skip
    shown = [{row.levels[0] for row in table.rows if row.persons and row.levels[1] == "*"} for table in told]
    hidden = [{row.levels[0] for row in table.rows if row.persons is None and row.levels[1] == "*"} for table in told]
    assert hidden[0] >= {"train", "validation"}
    assert not hidden[0] & shown[1]


def test_quantities_are_told_in_bins():
    named, bins = binned(people(1, 1), "age_years")
    assert named["age_years"].to_pylist() == ["30 to 40", "40 to 50"]
    assert bins["age_years"][-1] == "90 and above"
    values = pa.table({"intensity_median": [-1000.0, 39.9, 40.0, 5e4, None]})
    assert binned(values, "intensity_median")[0]["intensity_median"].to_pylist() == [
        "-1024 to -900", "0 to 40", "40 to 80", "1000 and above", None
    ]  # fmt: skip
    assert set(MOST) == set(EDGES)
    assert all(MOST[name] > edges[-1] for name, edges in EDGES.items())


def offer_of(site: str, tmp_path, women: int, men: int) -> Offer:
    ledger = Ledger.open(str(tmp_path / f"{site}.json"))
    persons = people(women, men)
    by = teller(ledger, persons)
    total = tell_total(by, persons.num_rows)
    return Offer(
        federation="joint-lesions", sequence=1, nonce="0" * 32, site=site, spec=digest(signed()), k=3,
        strata=tell_levels(by, "sex", persons, {"sex": ["F", "M"]}), tables=[total], lock={"numpy": site}, withheld=[],
    )  # fmt: skip


def test_a_joint_plan_deals_all_sites_by_the_ratios(tmp_path):
    sizes = {"lakeside": (8, 9), "north": (11, 7), "university": (5, 13)}
    offers = {site: offer_of(site, tmp_path, *size) for site, size in sizes.items()}
    plan = make_plan(signed(), offers, sequence=1, nonce="1" * 32)
    assert isinstance(plan, Plan)
    assert any(line.startswith("numpy: lakeside lakeside") for line in plan.differences)
    dealt: dict[str, list[str]] = {"F": [], "M": []}
    for site, (women, men) in sizes.items():
        spec, _ = local_spec(signed(), POLICY.model_copy(update={"site": site}), plan)
        assert spec.splits.joint is not None
        homed, quotas = with_homes(people(women, men), spec.splits.joint)
        rows = assign_by_quotas(homed, quotas=quotas, strata=["sex"], seed=7)
        sexes = dict(zip(homed["person_key"].to_pylist(), homed["sex"].to_pylist(), strict=True))
        for person, split in zip(rows["person_key"].to_pylist(), rows["split"].to_pylist(), strict=True):
            dealt[sexes[person]].append(split)
    everyone = dealt["F"] + dealt["M"]
    for group in (dealt["F"], dealt["M"], everyone):
        for split, ratio in plan.ratios.items():
            assert abs(group.count(split) - ratio * len(group)) < 1
    assert len(plan.quotas["north"]) == 2, plan.quotas
