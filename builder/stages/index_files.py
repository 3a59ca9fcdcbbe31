"""Index a file that is not DICOM: an image, a mask, a table or a document by content, or none that is used."""

import hashlib
from typing import Any, Final

from builder.errors import CaseError, Reason
from builder.files import PICTURES, VOLUMES, FileFacts, FileFault, read_facts
from builder.headers.sniff import ARCHIVES, DOCUMENTS, MASKS, TABLES
from builder.protocols import Entry, Source
from builder.sources import layout_in

FILE_LIMIT: Final = 16 * 2**30
"""Most bytes of a mask or table. A larger file is not hashed and therefore not used."""

_USED_FORMATS = MASKS | TABLES | DOCUMENTS
VOXEL_SUFFIXES = (".raw", ".zraw", ".raw.gz", ".img", ".img.gz")
"""Suffixes of the voxel files beside headers of MetaImage, NRRD and NIfTI, whose content does not say what they are."""


def file_row(source: Source, entry: Entry, form: str) -> dict[str, Any]:
    """Return what INSTANCES holds of a file, beside its place."""
    if form in ARCHIVES:
        why = "an archive inside an archive is not opened" if entry.member else _USELESS_ARCHIVE
        return quarantined(form, CaseError(Reason.UNREADABLE, why))
    if form not in _USED_FORMATS and (entry.member or entry.path).lower().endswith(VOXEL_SUFFIXES):
        form = "raw"
    elif form not in _USED_FORMATS:
        why = f"found {REFUSED.get(form, f'{form} content')}, expected DICOM, an image file, a mask or a table"
        return quarantined(form, CaseError(Reason.NOT_DICOM, why))
    if entry.size > FILE_LIMIT:
        why = f"found {entry.size:,} bytes, expected at most {FILE_LIMIT:,}"
        return quarantined(form, CaseError(Reason.TOO_LARGE, why))
    row = {"status": "file", "format": form, "header_sha256": sha256_of(source, entry)} | NO_REFERENCES
    if layout_in(source) is not None and form in VOLUMES | PICTURES:
        row |= _image_facts(source, entry, form)
    return row


def _image_facts(source: Source, entry: Entry, form: str) -> dict[str, Any]:
    """Return what the header of an image file says, or as ``detail`` why it cannot be read."""
    if form in PICTURES and entry.size > PICTURE_LIMIT:
        return {"detail": f"found a picture of {entry.size} bytes, expected at most {PICTURE_LIMIT}"}
    lengths = (entry.size,) if form in PICTURES else (min(n, entry.size) for n in HEADER_LENGTHS)
    fault = None
    for length in lengths:
        try:
            facts = read_facts(source.read(entry, length=length))
        except FileFault as error:
            fault = error
            continue
        if form in VOLUMES and (missing := voxels_missing(facts, entry.size)):
            return {"detail": missing}
        return {"file_facts": facts.to_json()}
    return {"detail": fault.detail if fault is not None else "found an empty file, expected an image"}


def voxels_missing(facts: FileFacts, size: int) -> str:
    """Return that a volume file of ``size`` bytes is too short for its voxels; "" where it may hold them all."""
    there = size - max(0, facts.offset)
    if facts.companion or facts.packing or facts.whole_gzip or there >= facts.stored_bytes:
        return ""
    return f"found {max(0, there)} bytes of voxels, expected {facts.stored_bytes}"


HEADER_LENGTHS = (64 * 2**10, 4 * 2**20)
"""Bytes to read from the start of a volume file. The second is tried if the header does not fit the first."""

PICTURE_LIMIT = 2**30
"""Most bytes of a picture, which is decoded whole to learn whether its colours are grey."""


REFUSED = {
    "empty": "no content (0 bytes)",
    "analyze": "an Analyze 7.5 header, which does not say where left is; convert it to NIfTI",
    "mgh": "a FreeSurfer MGH or MGZ volume; convert it to NIfTI (mri_convert)",
    "afni": "an AFNI header; convert it to NIfTI (3dAFNItoNIFTI)",
    "minc": "a MINC 1 volume; convert it to NIfTI (mnc2nii)",
    "hdf5": "HDF5 content, such as a MINC 2 volume; convert it to NIfTI (mnc2nii)",
    "par": "a Philips PAR header; convert it to NIfTI (dcm2niix)",
    "appledouble": "an AppleDouble file (._*), which macOS leaves beside each file",
    "ds_store": "a .DS_Store of macOS",
}
"""What messages say about formats that are recognised but not read."""

_USELESS_ARCHIVE = "the archive is empty, damaged or over the limits for members, sizes and compression"

NO_REFERENCES: dict[str, Any] = {
    "referenced_series_uids": (),
    "referenced_sop_uids": (),
    "referenced_frame_of_reference_uids": (),
    "label_names": (),
}


def quarantined(form: str, error: CaseError) -> dict[str, Any]:
    """Return what INSTANCES holds of a file that cannot be used, beside its place."""
    return {
        "status": "quarantined",
        "format": form,
        "reason": error.reason.value,
        "detail": error.detail,
    } | NO_REFERENCES


def sha256_of(source: Source, entry: Entry) -> str:
    """Return the SHA-256 of a whole object, read in pieces of 4 MiB if its size is known."""
    if entry.size == 0:
        return hashlib.sha256(source.read(entry)).hexdigest()
    digest = hashlib.sha256()
    for start in range(0, entry.size, _PIECE):
        piece = source.read(entry, start=start, length=min(_PIECE, entry.size - start))
        digest.update(piece)
        if len(piece) < min(_PIECE, entry.size - start):
            raise CaseError(Reason.SOURCE_CHANGED, "the file is shorter than its listing said")
    return digest.hexdigest()


_PIECE = 4 * 2**20
