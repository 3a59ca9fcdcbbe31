"""What the IDC's tables state of the headers of a series, for plans that read no header."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builder.errors import SpecError
from builder.model.tables import INSTANCES
from builder.sources.idc_tables import SERIES, UUID, Tables, Wanted, choose

REGULAR: Final = "regularly_spaced_3d_volume"
GEOMETRY: Final = ("Rows", "Columns", "PixelSpacing_row_mm", "PixelSpacing_col_mm", "slice_spacing_mm")
"""Columns without which nobody could say how large a volume is."""

_SHARED: Final = {"TransferSyntaxUID", "PhotometricInterpretation", "PixelRepresentation"}
"""Columns that list several values where the instances of a series differ."""

_INDEX: Final = {
    "patient_id": "PatientID", "series_uid": SERIES, "study_uid": "StudyInstanceUID", "patient_age": "PatientAge",
    "patient_sex": "PatientSex", "study_date": "StudyDate", "series_date": "SeriesDate",
    "study_description": "StudyDescription", "series_description": "SeriesDescription",
    "body_part_examined": "BodyPartExamined", "modality": "Modality", "sop_class_uid": "SOPClassUID",
    "transfer_syntax_uid": "TransferSyntaxUID", "photometric_interpretation": "PhotometricInterpretation",
    "pixel_representation": "PixelRepresentation", "manufacturer": "Manufacturer",
    "manufacturer_model": "ManufacturerModelName", "series_number": "SeriesNumber",
}  # fmt: skip
"""Columns of INSTANCES by those of the index."""

_OTHERS: Final = {
    "rows": "Rows", "columns": "Columns", "slice_thickness": "SliceThickness",
    "spacing_between_slices": "slice_spacing_mm", "image_orientation_patient": "ImageOrientationPatient",
    "image_type": "ImageType", "kvp": "KVP", "scan_options": "ScanOptions", "convolution_kernel": "ConvolutionKernel",
    "gantry_tilt": "GantryDetectorTilt", "magnetic_field_strength": "MagneticFieldStrength",
    "scanning_sequence": "ScanningSequence", "sequence_variant": "SequenceVariant",
    "acquisition_type": "MRAcquisitionType", "repetition_time": "RepetitionTime", "inversion_time": "InversionTime",
    "echo_train_length": "EchoTrainLength", "flip_angle": "FlipAngle", "sequence_name": "SequenceName",
}  # fmt: skip
"""Columns of INSTANCES by those of the further tables (``ct_index``, ``mr_index``, ``volume_geometry_index``, ...)."""


def stated_columns(tables: Tables) -> frozenset[str]:
    """Return the columns of INSTANCES that the tables state. Raises SpecError when they state no geometry."""
    index = set(pq.read_schema(tables.index).names)
    others = {name for _, path in tables.others for name in pq.read_schema(path).names}
    if missing := [name for name in GEOMETRY if name not in others]:
        raise SpecError(
            f"sources.headers: found no table with {', '.join(missing)}, expected the tables that tell how large a "
            "volume is: name ct_index, mr_index or pt_index, and volume_geometry_index under tables, or leave headers "
            "out: then every header is read before the plan"
        )
    known = {name for name, column in _INDEX.items() if column in index}
    known |= {name for name, column in _OTHERS.items() if column in others}
    return frozenset(known | {"pixel_spacing"})


@functools.lru_cache(maxsize=4)
def stated_rows(tables: Tables, wanted: Wanted) -> tuple[Mapping[str, int], pa.Table]:
    """Return the place of each chosen series by UUID, and columns of INSTANCES that hold what the tables state of it.

    ``number_of_frames`` is the number of its files; ``file_facts`` says whether a table calls it a regular volume;
    ``content_sha256`` names its version and number of files, as its files are not known.

    Raises
    ------
    SpecError
        When the tables do not state the geometry, or the number of files of a series.
    """
    stated_columns(tables)
    chosen = choose(tables, wanted).rows
    if any(row["instanceCount"] is None for row in chosen):
        raise SpecError(
            "sources.headers: found series of an earlier version, of which no table states the number of files; "
            "expected current ones: leave headers out"
        )
    uuids = [row[UUID] for row in chosen]
    counts = [row["instanceCount"] for row in chosen]
    names = pa.array([row[SERIES] for row in chosen], pa.string())
    index = _columns_of(tables.index, _INDEX.values(), by=UUID, names=pa.array(uuids, pa.string()))
    found = {name: index[column] for name, column in _INDEX.items() if column in index}
    others: dict[str, pa.Array] = {}
    wants = (*_OTHERS.values(), "PixelSpacing_row_mm", "PixelSpacing_col_mm", REGULAR)
    for _, path in tables.others:
        for column, values in _columns_of(path, wants, by=SERIES, names=names).items():
            others[column] = pc.coalesce(others[column], values) if column in others else values
    found |= {name: others[column] for name, column in _OTHERS.items() if column in others}
    columns = {name: _as(name, _INDEX.get(name, ""), values) for name, values in found.items()}
    pairs = zip(*(others[f"PixelSpacing_{axis}_mm"].to_pylist() for axis in ("row", "col")), strict=True)
    columns["pixel_spacing"] = _made("pixel_spacing", [None if None in pair else list(pair) for pair in pairs])
    columns["number_of_frames"] = _made("number_of_frames", counts)
    regular = others[REGULAR].to_pylist() if REGULAR in others else [None] * len(uuids)
    columns["file_facts"] = _made("file_facts", [None if is_it is None else json.dumps(is_it) for is_it in regular])
    digests = [hashlib.sha256(f"idc {u} {n}".encode()).hexdigest() for u, n in zip(uuids, counts, strict=True)]
    columns["content_sha256"] = _made("content_sha256", digests)
    return {uuid: place for place, uuid in enumerate(uuids)}, pa.table(columns)


def _columns_of(path: str, wanted: Iterable[str], *, by: str, names: pa.Array) -> dict[str, pa.Array]:
    """Return those of some columns that a table has, for the series with the given names, in their order."""
    known = [name for name in pq.read_schema(path).names if name in set(wanted)]
    table = pq.read_table(Path(path), columns=list(dict.fromkeys([by, *known])))
    table = table.filter(pc.is_in(table[by], names))
    places = pc.index_in(names, value_set=table[by].combine_chunks())
    taken = table.take(places)
    return {name: taken[name].combine_chunks() for name in known}


def _as(name: str, column: str, values: pa.Array) -> pa.Array:
    """Return values of a table as INSTANCES has them."""
    kind = INSTANCES.field(name).type
    if pa.types.is_list(values.type) and not pa.types.is_list(kind):
        return _made(name, ["\\".join(map(str, each)) if each else None for each in values.to_pylist()])
    if column in _SHARED:
        values = pc.if_else(pc.match_substring(values, ","), None, values)
    if name.endswith("_date"):
        return _made(name, [_text(each, lambda text: text.replace("-", "")) for each in values.to_pylist()])
    if pa.types.is_string(values.type) and pa.types.is_integer(kind):
        return _made(name, [int(each) if each and each.strip().isdigit() else None for each in values.to_pylist()])
    return values.cast(kind)


def _made(name: str, values: Sequence[Any]) -> pa.Array:
    return pa.array(values, INSTANCES.field(name).type)


def _text(value: Any, change: Callable[[str], str]) -> str | None:
    return None if value is None else change(str(value))
