"""Recompute the report's document with pandas, and check the page made from it."""

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from statsmodels.stats.proportion import proportion_confint

from builder.model.tables import EXCLUSIONS
from builder.publishing.catalog import findings
from builder.report import ReportInputs, assemble, render
from builder.report.people import levels, one_row_each
from builder.split import assign

RATIOS = {"train": 0.7, "validation": 0.15, "test": 0.15}
VOLUME = "label.tumor.gtv.volume_mm3"
MEASURE = "label.tumor.gtv.planes"
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()
HOSTILE = "<script>alert('x')</script>"


def tables(n=60):
    rng = np.random.default_rng(5)
    persons = [
        {
            "person_key": f"p{i:03d}",
            "sex": ["F", "M", None][int(rng.integers(0, 3))],
            "age_years": float(rng.integers(20, 90)),
            "vendor": ["GE", "Siemens", HOSTILE][int(rng.integers(0, 3))],
            "grade": ["High", "Low"][int(rng.integers(0, 2))],
        }
        for i in range(n)
    ]
    splits = assign(pa.Table.from_pylist(persons), ratios=RATIOS, strata=["sex", "grade"], seed=1)
    split_of = dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))
    cohort, index, left = [], [], []
    for i, person in enumerate(persons):
        kept = i % 10 != 3
        base = {"person_key": person["person_key"], "study_key": f"st{i}", "sex": person["sex"], "instances": 50 + i}
        cohort.append(
            {
                **base,
                "series_key": f"ct{i}",
                "included": kept,
                "rule": None if kept else "geometry",
                "reason": None if kept else "gapped",
            }
        )
        cohort.append({**base, "series_key": f"loc{i}", "included": False, "rule": "image", "reason": "not_selected"})
        if not kept:
            continue
        if i == 0:
            left.append(
                {"level": "case", "key": "c0", "person_key": "p000", "stage": "shard", "rule": "labels",
                 "reason": "label_empty", "detail": HOSTILE, "instances": 50}
            )  # fmt: skip
            continue
        volume = float(rng.lognormal(9, 1)) if i % 4 else 0.0
        split = split_of[person["person_key"]]
        index += [
            {**person, "sample_key": f"c{i}-{k}", "case_key": f"c{i}", "split": split, "shard": f"s-{split}", "row": k,
             VOLUME: volume, MEASURE: float(i % 5)}
            for k in range(1 + i % 3)
        ]  # fmt: skip
    left.append(
        {"level": "file", "key": "f1", "person_key": None, "stage": "index", "rule": "sniff", "reason": "not_dicom",
         "detail": "found a text file", "instances": None}
    )  # fmt: skip
    return {
        "index": pa.Table.from_pylist(index),
        "cohort": pa.Table.from_pylist(cohort),
        "exclusions": pa.Table.from_pylist(left, schema=EXCLUSIONS),
        "splits": splits,
        "totals": {"instances": {"used": 10, "excluded": 2}, "persons": {"used": 9}},
        "lock": {"numpy": "2", "note": HOSTILE},
        "groups": ["sex", "vendor", "grade", "race"],
        "labels": [VOLUME, MEASURE, "grade"],
        "thumbnails": [{"sample_key": "c1-0", "split": "train", "png": PNG}],
    }


@pytest.fixture(scope="module")
def inputs():
    return tables()


@pytest.fixture(scope="module")
def document(inputs):
    return assemble(
        ReportInputs(**inputs, title="a <cohort>", ratios=RATIOS, strata=["sex", "grade"], rules=["image", "geometry"])
    )


@pytest.fixture(scope="module")
def frame(inputs):
    rows = inputs["index"].to_pandas().sort_values(["person_key", "case_key"])
    return rows.drop_duplicates("person_key").assign(sex=lambda f: f.sex.fillna("missing"))


