"""Twenty things people ask of an archive: each is one line of a spec, and finds exactly the series that it means."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from builder.cohort import Cohort, select_cohort
from builder.imaging.stacks.options import VolumeOptions
from builder.model.keyed import Key
from builder.model.tables import CHOICE, INSTANCES
from builder.planning.asked import asked_values, with_asked
from builder.planning.candidates import series_table
from builder.sources import Folder
from builder.specfile import parse_spec
from builder.stages.survey import survey

STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES = {"CT": "2", "MR": "4", "PT": "128", "DX": "1.1", "MG": "1.2", "SC": "7"}
AXIAL, SAGITTAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]

MR = {"modality": "MR", "image_type": r"ORIGINAL\PRIMARY\M", "manufacturer": "SIEMENS", "manufacturer_model": "Skyra"}
CT = {"modality": "CT", "image_type": r"ORIGINAL\PRIMARY\AXIAL", "manufacturer": "GE MEDICAL SYSTEMS"}
T2 = MR | {"scanning_sequence": "SE", "echo_time": 100.0, "repetition_time": 4000.0, "magnetic_field_strength": 3.0}
T1 = MR | {"scanning_sequence": "SE", "echo_time": 12.0, "repetition_time": 550.0, "magnetic_field_strength": 1.5}
DWI = MR | {"image_type": r"DERIVED\PRIMARY\DIFFUSION\TRACEW", "manufacturer_model": "Prisma_fit"}
FLAIR = MR | {"inversion_time": 2500.0, "repetition_time": 9000.0, "echo_time": 100.0}
MG = {"modality": "MG", "view_position": "MLO"}

SERIES: dict[str, dict[str, Any]] = {
    # name: headers, with "slices", "step" (mm), "study", "patient" and "day" beside them
    "t2": T2 | {"scan_options": "PFP"},
    "t2_fs": T2 | {"scan_options": r"PFP\FS"},
    "t2_sag": T2 | {"scan_options": "PFP", "image_orientation_patient": SAGITTAL},
    "t1": T1 | {"series_description": "t1_tse_tra"},
    "t1_gd": T1 | {"series_description": "t1_tse_tra KM", "contrast_bolus_agent": "Gadovist"},
    "flair_3mm": FLAIR | {"slice_thickness": 3.0},
    "flair_6mm": FLAIR | {"slice_thickness": 6.0},
    "b50": DWI | {"b_value": 50.0},
    "b800": DWI | {"b_value": 800.0},
    "adc": DWI | {"image_type": r"DERIVED\PRIMARY\DIFFUSION\ADC"},
    "portal": CT | {"series_description": "Abdomen portalvenös", "convolution_kernel": "BONE", "slice_thickness": 5.0},
    "lung_en": CT | {"series_description": "LUNG 1.25", "convolution_kernel": "LUNG", "slice_thickness": 1.25,
                     "slices": 110, "step": 2.5, "study": "thorax"},
    "lung_de": CT | {"series_description": "Lunge nativ", "convolution_kernel": "STANDARD", "slice_thickness": 5.0,
                     "slices": 100, "step": 2.0, "study": "thorax"},
    "lung_fr": CT | {"series_description": "Poumons", "convolution_kernel": "EDGE"},
    "scout": CT | {"image_type": r"ORIGINAL\PRIMARY\LOCALIZER", "slices": 1},
    "capture": CT | {"image_type": r"DERIVED\SECONDARY", "sop_class_uid": STORAGE + "7", "slices": 1},
    "pet": {"modality": "PT", "corrected_image": r"DECY\ATTN\SCAT", "study": "petct"},
    "pet_nac": {"modality": "PT", "corrected_image": "DECY", "study": "petct"},
    "petct_low": CT | {"exposure_mas": 40.0, "study": "petct"},
    "petct_full": CT | {"exposure_mas": 180.0, "study": "petct", "contrast_bolus_agent": "Ultravist"},
    "ct_low": CT | {"exposure_mas": 30.0},
    "pa": {"modality": "DX", "view_position": "PA", "slices": 1},
    "lateral": {"modality": "DX", "view_position": "LL", "slices": 1},
    "mlo_left": MG | {"image_laterality": "L", "slices": 1},
    "mlo_right": MG | {"image_laterality": "R", "slices": 1},
    "cc_left": MG | {"image_laterality": "L", "view_position": "CC", "slices": 1},
    "visit_1": {"modality": "US", "patient": "twice", "study": "first", "day": "20100105", "slices": 1},
    "visit_2": {"modality": "US", "patient": "twice", "study": "second", "day": "20120301", "slices": 1},
    "segmented": CT | {"series_description": "axial 5 mm"},
}  # fmt: skip

EVERY_MR = {"t2", "t2_fs", "t2_sag", "t1", "t1_gd", "flair_3mm", "flair_6mm", "b50", "b800", "adc"}

QUESTIONS = [
    ("axial T2 without fat saturation",
     "series_type == 'T2w' and plane == 'axial' and fat_suppression == 'kept'", {"t2"}),
    ("portal-venous phase", "phase == 'portal_venous'", {"portal"}),
    ("PA view only", "view_position == 'PA'", {"pa"}),
    ("MLO views of the left breast", "view_position == 'MLO' and laterality == 'L'", {"mlo_left"}),
    ("second time point", "visit_number == 2", {"visit_2"}),
    ("soft-kernel reconstruction", "kernel_type == 'soft'", {"lung_de"}),
    ("b >= 800 diffusion", "series_type == 'DWI' and b_value >= 800", {"b800"}),
    ("ADC maps", "series_type == 'ADC'", {"adc"}),
    ("T1 after contrast", "series_type == 'T1w' and phase not in ['native', 'unknown']", {"t1_gd"}),
    ("FLAIR with slices <= 5 mm", "series_type == 'FLAIR' and slice_thickness_mm <= 5", {"flair_3mm"}),
    ("PET attenuation-corrected", "series_type == 'PET_AC'", {"pet"}),
    ("low-dose CT of a PET/CT",
     "modality == 'CT' and study_modalities contains 'PT' and exposure_mas < 100", {"petct_low"}),
    ("no localizers, no secondary captures",
     "series_type not in ['localizer', 'screenshot'] and verdict != 'secondary_capture'",
     {*SERIES} - {"scout", "capture"}),
    ("3 T only", "magnetic_field_strength between 2.8 and 3.2", {"t2", "t2_fs", "t2_sag"}),
    ("one vendor's scanners of two models",
     "vendor == 'Siemens' and manufacturer_model in ['skyra', 'PRISMA_FIT'] ignoring case", EVERY_MR),
    ("studies before a date", "study_date < '2011-01-01'", {"visit_1"}),
    ("descriptions that say lung in English, German or French",
     "series_description matches 'lung|lunge|poumon' ignoring case", {"lung_en", "lung_de", "lung_fr"}),
    ("at least 100 slices covering 250 mm", "slices >= 100 and coverage_mm >= 250", {"lung_en"}),
    ("images that have a label object", "label_objects is not missing", {"segmented"}),
]  # fmt: skip


def instances(series: Mapping[str, Mapping[str, Any]]) -> pa.Table:
    """INSTANCES of an archive that holds these series."""
    rows = []
    for name, given in series.items():
        own = dict(given)
        slices, step, study = own.pop("slices", 4), own.pop("step", 5.0), own.pop("study", name)
        patient, day = own.pop("patient", study), own.pop("day", "20150601")
        header = {
            "status": "instance", "format": "dicom", "size": 1000, "source": 0, "member": "", "rows": 64, "columns": 64,
            "sop_class_uid": STORAGE + CLASSES.get(own["modality"], "6.1"), "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2", "bits_allocated": 16, "bits_stored": 16,
            "pixel_representation": 0, "pixel_spacing": [1.0, 1.0], "image_orientation_patient": AXIAL,
            "patient_id": patient, "study_uid": f"study.{study}", "series_uid": f"series.{name}", "study_date": day,
            "frame_of_reference_uid": f"frame.{study}", "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        }  # fmt: skip
        for number in range(slices):
            across = 0 if own.get("image_orientation_patient") == SAGITTAL else 2
            position = [0.0, 0.0, 0.0]
            position[across] = number * step
            place = {"path": f"{name}/{number}", "sop_instance_uid": f"{name}.{number:04d}", "instance_number": number}
            rows.append(header | own | place | {"image_position_patient": position})
    return pa.Table.from_pylist(rows, schema=INSTANCES)


def candidates_of(
    series: Mapping[str, Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]] | None = None
) -> pa.Table:
    """Every series as the cohort's rules see it; ``annotations`` are objects that refer to them, one SEG by default."""
    ordered = instances(series).sort_by([("series_uid", "ascending"), ("sop_instance_uid", "ascending")])
    stacks, _ = survey(ordered, sources=[Folder(url="/archive")], options=VolumeOptions())
    assert sorted(stacks["series_uid"].to_pylist()) == sorted(f"series.{name}" for name in series)
    seg = {"modality": "SEG", "referenced_series_uids": ["series.segmented"], "referenced_frame_of_reference_uids": []}
    objects = pa.Table.from_pylist([seg] if annotations is None else [*annotations], schema=INSTANCES)
    persons = stacks["patient_id"].to_pylist()
    table = series_table(stacks, persons, key=Key(bytes(range(32))))
    table = with_asked(table, asked_values(CHOICE.names, stacks, persons, objects))
    rows = table.num_rows
    names = [uid.removeprefix("series.") for uid in stacks["series_uid"].to_pylist()]
    for name, column in {
        "usable_reason": pa.nulls(rows, pa.string()), "usable_detail": pa.nulls(rows, pa.string()),
        "clinical_rows": pa.array([0] * rows), "label_state": pa.array(["linked"] * rows),
        "label_detail": pa.nulls(rows, pa.string()), "name": pa.array(names),
    }.items():  # fmt: skip
        table = table.append_column(name, column)
    return table


