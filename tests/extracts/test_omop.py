"""Tables of OMOP CDM 5.4: a synthetic extract recounted by DuckDB, the same elsewhere, and odd files."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.clinical import ClinicalTable
from builder.errors import SpecError
from builder.extracts import Omop
from builder.extracts.omop import LAYOUTS
from builder.planning.extracts import World
from tests.clinical.making import met, said
from tests.extracts.conftest import PASSWORD
from tests.extracts.test_fhir import Files

IN_CORPUS = ("person", "condition_occurrence", "measurement", "observation", "drug_exposure", "death")
DEATH = ("person_id", "death_date", "death_datetime", "death_type_concept_id", "cause_concept_id", "v", "w")


def taken(table: str, url: str = "there", outside: Any = None, **more: Any):
    return Omop(kind="omop", url=url, table=table, **more).take(outside or World())


@pytest.fixture(scope="module")
def extract(corpus) -> Path:
    return corpus("layouts") / "omop_cdm_csv"


@pytest.fixture(scope="module")
def raw(extract) -> duckdb.DuckDBPyConnection:
    """The extract as DuckDB reads it, every column as text."""
    connection = duckdb.connect()
    for table in (*IN_CORPUS, "concept"):
        odd = f", header=false, skip=1, names={list(DEATH)}" if table == "death" else ", header=true"
        connection.execute(
            f"CREATE TABLE {table} AS SELECT * FROM read_csv('{extract / table.upper()}.csv', delim='\t', quote='', "
            f"all_varchar=true, null_padding=true{odd})"
        )
    return connection


@pytest.mark.parametrize("table", IN_CORPUS)
def test_a_synthetic_extract_equals_a_recount_of_the_raw_files(extract, raw, table):
    found = taken(table, str(extract)).table
    layout = LAYOUTS[table]
    date, value = layout.date or "NULL", layout.numbers or "NULL"
    rows = raw.execute(
        f"SELECT person_id, nullif({layout.concept}, ''), {date}, {value}, concept_code, vocabulary_id, concept_name "
        f"FROM {table} LEFT JOIN concept ON concept_id = {layout.concept} AND concept_id <> '0'"
    ).fetchall()
    columns = [found[n].to_pylist() if n in found.column_names else [None] * found.num_rows
               for n in ("person_id", "concept_id", "date", "value", "code", "system", "display")]  # fmt: skip
    assert Counter(zip(*columns, strict=True)) == Counter(rows)
    assert len(rows) == {"person": 99, "condition_occurrence": 530, "drug_exposure": 495, "death": 14}.get(table, 507)
    if table == "person":
        born = raw.execute("SELECT year_of_birth || '-' || month_of_birth || '-' || day_of_birth FROM person")
        assert Counter(found["birth_date"].to_pylist()) == Counter(row[0] for row in born.fetchall())


def test_files_in_parquet_and_parts_and_a_database_say_the_same(extract, postgres, password, tmp_path):
    import adbc_driver_postgresql.dbapi as driver

    line = f"host=127.0.0.1 port={postgres.port} dbname=postgres user=builder password={PASSWORD}"
    with driver.connect(line) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA hospital")
        for table in ("person", "measurement", "concept"):
            found = _typed(extract / f"{table.upper()}.csv")
            if table == "measurement":
                found = found.set_column(8, "value_as_number", found["value_as_number"].cast(pa.float64()))
                (tmp_path / "MEASUREMENT").mkdir()
                pq.write_table(found.slice(0, 200), tmp_path / "MEASUREMENT" / "part-0.parquet")
                pq.write_table(found.slice(200), tmp_path / "MEASUREMENT" / "part-1.parquet")
            else:
                pq.write_table(found, tmp_path / f"{table}.parquet")
            cursor.adbc_ingest(table, found, mode="create", db_schema_name="hospital")
        connection.commit()
    files = taken("measurement", str(extract))
    assert taken("measurement", str(tmp_path)).table.equals(files.table)
    url = f"postgresql://builder@127.0.0.1:{postgres.port}/postgres"
    asked = taken("measurement", url, tables_in="hospital", sign_in={"password": "BUILDER_PG_PASSWORD"})
    assert asked.notes == files.notes == ()
    order = [("measurement_id", "ascending")]
    assert asked.table.sort_by(order).equals(files.table.sort_by(order))


def _typed(path: Path) -> pa.Table:
    """A file as a database has it: ids as whole numbers."""
    table = Omop(kind="omop", url=str(path.parent), table="measurement")._filed(World())(path.stem.lower())
    ids = [name for name in table.column_names if name.endswith("_id")]
    for name in ids:
        if name not in ("vocabulary_id", "domain_id", "concept_class_id"):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return table


COLUMNS = {
    "procedure_occurrence": ("procedure_occurrence_id", "procedure_concept_id", "procedure_date"),
    "drug_exposure": ("drug_exposure_id", "drug_concept_id", "drug_exposure_start_date"),
    "death": ("death_type_concept_id", "cause_concept_id", "death_date"),
    "image_occurrence": ("image_occurrence_id", "modality_concept_id", "image_occurrence_date"),
    "observation": ("observation_id", "observation_concept_id", "observation_date"),
}


@pytest.mark.parametrize("table", COLUMNS)
def test_small_tables_of_each_kind_equal_a_recount(table, tmp_path):
    own, concept, date = COLUMNS[table]
    extra = ",image_study_UID,image_series_UID" if table == "image_occurrence" else ""
    rows = [f"{n},{n % 7},{n % 5},2020-01-{n % 28 + 1:02d}{',1.2.3,1.2.3.4' * bool(extra)}" for n in range(60)]
    files = {
        table: [f"{own},person_id,{concept},{date}{extra}".upper(), *rows],
        "PERSON": ["person_id,person_source_value,care_site_id,gender_concept_id,year_of_birth,month_of_birth,"
                   "day_of_birth", *(f"{n},MRN{n},{n % 3 or ''},0,1950,1,{n + 1}" for n in range(6))],
        "care_site": ["care_site_id,care_site_source_value", "1,north"],
        "concept": ["concept_id,concept_name,vocabulary_id,concept_code",
                    *(f"{n},name {n},V{n % 2},C{n}" for n in range(4))],
    }  # fmt: skip
    for name, lines in files.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    extracted = taken(table, str(tmp_path))
    csv = {name: f"read_csv('{tmp_path / name}.csv', all_varchar=true)" for name in files}
    expected = duckdb.sql(f"""
        SELECT t.person_id, person_source_value, coalesce(care_site_source_value, p.care_site_id), {date},
            {concept}, concept_code, vocabulary_id, concept_name
        FROM {csv[table]} t LEFT JOIN {csv["PERSON"]} p USING (person_id)
        LEFT JOIN {csv["care_site"]} s ON s.care_site_id = p.care_site_id
        LEFT JOIN {csv["concept"]} c ON c.concept_id = t.{concept} AND c.concept_id <> '0'""").fetchall()
    names = ("person_id", "person_source_value", "care_site", "date", "concept_id", "code", "system", "display")
    found = extracted.table
    assert Counter(zip(*(found[name].to_pylist() for name in names), strict=True)) == Counter(expected)
    assert len(expected) == 60
    assert {row[2] for row in expected} == {None, "north", "2"}
    assert extracted.notes == (f"12 of 60 concepts of {table} are not in the CONCEPT table, and have no code",)
    if extra:
        assert set(found["series_uid"].to_pylist()) == {"1.2.3.4"}


HEAD = "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,operator_concept_id"


def test_values_units_bounds_and_the_sources_own_numbers():
    measured = (
        HEAD
        + ",unit_concept_id,unit_source_value\n1,7,100,2020-01-01,4.5,,200,mg per dl\n2,7,0,2020-01-02,5,4171756,,g\n"
        '3,8,101,2020-01-03,,4172703,201,"a, b"\n'
    )
    concepts = (
        "concept_id\tconcept_name\tvocabulary_id\tconcept_code\n0\tNo matching concept\tNone\tNone\n"
        '100\tthe "old" test\tLOINC\t1-2\n200\tmilligram\tUCUM\tmg/dL\n201\tbottle\tSNOMED\t9\n'
    )
    people = "person_id;person_source_value\n7;MRN7\n8;\n"
    world = Files(MEASUREMENT__csv=measured.encode(), CONCEPT__csv=concepts.encode(), person__csv=people.encode())
    found = taken("measurement", outside=world)
    columns = ("person_source_value", "concept_id", "code", "display", "value", "unit")
    assert [tuple(row[name] for name in columns) for row in found.table.to_pylist()] == [
        ("MRN7", "100", "1-2", 'the "old" test', "4.5", "mg/dL"), ("MRN7", "0", None, None, "<5", "g"),
        (None, "101", None, None, None, "a, b"),
    ]  # fmt: skip
    assert found.notes == ("1 of 3 concepts of measurement are not in the CONCEPT table, and have no code",)
    alone = taken("measurement", outside=Files(MEASUREMENT__csv=measured.encode()))
    assert alone.table["code"].null_count == 3
    assert "no CONCEPT table" in alone.notes[0]


def test_images_give_uids_for_links_and_are_joined_like_any_table():
    images = (
        "image_occurrence_id,person_id,procedure_occurrence_id,wadors_uri,image_occurrence_date,image_study_UID,"
        "image_series_UID,modality_concept_id\n1,7,5,,2020-01-01,1.2.3,1.2.3.4,100\n"
    )
    found = taken("image_occurrence", outside=Files(image_occurrence__csv=images.encode())).table.to_pylist()
    assert [(row["study_uid"], row["series_uid"], row["date"]) for row in found] == [("1.2.3", "1.2.3.4", "2020-01-01")]
    options = ClinicalTable.model_validate({
        "extract": {"kind": "omop", "url": "there", "table": "measurement"}, "person_id": "person_id",
        "cardinality": "many", "pick": {"where": {"concept_id": "100"}, "by": "date", "take": "min"},
        "columns": {"psa": {"from": "value", "type": "number"}},
    })  # fmt: skip
    world: Any = Files(
        measurement__csv=f"{HEAD}\n1,7,100,2021-01-01,6,\n2,7,100,2020-01-01,4,\n3,7,9,2019-01-01,1,\n".encode()
    )
    sink = io.BytesIO()
    pq.write_table(options.extract.take(world).table, sink)
    assert said(met(sink.getvalue(), options, ["7"])) == [{"psa": 4.0}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "found no file measurement at its url"),
        ("id,person\n1,2\n", "found no column person_id"),
        (f"{HEAD}\n1 2 3\n", "no separator that fits"),
        (f"{HEAD},person_id\n1,2,3,4,5,6,7\n", "no separator that fits"),
        (f"{HEAD}\n1,7,100,2020-01-01,4,,Meyer\n", "found rows of 7 cells under 6 headings"),
        (f"{HEAD}\n1,7,100,2020-01-01,4,\n1,7,100,2020-01-01,4,,Meyer\n", "cannot be read"),
        (b"PAR1", "cannot be read"),
    ],
)
def test_files_that_are_none_are_refused_by_table(data, message):
    name = "measurement__parquet" if isinstance(data, bytes) else "measurement__csv"
    files = {} if data is None else {name: data if isinstance(data, bytes) else data.encode()}
    with pytest.raises(SpecError, match=message) as refused:
        taken("measurement", outside=Files(**files))
    assert "omop measurement" in str(refused.value)
    assert "Meyer" not in str(refused.value)


def test_headings_without_rows_are_an_empty_table():
    assert taken("measurement", outside=Files(measurement__csv=f"{HEAD}\n".encode())).table.num_rows == 0
