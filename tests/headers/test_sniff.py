"""Formats told by content: every file of the corpus against what its name and other libraries say."""

import gzip
import io
import tarfile
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.headers.sniff import HEAD_BYTES, sniff

BY_SUFFIX = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "nrrd",
    ".png": "png",
    ".jpg": "jpeg",
    ".json": "json",
    ".xml": "xml",
    ".xlsx": "xlsx",
    ".sqlite": "sqlite",
    ".dcm": "dicom",
}


@pytest.mark.parametrize("archive", ["sts", "geometry", "segmentation", "odd", "tables"])
def test_corpus_files_are_what_they_are_named(corpus: Any, archive: str) -> None:
    odd = []
    for path in sorted(corpus(archive).rglob("*")):
        suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
        if path.is_file() and suffix in BY_SUFFIX:
            with path.open("rb") as stream:
                form = sniff(stream.read(HEAD_BYTES))
            if form != BY_SUFFIX[suffix]:
                odd.append((path.name, form))
    # fuzzed files whose preamble or magic was moved on purpose
    assert odd == ([(name, "unknown") for name in _MOVED] if archive == "odd" else [])


_MOVED = ("TC0381_preamble_127.dcm", "TC0385_dicm_offset0.dcm", "TC0387_dicm_offset64.dcm")


def archive_bytes(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as made:
            made.writestr("a.dcm", b"x")
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tar.gz" else "w") as made_tar:
            made_tar.addfile(tarfile.TarInfo("a.dcm"))
    return stream.getvalue()


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), stream)
    return stream.getvalue()


def npz_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"", "empty"),
        (archive_bytes("zip"), "zip"),
        (archive_bytes("tar"), "tar"),
        (archive_bytes("tar.gz"), "tar"),
        (gzip.compress(b"hello", mtime=0), "gzip"),
        (gzip.compress(bytes(128) + b"DICM" + bytes(500), mtime=0), "gzipped_dicom"),
        (parquet_bytes(), "parquet"),
        (npz_bytes(), "npz"),
        (b"id,age\n1,2\n", "csv"),
        ("id\tage\n1\t2\n".encode("utf-16"), "tsv"),
        (b'{"a": 1}', "json"),
        (b"[1, 2]", "json"),
        (b"<?xml version='1.0'?><a/>", "xml"),
        (b"<!DOCTYPE html><html>", "html"),
        (b"Dear reader.\n", "text"),
        (b"ObjectType = Image\nNDims = 3\nElementDataFile = LOCAL\n", "mha"),
        (b"ObjectType = Image\nNDims = 3\nElementDataFile = a.raw\n", "mhd"),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", "dicom"),
        (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100", "dicom"),
        (bytes(range(256)), "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_made_files(data: bytes, form: str) -> None:
    assert sniff(data[:HEAD_BYTES]) == form
