"""Files that are small and ask for endless work: each parser says why it stops, within 5 s of processor time."""

import gzip
import io
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from builder.clinical.reading import read_table
from builder.clinical.sheet import read_sheet
from builder.clinical.table import ClinicalTable
from builder.deid.headers import deidentify
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.errors import BuilderError
from builder.files.facts import FileFault
from builder.files.formats import read_facts, read_voxels
from builder.headers.attributes import read_header
from builder.imaging.parse import parse_instance
from builder.labels.aim import parse_aim
from builder.labels.report import report_text
from builder.model.keyed import Key
from builder.model.patterns import check_pattern
from builder.sources.layout import Layout
from builder.specfile import parse_spec

LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "haha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12))
    + b"]><x>&m;</x>"
)
COLUMNS = {"grade": {"from": "Grade", "type": "text"}}
TABLE = ClinicalTable.model_validate({"url": "x", "person_id": "Patient", "columns": COLUMNS})


def table(data: bytes) -> object:
    return read_table(data, TABLE)


def workbook(changes: dict[str, bytes], *, lie: bool = False) -> bytes:
    """A workbook with some of its parts replaced; ``lie`` states a size of one byte for them."""
    book = openpyxl.Workbook()
    book.active.append(["Patient", "Grade"])
    before, after = io.BytesIO(), io.BytesIO()
    book.save(before)
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name, old.read(name)))
    data = after.getvalue()
    if lie:
        large = struct.pack("<I", max(map(len, changes.values())))
        data = data.replace(large, struct.pack("<I", 1))
    return data


ALIASES = b"a: &a [x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(20)
)
SHEET = "xl/worksheets/sheet1.xml"
DISORDER = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    b'<row r="1"/><row r="1001"/><row r="2"/></sheetData></worksheet>'
)
FAR = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    + b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (n, n) for n in range(1, 20_000))
    + b"</sheetData></worksheet>"
)
MERGED = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData/><mergeCells>'
    + b'<mergeCell ref="A1:XFD1048576"/>' * 300_000
    + b"</mergeCells></worksheet>"
)
STRAY_CELL = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    b'<row r="1"><c r="A1" t="inlineStr"><is><t>Patient</t></is></c>'
    b'<c r="B1" t="inlineStr"><is><t>Grade</t></is></c></row>'
    b'<row r="2"><c r="A2" t="inlineStr"><is><t>P1</t></is></c><c r="B2" t="inlineStr"><is><t>high</t></is></c></row>'
    b'<row r="5000"><c r="XFD5000"><v>1</v></c></row></sheetData></worksheet>'
)
ZEROS = bytes(1 << 28)
ITEM, ITEM_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0" + bytes(4)
EMPTY = b"\x06\x30\x84\x00IS\0\0"


def repeated(text: str, rows: int) -> bytes:
    """A Parquet table of one text in every cell, which its dictionary holds once."""
    column = pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()).fill_null(0), pa.array([text]))
    out = io.BytesIO()
    pq.write_table(pa.table({"Patient": column, "Grade": column}), out)
    return out.getvalue()


def nested(levels: int) -> bytes:
    """Items in items, written by hand: a library that writes them recursively would fail before the reader does."""
    body = b""
    for _ in range(levels):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body
        body = b"\x08\x00\x40\x11SQ\0\0" + struct.pack("<I", len(item)) + item
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3"
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue() + body


