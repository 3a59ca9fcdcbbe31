"""Arrow schemas of every table; each column with its unit and its DICOM tag.

INSTANCES is private (it holds the archive's own identifiers and stays in the private workspace); every other table
holds keyed names only.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
REAL = pa.float64()
REALS = pa.list_(pa.float64())
WHOLE = pa.int64()
SMALL = pa.int32()
FLAG = pa.bool_()


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, the DICOM attribute it comes from (PS3.6) and its unit (UCUM), where it has them."""

    name: str
    type: pa.DataType
    tag: int | None = None
    unit: str | None = None

    @property
    def field(self) -> pa.Field:
        """Return the Arrow field, with tag and unit as metadata."""
        notes = {}
        if self.tag is not None:
            notes["dicom_tag"] = f"{self.tag >> 16:04X},{self.tag & 0xFFFF:04X}"
        if self.unit is not None:
            notes["unit"] = self.unit
        return pa.field(self.name, self.type, metadata=notes or None)


def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema of ``columns``, in their order."""
    return pa.schema([column.field for column in columns])


LEDGER_COLUMNS = (
    Column("source", SMALL),  # position in the spec's sources
    Column("path", TEXT),
    Column("member", TEXT),  # file inside a zip or tar; "" otherwise
    Column("size", WHOLE, unit="By"),
    Column("stamp", TEXT),  # mtime in ns, ETag: what the source offers to notice a change
    Column("status", TEXT),  # instance | file | duplicate | quarantined ("file": a mask, AIM or table file by content)
    Column("reason", TEXT),  # builder.errors.Reason, for duplicate and quarantined
    Column("detail", TEXT),
    Column("format", TEXT),  # dicom | dicomdir | nifti | nrrd | mha | mhd | raw | xml | json | csv | ... | unknown
    Column("header_sha256", TEXT),  # of the bytes before Pixel Data; of the whole object for other files
    Column("content_sha256", TEXT),  # of the whole object, where its source asks for identity by content
    Column("pixel_offset", WHOLE, unit="By"),  # of the value of Pixel Data when native, else null
    Column("pixel_length", WHOLE, unit="By"),
    Column("transfer_syntax_uid", TEXT, 0x00020010),
)
"""Where an object lies and what became of it: the part of INSTANCES that is filled for every file found."""

HEADER_COLUMNS = (
    Column("sop_class_uid", TEXT, 0x00080016),
    Column("sop_instance_uid", TEXT, 0x00080018),
    Column("study_uid", TEXT, 0x0020000D),
    Column("series_uid", TEXT, 0x0020000E),
    Column("frame_of_reference_uid", TEXT, 0x00200052),
    Column("patient_id", TEXT, 0x00100020),
    Column("issuer_of_patient_id", TEXT, 0x00100021),
    Column("patient_birth_date", TEXT, 0x00100030),
    Column("patient_sex", TEXT, 0x00100040),
    Column("patient_age", TEXT, 0x00101010),
    Column("patient_size", REAL, 0x00101020, "m"),
    Column("patient_weight", REAL, 0x00101030, "kg"),
    Column("ethnic_group", TEXT, 0x00102160),
    Column("accession_number", TEXT, 0x00080050),
    Column("study_date", TEXT, 0x00080020),
    Column("series_date", TEXT, 0x00080021),
    Column("acquisition_date", TEXT, 0x00080022),
    Column("content_date", TEXT, 0x00080023),
    Column("structure_set_date", TEXT, 0x30060008),
    Column("study_time", TEXT, 0x00080030),
    Column("series_time", TEXT, 0x00080031),
    Column("acquisition_time", TEXT, 0x00080032),
    Column("content_time", TEXT, 0x00080033),
    Column("acquisition_datetime", TEXT, 0x0008002A),
    Column("timezone_offset", TEXT, 0x00080201),  # of all times of the object from UTC
    Column("modality", TEXT, 0x00080060),
    Column("manufacturer", TEXT, 0x00080070),
    Column("manufacturer_model", TEXT, 0x00081090),
    Column("device_serial_number", TEXT, 0x00181000),
    Column("software_versions", TEXT, 0x00181020),
    Column("institution_name", TEXT, 0x00080080),
    Column("body_part_examined", TEXT, 0x00180015),
    Column("study_description", TEXT, 0x00081030),
    Column("series_description", TEXT, 0x0008103E),
    Column("protocol_name", TEXT, 0x00181030),
    Column("image_type", TEXT, 0x00080008),  # values joined by a backslash, as in the file
    Column("conversion_type", TEXT, 0x00080064),
    Column("scan_options", TEXT, 0x00180022),
    Column("scanning_sequence", TEXT, 0x00180020),
    Column("sequence_variant", TEXT, 0x00180021),
    Column("acquisition_type", TEXT, 0x00180023),  # of MR: 2D or 3D
    Column("sequence_name", TEXT, 0x00180024),
    Column("pulse_sequence_name", TEXT, 0x00189005),
    Column("acquisition_contrast", TEXT, 0x00089209),
    Column("contrast_bolus_agent", TEXT, 0x00180010),
    Column("patient_position", TEXT, 0x00185100),
    Column("view_position", TEXT, 0x00185101),
    Column("laterality", TEXT, 0x00200060),  # of the series
    Column("image_laterality", TEXT, 0x00200062),
    Column("series_number", WHOLE, 0x00200011),
    Column("acquisition_number", WHOLE, 0x00200012),
    Column("instance_number", WHOLE, 0x00200013),
    Column("temporal_position", WHOLE, 0x00200100),
    Column("number_of_temporal_positions", WHOLE, 0x00200105),
    Column("trigger_time", REAL, 0x00181060, "ms"),
    Column("echo_number", WHOLE, 0x00180086),
    Column("echo_time", REAL, 0x00180081, "ms"),
    Column("repetition_time", REAL, 0x00180080, "ms"),
    Column("inversion_time", REAL, 0x00180082, "ms"),
    Column("flip_angle", REAL, 0x00181314, "deg"),
    Column("echo_train_length", REAL, 0x00180091),
    Column("magnetic_field_strength", REAL, 0x00180087, "T"),
    Column("b_value", REAL, 0x00189087, "s/mm2"),
    Column("kvp", REAL, 0x00180060, "kV"),
    Column("exposure_mas", REAL, 0x00181152, "mA.s"),
    Column("convolution_kernel", TEXT, 0x00181210),
    Column("rows", SMALL, 0x00280010),
    Column("columns", SMALL, 0x00280011),
    Column("number_of_frames", SMALL, 0x00280008),
    Column("samples_per_pixel", SMALL, 0x00280002),
    Column("photometric_interpretation", TEXT, 0x00280004),
    Column("planar_configuration", SMALL, 0x00280006),
    Column("bits_allocated", SMALL, 0x00280100),
    Column("bits_stored", SMALL, 0x00280101),
    Column("high_bit", SMALL, 0x00280102),
    Column("pixel_representation", SMALL, 0x00280103),
    Column("pixel_padding_value", WHOLE, 0x00280120),
    Column("pixel_padding_range_limit", WHOLE, 0x00280121),
    Column("image_position_patient", REALS, 0x00200032, "mm"),
    Column("image_orientation_patient", REALS, 0x00200037),
    Column("pixel_spacing", REALS, 0x00280030, "mm"),
    Column("imager_pixel_spacing", REALS, 0x00181164, "mm"),
    Column("slice_thickness", REAL, 0x00180050, "mm"),
    Column("spacing_between_slices", REAL, 0x00180088, "mm"),
    Column("gantry_tilt", REAL, 0x00181120, "deg"),
    Column("rescale_slope", REAL, 0x00281053),
    Column("rescale_intercept", REAL, 0x00281052),
    Column("rescale_type", TEXT, 0x00281054),
    Column("modality_lut", TEXT, 0x00283000),  # "present" where a table takes the place of slope and intercept
    Column("units", TEXT, 0x00541001),
    Column("decay_correction", TEXT, 0x00541102),
    Column("corrected_image", TEXT, 0x00280051),
    Column("attenuation_correction_method", TEXT, 0x00541101),
    Column("reconstruction_method", TEXT, 0x00541103),
    Column("frame_reference_time", REAL, 0x00541300, "ms"),
    Column("burned_in_annotation", TEXT, 0x00280301),
    Column("lossy_image_compression", TEXT, 0x00282110),
    Column("grid_tiles", SMALL, 0x00651050),  # United Imaging: slices in one picture
    Column("siemens_b_value", REAL, 0x0019100C, "s/mm2"),
    Column("ge_b_value", REALS, 0x00431039, "s/mm2"),  # the first of several numbers
    Column("philips_b_value", REAL, 0x20011003, "s/mm2"),
    Column("uih_b_value", REAL, 0x00651009, "s/mm2"),
)
"""Attributes of the top level of a data set; several values of one text attribute are joined by a backslash."""

NAME_COLUMNS = (
    Column("patient_name", TEXT, 0x00100010),
    Column("other_patient_names", TEXT, 0x00101001),
    Column("patient_birth_name", TEXT, 0x00101005),
    Column("mothers_birth_name", TEXT, 0x00101060),
    Column("referring_physician", TEXT, 0x00080090),
    Column("performing_physician", TEXT, 0x00081050),
    Column("reading_physicians", TEXT, 0x00081060),
    Column("physicians_of_record", TEXT, 0x00081048),
    Column("operators", TEXT, 0x00081070),
    Column("requesting_physician", TEXT, 0x00321032),
    Column("content_creator", TEXT, 0x00700084),
)
NUMBER_COLUMNS = (
    Column("other_patient_ids", TEXT, 0x00101000),
    Column("patient_address", TEXT, 0x00101040),
    Column("patient_telephone", TEXT, 0x00102154),
    Column("station", TEXT, 0x00081010),
    Column("department", TEXT, 0x00081040),
)
IDENTITY_COLUMNS = NAME_COLUMNS + NUMBER_COLUMNS
"""Attributes whose values say who somebody is: one line each of the column ``identity``, in this order.

