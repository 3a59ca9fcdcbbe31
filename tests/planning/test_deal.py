"""Dealing persons of a cohort: who must stay together, who is held out, and folds."""

import datetime
import json
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest

from builder.errors import LayoutError
from builder.persons import Persons
from builder.planning.deal import deal, joined, newcomers, shared_keys
from builder.publishing.exports import export_files
from builder.spec import DatasetSpec
from builder.split import Registry
from builder.split.alike import alike_file
from builder.split.registry import from_splits, recognise

PEOPLE = [f"p{i:02d}" for i in range(20)]


def spec(**splits) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "dealt", "license": "CC0-1.0", "sources": [{"kind": "folder", "url": "/nowhere"}],
            "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
            "splits": {"ratios": {"train": 0.6, "validation": 0.2, "test": 0.2}, **splits},
        }
    )  # fmt: skip


def cohort(**columns) -> pa.Table:
    """Two series a person; columns are functions of (number of the person, number of the series)."""
    rows = [(i, j) for i in range(len(PEOPLE)) for j in (0, 1)]
    made = {name: [value(i, j) for i, j in rows] for name, value in columns.items()}
    return pa.table({"person_key": [PEOPLE[i] for i, _ in rows], "included": [True] * len(rows), **made})


def persons() -> Persons:
    return Persons({}, {p: (f"m-{p}",) for p in PEOPLE}, ())


