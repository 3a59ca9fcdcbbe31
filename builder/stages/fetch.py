"""Read a case's objects from their sources: whole if they must be parsed, otherwise only what the index lacks."""

import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pydicom
from pydicom.dataset import Dataset

from builder.decode.format import BIG_ENDIAN
from builder.errors import CaseError, Reason, SourceError
from builder.headers.boundary import parsing
from builder.imaging.filed import is_filed
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.values import PixelFill
from builder.imaging.quantities.philips import is_philips_mr
from builder.imaging.quantities.suv import SUV_TAGS, Calibration, calibrate
from builder.imaging.rows import dataset_of, rows_of
from builder.imaging.stacks.kinds import Kind, kind_of
from builder.imaging.stacks.options import VolumeOptions
from builder.plan import is_image_role
from builder.protocols import Describing, LabelObject
from builder.sources import AnySource
from builder.stages.listed import Listed, read_object


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
    of_image = [is_image_role(role) for role in rows.column("role").to_pylist()]
    images = rows.filter(pa.array(of_image))
    labels = _read_labels(rows.filter(pa.array([not image for image in of_image])), sources)
    listed = listed_in(images)
    (lead,) = images.slice(0, 1).to_pylist()
    if is_filed(lead["format"]):
        files = tuple(read_object(one, sources) for one in listed)
        return Objects(images, (), dataset_of(lead), labels, files=files)
    first = parse_instance(read_object(listed[0], sources))
    if _rows_suffice(images, volumes):
        calibration = _calibration(listed, sources, volumes) if lead["modality"] == "PT" else None
        return Objects(images, (), first, labels, calibration)
    rest = tuple(parse_instance(read_object(one, sources)) for one in listed[1:])
    return Objects(images, (first, *rest), first, labels)


def listed_in(rows: pa.Table) -> list[Listed]:
    """Return where the objects of some rows of INSTANCES lie."""
    return [Listed.of(row) for row in rows.select(list(Listed._fields)).to_pylist()]


def _read_labels(rows: pa.Table, sources: Sequence[AnySource]) -> Mapping[str, Sequence[LabelObject]]:
    """Read the objects of labels, by the name of the label."""
    labels: dict[str, list[LabelObject]] = {}
    for role, listed in zip(rows.column("role").to_pylist(), listed_in(rows), strict=True):
        data = read_object(listed, sources)
        content = parse_instance(data) if listed.format == "dicom" else data
        labels.setdefault(role, []).append(LabelObject(content, posixpath.basename(listed.member or listed.path)))
    return labels


def pixels_of(rows: pa.Table, sources: Sequence[AnySource], mapped: Callable[[str], str] = str) -> PixelFill:
    """Return a function that reads an instance's native pixels directly from where the index found them.

    ``mapped`` maps a SOPInstanceUID to the UID under which the instance is requested.
    """
    uids = map(mapped, rows.column("sop_instance_uid").to_pylist())
    by_uid = dict(zip(uids, listed_in(rows), strict=True))

    def fill(uid: str, memory: memoryview) -> None:
        listed = by_uid[uid]
        if listed.pixel_offset is None or listed.pixel_length is None:
            raise CaseError(Reason.UNDECODABLE_PIXELS, "found no Pixel Data, expected uncompressed pixels")
        there = min(listed.pixel_length, listed.size - listed.pixel_offset)
        if there < len(memory):
            raise CaseError(Reason.UNDECODABLE_PIXELS, f"found {there:,} bytes of pixels, expected {len(memory):,}")
        data = read_object(listed, sources, start=listed.pixel_offset, length=len(memory))
        if len(data) != len(memory):
            raise SourceError(
                f"source: found {len(data)} bytes of an object, expected {len(memory)} as its listing said; "
                "nothing was published: run the same command again"
            )
        memory[:] = data

    return fill


def read_headers(rows: pa.Table, sources: Sequence[AnySource]) -> list[Dataset]:
    """Read the data sets of instances in order, at least up to the pixels. Raises as ``fetch`` does."""
    return [
        header
        for place, group in groupby(listed_in(rows), key=lambda listed: listed.source)
        for header in _headers(tuple(group), sources[place], sources)
    ]


def _headers(listed: Sequence[Listed], source: AnySource, sources: Sequence[AnySource]) -> Iterator[Dataset]:
    if not isinstance(source, Describing):
        yield from (_header(one, sources) for one in listed)
        return
    for description in source.describe([one.entry for one in listed]):
        if isinstance(description, CaseError):
            raise description
        yield parse_instance(description.data)


def _header(listed: Listed, sources: Sequence[AnySource]) -> Dataset:
    """Read what precedes native pixels, or the whole of any other object. Raises CaseError."""
    if listed.pixel_offset is None:
        return parse_instance(read_object(listed, sources))
    data = read_object(listed, sources, length=listed.pixel_offset)
    with parsing(Reason.UNREADABLE, "pydicom cannot parse a header"):
        return pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)


def _rows_suffice(images: pa.Table, volumes: VolumeOptions) -> bool:
    """Return whether every image is one native, uncompressed slice with a linear Modality LUT."""
    rows = rows_of(images)
    if volumes.philips == "precise" and any(is_philips_mr(row.modality, row.manufacturer) for row in rows):
        return False
    if images.column("pixel_offset").null_count or images.column("modality_lut").null_count < images.num_rows:
        return False
    return all(
        row.bits_allocated != 1  # bits are packed, so the bytes are not the values
        and (row.number_of_frames or 1) == 1
        and (row.samples_per_pixel or 1) == 1
        and kind_of(row) == Kind.SLICE
        # bytes in big endian files may be in swapped pairs, and only the VR of Pixel Data tells
        and not (row.transfer_syntax_uid == BIG_ENDIAN and row.bits_allocated == 8)
        for row in rows
    )


def _calibration(listed: Sequence[Listed], sources: Sequence[AnySource], volumes: VolumeOptions) -> Calibration:
    """Read the calibration from the headers of all slices, because SUV needs sequences that the index does not hold."""
    headers = []
    for one in listed:
        data = read_object(one, sources, length=one.pixel_offset)
        with parsing(Reason.UNREADABLE, "pydicom cannot parse a header"):
            headers.append(
                pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=list(SUV_TAGS))
            )
    return calibrate(headers, weight_kg=volumes.pet_weight_kg)