Institution Address is not among them: its lines are often broken, which the fast reading of headers does not take.
"""

IDENTITY = Column("identity", TEXT)

LAYOUT_COLUMNS = (
    Column("image", TEXT),  # which image of a case a file is, by its source's layout: T1w, adc, ...
    Column("visit", TEXT),  # session, time point or date, as the layout names it
    Column("split_published", TEXT),  # train | validation | test, where the archive publishes a split
    Column("layout", TEXT),  # JSON: further facts by the layout (value domain, channels, fields of label patterns)
    Column("file_facts", TEXT),  # JSON: builder.files.FileFacts of an image file that is not DICOM
)
"""Who and what a file is that is not DICOM; null for DICOM."""

REFERENCE_COLUMNS = (
    Column("referenced_series_uids", TEXTS, 0x0020000E),  # of series this object annotates or derives from
    Column("referenced_sop_uids", TEXTS, 0x00081155),  # at most 4,096, sorted, distinct
    Column("referenced_frame_of_reference_uids", TEXTS, 0x30060024),
    Column("label_names", TEXTS),  # ROI Name (3006,0026), Segment Label (0062,0005), sorted by number
)
"""What an annotation object (RTSTRUCT, SEG, SR, PR, KO) points to; empty lists for images."""

INSTANCES = schema((*LEDGER_COLUMNS, *HEADER_COLUMNS, IDENTITY, *LAYOUT_COLUMNS, *REFERENCE_COLUMNS))
"""Private, one row per file found: everything the stages need to know before they fetch pixels."""

SERIES_COLUMNS = (
    Column("series_key", TEXT),
    Column("study_key", TEXT),
    Column("person_key", TEXT),
    Column("frame_of_reference_key", TEXT),
    Column("stack", SMALL),  # number of the pure stack inside its series; 0 when the series is one stack
    Column("split_rule", TEXT),  # what set this stack apart: "" or e.g. "orientation", "image_type", "echo_time"
    Column("verdict", TEXT),  # regular, sheared, irregular, gapped, ... (builder.imaging.stacks.spacing)
    Column("verdict_detail", TEXT),
    Column("site", TEXT),
    Column("country", TEXT),
    Column("collection", TEXT),
    Column("source", SMALL),
    Column("modality", TEXT, 0x00080060),
    Column("sop_class_uid", TEXT, 0x00080016),
    Column("instances", WHOLE),
    Column("frames", WHOLE),
    Column("bytes", WHOLE, unit="By"),
    Column("slices", SMALL),
    Column("rows", SMALL, 0x00280010),
    Column("columns", SMALL, 0x00280011),
    Column("channels", SMALL),
    Column("spacing_slice_mm", REAL, unit="mm"),
    Column("spacing_row_mm", REAL, unit="mm"),
    Column("spacing_column_mm", REAL, unit="mm"),
    Column("slice_thickness_mm", REAL, 0x00180050, "mm"),
    Column("orientation", TEXT),
    Column("header_findings", TEXT),  # implausible by the headers: "kvp=12; spacing=30" (builder.imaging.lint), or null
    Column("manufacturer", TEXT, 0x00080070),
    Column("manufacturer_model", TEXT, 0x00081090),
    Column("vendor", TEXT),  # normalised manufacturer
    Column("body_part", TEXT, 0x00180015),
    Column("convolution_kernel", TEXT, 0x00181210),
    Column("kvp", REAL, 0x00180060, "kV"),
    Column("magnetic_field_strength", REAL, 0x00180087, "T"),
    Column("transfer_syntax_uid", TEXT, 0x00020010),
    Column("image_type", TEXT, 0x00080008),
    Column("units", TEXT, 0x00541001),
    Column("series_number", WHOLE, 0x00200011),
    Column("sex", TEXT, 0x00100040),
    Column("age_years", REAL, unit="a"),
    Column("age_band", TEXT),
    Column("study_day", WHOLE, unit="d"),  # days since the person's first study
    Column("annotations", TEXTS),  # kinds of annotation objects that point here, sorted
    Column("format", TEXT),  # dicom, or the format of the image's file
    Column("image", TEXT),  # as in INSTANCES
    Column("visit", TEXT),
    Column("split_published", TEXT),
    Column("license", TEXT),  # of the series: SPDX identifier where it is a known one, else as it was stated
)

SERIES = schema(SERIES_COLUMNS)
"""Keyed, one row per pure stack of an image series: what cohort expressions see beside the clinical columns."""

DATE = pa.date32()

_READ = (
    *("study_description", "series_description", "protocol_name", "sequence_name", "pulse_sequence_name"),
    *("scanning_sequence", "sequence_variant", "acquisition_type", "acquisition_contrast", "scan_options"),
    *("echo_time", "repetition_time", "inversion_time", "flip_angle", "echo_train_length", "b_value"),
    *("temporal_position", "number_of_temporal_positions", "acquisition_number", "contrast_bolus_agent"),
    *("exposure_mas", "gantry_tilt", "view_position", "laterality", "patient_position", "conversion_type"),
    *("photometric_interpretation", "bits_stored", "burned_in_annotation", "lossy_image_compression"),
    *("corrected_image", "attenuation_correction_method", "reconstruction_method", "decay_correction"),
    *("institution_name", "device_serial_number", "software_versions", "patient_weight", "patient_size"),
)
READ_COLUMNS = tuple(c for name in _READ for c in HEADER_COLUMNS if c.name == name)
"""Header values that rules may read beside SERIES: of each stack the first value that is not missing.