def homes(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["person_key"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_groups_that_overlap_share_a_split_and_everybody_keeps_a_row():
    groups = [("p03", "p07"), ("p07", "p11"), ("p01", "p02"), ("elsewhere", "p01")]
    dealt = deal(spec(), cohort(), persons(), together=groups)
    home = homes(dealt)
    assert sorted(home) == PEOPLE
    assert home["p03"] == home["p07"] == home["p11"]
    assert home["p01"] == home["p02"]
    assert dealt["members"].to_pylist() == [[f"m-{p}"] for p in PEOPLE]
    assert deal(spec(), cohort(), persons(), together=groups[::-1]).equals(dealt), "in any order"
    assert joined(groups)["p11"] == "p03"


def test_one_series_at_a_site_holds_a_person_out_with_everybody_joined_to_that_person():
    table = cohort(site=lambda i, j: "far" if (i, j) == (4, 1) else "near")
    held = spec(hold_out=[{"column": "site", "values": ["far"], "split": "external"}])
    home = homes(deal(held, table, persons(), together=[("p04", "p09")]))
    assert {p for p, s in home.items() if s == "external"} == {"p04", "p09"}


def test_time_is_cut_on_true_dates():
    table = cohort(study_date=lambda i, j: datetime.date(2010 + i, 1 + j, 1))
    held = spec(hold_out=[{"column": "study_date", "since": "2027-02-01", "split": "later"}])
    assert {p for p, s in homes(deal(held, table, persons())).items() if s == "later"} == {"p17", "p18", "p19"}


def test_whom_an_earlier_version_parted_is_joined_only_if_the_spec_says_where():
    first = deal(spec(), cohort(), persons())
    known = from_splits(first)
    home, registry = homes(first), Registry(known, found=recognise(known, persons().members, {}))
    apart = next((a, b) for a in PEOPLE for b in PEOPLE if {home[a], home[b]} == {"train", "test"})
    together = next((a, b) for a in PEOPLE for b in PEOPLE if a < b and home[a] == home[b])
    assert homes(deal(spec(seed=9), cohort(), persons(), together=[together], registry=registry)) == home
    with pytest.raises(LayoutError, match=r"found 1 person who was dealt to several splits before.*on_merge: train"):
        deal(spec(), cohort(), persons(), together=[apart], registry=registry)
    answered = homes(deal(spec(on_merge="validation"), cohort(), persons(), together=[apart], registry=registry))
    assert answered == home | dict.fromkeys(apart, "validation")


def test_persons_who_may_be_one_are_dealt_together():
    doubtful = replace(persons(), together=(("p00", "p05"), ("p05", "p13", "p17")))
    for seed in range(5):
        home = homes(deal(spec(seed=seed), cohort(), doubtful))
        assert len({home[p] for p in ("p00", "p05", "p13", "p17")}) == 1


def test_shared_values_join_unless_too_many_share_them():
    table = cohort(
        frame_of_reference_key=lambda i, j: "common" if j else f"f{i // 2}" if i < 4 else f"own{i}",
        accession_key=lambda i, j: None,
    )
    frames, accession = shared_keys(table)
    assert (frames.groups, frames.too_common) == ((("p00", "p01"), ("p02", "p03")), 1)
    assert (accession.groups, accession.too_common) == ((), 0)


def test_whom_another_site_has_too_is_a_newcomer_who_takes_a_place_of_the_quota(tmp_path):
    names = [f"person-{n:019d}" for n in range(20)]
    table = pa.table({"person_key": names, "included": [True] * 20, "sex": ["F", "M"] * 10})
    everybody = Persons({}, {name: (f"m-{name}",) for name in names}, ())
    drawn = {names[0]: "test", names[1]: "test", names[2]: "train"}
    (tmp_path / "alike.txt").write_bytes(alike_file(drawn))
    quotas = [{"levels": [sex], "counts": {"train": 7, "validation": 2, "test": 1}} for sex in "FM"]
    joint = {"columns": {"sex": ["F", "M"]}, "quotas": quotas}
    own = spec(alike=str(tmp_path / "alike.txt"), joint=joint, stratify=["sex"])
    assert newcomers(own, table, everybody)["person_key"].to_pylist() == names
    home = homes(deal(own, table, everybody))
    assert drawn.items() <= home.items()
    for first in (0, 1):
        assert Counter(home[name] for name in names[first::2]) == {"train": 7, "validation": 2, "test": 1}
    assert drawn.items() <= homes(deal(spec(alike=own.splits.alike), table, everybody)).items()


def test_folds_are_for_those_who_are_not_tested_on_and_do_not_part_groups():
    given = spec(folds={"k": 4, "repeats": 3})
    dealt = deal(given, cohort(), persons(), together=[("p03", "p07")])
    rows = {row["person_key"]: row for row in dealt.to_pylist()}
    assert all((row["folds"] is None) == (row["split"] == "test") for row in rows.values())
    assert rows["p03"]["folds"] == rows["p07"]["folds"]
    assert all(len(row["folds"]) == 3 and set(row["folds"]) <= set(range(4)) for row in rows.values() if row["folds"])
    index = pa.table(
        {
            "sample_key": [f"{p}-{n}" for p in PEOPLE for n in (0, 1)],
            "person_key": [p for p in PEOPLE for _ in (0, 1)],
            "split": [rows[p]["split"] for p in PEOPLE for _ in (0, 1)],
            "site": ["a" if i < 6 or (i, n) == (9, 1) else "b" for i in range(20) for n in (0, 1)],
        }
    )
    files = export_files(given.model_copy(update={"splits": given.splits.model_copy(
        update={"leave_one_out": "site"})}), dealt, index)  # fmt: skip
    entries = json.loads(files["exports/splits_final.json"])
    trained = {k for k, p in zip(index["sample_key"].to_pylist(), index["person_key"].to_pylist(), strict=True)
               if rows[p]["split"] != "test"}  # fmt: skip
    assert len(entries) == 12
    assert all(set(e["train"]) | set(e["val"]) == trained and not set(e["train"]) & set(e["val"]) for e in entries)
    assert sorted(k for e in entries[:4] for k in e["val"]) == sorted(trained)
    left = json.loads(files["exports/leave_one_out.json"])
    assert all("p09-0" in left[site]["test"] for site in "ab"), "tested in both, trained in neither"
    assert not any(k.startswith("p09") for side in left.values() for k in side["train"])
    assert "exports/datalist.json" not in files, "it would name files that nobody wrote"
    assert files["exports/splits.csv"].decode().splitlines()[0] == "person_key,split,stratum,pooled"
