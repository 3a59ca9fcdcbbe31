"""Text leaves only if a vocabulary has it, the spec declares it, or the scrubber has passed it."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.deid import RETAINABLE
from builder.deid.checks import Words, words_of
from builder.deid.columns import crossing
from builder.deid.gate import Gate, refuse_identifiers
from builder.deid.identifiers import Identifiers, identifiers_of, parts_of
from builder.deid.options import ColumnText
from builder.deid.terms import term_words
from builder.errors import CaseError, PrivacyError
from builder.imaging.stacks.options import VolumeOptions, check_voxels
from builder.model.case import Sample
from builder.model.cleared import POLICIES, SEAL, Cleared, ClearedBytes, Policy, check_policies, policy_of
from builder.model.geometry import Geometry
from builder.model.options import WITHHELD
from builder.model.samples import PLACE_COLUMNS, SAMPLE_COLUMNS
from builder.model.tables import EXCLUSIONS, IDENTITY_COLUMNS, LEDGER, SERIES
from builder.shards import write_shard
from builder.stages.annotate import CASE_FACTS
from builder.stages.isolate import Death
from builder.storage import open_store

HOMER = Identifiers(frozenset({"simpson", "homer"}), frozenset({"mrn-4711", "1956-05-12"}), frozenset())
GEOMETRY = Geometry((2, 2, 2), np.diag([1.0, 1.0, 1.0, 1.0]))
ROOT = Path(__file__).parents[2]
PLANTED = (
    "Homer Simpson", "SIMPSON^HOMER^JAY", "simpson, homer", "1956-05-12", "12.05.1956", "939-555-0113", "MRN 123456789",
    "SPRINGFIELD GENERAL", "SPRINGCT1", "Dr Hibbert", "homer@simpson.example", "1.2.840.113619.2.55.3.604688",
    "742 Evergreen Terrace", "<b>Homer</b>", "\u8f9b\u666e\u68ee", "a" * 300,
)  # fmt: skip
CLOSED = sorted(
    name
    for name, policy in POLICIES.items()
    if policy not in (Policy.MESSAGE, Policy.ORIGIN, Policy.PROSE, Policy.DECLARED)
)


def gate(**options: object) -> Gate:
    return Gate(Words(frozenset({"lesion", "boxes"})), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", CLOSED)
def test_no_closed_column_lets_an_identifier_out(column: str) -> None:
    judge = gate()
    assert not [value for value in PLANTED if judge.text(column, value) is not None]
    assert {value for _, value in judge.dropped} == {*PLANTED}


@given(st.sampled_from(CLOSED), st.text(min_size=3, max_size=60))
def test_what_leaves_a_closed_column_is_ascii_and_short(column: str, value: str) -> None:
    left = gate().text(column, value)
    assert left is None or (left.isascii() and len(left) <= 600 and "^" not in left and "@" not in left)


@pytest.mark.parametrize(
    ("column", "value", "left"),
    [
        ("modality", "CT", "CT"),
        ("modality", "HOMER", None),
        ("manufacturer", "GE MEDICAL SYSTEMS", "GE"),
        ("manufacturer", "Homer Devices", None),
        ("manufacturer_model", "SOMATOM Definition AS+", "SOMATOM Definition AS+"),
        ("manufacturer_model", "Springfield CT", None),
        ("image_type", "ORIGINAL\\PRIMARY\\HOMER", "ORIGINAL\\PRIMARY\\REMOVED"),
        ("body_part", "L_SPINE", "L_SPINE"),
        ("body_part", "HAND", "HAND"),
        ("convolution_kernel", "Br40d\\3", "Br40d\\3"),
        ("measurement_units", "{SUVbw}g/ml", "{SUVbw}g/ml"),
        ("measurement_units", "10*-6mm2/s", "10*-6mm2/s"),
        ("measurement_units", "Homer", None),
        ("measurement_concepts", "SCT:81827009", "SCT:81827009"),
        ("measurement_concepts", "SCT:123456789", None),
        ("measurement_concepts", "99HOSPITAL:SIMPSON", None),
        ("measurement_quantities", "=SCT:81827009", "Diameter"),
        ("measurement_quantities", "=SCT:81827009=SCT:255605001", "Diameter, Minimum"),
        ("measurement_quantities", "=SCT:81827009=99X:HOMER", None),
        ("measurement_quantities", "SRT:G-D7FE", "SRT:G-D7FE"),
        ("measurement_quantities", "Diameter Marge Bouvier lesion", None),
        ("measure_names", "lesion/volume_mm3", "lesion/volume_mm3"),
        ("measure_names", "lesion/Homer", None),
        ("measure_names", "lesion/reader_1~reader_2", "lesion/reader_1~reader_2"),
        ("segment_names", "lesion~reader_2", None),
        ("box_classes", "nodule", "nodule"),
        ("box_classes", "lesion", "lesion"),
        ("class_names", "boxes/codes/0/SCT:81827009", "boxes/codes/0/SCT:81827009"),
        ("class_names", "boxes/Homer", None),
        ("class_values", "0.25", "0.25"),
        ("class_values", "123456789", None),
        ("notes", "rescale_type=HU", "rescale_type=HU"),
        ("notes", "rescale_type=HOMER", None),
        ("evidence_readers", "reader-0123456789ab+reader2", "reader-0123456789ab+reader2"),
        ("evidence_tools", "3D Slicer", "3D Slicer"),
        ("evidence_tools", "CANON_MEC", "Canon"),
        ("evidence_tools", "drawn by Marge", None),
        ("notes", "no_suv:weight_absent", "no_suv:weight_absent"),
        ("notes", "no_suv:decay_correction_none", "no_suv:decay_correction_none"),
        ("notes", "no_suv:decay_correction_simpson", None),
        ("notes", "pet_units=CNTS", "pet_units=CNTS"),
        ("notes", "pet_units=SIMPSON", None),
        ("notes", "suv_type=LBM", "suv_type=LBM"),
    ],
)
def test_values(column: str, value: str, left: str | None) -> None:
    assert gate().text(column, value) == left


def test_a_patient_may_be_called_hand() -> None:
    hand = Identifiers(names=frozenset({"hand"}))
    assert gate(known=hand).text("body_part", "HAND") == "HAND"
    assert gate(known=hand, declared=frozenset({"note"})).text("note", "left hand") is None


@pytest.mark.parametrize("value", ["19610203", "3/2/1961", "Doe^Jane", "j@example.org", "MRN 1234567", "x" * 300])
def test_declared_columns_refuse_the_shape_of_an_identifier(value: str) -> None:
    declared = gate(declared=frozenset({"grade"}))
    assert declared.text("grade", value) is None
    assert declared.text("grade", "High, grade 2/3") == "High, grade 2/3"
    with pytest.raises(PrivacyError, match="loss") as caught:
        refuse_identifiers({"loss": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("value", ["Homer Simpson", "seen by SIMPSON", "MRN-4711", "1956-05-12"])
def test_a_value_that_identifies_its_person_does_not_leave(value: str) -> None:
    declared = gate(declared=frozenset({"grade"}), known=HOMER)
    assert declared.text("grade", value) is None
    assert declared.message(f"found {value}, expected another") == WITHHELD
    assert "omer" not in (declared.text("texts", f"Nodule seen in {value}.") or "")


def test_the_spec_may_declare_map_match_or_drop_values() -> None:
    rules = {
        "box_classes": ColumnText(values=("Marge",), map={"kyste": "cyst"}, pattern="[a-z]{3,8}"),
        "body_part": ColumnText(drop=True),
    }
    judge = gate(rules=rules, known=HOMER)
    assert [judge.text("box_classes", v) for v in ("Marge", "kyste", "masse", "MASSE")] == [
        "Marge", "cyst", "masse", None,
    ]  # fmt: skip
    assert judge.text("box_classes", "homer") is None  # the pattern fits, but it is who the person is
    assert judge.text("body_part", "CHEST") is None


def test_words_of_a_spec_are_its_texts_and_keys() -> None:
    assert words_of({"a": ["b", {"c": 1}], "d": None}, ["e"]).spec == {"a", "b", "c", "d", "e"}


def test_only_the_gate_makes_cleared_text() -> None:
    kinds: list[tuple[Any, object]] = [(Cleared, "x"), (ClearedBytes, b"x")]
    for kind, raw in kinds:
        with pytest.raises(TypeError):
            kind(raw, object())
    holders = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "builder").rglob("*.py")
        if re.search(r"\bSEAL\b", path.read_text(encoding="utf-8"))
    }
    assert holders == {"builder/model/cleared.py", "builder/deid/gate.py", "builder/deid/documents.py"}
    assert Cleared("x", SEAL) == "x"


def test_every_column_of_text_of_every_published_table_has_a_policy() -> None:
    schemas = [LEDGER, EXCLUSIONS, CASE_FACTS, pa.schema([c.field for c in (*SAMPLE_COLUMNS, *PLACE_COLUMNS)])]
    for schema in schemas:
        check_policies(schema, where="table")
    undecided = [f.name for f in SERIES if pa.types.is_string(f.type) and f.name not in POLICIES]
    assert crossing(undecided, retain=RETAINABLE) == ()  # they never leave


# The careless way: a new column of text, written without a thought of the gate.

CARELESS = """
from builder.model.case import ClearedSample, Sample
from builder.model.geometry import Geometry
from builder.model.options import WITHHELD
from builder.shards.writer import ShardWriter


