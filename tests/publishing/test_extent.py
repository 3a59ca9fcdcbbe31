"""How much a dataset holds, when its images were made, and how many cases are normal, against counts made otherwise."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from builder.catalog.facts import PeriodFacts
from builder.publishing.extent import OTHERS, amounts, coverage, distribution, periods
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE

SPEC = {
    "name": "x",
    "license": "CC-BY-4.0",
    "sources": [{"kind": "folder", "url": "archive"}],
    "cohort": {"image": "modality == 'CT'"},
    "deid": {"patient_key": "${env:BUILDER_KEY}", "retain": ["site", "sex"]},
    "samples": {"kind": "volumes"},
}
GTV, NODE = "label.tumor.gtv.volume_mm3", "label.tumor.node.volume_mm3"
EFFUSION = "label.findings.effusion"


def spec_with(**more: Any) -> DatasetSpec:
    return DatasetSpec.model_validate({**SPEC, **more})


def dated(site_split_year: Sequence[tuple[str, str, int]]) -> tuple[pa.Table, dict[str, str]]:
    rows: list[dict[str, Any]] = [
        {"person_key": f"p{i}", "site": site, TRUE_DATE: date(year, 1, 1), "included": True, "serves": ["c"]}
        for i, (site, _, year) in enumerate(site_split_year)
    ]
    types = {TRUE_DATE: pa.date32(), "included": pa.bool_(), "serves": pa.list_(pa.string())}
    cohort = pa.table({k: pa.array([r[k] for r in rows], types.get(k, pa.string())) for k in rows[0]})
    return cohort, {f"p{i}": split for i, (_, split, _) in enumerate(site_split_year)}


NORTH = [("north", "train", 2004 + i) for i in range(5)]
FEW = [("south", "train", 1990), ("south", "train", 1999), ("east", "train", 2020), ("east", "train", 2021)]


def years_of(given: tuple[pa.Table, dict[str, str]], spec: DatasetSpec) -> tuple[PeriodFacts, ...]:
    cohort, splits = given
    return periods(cohort, splits, spec)


class TestPeriods:
    ASKED = spec_with(catalog={"years": "ranges"})

    def test_years_by_site_and_split(self) -> None:
        found = years_of(dated([*NORTH, *(("north", "test", 2010) for _ in range(6))]), self.ASKED)
        assert [str(p) for p in found] == ["north, test: 2010", "north, train: 2004 to 2008"]
        assert [p.persons for p in found] == [6, 5]

    def test_few_persons_are_pooled_and_fewer_not_told(self) -> None:
        assert [p.site for p in years_of(dated([*NORTH, *FEW]), self.ASKED)] == ["north"]
        pooled = years_of(dated([*NORTH, *FEW, ("west", "train", 1985)]), self.ASKED)
        assert [str(p) for p in pooled] == ["north, train: 2004 to 2008", f"{OTHERS}, train: 1985 to 2021"]

    def test_more_persons_where_the_report_masks(self) -> None:
        stricter = spec_with(catalog={"years": "ranges"}, report={"mask_below": 6})
        assert years_of(dated(NORTH), stricter) == ()

    def test_sites_that_do_not_leave_are_one(self) -> None:
        withheld = spec_with(catalog={"years": "ranges"}, deid={"patient_key": "${env:BUILDER_KEY}", "retain": ["sex"]})
        both = years_of(dated([*NORTH, *FEW]), withheld)
        assert [(p.site, p.first, p.last, p.persons) for p in both] == [(None, 1990, 2021, 9)]

    @pytest.mark.parametrize("years", ["stated", "withheld"])
    def test_nothing_unless_asked(self, years: str) -> None:
        assert years_of(dated(NORTH), spec_with(catalog={"years": years})) == ()


class TestCoverage:
    ASKED = spec_with(catalog={"years": "ranges"})

    def told(self, spans: Sequence[int], spec: DatasetSpec = ASKED) -> list[str]:
        """What is told of persons with a study on one day, and another so many days later."""
        rows = [
            {"person_key": f"p{i}", TRUE_DATE: date(2020, 1, 1) + timedelta(days)}
            for i, span in enumerate(spans) for days in {0, span}
        ]  # fmt: skip
        rows += [
            {"person_key": "p0", TRUE_DATE: None},
            {"person_key": "not published", TRUE_DATE: date(1990, 1, 1)},
            {"person_key": "not published", TRUE_DATE: date(2020, 1, 1)},
        ]
        cohort = pa.table(
            {
                "person_key": [r["person_key"] for r in rows],
                TRUE_DATE: pa.array([r[TRUE_DATE] for r in rows], pa.date32()),
                "included": [True] * len(rows), "serves": [["c"]] * len(rows),
            }
        )  # fmt: skip
        return [str(one) for one in coverage(cohort, {f"p{i}" for i in range(len(spans))}, spec)]

    def test_the_mean_of_the_days_of_each_person(self) -> None:
        about = "mean time from the first to the last study of a person: "
        assert self.told([10, 20, 30, 40, 50, 0]) == [f"{about}25 d"]
        assert self.told([0] * 5) == [f"{about}0 d"]
        assert self.told([10, 20, 30, 40, 0, 0]) == [f"{about}masked"]
        assert self.told([10, 20, 30, 40]) == []
        stricter = spec_with(catalog={"years": "ranges"}, report={"mask_below": 6})
        assert self.told([10, 20, 30, 40, 50, 0], stricter) == [f"{about}masked"]

    @pytest.mark.parametrize("years", ["stated", "withheld"])
    def test_nothing_unless_asked(self, years: str) -> None:
        assert self.told([10, 20, 30, 40, 50, 0], spec_with(catalog={"years": years})) == []


class TestDistribution:
    INDEX = pa.table(
        {
            "case_key": ["a", "a", "b", "c", "d", "e"],
            GTV: [10.0, 10.0, 0.0, None, 0.0, 0.0],
            NODE: [0.0, 0.0, 3.0, 0.0, 0.0, 0.0],
            EFFUSION: ["negative", "negative", "uncertain", "positive", None, "negative"],
            "label.view": ["AP", "AP", "PA", "PA", "PA", "AP"],
        }
    )
    LABELS = (GTV, NODE, EFFUSION, "label.view")

    def test_normal_abnormal_and_unknown_cases(self) -> None:
        spec = spec_with(catalog={"pathologies": ["tumor", "findings.effusion"]})
        found = distribution(self.INDEX, self.LABELS, spec)
        assert (found.cases, found.normal, found.abnormal) == (5, 1, 3)  # of d nobody knows whether there is effusion
        assert [str(one) for one in found.pathologies] == [
            "findings / effusion (1)",
            "tumor / gtv (1)",
            "tumor / node (1)",
        ]
        assert found.missed == ()

    def test_one_structure_of_a_label_and_a_name_without_a_label(self) -> None:
        spec = spec_with(catalog={"pathologies": ["tumor / node", "nodule", "view"]})
        found = distribution(self.INDEX, self.LABELS, spec)
        assert (found.normal, found.abnormal, found.missed) == (4, 1, ("nodule", "view"))

    def test_small_counts_are_not_told(self) -> None:
        few = spec_with(catalog={"pathologies": ["tumor"]}, report={"mask_below": 3})
        assert distribution(self.INDEX, self.LABELS, few) is None

    def test_nothing_unless_pathologies_are_named(self) -> None:
        assert distribution(self.INDEX, self.LABELS, spec_with()) is None


def test_amounts_count_studies_series_and_images_once() -> None:
    included = pa.table(
        {
            "study_key": ["s1", "s1", "s1", "s2"],
            "series_key": ["x", "x", "y", "z"],  # x was divided into two stacks
            "instances": pa.array([10, 20, 5, 7], pa.int64()),
            "transfer_syntax_uid": ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90", None],
        }
    )
    index = pa.table({"sex": ["F"], "study_day": [3], "text.report": ["x"]})
    spec = spec_with(shards={"codec": "archive", "fields": {"image": {"codec": "fast"}}})
    found = amounts(included, index, spec)
    assert (found.examinations, found.series, found.images, found.images_a_series) == (2, 3, 42, (5, 30))
    assert {one.value: one.count for one in found.syntaxes} == {
        "Explicit VR Little Endian": 1,
        "JPEG 2000 Image Compression (Lossless Only)": 1,
        None: 1,
    }
    assert [text.partition(",")[0] for text in found.stored] == ["other fields: Blosc zstd", "image: Blosc lz4"]
    assert found.associated == {"demographic": ("sex",), "timeline": ("study_day",), "report texts": ("text.report",)}