def empty_items(item: bytes, *, defined: bool = True, spread: int = 1) -> bytes:
    """399,000 items without a value in the sequences of a structure set, fewer than the limit on all items."""
    body = item * (399_000 // spread)
    length, end = (struct.pack("<I", len(body)), b"") if defined else (b"\xff" * 4, b"\xfe\xff\xdd\xe0" + bytes(4))
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = RTStructureSetStorage, "1.2.3", "RTSTRUCT"
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue() + b"".join(
        struct.pack("<HH", 0x3006, tag) + b"SQ\0\0" + length + body + end for tag in range(0x20, 0x20 + spread)
    )


def header(data: bytes) -> object:
    return read_header(lambda start, length: data[start : start + length], len(data))


def nifti_of(body: bytes) -> bytes:
    """A gzipped NIfTI header of a small image, and a body that inflates to far more."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 4, 4, 4, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + body, 1)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, more: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def walked(data: bytes) -> object:
    return deidentify(parse_instance(data), profile=Profile(), uids=UidMap(Key(bytes(range(32)))), person="p")


BOMBS: dict[str, tuple[Callable[[Any], object], Any]] = {
    "xlsx_inflates": (table, workbook({SHEET: ZEROS})),
    "xlsx_lies_about_its_size": (table, workbook({SHEET: ZEROS}, lie=True)),
    "xlsx_has_entities": (table, workbook({SHEET: LAUGHS})),
    "xlsx_has_entities_in_strings": (table, workbook({"xl/workbook.xml": LAUGHS})),
    "xlsx_has_cells_far_to_the_right": (table, workbook({SHEET: FAR})),
    "xlsx_merges_everything_often": (table, workbook({SHEET: MERGED})),
    "csv_has_one_huge_cell": (table, b'Patient,Grade\nA,"' + b"x" * (1 << 26) + b'"\n'),
    "csv_never_closes_a_quote": (table, b'Patient,Grade\nA,"' + b"x,\n" * (1 << 21)),
    "csv_is_all_line_ends": (table, b"Patient,Grade\nP1,high\n" + b"\n" * (1 << 22)),
    "csv_is_all_separators": (table, b"," * (1 << 22)),
    "csv_is_gzipped": (table, gzip.compress(ZEROS, 1)),
    "parquet_repeats_a_text": (table, repeated("x" * 2000, 300_000)),
    "parquet_repeats_a_row": (table, repeated("x", 2_000_000)),
    "parquet_is_cut": (table, b"PAR1" + b"\xff" * 4096 + struct.pack("<I", 4000) + b"PAR1"),
    "aim_has_entities": (parse_aim, LAUGHS),
    "aim_has_an_external_entity": (parse_aim, b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'),
    "aim_has_wide_text": (parse_aim, LAUGHS.decode().encode("utf-16")),
    "aim_is_nested": (parse_aim, b"<ImageAnnotation>" * 100_000),
    "aim_has_many_attributes": (parse_aim, b"<x " + b" ".join(b'a%d=""' % n for n in range(1 << 18)) + b"/>"),
    "report_has_no_text": (report_text, b"<" * (1 << 20)),
    "yaml_has_aliases": (parse_spec, ALIASES),
    "yaml_is_deep": (parse_spec, b"[" * 100_000),
    "yaml_merges": (parse_spec, b"a: &a {b: 1}\nc: {<<: *a}\n"),
    "yaml_has_a_long_number": (parse_spec, b"name: " + b"9" * 1_000_000),
    "yaml_has_a_tag": (parse_spec, b"name: !!python/object/apply:os.system ['true']\n"),
    "dicom_is_deep": (walked, nested(2000)),
    **{
        f"{way}_of_{name}": (read, data)
        for name, data in {
            "empty_items": empty_items(ITEM + bytes(4)),
            "empty_items_without_length": empty_items(ITEM + b"\xff" * 4 + ITEM_END),
            "items_with_an_empty_element": empty_items(ITEM + b"\x08\0\0\0" + EMPTY),
            "items_without_length_with_an_empty_element": empty_items(ITEM + b"\xff" * 4 + EMPTY + ITEM_END),
            "empty_items_in_ten_sequences": empty_items(ITEM + bytes(4), spread=10),
            "empty_items_in_a_sequence_without_length": empty_items(ITEM + bytes(4), defined=False),
        }.items()
        for way, read in (("header", header), ("walk", walked))
    },
    "nifti_inflates": (lambda data: read_voxels([data]), nifti_of(bytes(128) + ZEROS)),
    "png_states_a_huge_shape": (read_facts, png(1 << 30, 1 << 30)),
    "png_has_a_huge_text": (
        lambda data: read_voxels([data]), png(1 << 16, 1 << 16, chunk(b"zTXt", b"a\0\0" + zlib.compress(ZEROS))),
    ),
    "expression_repeats": (check_pattern, "((((a{100}){100}){100}){100})"),
    "expression_is_long": (check_pattern, "(a|b)" * 10_000),
    "expression_looks_back": (check_pattern, r"(a+)+\1"),
    "layout_looks_ahead": (lambda p: Layout(kind="pattern", pattern=p), "{patient:(?=a)a}"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_it_ends_with_a_reason(bomb: str) -> None:
    read, data = BOMBS[bomb]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises((BuilderError, FileFault, ValueError)) as caught:
        read(data)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_rows_in_no_order_are_refused() -> None:
    with pytest.raises(BuilderError, match="found row 2 after row 1001"):
        read_sheet(workbook({SHEET: DISORDER}))


def test_rows_without_cells_above_a_stray_one_cost_little() -> None:
    """A cell that was formatted by mistake may stand in row 1,048,576."""
    assert [line.number for line in read_sheet(workbook({SHEET: STRAY_CELL})).rows] == [2, 5000]


@pytest.mark.parametrize("read", [header, walked])
def test_as_many_empty_items_as_real_objects_have_are_read(read: Callable[[bytes], object]) -> None:
    data = empty_items(ITEM + bytes(4))
    start = data.index(ITEM)
    few = data[: start - 4] + struct.pack("<I", 8 * 1000) + data[start : start + 8 * 1000]
    assert read(few) is not None
