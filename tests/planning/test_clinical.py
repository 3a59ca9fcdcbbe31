"""Clinical tables of a spec against a small archive of two sites: who gets which value, and what a plan says of it."""

import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from builder.errors import SpecError
from builder.run.outcomes import Planned
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

GRADE = {"grade": {"from": "Grade", "type": "category"}}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """North has 0001, 0002 and A1, south has S1 and S2; B1 is A1 by the alias table and was studied 9 years later."""
    top = tmp_path_factory.mktemp("archive")

    def series(site: str, person: str, number: str, date: str) -> None:
        ct_series(
            top / site / person, slices=3, shape=(16, 16), patient_id=person, study=f"{person}-{number}",
            series=f"{person}-{number}", date=date, attributes={"AccessionNumber": number},
        )  # fmt: skip

    for site, person, number, date in (
        ("north", "0001", "N1", "20190101"), ("north", "0002", "N2", "20190101"), ("north", "A1", "N3", "20100101"),
        ("north", "B1", "N4", "20190101"), ("south", "S1", "N1", "20180101"), ("south", "S2", "N5", "20180301"),
    ):  # fmt: skip
        series(site, person, number, date)
    (top / "alias.csv").write_text("id,alias\nA1,B1\n")
    return top


Asked = Callable[..., Planned]


@pytest.fixture(scope="module")
def asked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Plan with tables given as their options and their text; the archive is indexed once."""
    to = tmp_path_factory.mktemp("plans") / "data"

    def ask(*tables: tuple[Mapping[str, Any], str], **persons: Any) -> Planned:
        clinical = []
        for number, (options, text) in enumerate(tables):
            path = archive / f"table{number}.csv"
            path.write_text(text)
            clinical.append({"url": str(path), "columns": GRADE, **options})
        spec = {
            "name": "clinical",
            "license": "CC0-1.0",
            "sources": [{"kind": "folder", "url": str(archive / s), "site": s} for s in ("north", "south")],
            "persons": {"aliases": str(archive / "alias.csv"), **persons},
            "clinical": clinical,
            "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "samples": {"kind": "volumes"},
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BUILDER_KEY", KEY)
            return plan(DatasetSpec.model_validate(spec), to=to)

    return ask


def sorted_values(planned: Planned, column: str, site: str) -> list[Any]:
    """A site's values of a column, by the date of the study, then by text."""
    rows = planned.plan.cohort.select(["site", "study_date", column]).to_pylist()
    found = [(str(row["study_date"]), row[column]) for row in rows if row["site"] == site]
    return [value for _, value in sorted(found, key=lambda pair: (pair[0], str(pair[1])))]


def private(planned: Planned, name: str) -> str:
    """A list in the private workspace."""
    return (Path(planned.plan.url).parent.parent / name).read_text()


def test_days_of_a_person_of_two_ids_count_from_the_first_study_of_both(asked: Asked) -> None:
    options = {
        "person_id": "id",
        "columns": {"dx": {"from": "Dx", "type": "date"}, "dead": {"from": "Dead", "type": "boolean"}},
        "events": {"death": {"column": "dead", "happened": ["true"], "time": "dx"}},
    }
    text = "id,Dx,Dead\nB1,2010-01-11,yes\nS1,2018-01-11,no\n"
    planned = asked((options, text))
    assert sorted_values(planned, "dx", "north") == [10, 10, None, None]
    assert sorted_values(planned, "death_time", "south") == [10.0, None]
    assert planned.facts()["clinical"][0]["matched"] == 2
    # the same row under both ids is one statement
    again = asked((options, text + "A1,2010-01-11,yes\n"))
    assert sorted_values(again, "dx", "north") == [10, 10, None, None]
    # and two that differ are ambiguous
    differing = asked((options, text + "A1,2010-01-12,yes\n"))
    assert sorted_values(differing, "dx", "north") == [None] * 4
    assert differing.facts()["clinical"][0]["ambiguous"] == 1


