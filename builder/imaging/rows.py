"""Rows of INSTANCES: made from data sets in memory as the index makes them from files, and as the rules see them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import UID

from builder.headers.boundary import damaged_element
from builder.headers.values import PRESENT, PRIVATE_VRS, NotAValue, Wanted, cell
from builder.imaging.parse import leniently
from builder.model.tables import HEADER_COLUMNS, INSTANCES, REAL, REALS, SMALL, TEXT, WHOLE, Column

_TAGGED = [(column, Tag(column.tag)) for column in HEADER_COLUMNS if column.tag is not None]
WHOLE_LIMIT = {SMALL: 2**31 - 1, WHOLE: 2**63 - 1}


Vector: TypeAlias = list[float] | None
Clock: TypeAlias = str | float | None
"""A time of day or a date and time as the file states it; in ``stacks.moments`` it becomes seconds since 1970."""


class Row(NamedTuple):
    """What the rules that split a series see of one instance, or of one frame or tile of an instance.

    The names are columns of INSTANCES, up to ``uih_b_value``. The others are known only for frames.
    """

    status: str | None = None
    path: str | None = None
    transfer_syntax_uid: str | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    series_uid: str | None = None
    frame_of_reference_uid: str | None = None
    modality: str | None = None
    image_type: str | None = None
    manufacturer: str | None = None
    study_date: str | None = None
    series_date: str | None = None
    acquisition_date: str | None = None
    content_date: str | None = None
    timezone_offset: str | None = None
    series_time: Clock = None
    acquisition_time: Clock = None
    content_time: Clock = None
    acquisition_datetime: Clock = None
    frame_reference_time: float | None = None
    acquisition_number: int | None = None
    series_number: int | None = None
    instance_number: int | None = None
    temporal_position: int | None = None
    trigger_time: float | None = None
    series_description: str | None = None
    protocol_name: str | None = None
    scan_options: str | None = None
    scanning_sequence: str | None = None
    sequence_name: str | None = None
    echo_number: int | None = None
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    b_value: float | None = None
    kvp: float | None = None
    convolution_kernel: str | None = None
    contrast_bolus_agent: str | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int | None = None
    grid_tiles: int | None = None
    samples_per_pixel: int | None = None
    photometric_interpretation: str | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    image_position_patient: Vector = None
    image_orientation_patient: Vector = None
    pixel_spacing: Vector = None
    imager_pixel_spacing: Vector = None
    slice_thickness: float | None = None
    spacing_between_slices: float | None = None
    pixel_padding_value: int | None = None
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    siemens_b_value: float | None = None
    ge_b_value: Vector = None
    philips_b_value: float | None = None
    uih_b_value: float | None = None
    frame: int | None = None
    """Number of the frame or tile in its instance, from 0."""
    tiles: int = 0
    """Tiles in a row of the mosaic that this tile is from."""
    dimension: tuple[int, ...] | None = None
    """The frame's indices along the dimensions that are not spatial."""
    diffusion_direction: tuple[float, ...] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row":
        """Make a row of the values that it has a name for."""
        return cls(**{name: value for name, value in values.items() if name in _SEEN})


_SEEN = frozenset(Row._fields)
SEEN_COLUMNS = Row._fields[: Row._fields.index("frame")]
"""The columns of INSTANCES that a ``Row`` holds."""


def rows_of(instances: pa.Table) -> list[Row]:
    """Return the rows of INSTANCES. Empty columns, which are many, are not converted cell by cell."""
    count = len(instances)
    columns = (instances[name] for name in SEEN_COLUMNS)
    cells = [[None] * count if column.null_count == count else column.to_pylist() for column in columns]
    return [Row(*values) for values in zip(*cells, strict=True)]


@leniently()
def instances_of(datasets: Iterable[Dataset]) -> pa.Table:
    """Make the INSTANCES rows of data sets, as input for ``split_stacks`` when there is no index.

    A value that does not parse as its column's type is null, as in the index.
    """
    return pa.Table.from_pylist([instance_row(dataset) for dataset in datasets], schema=INSTANCES)


