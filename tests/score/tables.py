"""Score the text of published tables: every column of text gets what identifies a person, and what science needs."""

import random

import pyarrow as pa

from builder.deid.checks import Words
from builder.deid.gate import Gate
from builder.deid.identifiers import identifiers_of
from builder.model.case import Sample
from builder.model.cleared import CODED, POLICIES, Policy
from builder.model.keyed import Key
from builder.model.tables import IDENTITY, NAME_COLUMNS, NUMBER_COLUMNS
from builder.persons import group_persons
from tests.score.actions import Tally
from tests.score.people import KINDS, Human, human

SCIENCE = {
    "modality": ("CT", "MR", "PT", "CR", "DX", "MG", "SEG", "RTSTRUCT"),
    "photometric_interpretation": ("MONOCHROME1", "MONOCHROME2", "RGB"),
    "units": ("BQML", "CNTS", "GML"),
    "patient_position": ("HFS", "FFS", "HFP", "FFDR"),
    "image_type": ("ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\PRIMARY\\MPR", "ORIGINAL\\PRIMARY\\M\\ND"),
    "body_part": ("CHEST", "ABDOMEN", "HEADNECK", "Left breast", "LUNG"),
    "convolution_kernel": ("B30f", "STANDARD", "LUNG", "FC08", "Br40d\\3", "SOFT"),
    "manufacturer": ("SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems", "TOSHIBA"),
    "manufacturer_model": ("Discovery ST", "Brilliance 16", "SOMATOM Definition AS+", "Achieva", "Signa HDxt"),
    "measurement_units": ("mm", "cm3", "[hnsf'U]", "g/ml{SUVbw}", "mm2"),
    "box_classes": ("nodule", "left lung", "mass", "lesion 2"),
    "landmark_classes": ("left femur", "tip of catheter", "POLYLINE"),
    "measurement_sites": ("SCT:39607008", "SRT:T-28000"),
    "measurement_findings": ("SCT:108369006",),
    "measurement_quantities": (f"{CODED}SCT:410668003", "long_axis"),
    "class_values": ("positive", "absent", "3", "SCT:27925004"),
    "class_names": ("chest/nodule",),
    "texts": ("No acute findings. The left lung is clear.", "A small nodule in the right upper lobe."),
    "histology": ("leiomyosarcoma", "grade 2", "T2N0", "not known"),
}
"""Values as archives state them, by column: each must leave, perhaps in the words of a standard."""


def score_tables(tally: Tally, *, rows: int, seed: int = 18) -> None:
    """Rows of samples through the gate, as a shard does it: the gate knows what identifies the person of a row."""
    rng = random.Random(seed)
    columns = [c for c, policy in POLICIES.items() if policy not in (Policy.MESSAGE, Policy.ORIGIN)]
    for _ in range(rows):
        who = human(rng)
        words, declared = Words(frozenset({"chest", "nodule"})), frozenset({"histology"})
        gate = Gate(words, declared=declared, known=identifiers_of(_row(who)))
        _planted(gate, who, [*columns, "histology"], rng, tally)
        _kept(gate, rng, tally)


def _planted(gate: Gate, who: Human, columns: list[str], rng: random.Random, tally: Tally) -> None:
    row, said = {}, {}
    for column in columns:
        kind = rng.choice(KINDS)
        value = who.written(kind, rng)
        said[column] = who.secrets().get(kind, value.lower())
        row[column] = f"A nodule. {value}." if column == "texts" else value
    sample = gate.sample(Sample({}, None, row, {}))  # type: ignore[arg-type]
    for column, secret in said.items():
        left = str(sample.row.get(column) or "").lower()
        tally.count("text_removed", f"table {column}", done=secret not in left, example=(row[column], left))


def _kept(gate: Gate, rng: random.Random, tally: Tally) -> None:
    row = {column: rng.choice(values) for column, values in SCIENCE.items()}
    sample = gate.sample(Sample({}, None, row, {}))  # type: ignore[arg-type]
    for column, value in row.items():
        found = sample.row.get(column)
        kept = found is not None and "REMOVED" not in found and "[...]" not in found
        tally.count("text_retained", f"table {column}", done=kept, example=(value, found))


def _row(who: Human) -> pa.Table:
    stated = {"patient_name": who.name, "referring_physician": f"{who.doctor}^A"}
    others = [who.phone, who.station, who.institution]
    cells = [stated.get(c.name, "") for c in NAME_COLUMNS]
    cells += [others.pop() if others else "" for _ in NUMBER_COLUMNS]
    return pa.table(
        {
            "patient_id": [who.mrn], "accession_number": [who.accession], "device_serial_number": [who.serial],
            "institution_name": [who.institution], "patient_birth_date": [f"{who.born:%Y%m%d}"],
            IDENTITY.name: ["\n".join(cells)],
        }
    )  # fmt: skip


def score_persons(identities: list[tuple[str, str]], tally: Tally) -> None:
    """Objects of one PatientID have one keyed name, which no other PatientID has and which shows no part of it."""
    ids = [mrn for mrn, _ in identities]
    blank = pa.nulls(len(ids), pa.string())
    table = pa.table(
        {
            "patient_id": pa.array(ids, pa.string()), "issuer_of_patient_id": blank,
            "study_uid": pa.array([study for _, study in identities], pa.string()),
            "patient_sex": blank, "patient_birth_date": blank, "source": pa.array([0] * len(ids), pa.int32()),
        }
    )  # fmt: skip
    keys = group_persons(table, key=Key(b"a key of the score, thirty-two by")).keys_of(table)
    named: dict[str, set[str | None]] = {}
    owners: dict[str | None, set[str]] = {}
    for mrn, name in zip(ids, keys, strict=True):
        named.setdefault(mrn, set()).add(name)
        owners.setdefault(name, set()).add(mrn)
    for mrn, name in zip(ids, keys, strict=True):
        one = named[mrn] == {name} and owners[name] == {mrn} and name is not None and mrn.lower() not in name
        tally.count("patid_consistent", "PatientID", done=one)
