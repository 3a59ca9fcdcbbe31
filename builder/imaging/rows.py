"""Making rows of the INSTANCES table from data sets in memory, with the same values that the index reads from files."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

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
