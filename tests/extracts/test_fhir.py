"""FHIR R4 as tables: synthetic records recounted by DuckDB from the raw files, and what single resources say."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from builder.clinical import ClinicalTable
from builder.errors import MissingExtra, SpecError
from builder.extracts import Fhir
from builder.extracts.fhir_rows import LAYOUTS, headings
from builder.planning.extracts import World
from tests.clinical.making import met, said

MRN = "http://hospital.smarthealthit.org"
CODED = "json_extract_string(r, '$.{}.coding[0].code')"


class Files(World):
    """Files by name, in place of those of the world outside."""

    def __init__(self, **files: Any) -> None:
        self.held = {name.replace("__", "."): data for name, data in files.items()}

    def files(self, url: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        for name, data in filter(lambda file: wanted(file[0]), self.held.items()):
            yield name, data if isinstance(data, bytes) else json.dumps(data).encode()


def bundle(*resources: Mapping[str, Any], urls: bool = True) -> dict[str, Any]:
    entries = [{"resource": r, **({"fullUrl": f"urn:uuid:{r['id']}"} if urls else {})} for r in resources]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def patient(name: str = "a", **more: Any) -> dict[str, Any]:
    identifier = [{"system": MRN, "value": f"MRN-{name}"}, {"system": "other", "value": "1"}]
    return {"resourceType": "Patient", "id": name, "identifier": identifier, **more}


def of(kind: str, name: str, subject: str = "urn:uuid:a", **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": name, "subject": {"reference": subject}, **more}


def concept(*codes: str, text: str = "words") -> dict[str, Any]:
    return {"coding": [{"system": "s", "code": code, "display": f"is {code}"} for code in codes], "text": text}


def taken(kind, *, notes=False, identifier=MRN, **files):
    found = Fhir(kind="fhir", url="there", resource=kind, identifier=identifier).take(Files(**files))
    return list(found.notes) if notes else found.table.to_pylist()


@pytest.fixture(scope="module")
def raw(corpus) -> Any:
    """The resources of the synthetic bundles as DuckDB reads them, in the view ``raw`` with the column r."""
    place = corpus("layouts") / "fhir_r4_synthea"
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE raw AS SELECT json_extract(e, '$.resource') AS r FROM (SELECT unnest(entry) AS e FROM read_json("
        f"'{place}/*.json', columns={{'entry': 'JSON[]'}}, maximum_object_size=100000000))"
    )
    return connection, place


def counted(raw: Any, what: str, kind: str) -> Counter[Any]:
    rows = raw[0].execute(
        f"SELECT {what} FROM raw WHERE json_extract_string(r, '$.resourceType') = '{kind}'"
    ).fetchall()  # fmt: skip
    return Counter(row[0] if len(row) == 1 else row for row in rows)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_synthetic_records_equal_a_recount_of_the_raw_files(raw, kind):
    found = Fhir(kind="fhir", url=str(raw[1]), resource=kind, identifier=MRN).take(World())
    assert found.notes == ()
    table = found.table.to_pylist()
    assert tuple(found.table.column_names) == headings(kind)
    assert Counter({row["id"]: 1 for row in table}) == counted(raw, "json_extract_string(r, '$.id')", kind)
    mrn = "list_filter(json_extract(r, '$.identifier')::JSON[], lambda i: json_extract_string(i, '$.system') = '{}')"
    mrn = f"json_extract_string({mrn.format(MRN)}[1], '$.value')"
    numbers = counted(raw, f"json_extract_string(r, '$.id'), {mrn}", "Patient")
    persons = counted(raw, "replace(json_extract_string(r, '$.subject.reference'), 'urn:uuid:', '')", kind)
    if kind == "Patient":
        assert Counter((row["patient"], row["person"]) for row in table) == numbers
        born = counted(raw, "json_extract_string(r, '$.birthDate')", kind)
        assert Counter(row["birth_date"] for row in table) == born
        return
    assert all((row["patient"], row["person"]) in numbers for row in table)
    assert Counter({row["id"]: row["patient"] for row in table}.values()) == persons
    if kind in ("Condition", "Procedure"):
        when = "coalesce(json_extract_string(r, '$.onsetDateTime'), json_extract_string(r, '$.performedPeriod.start'))"
        expected = counted(raw, f"{CODED.format('code')}, {when}", kind)
        assert Counter((row["code"], row["date"]) for row in table) == expected
    if kind == "ImagingStudy":
        series = "unnest(json_extract(r, '$.series[*].uid'))"
        assert Counter(row["series_uid"] for row in table) == Counter(
            text.strip('"') for text in counted(raw, series, kind).elements()
        )
        assert all(row["study_uid"].startswith("1.2.840.99999999.") for row in table)


def test_values_of_synthetic_observations_equal_a_recount(raw):
    table = Fhir(kind="fhir", url=str(raw[1]), resource="Observation").take(World()).table.to_pylist()
    found = Counter((r["code"], float(r["value"]), r["unit"]) for r in table if r["value"] and r["unit"])
    parts = "unnest(list_concat([r], coalesce(json_extract(r, '$.component')::JSON[], [])))"
    raw[0].execute(f"CREATE OR REPLACE TABLE parts AS SELECT {parts} AS r FROM raw WHERE "
                   "json_extract_string(r, '$.resourceType') = 'Observation'")  # fmt: skip
    rows = (
        raw[0]
        .execute(
            f"SELECT {CODED.format('code')}, json_extract(r, '$.valueQuantity.value')::DOUBLE, "
            "json_extract_string(r, '$.valueQuantity.code') FROM parts WHERE json_exists(r, '$.valueQuantity.value')"
        )
        .fetchall()
    )
    assert found == Counter(rows)
    assert len(found) > 1000


def test_a_resource_is_a_row_for_each_coding_and_component():
    condition = of("Condition", "c", code=concept("C61", "399068003"), onsetDateTime="2010-07-22T23:30:00-05:00")
    bare = of("Condition", "d", code={"text": "a lump"}, recordedDate="2011")
    rows = taken("Condition", b__json=bundle(patient(), condition, bare))
    assert [(r["id"], r["code"], r["display"], r["date"]) for r in rows] == [
        ("c", "C61", "is C61", "2010-07-22T23:30:00-05:00"), ("c", "399068003", "is 399068003", rows[0]["date"]),
        ("d", None, "a lump", "2011"),
    ]  # fmt: skip
    assert {(r["patient"], r["person"]) for r in rows} == {("a", "MRN-a")}
    ucum = {"unit": "milligrams", "system": "http://unitsofmeasure.org", "code": "mg"}
    pressure = of(
        "Observation", "o", status="final", code=concept("bp"),
        component=[{"code": concept("high"), "valueQuantity": {"value": 120.5, "unit": "mmHg"}},
                   {"code": concept("less"), "valueQuantity": {"value": 5, "comparator": "<", **ucum}}],
    )  # fmt: skip
    others = [
        of("Observation", "p", status="final", code=concept("smoker"), valueCodeableConcept=concept("never")),
        of("Observation", "q", status="final", code=concept("true"), valueBoolean=False),
        of("Observation", "r", status="final", code=concept("range"), valueRange={"low": {"value": 1}}),
    ]
    rows = taken("Observation", b__json=bundle(patient(), pressure, *others))
    told = {row["code"]: (row["value"], row["unit"], row["value_code"]) for row in rows}
    assert told == {
        "bp": (None, None, None), "high": ("120.5", "mmHg", None), "less": ("<5", "mg", None),
        "smoker": (None, None, "never"), "true": ("false", None, None), "range": (None, None, None),
    }  # fmt: skip
    assert taken("Observation", notes=True, b__json=bundle(patient(), *others)) == [
        "1 observation holds a range, ratio or curve, in no column"
    ]


def test_an_imaging_study_gives_uids_and_accession_for_links():
    study = of(
        "ImagingStudy", "i", status="available", started="2020-01-02",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"},
                    {"type": {"coding": [{"code": "ACSN"}]}, "value": "ACC7"}],
        series=[{"uid": "1.2.3.4", "modality": {"code": "CT"}}, {"uid": "1.2.3.5", "modality": {"code": "PT"}}],
    )  # fmt: skip
    rows = taken("ImagingStudy", b__json=bundle(patient(), study))
    assert [(r["study_uid"], r["accession"], r["series_uid"], r["modality"]) for r in rows] == [
        ("1.2.3", "ACC7", "1.2.3.4", "CT"), ("1.2.3", "ACC7", "1.2.3.5", "PT")
    ]  # fmt: skip


def test_a_request_has_the_code_of_the_medication_it_names():
    drug = {"resourceType": "Medication", "id": "m", "code": concept("161")}
    inside = {"resourceType": "Medication", "id": "k", "code": concept("162")}
    asks = {"status": "active", "intent": "order"}
    rows = taken(
        "MedicationRequest",
        b__json=bundle(
            patient(), of("MedicationRequest", "x", medicationReference={"reference": "Medication/m"}, **asks),
            of("MedicationRequest", "y", medicationReference={"reference": "#k"}, contained=[inside], **asks),
            of("MedicationRequest", "z", medicationCodeableConcept=concept("163"), **asks), drug,
        ),
    )  # fmt: skip
    assert [(row["id"], row["code"]) for row in rows] == [("x", "161"), ("y", "162"), ("z", "163")]


@pytest.mark.parametrize(
    ("reference", "person"),
    [
        ("urn:uuid:a", "MRN-a"),
        ("Patient/a", "MRN-a"),
        ("Patient/a/_history/3", "MRN-a"),
        ("https://fhir.example/r4/Patient/a", "MRN-a"),
        ("Patient/elsewhere", None),
        ("Group/a", None),
    ],
)
def test_references_find_their_patient(reference, person):
    lines = b"\n".join(
        json.dumps(r).encode() for r in (patient(), patient("b"), of("Condition", "c", reference, code=concept("1")))
    )
    assert [row["person"] for row in taken("Condition", export__ndjson=lines)] == [person]


def test_without_a_system_the_servers_own_id_counts_and_with_one_only_its_numbers():
    files = {"b__json": bundle(of("Condition", "c", "Patient/z", code=concept("1")))}
    assert [row["person"] for row in taken("Condition", identifier=None, **files)] == ["z"]
    assert [row["person"] for row in taken("Condition", **files)] == [None]
    two = patient(identifier=[{"system": MRN, "value": "1"}, {"system": MRN, "value": "2"}])
    assert [row["person"] for row in taken("Patient", b__json=bundle(two))] == [None]
    by_number = of("Condition", "c", code=concept("1")) | {"subject": {"identifier": {"system": MRN, "value": "7"}}}
    assert [row["person"] for row in taken("Condition", b__json=bundle(by_number))] == ["7"]


def test_numbers_of_several_systems_come_with_their_issuer():
    there = [patient("a"), patient("b", identifier=[{"system": "other", "value": "5"}]), patient("c", identifier=[])]
    conditions = [of("Condition", f"c{p['id']}", f"urn:uuid:{p['id']}", code=concept("1")) for p in there]
    for kind in ("Condition", "Patient"):
        found = taken(kind, identifier=(MRN, "other"), b__json=bundle(*there, *conditions))
        assert [(row["person"], row["issuer"]) for row in found] == [("MRN-a", MRN), ("5", "other"), (None, None)]
    assert [row["issuer"] for row in taken("Patient", identifier=None, b__json=bundle(*there))] == [None] * 3


def test_what_is_left_out_is_counted():
    deep: Any = {"url": "x", "valueString": "y"}
    for _ in range(60):
        deep = {"url": "x", "extension": [deep]}
    conditions = [
        of("Condition", "ok", code=concept("1")),
        of("Condition", "no", code=concept("1"), verificationStatus=concept("entered-in-error")),
        of("Condition", "bad", code=["not a concept"]),
        of("Condition", "strange", code=concept("1"), colour="blue"),
        of("Condition", "deep", code=concept("1"), extension=[deep]),
    ]
    files = {"b__json": bundle(patient(), *conditions)}
    assert [row["id"] for row in taken("Condition", **files)] == ["ok"]
    assert taken("Condition", notes=True, **files) == [
        "3 resources are not valid in R4 and left out; the first is a Condition, resource 4 of file 1",
        "1 resource is marked entered-in-error and left out",
    ]


def test_a_resource_that_occurs_twice_counts_once_as_it_was_last():
    def version(day: int, code: str) -> dict[str, Any]:
        return of("Condition", "c", code=concept(code), meta={"lastUpdated": f"2020-01-0{day}T00:00:00Z"})

    for order in ((version(1, "old"), version(2, "new")), (version(2, "new"), version(1, "old"))):
        assert [row["code"] for row in taken("Condition", b__json=bundle(patient(), *order))] == ["new"]
    same = of("Condition", "c", code=concept("1"))
    assert len(taken("Condition", b__json=bundle(patient(), same), c__json=bundle(patient(), same))) == 1
    with pytest.raises(SpecError, match="two Conditions of one id that differ"):
        taken("Condition", b__json=bundle(same, of("Condition", "c", code=concept("2"))))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no file at its url that ends in"),
        ({"Meyer__txt": b"x"}, "no file at its url that ends in"),
        ({"Meyer__json": b"{"}, "file 1: found no JSON"),
        ({"Meyer__json": b"[" * 100_000}, "file 1: found no JSON"),
        ({"Meyer__json": b"[1]"}, "no FHIR resource"),
        ({"Meyer__json": patient()}, "found no Condition"),
    ],
)
def test_files_that_are_none_are_named_by_number(files, message):
    with pytest.raises(SpecError, match=message) as refused:
        taken("Condition", **files)
    assert "Meyer" not in str(refused.value)


def test_a_table_of_fhir_is_joined_like_any_other():
    observed = [
        of("Observation", name, status="final", code=concept(code), effectiveDateTime=day,
           valueQuantity={"value": value, "unit": "ng/mL"})
        for name, code, day, value in (("1", "psa", "2020", 4.5), ("2", "psa", "2021", 7), ("3", "x", "2022", 1))
    ]  # fmt: skip
    options = ClinicalTable.model_validate({
        "extract": {"kind": "fhir", "url": "there", "resource": "Observation", "identifier": MRN},
        "person_id": "person", "cardinality": "many", "pick": {"where": {"code": "psa"}, "by": "date", "take": "max"},
        "columns": {"psa": {"from": "value", "type": "number", "unit": "ng/mL"}},
    })  # fmt: skip
    assert options.title == "fhir Observation"
    outside: Any = Files(b__json=bundle(patient(), *observed))
    sink = BytesIO()
    pq.write_table(options.extract.take(outside).table, sink)
    assert said(met(sink.getvalue(), options, ["MRN-a", "MRN-b"])) == [{"psa": 7.0}, None]


def test_without_the_parser_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fhirclient.models.condition", None)
    with pytest.raises(MissingExtra, match=r"medical-dataset-builder\[fhir\]"):
        taken("Condition", b__json=bundle(of("Condition", "c", code=concept("1"))))
