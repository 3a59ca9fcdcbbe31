"""Recognising the format of a file from its first bytes, never from its name."""

import re
import zlib

HEAD_BYTES = 1024
"""Number of bytes from the start of a file that ``sniff`` needs."""

TABLES = frozenset({"csv", "tsv", "xlsx", "parquet", "sqlite"})
MASKS = frozenset({"nifti", "nrrd", "mha", "mhd", "png", "jpeg", "tiff"})
DOCUMENTS = frozenset({"xml", "json", "text"})
ARCHIVES = frozenset({"zip", "tar", "gzipped_dicom", "bzip2", "xz"})

_MAGIC = (
    (0, b"NRRD000", "nrrd"),
    (0, b"PAR1", "parquet"),
    (0, b"SQLite format 3\0", "sqlite"),
    (0, b"%PDF-", "pdf"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),  # BigTIFF
    (0, b"MM\0+", "tiff"),
    (0, b"CDF\1", "minc"),
    (0, b"CDF\2", "minc"),
    (0, b"# === DATA DESCRIPTION FILE", "par"),
    (0, b"\0\5\x16\7", "appledouble"),
    (0, b"\0\0\0\1Bud1", "ds_store"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ", "program"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (257, b"ustar", "tar"),
)
_META_IMAGE = re.compile(rb"\A\s*(ObjectType|NDims|Comment)\s*=", re.IGNORECASE)
_AFNI = re.compile(rb"\A\s*type\s*=\s*(string|integer|float)-attribute\s")
_LOCAL_DATA = re.compile(rb"^ElementDataFile\s*=\s*LOCAL", re.IGNORECASE | re.MULTILINE)
_VALUE_TYPES = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_FIRST_GROUPS = frozenset({0x0002, 0x0008})


def sniff(head: bytes) -> str:
    """Return the name of a file's format, given ``head``, its first ``HEAD_BYTES`` bytes.

    Returns
    -------
    str
        ``dicom`` (PS3.10, or a data set without preamble), ``nifti``, ``nrrd``, ``mha``, ``mhd``, ``analyze``, ``xml``,
        ``json``, ``csv``, ``tsv``, ``text``, ``xlsx``, ``parquet``, ``sqlite``, ``zip``, ``tar``, ``gzip``, the names
        of other well-known formats, ``empty``, or ``unknown``. A gzipped NIfTI is ``nifti``, a gzipped tar is ``tar``
        and a gzipped DICOM file is ``gzipped_dicom``. The contents of ``bzip2`` and ``xz`` files are not looked at.
    """
    if not head:
        return "empty"
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_kind(head)
    if head[:2] == b"\x1f\x8b":
        return _gzip_kind(head)
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    return _volume_kind(head) or _bare_dicom(head) or _text_kind(head) or "unknown"


def _zip_kind(head: bytes) -> str:
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if first in (b"[Content_Types].xml", b"_rels/.rels") or first.startswith((b"xl/", b"docProps/")):
        return "xlsx"
    return "npz" if first.endswith(b".npy") else "zip"


def _gzip_kind(head: bytes) -> str:
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return "gzip"
    if inner[257:262] == b"ustar":
        return "tar"
    if inner[128:132] == b"DICM":
        return "gzipped_dicom"
    kind = _volume_kind(inner)
    return kind if kind in ("nifti", "mgh") else "gzip"


def _volume_kind(head: bytes) -> str | None:
    """Recognise NIfTI-1, NIfTI-2 and Analyze by ``sizeof_hdr`` and magic, and MetaImage by its first key."""
    size = {head[:4], head[3::-1]}
    if (348).to_bytes(4, "little") in size and len(head) >= 348:
        return "nifti" if head[344:348] in (b"n+1\0", b"ni1\0") else "analyze"
    if (540).to_bytes(4, "little") in size and head[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if _AFNI.match(head):
        return "afni"
    if _is_mgh(head):
        return "mgh"
    if _META_IMAGE.match(head):
        return "mha" if _LOCAL_DATA.search(head) else "mhd"
    return None


def _is_mgh(head: bytes) -> bool:
    """Recognise FreeSurfer's MGH by its version, four sizes and type, all big endian."""
    if len(head) < 28 or head[:4] != b"\0\0\0\1":
        return False
    *sizes, kind = (int.from_bytes(head[at : at + 4], "big") for at in range(4, 24, 4))
    return kind in (0, 1, 3, 4) and all(0 < size < 2**16 for size in sizes)


def _bare_dicom(head: bytes) -> str | None:
    """Recognise a data set without preamble.

    Its first element belongs to group 0002 or 0008, and has a known VR or a small length.
    """
    if len(head) < 8:
        return None
    for order in ("little", "big"):
        group = int.from_bytes(head[:2], "little" if order == "little" else "big")
        if group not in _FIRST_GROUPS:
            continue
        if head[4:6] in _VALUE_TYPES:
            return "dicom"
        element = int.from_bytes(head[2:4], "little")
        length = int.from_bytes(head[4:8], "little")
        if order == "little" and element < 0x3010 and length <= 256 and length % 2 == 0:
            return "dicom"
    return None


def _text_kind(head: bytes) -> str | None:
    text = _text(head)
    if text is None:
        return None
    start = text.lstrip()
    if start.startswith("<"):
        return "html" if re.match(r"(?i)<!doctype html|<html", start) else "xml"
    if re.match(r'[{\[]\s*(["{\[\]}]|-?\d|true|false|null|\Z)', start):
        return "json"
    lines = [line for line in text.splitlines()[:8] if line.strip()]
    if len(text) >= HEAD_BYTES - 4 and len(lines) > 1:
        lines = lines[:-1]  # the last line may be cut off
    for separator, name in (("\t", "tsv"), (",", "csv"), (";", "csv")):
        if lines and all(separator in line for line in lines[:2]):
            return name
    return "text"


def _text(head: bytes) -> str | None:
    """Decode ``head`` if it is UTF-8, UTF-16 with a byte order mark, or a single-byte encoding; else return None."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[: len(head) & ~1].decode("utf-16", errors="replace")
    if any(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head):
        return None
    return head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
