"""Scan a body: make grids, noise, stored numbers, and the files of a series."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.phantom.bodies import Body, paint
from builder.phantom.headers import (
    FLUORINE_18_HALF_LIFE_S,
    Scanner,
    Series,
    Stored,
    Subject,
    Visit,
    image_header,
    place_image,
)
from builder.phantom.vendors import EXPLICIT, Vendor

COMPRESSED = {"RLE": "1.2.840.10008.1.2.5", "JPEG-LS": "1.2.840.10008.1.2.4.80"}


@dataclass(frozen=True)
class Size:
    """(slices, rows = columns) of each kind of image, and CT's slice spacing relative to the vendor's habit."""

    ct: tuple[int, int]
    pet: tuple[int, int]
    mr: tuple[int, int]
    thin: float


SIZES = {
    "small": Size((40, 96), (40, 64), (24, 72), 1.0),
    "realistic": Size((150, 512), (130, 168), (40, 320), 0.5),
}


@dataclass(frozen=True)
class Item:
    """A file to write: its path in the archive, bytes, kind, and the series it belongs to ("" for none)."""

    path: str
    data: bytes
    kind: str
    series_uid: str = ""


@dataclass(frozen=True, eq=False)
class Scan:
    """A series with its stored pixels (slice, row, column), ready to be written."""

    visit: Visit
    subject: Subject
    scanner: Scanner
    series: Series
    geometry: Geometry
    stored: Stored
    pixels: NDArray[Any]
    slopes: tuple[float, ...] = ()
    head_first: bool = False
    missing: tuple[int, ...] = ()
    kind: str = "image"
    geometries: tuple[Geometry, ...] = ()

    def grid(self, index: int) -> Geometry:
        """Return the grid of slice ``index``; a localizer has a separate grid per slice."""
        return self.geometries[index] if self.geometries else self.geometry


@dataclass(frozen=True)
class Desk:
    """What every writing function needs: the key of all UIDs, the file naming, and what to plant in headers."""

    key: Key
    folder: str
    file_name: str
    transfer_syntax: str
    compression: str
    plant: Callable[[Dataset], None]
    prefix: str = ""

    def path(self, date: str, *, series: int, number: int, modality: str, uid: str) -> str:
        """Return the path of one file below the archive's root."""
        name = self.file_name.format(date=date, series=series, number=number, modality=modality, uid=uid)
        path = PurePosixPath(self.folder) / name
        return str(path.with_name(self.prefix + path.name))

    def image_uid(self, series_uid: str, index: int) -> str:
        """Return the SOPInstanceUID of slice ``index`` of a series."""
        return self.key.uid(f"image/{series_uid}/{index}")


def axial_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_mm: tuple[float, float, float],
    frame: str,
) -> Geometry:
    """Return a grid around a centre (LPS mm): slices from feet to head, rows front to back, columns right to left."""
    return oblique_grid(shape, spacing_mm, centre_mm, frame, tilts_degrees=(0.0, 0.0))


