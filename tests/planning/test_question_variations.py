"""The twenty questions asked of other archives: other vendors and languages, texts alone, headers that leave out."""

from typing import Any

import pyarrow as pa
import pytest

from tests.planning.test_twenty_questions import STORAGE, candidates_of, chosen

TILTED, CORONAL = [0.9659, 0.0, -0.2588, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]

TEXT = {"modality": "MR"}
SIEMENS = {"modality": "MR", "image_type": r"ORIGINAL\PRIMARY\M", "manufacturer": "SIEMENS"}
PHILIPS = {"modality": "MR", "manufacturer": "Philips Medical Systems", "image_type": r"ORIGINAL\PRIMARY\M_SE\M\SE"}
GE = {"modality": "MR", "manufacturer": "GE MEDICAL SYSTEMS", "image_type": r"ORIGINAL\PRIMARY\OTHER"}
LONG, SHORT = (
    {"scanning_sequence": "SE", "echo_time": 100.0, "repetition_time": 4500.0},
    {"scanning_sequence": "SE", "echo_time": 12.0, "repetition_time": 600.0},
)
DIFFUSION = {"scanning_sequence": r"EP\SE", "series_description": "Ax DWI"}
CT = {"modality": "CT", "image_type": r"ORIGINAL\PRIMARY\AXIAL", "manufacturer": "GE MEDICAL SYSTEMS"}
PET = {"modality": "PT", "study": "petct"}
FIELD, MODEL = {"modality": "MR", "series_description": "field"}, {"modality": "CT", "series_description": "model"}