Echo time and b-value are the stack's own, read from functional groups and vendors' private elements too; laterality is
that of the image, where the image states one.
"""

WORKED_OUT = ("series_type", "plane", "phase", "body_region", "fat_suppression", "kernel_type")
"""What the rule table works out (``builder.imaging.series_types``); the rule that fired is in ``<name>_rule``."""

TYPE_COLUMNS = (
    Column("series_type", TEXT),
    Column("series_type_rule", TEXT),
    Column("plane", TEXT),
    Column("plane_rule", TEXT),
    Column("phase", TEXT),
    Column("phase_rule", TEXT),
    Column("body_region", TEXT),
    Column("body_region_rule", TEXT),
    Column("fat_suppression", TEXT),
    Column("fat_suppression_rule", TEXT),
    Column("kernel_type", TEXT),
    Column("kernel_type_rule", TEXT),
)

GRID_COLUMNS = (
    Column("coverage_mm", REAL, unit="mm"),  # slices times their spacing
    Column("normal_x", REAL),  # the direction across the slices, each component without its sign
    Column("normal_y", REAL),
    Column("normal_z", REAL),
)

STUDY_COLUMNS = (
    Column("patient_id", TEXT, 0x00100020),
    Column("accession_number", TEXT, 0x00080050),
    Column("study_date", DATE, 0x00080020),
    Column("series_date", DATE, 0x00080021),
    Column("acquisition_date", DATE, 0x00080022),
    Column("visit_number", WHOLE),  # 1 for the first day on which the person has a study, 2 for the second
    Column("study_modalities", TEXTS),  # of the image series of the study, sorted
    Column("label_objects", TEXTS),  # modalities of the label objects that refer to the series, sorted
)

CHOICE_COLUMNS = (*TYPE_COLUMNS, *READ_COLUMNS, *GRID_COLUMNS, *STUDY_COLUMNS)
CHOICE = schema(CHOICE_COLUMNS)
"""What cohort rules and ``prefer`` may read beside SERIES and the clinical columns. Private: some columns identify."""

SPLITS_COLUMNS = (
    Column("person_key", TEXT),
    Column("members", TEXTS),  # keyed PatientIDs of this person, sorted: lets a later version recognise them
    Column("split", TEXT),  # train | validation | test | the names the spec gives
    Column("stratum", TEXT),
    Column("pooled", FLAG),
)

EXCLUSIONS = schema(
    (
        Column("level", TEXT),  # file | instance | series | case | person
        Column("key", TEXT),  # keyed name of the object
        Column("person_key", TEXT),
        Column("stage", TEXT),  # index | cohort | labels | clinical | split | shard
        Column("rule", TEXT),  # the spec's rule or the stage's check that removed it
        Column("reason", TEXT),  # builder.errors.Reason
        Column("detail", TEXT),
        Column("instances", WHOLE),  # how many instances went with it
    )
)
"""One row for each thing that did not reach the dataset, with exactly one rule."""

LEDGER = schema(
    (
        Column("object_key", TEXT),  # keyed SOPInstanceUID; keyed path for what has none
        Column("series_key", TEXT),
        Column("study_key", TEXT),
        Column("person_key", TEXT),
        Column("status", TEXT),  # used | label | excluded | quarantined | duplicate
        Column("stage", TEXT),
        Column("reason", TEXT),
        Column("shard", TEXT),  # fingerprint, for used and label
    )
)
"""Keyed, one row per file found: the totals of the report are counts of this table."""


FROM_TABLES: Final = "dicom_series"
"""Format of a row of INSTANCES that stands for a whole series of which only tables tell; its ``number_of_frames`` is
the number of its files."""


def files_in(table: pa.Table) -> list[int]:
    """Return for how many files each row of INSTANCES stands."""
    whole = pc.fill_null(pc.equal(table["format"], FROM_TABLES), False)
    found: list[int] = pc.if_else(whole, table["number_of_frames"], 1).to_pylist()
    return found


def is_used(cohort: pa.Table) -> pa.ChunkedArray:
    """Return whether any case uses each row of a cohort.

    These are the included rows, each the reference of a case, and where cases have several images also the rows of the
    other images. ``serves`` lists the cases of a row then.
    """
    if "serves" not in cohort.column_names:
        return cohort["included"]
    return pc.greater(pc.fill_null(pc.list_value_length(cohort["serves"]), 0), 0)


def used_rows(cohort: pa.Table) -> pa.Table:
    """Return the rows of a cohort that any case uses."""
    return cohort.filter(is_used(cohort))