@pytest.fixture(scope="module")
def candidates() -> pa.Table:
    return candidates_of(SERIES)


SPEC = """
name: asked
license: CC0-1.0
sources: [{{kind: folder, url: /archive}}]
cohort: {cohort}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
"""


def chosen(candidates: pa.Table, cohort: str) -> set[str]:
    """The series that a cohort keeps; the line must also be a valid spec."""
    options: Cohort = parse_spec(SPEC.format(cohort=cohort).encode()).cohort
    decided = select_cohort(candidates, options, labelled=False)
    return {row["name"] for row in decided.to_pylist() if row["included"]}


@pytest.mark.parametrize(("question", "line", "expected"), QUESTIONS, ids=[q for q, _, _ in QUESTIONS])
def test_a_question_is_one_line(candidates, question, line, expected):
    assert chosen(candidates, f'{{image: "{line}"}}') == expected


def test_thinnest_slices_of_each_study(candidates):
    found = chosen(candidates, "{one_per: study, prefer: [slice_thickness_mm], image: \"modality == 'CT'\"}")
    assert {"lung_en", "lung_de"} & found == {"lung_en"}
    assert "portal" in found  # the only series of its study stays


def test_identifying_columns_can_be_read(candidates):
    assert chosen(candidates, "{image: \"patient_id == 'twice' and study_date > '2011-01-01'\"}") == {"visit_2"}