def oblique_grid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_mm: tuple[float, float, float],
    frame: str,
    *,
    tilts_degrees: tuple[float, float],
) -> Geometry:
    """Return an axial grid turned about the left-right axis, then about the body axis."""
    pitch, yaw = np.deg2rad(tilts_degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    axes = about_z @ about_x @ np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing_mm)
    # Rounded as the header rounds them, so that the truth and the file speak of one grid to the last digit
    corner = np.asarray(centre_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    affine[:3, 3] = np.round(corner, 4)
    return Geometry(shape, affine, frame)


def coronal_grid(
    shape: tuple[int, int, int], pixel_mm: float, centre_mm: tuple[float, float, float], frame: str
) -> Geometry:
    """Return a grid with slices from front to back and rows from head to feet."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]) * pixel_mm
    affine[:3, 3] = np.asarray(centre_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine, frame)


def sagittal_grid(
    shape: tuple[int, int, int], pixel_mm: float, centre_mm: tuple[float, float, float], frame: str
) -> Geometry:
    """Return a grid with slices from left to right and rows from head to feet."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]) * pixel_mm
    affine[:3, 3] = np.asarray(centre_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Geometry(shape, affine, frame)


def scan_ct(body: Body, vendor: Vendor, rng: np.random.Generator, *, blank: Scan) -> Scan:
    """Return ``blank`` with pixels in the vendor's stored numbers, Gaussian noise in HU."""
    image = paint(body, blank.geometry, "CT")
    low, high = _limits(vendor.ct)
    pixels = np.empty(image.shape, dtype=np.int16)
    for plane, clean in zip(pixels, image, strict=True):  # slice by slice, or realistic sizes need several copies
        noisy = clean + rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(vendor.noise_hu)
        plane[:] = np.clip(np.rint(noisy - np.float32(vendor.ct.intercept)), low, high)
    if vendor.ct.padding is not None:
        pixels[:, _outside_circle(blank.geometry.shape[1:])] = vendor.ct.padding
    return replace(blank, pixels=pixels, stored=vendor.ct)


def scan_mr(body: Body, rng: np.random.Generator, *, blank: Scan) -> Scan:
    """Return ``blank`` with Rician noise and the slow shading of a surface coil, 12 bits, no rescale."""
    image = paint(body, blank.geometry, "MR")
    image *= np.linspace(1.15, 0.85, image.shape[1], dtype=np.float32)[None, :, None]
    real = image + 9.0 * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = 9.0 * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = np.clip(np.rint(np.hypot(real, imaginary)), 0, 4095).astype(np.int16)
    return replace(blank, pixels=pixels, stored=Stored(12, signed=False))


def scan_pet(body: Body, rng: np.random.Generator, *, blank: Scan) -> Scan:
    """Return ``blank`` with activity in Bq/ml, each slice scaled by a slope of its own, as PET headers do."""
    image = paint(body, blank.geometry, "PT")
    image += 0.12 * np.sqrt(image) * rng.standard_normal(image.shape, dtype=np.float32)
    left = blank.series.activity_bq * 2.0 ** (-blank.series.uptake_s / FLUORINE_18_HALF_LIFE_S)
    activity = np.maximum(image, 0).astype(np.float64) * (left / (blank.subject.weight_kg * 1000.0))
    slopes = tuple(float(f"{max(peak, 1.0) / 32767:.9g}") for peak in activity.max(axis=(1, 2)))
    pixels = np.rint(activity / np.asarray(slopes)[:, None, None]).clip(0, 32767).astype(np.int16)
    return replace(blank, pixels=pixels, slopes=slopes, stored=Stored(16, signed=True))


def scan_localizer(body: Body, geometries: tuple[Geometry, ...], *, blank: Scan) -> Scan:
    """Return ``blank`` with one noise-free slice a grid, each of an orientation of its own."""
    planes = [paint(body, grid, blank.series.modality)[0] for grid in geometries]
    stored = Stored(12, signed=False, intercept=0.0 if blank.series.modality == "MR" else -1024.0)
    pixels = np.clip(np.rint(np.stack(planes) - np.float32(stored.intercept)), 0, 4095).astype(np.int16)
    return replace(blank, pixels=pixels, stored=stored, geometries=geometries, kind="localizer")


def scan_files(scan: Scan, desk: Desk) -> Iterator[Item]:
    """Yield the files of a series in slice order, except those that the scan lists as missing."""
    for index, image in _images(scan, desk):
        uid = desk.image_uid(scan.series.uid, index)
        _encode(image, desk)
        path = desk.path(
            scan.visit.date,
            series=scan.series.number,
            number=int(image.InstanceNumber),
            modality=scan.series.modality,
            uid=uid,
        )
        kind = f"{scan.series.modality} {scan.kind}"
        yield Item(path, file_bytes(image), kind, scan.series.uid)


def scan_headers(scan: Scan, desk: Desk) -> list[Dataset]:
    """Return the images of a series in slice order without pixels, as the source of a label object."""
    headers = []
    for _, image in _images(scan, desk):
        del image.PixelData
        header = Dataset(dict(image.items()))
        header.file_meta = image.file_meta
        headers.append(header)
    return headers


def file_bytes(dataset: Dataset) -> bytes:
    """Encode the dataset as a DICOM file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _images(scan: Scan, desk: Desk) -> Iterator[tuple[int, Dataset]]:
    """Yield (slice index, dataset). One dataset changes from slice to slice, because a new header is slow to make."""
    count = scan.pixels.shape[0]
    header: Dataset | None = None
    for index in range(count):
        if index in scan.missing:
            continue
        if header is None or scan.geometries:
            header = image_header(
                scan.visit,
                scan.subject,
                scanner=scan.scanner,
                series=scan.series,
                geometry=scan.grid(index),
                stored=scan.stored,
            )
            desk.plant(header)
            header = _as_read(header)
        header.file_meta.TransferSyntaxUID = EXPLICIT
        place_image(
            header,
            desk.image_uid(scan.series.uid, index),
            index=0 if scan.geometries else index,
            number=count - index if scan.head_first else index + 1,
            geometry=scan.grid(index),
            pixels=scan.pixels[index],
        )
        if scan.slopes:
            header.add_new(0x00281053, "DS", f"{scan.slopes[index]:.9g}")
        yield index, header


def _as_read(header: Dataset) -> Dataset:
    """Return the header as if read from a file, with encoded elements, so that writing a slice copies their bytes."""
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "2.25.1"
    return dcmread(BytesIO(file_bytes(header)))


def _encode(image: Dataset, desk: Desk) -> None:
    if desk.compression:
        image.compress(COMPRESSED[desk.compression], generate_instance_uid=False)
    else:
        image.file_meta.TransferSyntaxUID = desk.transfer_syntax


def _limits(stored: Stored) -> tuple[int, int]:
    if stored.signed:
        return -(1 << (stored.bits_stored - 1)), (1 << (stored.bits_stored - 1)) - 1
    return 0, (1 << stored.bits_stored) - 1


def _outside_circle(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    centre_r, centre_c = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    return np.asarray((rows - centre_r) ** 2 + (columns - centre_c) ** 2 > (min(shape) / 2) ** 2)
