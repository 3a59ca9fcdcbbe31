"""Questions about views, visits, thickness, extent and labels, each asked of ten archives that state them otherwise."""

from typing import Any

import pyarrow as pa
import pytest

from tests.planning.test_twenty_questions import SAGITTAL, STORAGE, candidates_of, chosen

DX = {"modality": "DX", "slices": 1}
CR = {"modality": "CR", "slices": 1}
MG = {"modality": "MG", "slices": 1}
CT = {"modality": "CT", "image_type": r"ORIGINAL\PRIMARY\AXIAL"}
US = {"modality": "US", "slices": 1}

VIEWS: dict[str, dict[str, Any]] = {
    "pa": DX | {"view_position": "PA", "manufacturer": "Philips Medical Systems"},
    "pa_canon": CR | {"view_position": "PA", "manufacturer": "Canon Inc."},
    "pa_lower": CR | {"view_position": "pa"},
    "pa_agfa": CR | {"view_position": "PA", "manufacturer": "Agfa", "series_description": "AP"},
    "pa_paediatric": DX | {"view_position": "PA", "patient_position": "ERECT"},
    "ap": DX | {"view_position": "AP"},
    "lateral": DX | {"view_position": "LATERAL", "series_description": "CHEST PA AND LATERAL"},
    "ll": DX | {"view_position": "LL", "study_description": "Thorax pa und seitlich"},
    "only_text": CR | {"series_description": "Thorax PA"},
    "empty": CR | {"view_position": "", "protocol_name": "CHEST PA"},
    "palm": CR | {"view_position": "PALM"},
}
BREASTS: dict[str, dict[str, Any]] = {
    "left": MG | {"view_position": "MLO", "image_laterality": "L"},
    "left_of_series": MG | {"view_position": "MLO", "laterality": "L"},
    "image_before_series": MG | {"view_position": "MLO", "image_laterality": "L", "laterality": "R"},
    "series_contradicted": MG | {"view_position": "MLO", "image_laterality": "R", "laterality": "L"},
    "hologic": MG | {"view_position": "MLO", "image_laterality": "L", "manufacturer": "HOLOGIC, Inc."},
    "ge": MG | {"view_position": "MLO", "image_laterality": "L", "manufacturer": "GE MEDICAL SYSTEMS"},
    "right": MG | {"view_position": "MLO", "image_laterality": "R"},
    "both": MG | {"view_position": "MLO", "image_laterality": "B"},
    "cc": MG | {"view_position": "CC", "image_laterality": "L", "series_description": "L CC and MLO"},
    "ml": MG | {"view_position": "ML", "image_laterality": "L"},
    "lmo": MG | {"view_position": "LMO", "image_laterality": "L"},
    "no_side": MG | {"view_position": "MLO", "series_description": "L MLO"},
    "knee": DX | {"view_position": "MLO", "image_laterality": "L"},
}
VISITS: dict[str, dict[str, Any]] = {
    "a1": US | {"patient": "a", "study": "a1", "day": "20200101"},
    "a2": US | {"patient": "a", "study": "a2", "day": "20200102"},
    "a2_again": US | {"patient": "a", "study": "a2b", "day": "20200102"},
    "a3": US | {"patient": "a", "study": "a3", "day": "20210102"},
    "b2_listed_first": US | {"patient": "b", "study": "b0", "day": "19991231"},
    "b1": US | {"patient": "b", "study": "b9", "day": "19991230"},
    "c_once": US | {"patient": "c", "study": "c", "day": "20200101"},
    "d_no_day": US | {"patient": "d", "study": "d0", "day": None},
    "d1": US | {"patient": "d", "study": "d1", "day": "20200101"},
    "d2": US | {"patient": "d", "study": "d2", "day": "20200301"},
    "e_old_form": US | {"patient": "e", "study": "e1", "day": "2020.01.05"},
    "e_second": US | {"patient": "e", "study": "e2", "day": "20200106"},
    "f_not_a_day": US | {"patient": "f", "study": "f1", "day": "20201301"},
    "f_only": US | {"patient": "f", "study": "f2", "day": "20200106"},
}
THIN: dict[str, dict[str, Any]] = {
    "two_1mm": CT | {"study": "two", "slice_thickness": 1.0},
    "two_5mm": CT | {"study": "two", "slice_thickness": 5.0},
    "lung_0.6": CT | {"study": "kernels", "slice_thickness": 0.6, "convolution_kernel": "Bl57d"},
    "soft_0.75": CT | {"study": "kernels", "slice_thickness": 0.75, "convolution_kernel": "Br40d"},
    "unstated": CT | {"study": "gaps"},
    "stated": CT | {"study": "gaps", "slice_thickness": 10.0},
    "coronal_3": CT | {"study": "planes", "slice_thickness": 3.0, "image_orientation_patient": SAGITTAL},
    "axial_2": CT | {"study": "planes", "slice_thickness": 2.0},
    "scout": CT | {"study": "scout", "slice_thickness": 0.5, "image_type": r"ORIGINAL\PRIMARY\LOCALIZER", "slices": 1},
    "beside_scout": CT | {"study": "scout", "slice_thickness": 2.5},
    "report": CT | {"study": "report", "sop_class_uid": STORAGE + "7", "slice_thickness": 0.1, "slices": 1},
    "beside_report": CT | {"study": "report", "slice_thickness": 4.0},
    "alone": CT | {"study": "alone"},
    "zero": CT | {"study": "zero", "slice_thickness": 0.0},
    "beside_zero": CT | {"study": "zero", "slice_thickness": 1.5},
    "negative": CT | {"study": "negative", "slice_thickness": -2.0},
    "beside_negative": CT | {"study": "negative", "slice_thickness": 1.5},
}
EXTENT: dict[str, dict[str, Any]] = {
    "100_of_2.5": CT | {"slices": 100, "step": 2.5},
    "250_of_1": CT | {"slices": 250, "step": 1.0},
    "101_of_5": CT | {"slices": 101, "step": 5.0},
    "120_thick": CT | {"slices": 120, "step": 2.1, "slice_thickness": 4.0},
    "mr": {"modality": "MR", "slices": 100, "step": 3.0},
    "sagittal": {"modality": "MR", "slices": 160, "step": 1.6, "image_orientation_patient": SAGITTAL},
    "99_of_3": CT | {"slices": 99, "step": 3.0},
    "100_of_2.4": CT | {"slices": 100, "step": 2.4},
    "overlapping": CT | {"slices": 200, "step": 1.0, "slice_thickness": 2.0},
    "thick_gaps": CT | {"slices": 60, "step": 10.0},
    "one": CT | {"slices": 1, "slice_thickness": 300.0},
}
LABELLED: dict[str, dict[str, Any]] = {
    name: CT | {"study": study}
    for name, study in {
        "seg": "1", "rtstruct": "2", "only_dose": "3", "sr": "4", "frame_only": "5", "beside": "1", "plan": "6",
        "registered": "7", "state": "8", "key_object": "9", "annotated": "10", "nothing": "11",
    }.items()
}  # fmt: skip