def instance_row(dataset: Dataset) -> dict[str, Any]:
    """Make one INSTANCES row from the top level of ``dataset``; of the ledger columns it sets the transfer syntax."""
    row: dict[str, Any] = dict.fromkeys(INSTANCES.names)
    meta = getattr(dataset, "file_meta", None)
    syntax = meta.get("TransferSyntaxUID") if meta is not None else None
    row["status"] = "instance"
    row["transfer_syntax_uid"] = str(syntax) if syntax else None
    return row | header_values(dataset)


def header_values(dataset: Dataset) -> dict[str, Any]:
    """Return the header columns whose attributes the top level of ``dataset`` has, with their values."""
    return {column.name: _cell(dataset, column) for column, tag in _TAGGED if tag in dataset}


def dataset_of(row: Mapping[str, Any]) -> Dataset:
    """Make a data set without pixels from one INSTANCES row, with what ``assemble`` and the pixel checks need.

    It holds only technical attributes and the row's UIDs, so nothing else of the object can reach the result.
    """
    dataset = Dataset()
    for name in PIXEL_COLUMNS:
        value = row[name]
        if value is not None:
            # the VR "US or SS" depends on Pixel Representation (PS3.5 6.2)
            vr = "SS" if name in _SIGNED and row["pixel_representation"] == 1 else _VRS[name]
            dataset.add_new(_TAGS[name], vr, value.split("\\") if isinstance(value, str) else value)
    dataset.file_meta = FileMetaDataset()
    if row["transfer_syntax_uid"]:
        dataset.file_meta.TransferSyntaxUID = UID(row["transfer_syntax_uid"])
    return dataset


def noted_columns(detail: str | None) -> frozenset[str]:
    """Return the columns of an INSTANCES row that the index could not read, from the notes in its ``detail``.

    Such a value is null in the row. Check this before treating null as absent.
    """
    return frozenset(note.partition(": ")[0] for note in (detail or "").split("; "))


PIXEL_COLUMNS = (
    *("sop_class_uid", "sop_instance_uid", "image_type", "modality", "conversion_type", "body_part_examined"),
    *("samples_per_pixel", "photometric_interpretation", "planar_configuration", "number_of_frames", "rows", "columns"),
    *("bits_allocated", "bits_stored", "high_bit", "pixel_representation", "pixel_padding_value"),
    *("pixel_padding_range_limit", "burned_in_annotation", "rescale_intercept", "rescale_slope", "rescale_type"),
)
_SIGNED = ("pixel_padding_value", "pixel_padding_range_limit")
_TAGS = {column.name: column.tag for column in HEADER_COLUMNS if column.tag is not None}
_VRS = {name: dictionary_VR(tag).split(" ")[0] for name, tag in _TAGS.items() if name in PIXEL_COLUMNS}


def _cell(dataset: Dataset, column: Column) -> Any:
    try:
        element = dataset.get(column.tag)
        value = None if element is None else element.value
    except Exception as error:
        if isinstance(error, MemoryError) or damaged_element(error) is None:
            raise
        return None  # a damaged element reads as absent, as in the index
    if isinstance(value, bytes) and column.tag in PRIVATE_VRS:
        value = _undeclared(value, column)
    if isinstance(value, Items):
        return PRESENT
    if value is None or value == "" or (isinstance(value, MultiValue) and len(value) == 0):
        return None
    if column.type == TEXT:
        return "\\".join(str(v) for v in value) if isinstance(value, (MultiValue, list, tuple)) else str(value)
    if column.type == REALS:
        return _reals(value)
    first = value[0] if isinstance(value, (MultiValue, list, tuple)) else value
    number = _real(first)
    if number is None or column.type == REAL:
        return number
    return int(number) if number.is_integer() and abs(number) <= WHOLE_LIMIT[column.type] else None


def _undeclared(raw: bytes, column: Column) -> Any:
    """Read a private element of an implicit VR file, which is little endian and does not state the VR."""
    assert column.tag is not None
    wanted = Wanted(column, column.tag, PRIVATE_VRS[column.tag])
    try:
        return cell(wanted, raw, vr="UN", little=True, encodings=["iso8859"])
    except NotAValue:
        return None


def _reals(value: Any) -> list[float] | None:
    items = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    numbers = [_real(item) for item in items]
    return None if any(n is None for n in numbers) else [n for n in numbers if n is not None]


def _real(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
