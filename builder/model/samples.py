"""Columns of a sample's row: where it lies, what is in it, and its annotations that are no arrays."""

import pyarrow as pa

from builder.model.tables import REAL, REALS, SMALL, TEXT, TEXTS, WHOLE, Column, schema

WHOLES = pa.list_(pa.int64())

SAMPLE_COLUMNS = (
    Column("sample_key", TEXT),  # <case_key>-<number in the case>
    Column("case_key", TEXT),
    Column("slices", SMALL),
    Column("rows", SMALL),
    Column("columns", SMALL),
    Column("spacing_slice_mm", REAL, unit="mm"),
    Column("spacing_row_mm", REAL, unit="mm"),
    Column("spacing_column_mm", REAL, unit="mm"),
    Column("affine", REALS, unit="mm"),  # 16 numbers, row by row: voxel (slice, row, column, 1) to LPS mm
    Column("domain", TEXT),  # builder.model.case.ValueDomain of the image
    Column("start_slice", SMALL),  # first voxel of the sample in the case's volume; negative where padded
    Column("start_row", SMALL),
    Column("start_column", SMALL),
    Column("centred_on", TEXT),  # mask, "background", "grid", or "volume"
    Column("pad_voxels", WHOLE),  # voxels of the sample outside the case's volume
    Column("foreground_voxels", WHOLE),  # inside any segment of any mask
    Column("segment_names", TEXTS),  # <mask>/<segment>, in the order of the masks
    Column("segment_voxels", WHOLES),  # of this sample, one a segment name
    Column("segment_categories", TEXTS),  # coded category, <scheme>:<value>, null where the source codes none
    Column("segment_types", TEXTS),  # coded property type, likewise
    Column("box_names", TEXTS),
    Column("box_classes", TEXTS),
    Column("boxes", REALS),  # 6 a box: first and last voxel coordinate (slice, row, column) in the sample
    Column("landmark_names", TEXTS),
    Column("landmark_classes", TEXTS),
    Column("landmark_groups", TEXTS),
    Column("landmarks", REALS),  # 3 a point: voxel coordinates (slice, row, column) in the sample
    Column("measurement_names", TEXTS),
    Column("measurement_quantities", TEXTS),
    Column("measurement_values", REALS),
    Column("measurement_units", TEXTS),  # UCUM
    Column("measurement_concepts", TEXTS),  # <scheme>:<value> of the quantity, null where it is not coded
    Column("measurement_findings", TEXTS),  # <scheme>:<value> of what was measured, likewise
    Column("measurement_sites", TEXTS),  # <scheme>:<value> of where, likewise
    Column("measurement_tracking", TEXTS),  # what is measured together, or again at another time, has one name
    Column("class_names", TEXTS),  # <label>/<finding>
    Column("class_values", TEXTS),
    Column("text_names", TEXTS),
    Column("texts", TEXTS),
)
"""Every sample has these; the case's own facts (clinical columns, vendor, age) follow them."""

PLACE_COLUMNS = (
    Column("split", TEXT),
    Column("shard", TEXT),  # fingerprint
    Column("row", WHOLE),  # position in the shard
)
"""What the index has in front of a sample's columns."""


def sample_schema(facts: pa.Schema) -> pa.Schema:
    """Return the schema of ``samples.parquet``: the columns above, then ``facts`` by name.

    Raises
    ------
    ValueError
        When a fact has the name of a column above.
    """
    return _joined(SAMPLE_COLUMNS, facts)


def index_schema(facts: pa.Schema) -> pa.Schema:
    """Return the schema of ``index.parquet``: place, sample columns, ``facts``. Raises as ``sample_schema`` does."""
    return _joined(PLACE_COLUMNS + SAMPLE_COLUMNS, facts)


def _joined(columns: tuple[Column, ...], facts: pa.Schema) -> pa.Schema:
    taken = {column.name for column in PLACE_COLUMNS + SAMPLE_COLUMNS} & set(facts.names)
    if taken or len(set(facts.names)) != len(facts.names):
        raise ValueError(f"facts: found the columns {sorted(taken) or facts.names}, expected names not in use yet")
    ordered = [facts.field(name) for name in sorted(facts.names)]
    return pa.schema([*schema(columns), *ordered])