def test_flow_adds_up(document, inputs):
    boxes = {b["title"]: b for b in document["flow"]["boxes"]}
    assert boxes["Found"]["counts"] == {"instances": 12, "persons": 9}
    assert [(r["reason"], r["things"]) for r in boxes["Found"]["left"]] == [("not_dicom", 1)]
    assert boxes["Candidate series"]["counts"] == {"series": 120, "studies": 60, "persons": 60}
    removed = [(r["rule"], r["things"], r["persons"]) for r in boxes["Candidate series"]["left"]]
    assert removed == [("image", 60, 60), ("geometry", 6, 6)]
    assert boxes["In the cohort"]["counts"]["series"] == 120 - 66
    cohort, dataset = boxes["In the cohort"], boxes["In the dataset"]
    assert dataset["counts"]["cases"] == cohort["counts"]["series"] - sum(r["things"] for r in cohort["left"])
    assert dataset["counts"]["samples"] == inputs["index"].num_rows
    for key in ("samples", "cases", "persons"):
        assert sum(s["counts"][key] for s in document["flow"]["splits"]) == dataset["counts"][key]


def test_attrition_by_group(document, inputs):
    cohort = inputs["cohort"].to_pandas()
    cohort["sex"] = cohort.sex.fillna("missing")
    stayed = cohort.groupby("person_key").included.any()
    sex = cohort.groupby("person_key").sex.first()
    (entry,) = document["attrition"]
    assert entry["column"] == "sex"
    for row in entry["levels"]:
        who = stayed[sex == row["level"]]
        assert row["candidates"] == len(who)
        assert row["stayed"]["count"] == who.sum()
        assert row["removed_by"] == ({"geometry": int((~who).sum())} if not who.all() else {})


def test_table_one_agrees_with_pandas(document, frame):
    entries = {e["column"]: e for e in document["table_one"]}
    assert set(entries) == {"sex", "vendor", "grade", "age_years"}
    assert document["groups_absent"] == ["race"]
    for column in ("sex", "vendor", "grade"):
        for row in entries[column]["levels"]:
            for split, cell in row["cells"].items():
                mine = frame if split == "all" else frame[frame.split == split]
                count = int((mine[column] == row["level"]).sum())
                assert cell["count"] == count
                low, high = proportion_confint(count, len(mine), method="wilson")
                assert (cell["low"], cell["high"]) == pytest.approx((low, high), abs=1e-9)
    for split, cell in entries["age_years"]["splits"].items():
        ages = (frame if split == "all" else frame[frame.split == split]).age_years
        assert cell["mean"] == pytest.approx(ages.mean())
        assert cell["sd"] == pytest.approx(ages.std())
        assert (cell["q1"], cell["median"], cell["q3"]) == pytest.approx(tuple(ages.quantile([0.25, 0.5, 0.75])))


def test_labels_are_counted_per_case(document, inputs):
    cases = inputs["index"].to_pandas().drop_duplicates("case_key")
    entry = next(e for e in document["labels"] if e["label"] == VOLUME)
    assert entry["title"] == "tumor / gtv"
    for split, cell in entry["splits"].items():
        mine = cases if split == "all" else cases[cases.split == split]
        present = mine[VOLUME][mine[VOLUME] > 0]
        assert (cell["cases"], cell["count"]) == (len(mine), len(present))
        assert cell["median"] == pytest.approx(present.median())


def test_measures_of_a_label_are_not_counted_as_labels(document, inputs):
    cases = inputs["index"].to_pandas().drop_duplicates("case_key")
    entry = next(e for e in document["labels"] if e["label"] == MEASURE)
    assert entry["kind"] == "measure"
    for split, cell in entry["splits"].items():
        mine = cases if split == "all" else cases[cases.split == split]
        assert (cell["count"], cell["above_zero"]) == (len(mine), (mine[MEASURE] > 0).sum())
        assert (cell["q1"], cell["median"], cell["q3"]) == pytest.approx(
            tuple(mine[MEASURE].quantile([0.25, 0.5, 0.75]))
        )
    assert not any(MEASURE in row["label"] for row in document["associations"] + document["missingness"])