def add(writer: ShardWriter, sample: Sample, geometry: Geometry, note: str) -> None:
    writer.add_case([sample])
    writer.add_case([ClearedSample({}, geometry, {"reader_note": note})])
    writer.add_case([ClearedSample({}, geometry, {}, {"reader_notes": [note]})])
"""


def test_the_type_checker_refuses_text_that_went_around_the_gate(tmp_path: Path) -> None:
    script = tmp_path / "careless.py"
    script.write_text(CARELESS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", ROOT / ".mypy_cache", script],  # another option would not use it
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    faults = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(faults) == 3, done.stdout + done.stderr
    assert 'expected "ClearedSample"' in faults[0]
    assert all('"str"' in fault and "Cleared" in fault for fault in faults[1:])


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.list_(pa.string()), pa.large_string(), pa.binary(), pa.struct([("a", pa.string())])]
)
def test_the_writer_refuses_a_column_of_text_without_a_policy(tmp_path: Path, kind: pa.DataType) -> None:
    facts = pa.schema([("reader_note", kind)])
    with pytest.raises(PrivacyError, match="reader_note"):
        write_shard(open_store(tmp_path), "0123456789abcdef" * 2, cases=[], facts=facts)
    with pytest.raises(PrivacyError, match="reader_note"):
        gate().table(pa.table({"reader_note": pa.array([], kind)}), where="cohort")
    with pytest.raises(PrivacyError, match="reader_note"):
        gate().sample(Sample({}, GEOMETRY, {"reader_note": "x"}))
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_table_loses_values_that_identify_the_person_of_their_row() -> None:
    table = pa.table({"detail": ["3 slices", "found simpson", "found simpson"], "body_part": ["CHEST", "HOMER", None]})
    judge = gate()
    nobody = Identifiers()
    cleared = judge.table(table, where="cohort", known=lambda row: HOMER if row == 1 else nobody)
    assert cleared.column("detail").to_pylist() == ["3 slices", None, "found simpson"]
    assert cleared.column("body_part").to_pylist() == ["CHEST", None, None]
    assert dict(judge.dropped) == {("detail", "found simpson"): 1, ("body_part", "HOMER"): 1}


def test_many_keyed_names_pass_at_once_and_nothing_beside_them_does() -> None:
    names = ["0" * 26, f"{'z' * 26}-12", "f" * 32, None]
    for odd in ("Homer", "0" * 25, f"{'0' * 26}\n", f"{'0' * 26}-\u0661", f"x {'0' * 26}"):
        gate = Gate(Words())
        judged = gate.table(pa.table({"series_key": [*names, odd, odd]}), where="cohort")
        assert judged["series_key"].to_pylist() == [*names, *(2 * [gate.text("series_key", odd)])]
    gate = Gate(Words(), rules={"series_key": ColumnText(drop=True)})
    assert gate.table(pa.table({"series_key": names}), where="cohort")["series_key"].null_count == len(names)


def test_lists_of_texts_keep_their_nulls_and_lose_what_must_not_leave() -> None:
    gate, kind = Gate(Words()), pa.list_(pa.string())
    rows = pa.array([["left out"], None, [], ["tumor", None, "Homer Simpson"], ["Homer Simpson"]], kind).slice(1)
    judged = gate.table(pa.table({"annotations": pa.chunked_array([rows, rows])}), where="cohort")["annotations"]
    assert judged.to_pylist() == 2 * [None, [], ["tumor", None, None], [None]]
    assert gate.dropped == {("annotations", "Homer Simpson"): 4}


def test_identifiers_come_from_the_index() -> None:
    said = {"patient_name": "SIMPSON^HOMER", "operators": "Bouvier^Selma", "station": "SPRINGCT1"}
    cell = "\n".join(said.get(column.name, "") for column in IDENTITY_COLUMNS)
    assert parts_of(cell) == (("SIMPSON^HOMER", "Bouvier^Selma"), ("SPRINGCT1",))
    known = identifiers_of(pa.table({"identity": [cell], "patient_birth_date": ["19560512"], "patient_id": ["4711"]}))
    for text in ("homer", "SELMA, seen", "springct1", "12 May 1956", "5/12/1956", "born 19560512", "patient 4711"):
        assert known.occur_in(text), text
    assert not known.occur_in("may 1956")


@pytest.mark.parametrize("text", ["li wu", "WU, LI", "wu^li", "Li_Wu"])
def test_names_made_of_short_or_ordinary_words_are_found_in_full(text: str) -> None:
    cell = "LI^WU" + "\n" * (len(IDENTITY_COLUMNS) - 1)
    known = identifiers_of(pa.table({"identity": [cell]}))
    assert known.occur_in(f"seen by {text} today")
    assert not known.occur_in("polisher wu")


@pytest.mark.parametrize(
    "value",
    ["519 BLUEBELL STREET", "555-123-4567", "(02) 555 1234 567", "12 March 1950", "Mar 12, 1950", "may 1950",
     "Dr. Hand",
     "3.4.1950", "12-03-1950", "www.tillmouth.example"],
)  # fmt: skip
def test_declared_columns_refuse_written_dates_and_places(value: str) -> None:
    gate = Gate(Words(), declared=frozenset({"histology"}))
    assert gate.text("histology", f"grade 2, {value}") is None


@pytest.mark.parametrize(
    "value", ["margin 3 mm", "T2N0M0", "decreased 20 %", "stage 3-4", "12.5-14.0", "may recur", "2 of 3 ms"]
)
def test_declared_columns_keep_scientific_values(value: str) -> None:
    assert Gate(Words(), declared=frozenset({"histology"})).text("histology", value) == value


@pytest.mark.parametrize("column", ["reading_quantities", "class_names"])
def test_a_date_is_not_a_finding(column: str) -> None:
    assert Gate(Words(frozenset({"chest"}))).text(column, "03/10/1939") is None
    assert Gate(Words(frozenset({"chest"}))).text(column, "chest/codes/1/SCT:27925004") is not None


def test_a_short_number_that_identifies_the_person_is_not_an_answer() -> None:
    known = Identifiers(numbers=frozenset({"471203"}))
    for column in ("class_values", "landmark_groups", "measurement_tracking"):
        assert Gate(Words(), known=known).text(column, "471203") is None
        assert Gate(Words(), known=known).text(column, "471204") == "471204"


def test_a_town_identifies_the_hospital() -> None:
    rows = pa.table({"patient_id": ["1"], "institution_name": ["Calderbeck General Hospital"]})
    gate = Gate(Words(), declared=frozenset({"histology"}), known=identifiers_of(rows))
    assert gate.text("histology", "seen in CALDERBECK") is None
    assert gate.text("histology", "seen in hospital") == "seen in hospital"


def test_limits_are_written_in_groups_of_digits_that_are_not_taken_for_a_telephone_number() -> None:
    """A count of eight digits or more in one piece would be withheld, with the sentence that helps the user."""
    shape = (2048, 4096, 4096)
    with pytest.raises(CaseError) as caught:
        check_voxels(math.prod(shape), VolumeOptions())
    assert Gate(Words()).message(caught.value.detail) == caught.value.detail
    assert "34,359,738,368 voxels" in caught.value.detail
    error = Death(-9, outgrew=True).as_error(805_306_368, 4_194_304)
    assert Gate(Words()).message(error.detail) == error.detail


@pytest.mark.parametrize("column", ["site", "country", "collection", "sex", "pet.site"])
def test_a_column_that_comes_from_a_table_is_checked_like_any_other(column: str) -> None:
    """Such columns once let out any lower-case word, because the spec's own sites are such words."""
    known = Identifiers(names=frozenset({"kowalska"}), numbers=frozenset({"tillmouth clinic"}))
    own = Gate(Words(frozenset({"north", "kowalska"})), known=known)
    tabled = Gate(
        Words(frozenset({"north"})), declared=frozenset({"site", "country", "collection", "sex"}), known=known
    )
    for value in ("kowalska", "ward_3/kowalska", "kowalska_5550113", "tillmouth clinic", "a_1234567"):
        assert tabled.text(column, value) is None, value
    for value in ("north", "Ward 3", "female"):
        assert tabled.text(column, value) == value
    assert own.text(column, "kowalska") == "kowalska"  # the name that the spec gives a site
    assert policy_of(column, ["site", "country", "collection", "sex"]) is Policy.DECLARED


