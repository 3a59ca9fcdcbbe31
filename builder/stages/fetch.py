"""Read a case's objects from their sources: whole if they must be parsed, otherwise only what the index lacks."""

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pydicom
from pydicom.dataset import Dataset

from builder.decode.format import BIG_ENDIAN
from builder.errors import CaseError, Reason, SourceError
from builder.headers.boundary import parsing
from builder.imaging import rows as seen
from builder.imaging.filed import is_filed
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.values import PixelFill
from builder.imaging.quantities.philips import is_philips_mr
from builder.imaging.quantities.suv import SUV_TAGS, Calibration, calibrate
from builder.imaging.rows import dataset_of
from builder.imaging.stacks.kinds import Kind, kind_of
from builder.imaging.stacks.options import VolumeOptions
from builder.plan import is_image_role
from builder.protocols import Describing, Entry, LabelObject
from builder.sources import AnySource

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Objects:
    """What was fetched for a case.

    Parameters
    ----------
    rows
        INSTANCES rows of the images, in the plan's order.
    images
        Data sets of the images as the archive holds them. Empty when the rows describe the images completely except for
        their pixels, which ``pixels`` then reads in place.
    first
        Data set of the first image, for what the rows do not record.
    calibration
        SUV calibration of a PET series whose data sets are not kept.
    labels
        Maps each label name to its objects.
    files
        Contents of the rows of an image that is not DICOM, in their order.
    """

    rows: pa.Table
    images: tuple[Dataset, ...]
    first: Dataset
    labels: Mapping[str, Sequence[LabelObject]]
    calibration: Calibration | None = None
    files: tuple[bytes, ...] = ()


def fetch(rows: pa.Table, sources: Sequence[AnySource], volumes: VolumeOptions) -> Objects:
    """Read the objects of one image of a case and of its labels, as completely as ``volumes`` requires.

    Raises
    ------
    CaseError
        When an object is gone or cannot be parsed.
    SourceError
        When a source does not answer, or an object has changed since it was indexed.
    """
    listed = rows.to_pylist()
    image_rows = [row for row in listed if is_image_role(row["role"])]
    labels: dict[str, list[LabelObject]] = {}
    for row in listed:
        if not is_image_role(row["role"]):
            data = read_object(row, sources)
            name = posixpath.basename(row["member"] or row["path"])
            content = parse_instance(data) if row["format"] == "dicom" else data
            labels.setdefault(row["role"], []).append(LabelObject(content, name))
    images = rows.filter(pa.array([is_image_role(row["role"]) for row in listed]))
    if is_filed(image_rows[0]):
        files = tuple(read_object(row, sources) for row in image_rows)
        return Objects(images, (), dataset_of(image_rows[0]), labels, files=files)
    first = parse_instance(read_object(image_rows[0], sources))
    if _rows_suffice(image_rows, volumes):
        calibration = _calibration(image_rows, sources, volumes) if image_rows[0]["modality"] == "PT" else None
        return Objects(images, (), first, labels, calibration)
    rest = tuple(parse_instance(read_object(row, sources)) for row in image_rows[1:])
    return Objects(images, (first, *rest), first, labels)


def read_object(row: Row, sources: Sequence[AnySource], *, start: int = 0, length: int | None = None) -> bytes:
    """Read bytes of the object that a row describes. Raises as ``fetch`` does."""
    entry = Entry(row["path"], row["size"], row["stamp"], row["member"])
    try:
        return sources[row["source"]].read(entry, start=start, length=length)
    except CaseError as error:
        if error.reason != Reason.SOURCE_CHANGED:
            raise
        # an exclusion would stay in the shard permanently, although the object that is there now may be sound
        raise SourceError(
            "source: found an object that changed after it was indexed, expected the same one during a build; "
            "nothing was published: run the same command again, it takes the object as it is then"
        ) from error


def pixels_of(rows: pa.Table, sources: Sequence[AnySource], mapped: Callable[[str], str] = str) -> PixelFill:
    """Return a function that reads an instance's native pixels directly from where the index found them.

    ``mapped`` maps a SOPInstanceUID to the UID under which the instance is requested.
    """
    by_uid = {mapped(row["sop_instance_uid"]): row for row in rows.to_pylist()}

    def fill(uid: str, memory: memoryview) -> None:
        row = by_uid[uid]
        if row["pixel_offset"] is None or row["pixel_length"] is None:
            raise CaseError(Reason.UNDECODABLE_PIXELS, "found no Pixel Data, expected uncompressed pixels")
        there = min(row["pixel_length"], row["size"] - row["pixel_offset"])
        if there < len(memory):
            raise CaseError(Reason.UNDECODABLE_PIXELS, f"found {there:,} bytes of pixels, expected {len(memory):,}")
        data = read_object(row, sources, start=row["pixel_offset"], length=len(memory))
        if len(data) != len(memory):
            raise SourceError(
                f"source: found {len(data)} bytes of an object, expected {len(memory)} as its listing said; "
                "nothing was published: run the same command again"
            )
        memory[:] = data

    return fill


def read_headers(rows: Sequence[Row], sources: Sequence[AnySource]) -> list[Dataset]:
    """Read the data sets of instances in order, at least up to the pixels. Raises as ``fetch`` does."""
    return [
        header
        for place, group in groupby(rows, key=lambda row: row["source"])
        for header in _headers(tuple(group), sources[place], sources)
    ]


def _headers(rows: Sequence[Row], source: AnySource, sources: Sequence[AnySource]) -> Iterator[Dataset]:
    if not isinstance(source, Describing):
        yield from (_header(row, sources) for row in rows)
        return
    for description in source.describe([Entry(row["path"], row["size"], row["stamp"], row["member"]) for row in rows]):
        if isinstance(description, CaseError):
            raise description
        yield parse_instance(description.data)


def _header(row: Row, sources: Sequence[AnySource]) -> Dataset:
    """Read what precedes native pixels, or the whole of any other object. Raises CaseError."""
    if row["pixel_offset"] is None:
        return parse_instance(read_object(row, sources))
    data = read_object(row, sources, length=row["pixel_offset"])
    with parsing(Reason.UNREADABLE, "pydicom cannot parse a header"):
        return pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)


def _rows_suffice(rows: Sequence[Row], volumes: VolumeOptions) -> bool:
    """Return whether every image is one native, uncompressed slice with a linear Modality LUT."""
    if volumes.philips == "precise" and any(is_philips_mr(row["modality"], row["manufacturer"]) for row in rows):
        return False
    return all(
        row["pixel_offset"] is not None
        and row["modality_lut"] is None
        and row["bits_allocated"] != 1  # bits are packed, so the bytes are not the values
        and (row["number_of_frames"] or 1) == 1
        and (row["samples_per_pixel"] or 1) == 1
        and kind_of(seen.Row.of(row)) == Kind.SLICE
        # bytes in big endian files may be in swapped pairs, and only the VR of Pixel Data tells
        and not (row["transfer_syntax_uid"] == BIG_ENDIAN and row["bits_allocated"] == 8)
        for row in rows
    )


def _calibration(rows: Sequence[Row], sources: Sequence[AnySource], volumes: VolumeOptions) -> Calibration:
    """Read the calibration from the headers of all slices, because SUV needs sequences that the index does not hold."""
    headers = []
    for row in rows:
        data = read_object(row, sources, length=row["pixel_offset"])
        with parsing(Reason.UNREADABLE, "pydicom cannot parse a header"):
            headers.append(
                pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=list(SUV_TAGS))
            )
    return calibrate(headers, weight_kg=volumes.pet_weight_kg)