def test_class_labels_are_counted_as_labels(inputs):
    index = inputs["index"]
    values = [["positive" if i % 3 else "negative"] if i % 7 else [] for i in range(index.num_rows)]
    index = index.append_column("class_names", [[["chest/nodule"] if v else [] for v in values]])
    index = index.append_column("class_values", [values])
    document = assemble(ReportInputs(**{**inputs, "index": index}))
    entry = next(e for e in document["labels"] if e["label"] == "chest/nodule")
    frame = index.to_pandas().sort_values("case_key")
    expected = [v[0] if len(v) else None for v in frame["class_values"]]
    found: Any = pd.Series(expected, index=frame["case_key"].values)
    by_case = found.groupby(level=0).agg(lambda v: set(v.dropna()))
    counts = {row["level"]: row["cells"]["all"]["count"] for row in entry["levels"]}
    assert counts["positive"] == sum(v == {"positive"} for v in by_case)
    assert counts.get("missing", 0) == sum(v == set() for v in by_case)
    assert any(o["outcome"] == "chest/nodule = positive" for o in document["power"]["outcomes"]) == (
        "several" not in counts
    )


def test_balance_and_intersections(document, inputs, frame):
    dealt = inputs["splits"].to_pandas()
    there = dealt.person_key.isin(inputs["index"]["person_key"].to_pylist())
    assert document["balance"]["lost"] == dealt[~there].split.value_counts().to_dict() != {}
    splits = dealt[there].copy()
    counts = splits.split.value_counts()
    assert document["balance"]["overall"]["counts"] == {s: int(counts[s]) for s in RATIOS}
    worst = document["balance"]["strata"]
    assert (worst["one_person_or_more"] == 0) == (worst["worst_persons"] < 1)  # who was lost unbalances them
    off = {(r["column"], r["level"]): r["off_persons"] for r in document["balance"]["levels"]}
    cohort = inputs["cohort"].to_pandas()
    known = cohort[cohort.included].set_index("person_key").sex  # who was left out afterwards counts as missing
    splits["sex"] = splits.person_key.map(known).fillna("missing")
    for level, part in splits.groupby("sex"):
        expected = max(abs((part.split == s).sum() - len(part) * r) for s, r in RATIOS.items())
        assert off["sex", level] == pytest.approx(expected)
    crossed = next(e for e in document["intersections"] if e["columns"] == ["sex", "grade"])
    for cell in crossed["cells"]:
        mine = frame[(frame.sex == cell["levels"][0]) & (frame.grade == cell["levels"][1])]
        assert cell["persons"] == len(mine)
        assert cell["tested"] == (mine.split == "test").sum()


def test_power_counts_persons_of_the_test_split(document, frame):
    tested = frame[frame.split == "test"]
    entry = next(e for e in document["power"]["outcomes"] if e["outcome"] == "tumor / gtv present")
    assert entry["positives"] == (tested[VOLUME] > 0).sum()
    assert entry["negatives"] == (tested[VOLUME] == 0).sum()
    for row in entry["groups"]:
        assert row["positives"] == ((tested[VOLUME] > 0) & (tested[row["column"]] == row["level"])).sum()
        assert row["speaks"] == (row["half_width"] is not None and row["half_width"] <= 0.1)


def test_a_group_too_small_to_judge_is_named_once(document):
    outcomes = document["power"]["outcomes"]
    silent = [(row["column"], row["level"]) for entry in outcomes for row in entry["groups"] if not row["speaks"]]
    assert len(silent) > len(set(silent))
    page = render(document)
    (sentence,) = [line for line in page.splitlines() if "Too few persons to say" in line]
    assert f"in {len(set(silent))} groups" in sentence
    assert sentence.count("sex not stated") == 1
    for column, level in set(silent):
        rows = f"<td>{column}</td><td>{escape('not stated' if level == 'missing' else level)}</td>"
        assert page.count(rows) >= silent.count((column, level))
    (finding,) = [text for text in findings(document) if "to speak for any outcome" in text]
    assert "sex not stated" in finding


def test_labels_that_headers_predict_are_reported(document, frame):
    found = {row["outcome"]: row for row in document["baseline"]}
    row = found["tumor / gtv present"]
    assert row["columns"] == ["vendor"]
    assert row["persons"] == len(frame)
    assert 0 <= row["low"] <= row["auc"] <= row["high"] <= 1
    assert f"{row['auc']:.2f}" in render(document)