@pytest.mark.parametrize("where", ["", "pet/", "field_of_view=8; "])
def test_a_note_quotes_only_defined_terms_in_lower_case_too(where: str) -> None:
    gate = Gate(Words(frozenset({"pet"})))
    for note in (
        "pet_units=kowalska",
        "suv_type=kowalska",
        "no_suv:decay_correction_kowalska",
        "rescale_type=kowalska",
    ):
        assert gate.text("notes", where + note) is None
    assert gate.text("notes", "pet/pet_units=CPS") == "pet/pet_units=CPS"
    assert gate.text("notes", "field_of_view=8; jitter_mm=0.1") == "field_of_view=8; jitter_mm=0.1"


def test_an_identifier_of_digits_is_not_found_within_a_longer_number() -> None:
    known = Identifiers(numbers=frozenset({"2000", "MR7X"}))
    assert all(known.occur_in(text) for text in ("case 2000", "a2000b", "1MR7X2"))
    assert not known.occur_in("112000")


def test_names_of_programs_are_not_words_of_terms() -> None:
    assert "ct" in term_words()
    assert not {"slicer", "plastimatch"} & term_words()


def test_joined_identifiers_are_those_of_both() -> None:
    both = Identifiers(names=frozenset({"simpson"}), numbers=frozenset({"4711"})) | Identifiers(
        names=frozenset({"bouvier"}), numbers=frozenset({"0815"})
    )
    assert all(both.occur_in(text) for text in ("Simpson", "4711", "Bouvier", "0815"))
    for joined in (both | Identifiers(), Identifiers() | both, both | Identifiers(names=frozenset({"simpson"}))):
        assert joined is both, "the pattern is compiled once"