SERIES: dict[str, dict[str, Any]] = {
    "t2_ge": GE | LONG | {"scan_options": r"FAST_GEMS\EDR_GEMS", "series_description": "AX T2 FSE"},
    "t2_ge_fs": GE | LONG | {"scan_options": r"FAST_GEMS\FS", "series_description": "AX T2 FRFSE FS"},
    "t2_philips": PHILIPS | LONG | {"scan_options": "OTHER", "series_description": "T2W_TSE TRA"},
    "t2_spair": PHILIPS | LONG | {"scan_options": "FS", "series_description": "T2W_SPAIR_TRA"},
    "t2_french": TEXT | {"series_description": "AX T2 SANS FATSAT"},
    "t2_german": TEXT | {"series_description": "T2 tra ohne FS", "image_orientation_patient": TILTED},
    "t2_cor": PHILIPS | LONG | {"scan_options": "OTHER", "image_orientation_patient": CORONAL},
    "stir": GE | LONG | {"inversion_time": 150.0, "scan_options": "FAST_GEMS", "series_description": "AX STIR"},
    "portal_fr": CT | {"series_description": "Abdomen tps portal"},
    "portal_it": CT | {"series_description": "ADDOME FASE VENOSA PORTALE"},
    "portal_es": CT | {"series_description": "Fase portal 5mm"},
    "portal_nl": CT | {"series_description": "Lever portoveneuze fase"},
    "portal_en": CT | {"series_description": "PV 3.0"},
    "arterial_fr": CT | {"series_description": "Abdomen tps artériel"},
    "native_de": CT | {"series_description": "Abdomen nativ"},
    "late_de": CT | {"series_description": "Abdomen Spätphase"},
    "two_phases": CT | {"series_description": "arterial and portal venous"},
    "pa": {"modality": "CR", "view_position": "PA", "slices": 1},
    "ap": {"modality": "CR", "view_position": "AP", "slices": 1},
    "no_view": {"modality": "CR", "series_description": "chest", "slices": 1},
    "mlo": {"modality": "MG", "view_position": "MLO", "laterality": "L", "slices": 1},
    "mlo_right": {"modality": "MG", "view_position": "MLO", "laterality": "R", "slices": 1},
    "soft_b": CT | {"convolution_kernel": "B30f", "manufacturer": "SIEMENS"},
    "soft_br": CT | {"convolution_kernel": r"Br40d\3", "manufacturer": "Siemens Healthineers"},
    "soft_i": CT | {"convolution_kernel": r"I31f\2", "manufacturer": "SIEMENS"},
    "soft_ge": CT | {"convolution_kernel": "SOFT"},
    "soft_philips": CT | {"convolution_kernel": "B", "manufacturer": "Philips"},
    "soft_canon": CT | {"convolution_kernel": "FC08", "manufacturer": "TOSHIBA"},
    "soft_german": CT | {"series_description": "Thorax Weichteil"},
    "soft_french": CT | {"series_description": "Thorax parties molles"},
    "sharp_bl": CT | {"convolution_kernel": r"Bl57d\3", "manufacturer": "SIEMENS"},
    "sharp_canon": CT | {"convolution_kernel": "FC52", "manufacturer": "TOSHIBA"},
    "sharp_german": CT | {"series_description": "Thorax Knochen"},
    "soft_and_sharp": CT | {"series_description": "soft tissue and bone algorithm"},
    "soft_b70": CT | {"series_description": "Weichteil", "convolution_kernel": "B70f", "manufacturer": "SIEMENS"},
    "b1000": PHILIPS | {"b_value": 1000.0, "image_type": r"ORIGINAL\PRIMARY\DIFFUSION\NONE"},
    "b800_ge": GE | DIFFUSION | {"b_value": 800.0},
    "b50_ge": GE | DIFFUSION | {"b_value": 50.0},
    "adc_ge": GE | {"image_type": r"DERIVED\PRIMARY\ADC\ADC", "series_description": "ADC (10^-6 mm²/s)"},
    "adc_philips": PHILIPS | {"image_type": r"DERIVED\PRIMARY\ADC_UNSPECIFIED\ADC\UNSPECIFIED"},
    "adc_text": TEXT | {"series_description": "Apparent Diffusion Coefficient (mm2/s)"},
    "eadc": GE | {"image_type": r"DERIVED\PRIMARY\EADC", "series_description": "eADC"},
    "t1_french": PHILIPS | SHORT | {"series_description": "T1 AX GADO"},
    "t1_plus_c": GE | SHORT | {"series_description": "AX T1 +C"},
    "t1_agent": GE | SHORT | {"series_description": "AX T1", "contrast_bolus_agent": "Dotarem"},
    "t1_spanish": TEXT | {"series_description": "T1 TSE TRA con contraste"},
    "t1_no_agent": GE | SHORT | {"series_description": "AX T1", "contrast_bolus_agent": "NONE"},
    "t1_pre": GE | SHORT | {"series_description": "AX T1 PRE"},
    "flair_german": SIEMENS | {"series_description": "t2_tirm_tra_dark-fluid", "slice_thickness": 4.0},
    "flair_thick": TEXT | {"series_description": "FLAIR TRA", "slice_thickness": 7.0},
    "flair_unstated": TEXT | {"series_description": "FLAIR COR"},
    "pet_attn": PET | {"corrected_image": r"DCAL\DECY\ATTN\SCAT"},
    "pet_text": PET | {"series_description": "WB CTAC"},
    "pet_german": PET | {"series_description": "PET schwächungskorrigiert"},
    "pet_method": PET | {"attenuation_correction_method": "measured,AC_CT_Hamlet"},
    "pet_no_method": PET | {"attenuation_correction_method": "NONE"},
    "pet_nac": PET | {"series_description": "WB NAC"},
    "low_mas": CT | {"exposure_mas": 25.0, "study": "petct"},
    "low_text": CT | {"series_description": "CT AC 4mm", "study": "petct"},
    "diagnostic": CT | {"exposure_mas": 200.0, "study": "petct"},
    "topogram": CT | {"series_description": "Topogramm 0.6", "slices": 1},
    "survey": PHILIPS | {"series_description": "Survey MST"},
    "overview": SIEMENS | {"series_description": "Übersicht"},
    "capture": {"modality": "OT", "sop_class_uid": STORAGE + "7.4", "slices": 1},
    "three": FIELD | {"magnetic_field_strength": 2.89362},
    "three_gauss": FIELD | {"magnetic_field_strength": 30000.0},
    "one_and_a_half": FIELD | {"magnetic_field_strength": 1.494},
    "one_and_a_half_gauss": FIELD | {"magnetic_field_strength": 15000.0},
    "low_field_gauss": FIELD | {"magnetic_field_strength": 640.0},
    "seven": FIELD | {"magnetic_field_strength": 7.0},
    "no_field": FIELD,
    "revolution": MODEL | {"manufacturer": "GE HEALTHCARE", "manufacturer_model": "Revolution CT"},
    "lightspeed": MODEL | {"manufacturer": "GE MEDICAL SYSTEMS", "manufacturer_model": "LightSpeed VCT"},
    "brightspeed": MODEL | {"manufacturer": "GE MEDICAL SYSTEMS", "manufacturer_model": "BrightSpeed"},
    "borrowed_name": MODEL | {"manufacturer": "Canon Medical Systems", "manufacturer_model": "LIGHTSPEED VCT"},
    "lung_spanish": CT | {"series_description": "TÓRAX PULMÓN"},
    "lung_italian": CT | {"series_description": "Torace polmone"},
    "lung_dutch": CT | {"series_description": "Longen 1.0"},
    "old": {"modality": "US", "patient": "twice", "study": "first", "day": "20091231", "slices": 1},
    "new": {"modality": "US", "patient": "twice", "study": "second", "day": "20100101", "slices": 1},
    "same_day": {"modality": "US", "patient": "twice", "study": "third", "day": "20100101", "slices": 1},
    "short_stack": {"modality": "NM", "slices": 100, "step": 2.0},
    "long_stack": {"modality": "NM", "slices": 100, "step": 2.5},
    "segmented": {"modality": "NM", "slices": 4},
}  # fmt: skip

