"""Synthea's CSV tables against a recount of the raw files by DuckDB: persons, conditions, and values on their day."""

import datetime
from collections import Counter

import duckdb
import pytest

from builder.clinical import read_rows
from tests.clinical.making import declared, met, said

STUDY = datetime.date(2023, 7, 1)


def test_persons_and_conditions_are_counted_as_duckdb_counts_them(corpus):
    place = corpus("layouts") / "synthea_csv"
    dates = {name: {"from": name, "type": "date"} for name in ("BIRTHDATE", "DEATHDATE")}
    columns = {"sex": {"from": "GENDER", "type": "category", "levels": ["F", "M"]}, **dates}
    rows = read_rows((place / "patients.csv").read_bytes(), declared(person_id="Id", columns=columns))
    raw = duckdb.sql(f"SELECT Id, GENDER, BIRTHDATE, DEATHDATE FROM read_csv('{place}/patients.csv')").fetchall()
    assert Counter((*row.keys, *row.values) for row in rows.rows) == Counter(raw)
    assert len(raw) == 27
    code = {"code": {"from": "CODE", "type": "text"}}
    table = declared(person_id="PATIENT", columns=code, dated_by="START")
    found = read_rows((place / "conditions.csv").read_bytes(), table)
    raw = duckdb.sql(
        f"SELECT PATIENT, CODE, START::DATE FROM read_csv('{place}/conditions.csv', types={{'CODE': 'VARCHAR'}})"
    ).fetchall()  # fmt: skip
    assert Counter((*row.keys, *row.values, row.known) for row in found.rows) == Counter(raw)
    assert len(raw) == 438


def test_the_last_height_before_a_study_is_the_one_that_duckdb_finds(corpus):
    place = corpus("layouts") / "synthea_csv" / "observations.csv"
    table = declared(
        person_id="PATIENT", cardinality="many", dated_by="DATE",
        pick={"where": {"CODE": "8302-2"}, "by": "DATE", "take": "last_before"},
        columns={"height": {"from": "VALUE", "type": "number", "unit": "m", "unit_from": "UNITS"}},
    )  # fmt: skip
    raw = duckdb.sql(f"""
        WITH o AS (SELECT PATIENT p, DATE::DATE AS d, VALUE::DOUBLE / 100 AS m
                   FROM read_csv('{place}', all_varchar=true) WHERE CODE = '8302-2' AND DATE::DATE <= DATE '{STUDY}'),
             l AS (SELECT p, max(d) AS d FROM o GROUP BY p)
        SELECT p, any_value(m), count(DISTINCT m) FROM o JOIN l USING (p, d) GROUP BY p""").fetchall()  # fmt: skip
    everybody = [row[0] for row in duckdb.sql(f"SELECT DISTINCT PATIENT FROM read_csv('{place}')").fetchall()]
    match = met(
        place.read_bytes(), table, everybody, studies=dict.fromkeys(everybody, STUDY), until_study=True
    )  # fmt: skip
    found = dict(zip(sorted(everybody), said(match), strict=True))
    expected = {person: height for person, height, ways in raw if ways == 1}
    assert {person: said["height"] for person, said in found.items() if said} == pytest.approx(expected)
    assert len(expected) > 5