def refers(modality: str, *series: str, frame: str = "") -> dict[str, Any]:
    """An object that refers to series, or only to a frame of reference."""
    return {
        "modality": modality, "referenced_series_uids": [f"series.{name}" for name in series],
        "referenced_frame_of_reference_uids": [f"frame.{frame}"] if frame else [],
    }  # fmt: skip


OBJECTS = [
    refers("SEG", "seg", frame="1"), refers("RTSTRUCT", "rtstruct"), refers("RTDOSE", frame="3"),
    refers("RTDOSE", "only_dose"), refers("SR", "sr"), refers("RTSTRUCT", frame="5"), refers("RTPLAN", "plan"),
    refers("REG", "registered"), refers("PR", "state"), refers("KO", "key_object"), refers("ANN", "annotated"),
]  # fmt: skip

QUESTIONS: list[tuple[str, dict[str, dict[str, Any]], str, set[str]]] = [
    ("PA view only", VIEWS, "{image: \"view_position == 'PA'\"}", {"pa", "pa_canon", "pa_agfa", "pa_paediatric"}),
    ("PA, however it is typed", VIEWS, "{image: \"view_position == 'pa' ignoring case\"}",
     {"pa", "pa_canon", "pa_lower", "pa_agfa", "pa_paediatric"}),
    ("MLO of the left breast", BREASTS,
     "{image: \"modality == 'MG' and view_position == 'MLO' and laterality == 'L'\"}",
     {"left", "left_of_series", "image_before_series", "hologic", "ge"}),
    ("second time point", VISITS, "{image: 'visit_number == 2'}",
     {"a2", "a2_again", "b2_listed_first", "d2", "e_second"}),
    ("thinnest slices per study", THIN,
     "{one_per: study, prefer: [slice_thickness_mm], image: \"series_type != 'localizer' and verdict == 'regular'\"}",
     {"two_1mm", "lung_0.6", "stated", "axial_2", "beside_scout", "beside_report", "alone", "beside_zero",
      "beside_negative"}),
    ("at least 100 slices over 250 mm", EXTENT, "{image: 'slices >= 100 and coverage_mm >= 250'}",
     {"100_of_2.5", "250_of_1", "101_of_5", "120_thick", "mr", "sagittal"}),
    ("images with a label object", LABELLED, "{image: 'label_objects is not missing'}",
     {"seg", "rtstruct", "sr", "frame_only", "state", "key_object", "annotated"}),
]  # fmt: skip


@pytest.mark.parametrize(("series", "line", "expected"), [q[1:] for q in QUESTIONS], ids=[q[0] for q in QUESTIONS])
def test_a_question_finds_its_series_however_an_archive_states_it(
    series: dict[str, dict[str, Any]], line: str, expected: set[str]
) -> None:
    candidates: pa.Table = candidates_of(series, OBJECTS)
    assert chosen(candidates, line) == expected