def test_tables_of_two_sites_give_one_column(asked: Asked) -> None:
    north = {"person_id": "id", "site": "north"}
    south = {"person_id": "Pat", "site": "south", "columns": {"grade": {"from": "Grad", "type": "category"}}}
    planned = asked((north, "id,Grade\n0001,low\n0002,high\nA1,low\n"), (south, "Pat;Grad\nS1;high\nS2;low\n0001;x\n"))
    assert sorted_values(planned, "grade", "north") == ["low", "high", "low", "low"]
    assert sorted_values(planned, "grade", "south") == ["high", "low"]
    first, second = planned.facts()["clinical"]
    assert (first["matched"], first["image_only"]) == (3, 0)
    assert (second["matched"], second["image_only"], second["clinical_only"]) == (2, 0, 1)


def test_rows_join_by_accession_number_within_a_site(asked: Asked) -> None:
    by = {"by": {"Acc": "accession"}}
    text = "Acc,Grade\nN1,low\nN4,high\n"
    both = asked((by, text)).facts()["clinical"][0]
    assert (both["unit"], both["matched"], both["rows_of_several"]) == ("study", 1, 1)  # two sites have an N1
    planned = asked(({**by, "site": "north"}, text))
    assert sorted_values(planned, "grade", "north") == [None, None, "high", "low"]
    assert sorted_values(planned, "grade", "south") == [None, None]


def test_rows_join_by_the_path_of_a_file(asked: Asked, archive: Path) -> None:
    first, second = (min(path.name for path in (archive / "south" / person).iterdir()) for person in ("S1", "S2"))
    planned = asked(({"by": {"File": "file"}}, f"File,Grade\nS1/{first},low\nS2\\{second},high\n"))
    assert sorted_values(planned, "grade", "south") == ["low", "high"]
    assert planned.facts()["clinical"][0]["matched"] == 2
    # as their author wrote them, from the root or from above the folder of the source
    above = f"File,Grade\n{archive}/south/S1/{first},low\nsouth/S2/{second},high\nnorth/S2/{second},no\n"
    planned = asked(({"by": {"File": "file"}}, above))
    assert sorted_values(planned, "grade", "south") == ["low", "high"]
    assert planned.facts()["clinical"][0]["clinical_only"] == 1


def test_a_table_that_meets_nobody_stops_the_plan_with_what_is_known(asked: Asked) -> None:
    with pytest.raises(SpecError) as caught:
        asked(({"person_id": "id"}, "id,Grade\n1,low\n2,high\n"))
    text = str(caught.value)
    assert text.startswith(
        "clinical table 1 (table0.csv): found a row for 0 of 5 persons (0.0%), expected at least one"
    )
    assert "2 ids differ by leading zeros only" in text
    asked(({"person_id": "id", "min_matched": 0}, "id,Grade\n1,low\n2,high\n"))


def test_every_fault_of_every_table_is_told_at_once(asked: Asked) -> None:
    with pytest.raises(SpecError) as caught:
        asked(
            ({"person_id": "ID"}, "id,Grade\n1,low\n"),
            (
                {"person_id": "id", "site": "west", "columns": {"a": {"from": "Grade", "type": "text"}}},
                "id,Grade\n1,x\n",
            ),
            ({"person_id": "id", "columns": {"b": {"from": "Grade", "type": "number"}}}, "id,Grade\nS1,low\n"),
        )
    lines = str(caught.value).splitlines()
    assert "found no column with the heading 'ID'; did you mean 'id'" in lines[0]
    assert "found no image of site 'west'" in lines[1]
    assert "expected one: the sites are north, south" in lines[1]
    assert "b: found no number among 1 filled cell of 'Grade'" in lines[2]


def test_cells_and_ids_that_were_not_used_are_listed_in_private(asked: Asked) -> None:
    options = {"person_id": "id", "columns": {"n": {"from": "N", "type": "number"}}}
    planned = asked((options, "id,N\nS1,about 5\nS2,6\nNOBODY,7\n"))
    assert private(planned, "clinical-cells.csv") == "table,row,column,problem,value\n1,2,n,not a number,about 5\n"
    assert private(planned, "clinical-ids.csv") == "table,outcome,id\n1,in the table only,NOBODY\n"
    assert "about 5" not in repr(planned.facts()["clinical"])
    text = planned.text()
    assert "  clinical table 1: 2 matched, 3 image only, 1 clinical only, 0 ambiguous" in text
    assert "    n: cells not taken: 1 (not a number)" in text


def test_a_missing_table_is_named(asked: Asked, archive: Path) -> None:
    with pytest.raises(SpecError, match=r"clinical table 1 \(nowhere.csv\): found no file at its url"):
        asked(({"person_id": "id", "url": str(archive / "nowhere.csv")}, "id,Grade\n"))


