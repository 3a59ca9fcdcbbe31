"""Cohort rules: the first that fails is recorded, the choice is deterministic, and nothing is lost."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cohort import Cohort, Rule, select_cohort
from builder.errors import SpecError

COLUMNS = {
    "series_key": pa.string(), "stack": pa.int32(), "study_key": pa.string(), "person_key": pa.string(),
    "modality": pa.string(), "instances": pa.int64(), "age_years": pa.float64(), "usable_reason": pa.string(),
    "usable_detail": pa.string(), "clinical_rows": pa.int64(), "clinical_unclear": pa.bool_(),
    "label_state": pa.string(), "label_detail": pa.string(),
}  # fmt: skip
SCHEMA = pa.schema(list(COLUMNS.items()))


def row(series: str, **values) -> dict:
    base = {
        "series_key": series, "stack": 0, "study_key": "s", "person_key": "p", "modality": "CT", "instances": 10,
        "age_years": 50.0, "usable_reason": None, "usable_detail": None, "clinical_rows": 1, "clinical_unclear": False,
        "label_state": "linked", "label_detail": None,
    }  # fmt: skip
    return base | values


def decide(rows: list[dict], options: Cohort, *, labelled: bool = True) -> dict[str, tuple]:
    table = select_cohort(pa.Table.from_pylist(rows, schema=SCHEMA), options, labelled=labelled)
    return {r["series_key"]: (r["included"], r["rule"], r["reason"]) for r in table.to_pylist()}


def test_each_exclusion_has_the_first_rule_that_failed():
    options = Cohort(
        image="modality == 'CT'", clinical="required", rules=(Rule(name="adults", keep="age_years >= 18"),),
        one_per="person",
    )  # fmt: skip
    found = decide(
        [
            row("a", modality="MR", usable_reason="gapped", clinical_rows=0),
            row("b", usable_reason="gapped", clinical_rows=0),
            row("c", clinical_rows=0, age_years=3.0),
            row("k", clinical_rows=0, clinical_unclear=True),
            row("l", clinical_rows=1, clinical_unclear=True, instances=3),
            row("d", age_years=3.0, label_state="missing"),
            row("e", age_years=None),
            row("f", label_state="missing"),
            row("g", label_state="ambiguous"),
            row("h", instances=12),
            row("i", instances=11),
            row("j", instances=11, person_key="q"),
        ],
        options,
    )
    assert found == {
        "a": (False, "image", "not_selected"),
        "b": (False, "geometry", "gapped"),
        "c": (False, "clinical", "clinical_missing"),
        "k": (False, "clinical", "clinical_ambiguous"),
        "l": (False, "one_per_person", "one_per_rule"),
        "d": (False, "adults", "cohort_rule"),
        "e": (False, "adults", "cohort_rule"),
        "f": (False, "labels", "label_missing"),
        "g": (False, "labels", "label_ambiguous"),
        "h": (True, None, None),
        "i": (False, "one_per_person", "one_per_rule"),
        "j": (True, None, None),
    }


def test_labels_matter_only_where_declared_and_required():
    assert decide([row("a", label_state="missing")], Cohort(), labelled=False)["a"][0]
    assert decide([row("a", label_state="missing")], Cohort(labels="optional"))["a"][0]


rows = st.lists(
    st.builds(
        row, st.uuids().map(str), person_key=st.sampled_from("pqr"), study_key=st.sampled_from("st"),
        instances=st.integers(1, 3), modality=st.sampled_from(["CT", "MR"]),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@given(rows=rows, order=st.randoms(use_true_random=False), level=st.sampled_from(["person", "study"]))
def test_one_of_each_whatever_the_order(rows, order, level):
    options = Cohort(image="modality == 'CT'", one_per=level)
    shuffled = list(rows)
    order.shuffle(shuffled)
    found = decide(rows, options)
    assert decide(shuffled, options) == found
    included = [r for r in rows if found[r["series_key"]][0]]
    groups = {r[f"{level}_key"] for r in rows if r["modality"] == "CT"}
    assert sorted(r[f"{level}_key"] for r in included) == sorted(groups)
    for r in included:
        peers = [p for p in rows if p["modality"] == "CT" and p[f"{level}_key"] == r[f"{level}_key"]]
        assert r["instances"] == max(p["instances"] for p in peers)


def test_unknown_columns_are_found_before_anything_runs():
    with pytest.raises(SpecError):
        decide([row("a")], Cohort(image="modality > 5"))
