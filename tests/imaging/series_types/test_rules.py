"""The rule table: it compiles, its values are those of the privacy gate, and it says "unknown" where nothing fits."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.deid import terms
from builder.errors import SpecError
from builder.imaging.series_types import ORDER, REGIONS, UNKNOWN, Rule, compiled, rule_schema, shipped, work_out
from builder.imaging.series_types.texts import normalised, pattern_of
from builder.model.tables import WORKED_OUT


def types_of(**row) -> dict:
    return work_out(pa.Table.from_pylist([row])).to_pylist()[0]


def test_every_rule_compiles_and_has_a_name_of_its_own():
    for column, steps in shipped().steps.items():
        rules = [rule for step in steps for rule in step.rules]
        assert len({rule.name for rule in rules}) == len(rules), column
        for rule in rules:
            compiled(rule.when)
    assert set(ORDER) == set(WORKED_OUT)
    assert {*REGIONS} <= {*shipped().terms}


def test_every_word_is_a_pattern_in_the_form_that_texts_are_brought_to():
    for name, words in shipped().terms.items():
        found = pa.compute.match_substring_regex(pa.array(["", "x"]), pattern_of(words)).to_pylist()
        assert found == [False, False], name  # a pattern that matches nothing in particular matches everything
        assert all(word == word.strip() for word in words), name


def test_the_gate_knows_every_value_of_the_table_and_no_other():
    for column, values in shipped().values.items():
        assert all(terms.term(column, value) == value for value in (*values, UNKNOWN)), column
        assert terms.term("series_type", "Miller") is None


def test_what_no_rule_fits_is_unknown():
    assert work_out(pa.table({"modality": pa.array([], pa.string())})).num_rows == 0
    for row in ({"modality": None}, {"modality": "CT"}, {"modality": "MR"}, {"path": "brain.nii.gz"}):
        found = types_of(**row)
        assert {found[column] for column in WORKED_OUT} == {UNKNOWN}, row
        assert {found[f"{column}_rule"] for column in WORKED_OUT} <= {None, "series_no_phase"}, row


MR, CT, PT = {"modality": "MR"}, {"modality": "CT", "image_type": r"ORIGINAL\PRIMARY\AXIAL"}, {"modality": "PT"}
SE = {"scanning_sequence": "SE"} | MR
ORIGINAL = {"image_type": r"ORIGINAL\PRIMARY\M\ND"} | MR


@pytest.mark.parametrize(
    ("row", "expected", "rule"),
    [
        (SE | {"echo_time": 100.0, "repetition_time": 4000.0}, "T2w", "spin_echo_long_te"),
        (SE | {"echo_time": 12.0, "repetition_time": 550.0}, "T1w", "spin_echo_short_te_short_tr"),
        (SE | {"echo_time": 30.0, "repetition_time": 3000.0}, "PDw", "spin_echo_short_te_long_tr"),
        (MR | {"inversion_time": 2500.0, "repetition_time": 9000.0, "echo_time": 100.0}, "FLAIR", "inversion_flair"),
        (ORIGINAL | {"b_value": 800.0}, "DWI", "b_value"),
        (ORIGINAL | {"b_value": 0.0}, UNKNOWN, None),
        (MR | {"image_type": r"DERIVED\PRIMARY\DIFFUSION\ADC"}, "ADC", "image_type_adc"),
        (MR | {"image_type": r"DERIVED\PRIMARY\M", "b_value": 800.0}, UNKNOWN, None),
        # physics and text that contradict each other decide nothing
        (SE | {"echo_time": 12.0, "repetition_time": 550.0, "series_description": "T2 tra"}, UNKNOWN, None),
        (MR | {"series_description": "T1 T2 PD"}, UNKNOWN, None),
        # the protocol speaks where the description says nothing, and only there
        (MR | {"series_description": "Bild 3", "protocol_name": "t2_tse_sag"}, "T2w", "protocol_t2"),
        (MR | {"series_description": "ep2d_diff_ADC", "protocol_name": "t2_tse"}, "ADC", "series_adc"),
        (MR | {"series_description": "T1_FLAIR_sag"}, "T1w", "series_t1_flair"),
        (MR | {"series_description": "Ax T2*"}, "T2starw", "series_t2star"),
        (MR | {"series_description": "Übersicht"}, "localizer", "series_localizer"),
        (MR | {"series_description": "repérage 3 plans"}, "localizer", "series_localizer"),
        (MR | {"series_description": "localizador"}, "localizer", "series_localizer"),
        (MR | {"series_description": "localizzatore"}, "localizer", "series_localizer"),
        (MR | {"series_description": "overzicht"}, "localizer", "series_localizer"),
        # what a layout calls an image is a text, and physics comes before its weighting
        (MR | {"image": "FLAIR"}, "FLAIR", "image_flair"),
        (MR | {"image": "acq-mprage_T1w"}, "T1w", "image_t1"),
        (MR | {"image": "bold"}, "fMRI", "image_fmri"),
        (MR | {"image": "t2f"}, "FLAIR", "image_brats_t2f"),
        (MR | {"image": "hbv"}, UNKNOWN, None),
        (SE | {"image": "T2w", "echo_time": 12.0, "repetition_time": 550.0}, "T1w", "spin_echo_short_te_short_tr"),
        (MR | {"image": "T1w", "series_description": "Ax T2"}, "T1w", "image_t1"),
        (CT, "CT", "ct_axial"),
        (CT | {"series_description": "Topogramm"}, "localizer", "series_localizer"),
        (CT | {"series_description": "Dosisprotokoll"}, "screenshot", "series_screenshot"),
        (CT | {"series_description": "CTAC 3.75"}, "CT_AC", "series_attenuation_ct"),
        (CT | {"series_description": "low dose", "study_description": "PET/CT"}, "CT_AC", "series_low_dose_of_pet"),
        (CT | {"series_description": "low dose", "study_description": "CT Thorax"}, "CT", "ct_axial"),
        (PT | {"corrected_image": r"NORM\DTIM\ATTN\SCAT"}, "PET_AC", "corrected_image"),
        (PT | {"corrected_image": r"NORM\DTIM"}, "PET_NAC", "not_corrected_image"),
        (PT | {"attenuation_correction_method": "NONE"}, "PET_NAC", "no_correction_method"),
        (PT | {"series_description": "PET ohne Korrektur NAC"}, "PET_NAC", "series_uncorrected"),
    ],
)  # fmt: skip
def test_series_type(row, expected, rule):
    found = types_of(**row)
    assert (found["series_type"], found["series_type_rule"]) == (expected, rule)


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("Leber arteriell", "arterial"), ("foie artériel", "arterial"), ("fase arteriosa", "arterial"),
        ("Abdomen portalvenös", "portal_venous"), ("portovenosa", "portal_venous"), ("tps portal", "portal_venous"),
        ("Spätphase", "delayed"), ("tardif", "delayed"), ("fase tardía", "delayed"), ("tardiva", "delayed"),
        ("laat", "delayed"), ("5 min delay", "delayed"), ("nephrogram", "nephrographic"),
        ("Abdomen nativ", "native"), ("sans injection", "native"), ("sin contraste", "native"),
        ("senza mdc", "native"), ("blanco", "native"), ("w/o", "native"), ("without contrast", "native"),
        ("mit KM", "post_contrast"), ("après injection", "post_contrast"), ("con mdc", "post_contrast"),
        ("con contraste", "post_contrast"), ("na contrast", "post_contrast"), ("AX +C", "post_contrast"),
        ("w/wo contrast", UNKNOWN), ("mit und ohne KM", UNKNOWN), ("arterial/portal", UNKNOWN), ("Serie 4", UNKNOWN),
    ],
)  # fmt: skip
def test_phase_in_several_languages(text, phase):
    assert types_of(**CT, series_description=text)["phase"] == phase


def test_phase_of_image_files():
    for name, phase in (
        ("t1ce", "post_contrast"),
        ("ce-gad_T1w", "post_contrast"),
        ("t1n", "native"),
        ("T1w", UNKNOWN),
    ):
        assert types_of(**MR, image=name)["phase"] == phase


def test_a_phase_needs_a_modality_that_has_one():
    assert types_of(modality="MG", series_description="post contrast")["phase"] == UNKNOWN
    assert types_of(**CT, contrast_bolus_agent="ISOVUE300/100")["phase"] == "post_contrast"
    assert types_of(**CT, contrast_bolus_agent="NONE")["phase"] == UNKNOWN
    assert types_of(**CT, contrast_bolus_agent="Oral contrast")["phase"] == UNKNOWN


@pytest.mark.parametrize(
    ("column", "text", "region"),
    [
        ("body_part", "HEAD", "head"), ("body_part", "LSPINE", "spine"), ("body_part", "PROSTATE", "pelvis"),
        ("body_part", "CHESTABDPELVIS", "chest_abdomen_pelvis"), ("body_part", "EXTREMITY", "limb"),
        ("series_description", "Schädel nativ", "head"), ("series_description", "poumons", "chest"),
        ("series_description", "Lendenwirbelsäule LWS", "spine"), ("series_description", "hígado", "abdomen"),
        ("series_description", "ginocchio", "lower_limb"), ("series_description", "bekken", "pelvis"),
        ("study_description", "CT Thorax Abdomen Becken", "chest_abdomen_pelvis"),
        ("study_description", "head and knee", UNKNOWN), ("study_description", "Studie 7", UNKNOWN),
    ],
)  # fmt: skip
def test_body_region(column, text, region):
    assert types_of(**MR, **{column: text})["body_region"] == region


def test_plane_is_geometry_before_text():
    assert types_of(**MR, normal_z=0.98, series_description="sag")["plane"] == "axial"
    assert types_of(**MR, normal_x=0.7, normal_y=0.7, normal_z=0.1)["plane"] == "oblique"
    found = [
        types_of(**MR, series_description=text)["plane"] for text in ("t2_tse_tra", "koronar", "SAG T1", "tra sag")
    ]
    assert found == ["axial", "coronal", "sagittal", UNKNOWN]


def test_fat_and_kernel():
    assert types_of(**ORIGINAL, scan_options=r"PFP\FS")["fat_suppression"] == "suppressed"
    assert types_of(**ORIGINAL, scan_options="PFP")["fat_suppression"] == "kept"
    assert types_of(**ORIGINAL, scan_options="PFP", series_description="T2 SPAIR")["fat_suppression"] == "suppressed"
    assert types_of(**ORIGINAL)["fat_suppression"] == UNKNOWN
    assert types_of(**MR, series_description="T1 non fat sat")["fat_suppression"] == "kept"
    kernels = {
        "GE": ("STANDARD", "LUNG"),
        "Siemens": ("B30f", "Br59d"),
        "Philips": ("B", "YA"),
        "Canon": ("FC08", "FC51"),
    }
    for vendor, (soft, sharp) in kernels.items():
        assert types_of(**CT, vendor=vendor, convolution_kernel=soft)["kernel_type"] == "soft"
        assert types_of(**CT, vendor=vendor, convolution_kernel=sharp)["kernel_type"] == "sharp"
    assert types_of(**CT, convolution_kernel="B30f")["kernel_type"] == UNKNOWN


def test_rules_of_a_spec_come_first_and_may_give_values_of_their_own():
    rows = pa.table({"modality": ["MR", "MR"], "series_description": ["Serie 7 wichtig", "t2_tse"]})
    rule = Rule("series_type", "T1map", "our_map", "series_description contains 'WICHTIG' ignoring case")
    found = work_out(rows, [rule])
    assert found["series_type"].to_pylist() == ["T1map", "T2w"]
    assert found["series_type_rule"].to_pylist() == ["our_map", "series_t2"]
    with pytest.raises(SpecError, match="series_descriptoin"):
        work_out(rows, [Rule("series_type", "X", "x", "series_descriptoin == 'a'")])


@settings(max_examples=8)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=3))
def test_texts_come_to_one_form_whatever_they_hold(texts):
    once = normalised(pa.array(texts, pa.string()))
    assert all("  " not in text and text == text.strip() for text in once.to_pylist())
    found = work_out(pa.table({"modality": ["MR"] * len(texts), "series_description": texts}))
    assert found.num_rows == len(texts)
    apart = [work_out(pa.table({"modality": ["MR"], "series_description": [text]})).to_pylist()[0] for text in texts]
    assert found.to_pylist() == apart  # a series is judged by itself


def test_rules_read_no_identifier():
    names = {*rule_schema().names}
    assert not names & {"patient_id", "accession_number", "study_date", "series_uid", "study_uid"}