QUESTIONS = [
    ("transversal T2 whose fat is left alone",
     "series_type == 'T2w' and plane == 'axial' and fat_suppression == 'kept'",
     {"t2_ge", "t2_philips", "t2_french", "t2_german"}),
    ("portal-venous phase in five languages", "phase == 'portal_venous'",
     {"portal_fr", "portal_it", "portal_es", "portal_nl", "portal_en"}),
    ("arterial or late phase", "phase in ['arterial', 'delayed']", {"arterial_fr", "late_de"}),
    ("PA, however it is typed", "view_position == 'pa' ignoring case", {"pa"}),
    ("left MLO, side stated for the series", "view_position == 'MLO' and laterality == 'L'", {"mlo"}),
    ("soft kernels of four vendors, and words", "kernel_type == 'soft'",
     {"soft_b", "soft_br", "soft_i", "soft_ge", "soft_philips", "soft_canon", "soft_german", "soft_french"}),
    ("sharp kernels", "kernel_type == 'sharp'", {"sharp_bl", "sharp_canon", "sharp_german", "soft_b70"}),
    ("b of 800 or more", "series_type == 'DWI' and b_value >= 800", {"b1000", "b800_ge"}),
    ("ADC of other vendors, without eADC", "series_type == 'ADC'", {"adc_ge", "adc_philips", "adc_text"}),
    ("T1 with gadolinium", "series_type == 'T1w' and phase not in ['native', 'unknown']",
     {"t1_french", "t1_plus_c", "t1_agent", "t1_spanish"}),
    ("FLAIR of at most 5 mm, stated", "series_type == 'FLAIR' and slice_thickness_mm <= 5", {"flair_german"}),
    ("FLAIR whose slices are 5 mm apart", "series_type == 'FLAIR' and spacing_slice_mm <= 5",
     {"flair_german", "flair_thick", "flair_unstated"}),
    ("PET with attenuation correction", "series_type == 'PET_AC'",
     {"pet_attn", "pet_text", "pet_german", "pet_method"}),
    ("PET without it", "series_type == 'PET_NAC'", {"pet_no_method", "pet_nac"}),
    ("CT of a PET/CT, by dose or by name",
     "modality == 'CT' and study_modalities contains 'PT' and (exposure_mas < 100 or series_type == 'CT_AC')",
     {"low_mas", "low_text"}),
    ("scouts and captures", "series_type in ['localizer', 'screenshot'] or verdict == 'secondary_capture'",
     {"topogram", "survey", "overview", "capture"}),
    ("3 T, in tesla and in gauss", "magnetic_field_strength between 2.8 and 3.2", {"three", "three_gauss"}),
    ("1.5 T, in tesla and in gauss", "magnetic_field_strength between 1.4 and 1.6",
     {"one_and_a_half", "one_and_a_half_gauss"}),
    ("below 0.1 T", "magnetic_field_strength < 0.1", {"low_field_gauss"}),
    ("two of GE's models", "vendor == 'GE' and manufacturer_model in ['revolution ct', 'LIGHTSPEED VCT'] ignoring case",
     {"revolution", "lightspeed"}),
    ("lung in Spanish, Italian or Dutch", "series_description matches 'pulm[oó]n|polmone|longen' ignoring case",
     {"lung_spanish", "lung_italian", "lung_dutch"}),
    ("before 2010", "modality == 'US' and study_date < '2010-01-01'", {"old"}),
    ("second visit of two studies", "modality == 'US' and visit_number == 2", {"new", "same_day"}),
    ("100 slices over 250 mm", "slices >= 100 and coverage_mm >= 250", {"long_stack"}),
    ("has a segmentation", "label_objects contains 'SEG'", {"segmented"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def candidates() -> pa.Table:
    return candidates_of(SERIES)


@pytest.mark.parametrize(("question", "line", "expected"), QUESTIONS, ids=[q for q, _, _ in QUESTIONS])
def test_a_question_finds_its_series_in_another_archive(
    candidates: pa.Table, question: str, line: str, expected: set[str]
) -> None:
    assert chosen(candidates, f'{{image: "{line}"}}') == expected