def test_leaks_are_counted(document):
    assert {row["key"]: row["in_two_splits"] for row in document["leakage"]["keys"]} == {
        "person_key": 0, "case_key": 0,
    }  # fmt: skip


def test_small_counts_are_masked_everywhere_persons_are_broken_down(inputs):
    document = assemble(ReportInputs(**inputs, ratios=RATIOS, mask_below=5))
    for entry in document["table_one"]:
        for row in entry.get("levels", ()):
            counts = [c["count"] for c in row["cells"].values()]
            assert not any(c is not None and 0 < c < 5 for c in counts)
            assert counts.count(None) != 1
            assert all(c["share"] is None for c in row["cells"].values() if c["count"] is None)
    for entry in document["intersections"]:
        assert not any(c[k] is not None and 0 < c[k] < 5 for c in entry["cells"] for k in ("persons", "tested"))
    rows = [r for e in document["power"]["outcomes"] for r in e["groups"]]
    assert not any(r["positives"] is not None and 0 < r["positives"] < 5 for r in rows)
    assert render(document)


def test_order_of_rows_does_not_matter(inputs, document):
    rng = np.random.default_rng(0)
    shuffled = {
        k: v.take(pa.array(rng.permutation(v.num_rows))) if isinstance(v, pa.Table) else v for k, v in inputs.items()
    }
    again = assemble(
        ReportInputs(
            **shuffled, title="a <cohort>", ratios=RATIOS, strata=["sex", "grade"], rules=["image", "geometry"]
        )
    )
    assert json.dumps(again, sort_keys=True) == json.dumps(document, sort_keys=True)


def test_the_page_is_made_from_the_document_alone(document):
    read_back = json.loads(json.dumps(document, allow_nan=False))
    assert render(read_back) == render(document)


class Page(HTMLParser):
    """Collects tags that stay open and everything that an attribute could load."""

    VOID = frozenset({"meta", "br", "img", "link", "line", "circle", "polygon"})

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_offline_escaped_and_well_formed(document):
    text = render(document)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in page.loads)
    assert "script" not in page.tags
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert "a &lt;cohort&gt;" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_external_pictures_are_not_loaded(inputs):
    faulty = {**inputs, "thumbnails": [{"sample_key": "c1", "split": "train", "png": "https://example.org/x.png"}]}
    assert "example.org" not in render(assemble(ReportInputs(**faulty)))


def test_an_empty_dataset_still_has_a_report(inputs):
    empty = {k: v.slice(0, 0) if isinstance(v, pa.Table) else v for k, v in inputs.items()}
    document = assemble(ReportInputs(**{**empty, "thumbnails": []}, ratios=RATIOS))
    json.dumps(document, allow_nan=False)
    assert "Nothing was left out" in render(document)


def test_groups_are_in_reading_order():
    names = ["100-109", "20-29", "several", "4-9", None]
    column = pa.array(names)
    coded = levels(column)
    assert coded.names == ("4-9", "20-29", "100-109", "several", "missing")
    assert [coded.names[c] for c in coded.codes[:5]] == ["100-109", "20-29", "several", "4-9", "missing"]


@given(st.lists(st.text("ab 019-", max_size=5) | st.none()))
def test_any_names_have_a_reading_order(names):
    coded = levels(pa.array(names, pa.string()))
    assert [coded.names[c] for c in coded.codes] == ["missing" if n is None else n for n in names]


def test_persons_whose_rows_disagree_count_as_several():
    rows = pa.table({"person_key": ["a", "a", "b", "c"], "yes": [True, False, True, None]})
    assert one_row_each(rows, ["yes"])["yes"].to_pylist() == ["several", "true", None]


def test_columns_without_any_value_are_reported_as_missing(inputs):
    index = inputs["index"].set_column(
        inputs["index"].column_names.index("sex"), "sex", pa.nulls(inputs["index"].num_rows, pa.string())
    )
    document = assemble(ReportInputs(**{**inputs, "index": index}, ratios=RATIOS))
    entry = next(e for e in document["table_one"] if e["column"] == "sex")
    assert [row["level"] for row in entry["levels"]] == ["missing"]
    assert pd.isna(entry["difference"]) or entry["difference"] == 0