def test_ids_of_a_table_are_compared_by_the_rules_for_persons(asked: Asked) -> None:
    planned = asked(({"person_id": "id", "site": " North "}, "id,Grade\na1,low\n\uff30\u200b1,x\n"))
    assert sorted_values(planned, "grade", "north") == ["low", None, None, "low"]
    text = "id,Grade\n1,low\n0002,high\n"
    assert sorted_values(asked(({"person_id": "id"}, text)), "grade", "north") == [None, None, None, "high"]
    joined = asked(({"person_id": "id"}, text), leading_zeros="join")
    assert sorted_values(joined, "grade", "north") == [None, None, "high", "low"]


def test_a_phenotype_is_a_column_with_its_counts(asked, archive):
    """Codes come from a file, two PatientIDs of one person share their events, and both studies are counted from."""
    (archive / "codes.txt").write_text("# prostate\nC61,malignant neoplasm\r\n\nD07.5\tin situ\n")
    rule = {"any_of": [{"url": str(archive / "codes.txt")}], "to_days": 0, "from_days": -3650, "clear_days": "ever"}
    table = {"person_id": "id", "columns": {}, "site": "north", "phenotypes": {"cancer": {**rule, "tier": "pathology"}}}
    events = "id,code,date\n0001,C61,2018-01-01\n0002,C64,2018-01-01\nA1,D075,2015-01-01\nB1,X,2018-01-01\n"
    found = asked((table, events))
    assert sorted_values(found, "cancer", "north") == [False, False, True, True]
    assert sorted_values(found, "cancer", "south") == [None, None]
    told = (
        "cancer: 2 case, 2 control, 2 no row in the table (persons on the days of their studies; evidence: pathology)"
    )
    assert told in found.text()
    facts = found.plan.clinical[0]["phenotypes"]["cancer"]
    assert facts["rule"]["any_of"] == [{"codes": ["C61", "D07.5"]}]


def test_what_was_known_when_is_kept_privately_and_told_per_column(asked: Asked) -> None:
    text = "id,Seen,Grade\n0001,2018-12-22,low\n0002,2019-02-01,high\nS1,,mid\n"
    planned = asked(({"person_id": "id", "dated_by": "Seen"}, text))
    assert sorted_values(planned, "grade", "north") == [None, None, None, "low"]
    assert planned.facts()["clinical"][0]["known"] == [
        {"column": "grade", "how": "dated", "values": 1, "after_study": 0}
    ]
    assert private(planned, "clinical-known.csv") == (
        "table,column,how,values,latest_days_after_study\n1,grade,dated,1,-10\n"
    )
    undated = asked(({"person_id": "id"}, text))
    assert "    grade: nothing says when this was known; state dated_by" in undated.text()
    assert undated.facts()["clinical"][0]["known"] == [
        {"column": "grade", "how": "undated", "values": 3, "after_study": None}
    ]


def test_code_lists_and_libraries_of_units_are_in_the_lock(asked: Asked, tmp_path: Path) -> None:
    psa = {"columns": {"psa": {"from": "V", "type": "number", "unit": "ng/mL", "unit_from": "U"}}}
    codes = {"columns": {}, "phenotypes": {"cancer": {"any_of": [{"url": str(tmp_path / "codes.txt")}], "to_days": 0}}}
    coded = "id,code,date\n0001,C61,2018-12-22\n"
    (tmp_path / "codes.txt").write_text("C61\n")
    both = asked(
        ({"person_id": "id", **codes}, coded), ({"person_id": "id", **psa}, "id,V,U\n0001,4,ug/L\n")
    ).plan.lock["clinical"]  # fmt: skip
    assert both == [
        f"codes sha256:{hashlib.sha256(b'C61' + bytes([10])).hexdigest()}",
        f"ucumvert {version('ucumvert')}", f"pint {version('pint')}",
    ]  # fmt: skip
    (tmp_path / "codes.txt").write_text("C61\nC62\n")
    changed = asked(({"person_id": "id", **codes}, coded)).plan.lock["clinical"]
    assert changed != both[:1]
    assert "clinical" not in asked(({"person_id": "id"}, "id,Grade\n0001,low\n")).plan.lock
