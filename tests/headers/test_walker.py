"""The fast path agrees with pydicom, on every header of the corpus and on synthetic ones."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from builder.headers.attributes import read_header
from builder.headers.values import PRIVATE_VRS
from builder.headers.walker import walk
from builder.model.tables import HEADER_COLUMNS, REAL, REALS, TEXT

ARCHIVES = ["sts", "geometry", "segmentation", "odd"]
EACH = {"sts": 5}
"""Of long series of like headers every so many files are compared."""


def preambled(folder: Path, each: int = 1) -> dict[Path, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())[::each]
    files = {path: path.read_bytes() for path in paths}
    return {path: data for path, data in files.items() if data[128:132] == b"DICM"}


def rows(walked: Any) -> list[dict[str, Any]]:
    columns = {name: array.to_pylist() for name, array in walked.columns.items()}
    return [
        {name: values[row] for name, values in columns.items() if values[row] is not None}
        for row in range(len(walked.done))
    ]


def slow(data: bytes) -> dict[str, Any]:
    header = read_header(lambda start, length: data[start : start + length], len(data))
    assert not header.notes
    assert not header.references.sop_uids
    facts = {
        "transfer_syntax_uid": header.transfer_syntax_uid,
        "header_sha256": header.sha256,
        "pixel_offset": header.pixel_offset,
        "pixel_length": header.pixel_length,
    }
    return {**header.values, **{name: fact for name, fact in facts.items() if fact is not None}}


def cooked(data: bytes) -> dict[str, Any]:
    """Every header column by pydicom's own conversions, and the place of the pixels by its own reading of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        values: dict[str, Any] = {"transfer_syntax_uid": str(dataset.file_meta.TransferSyntaxUID)}
        for column in HEADER_COLUMNS:
            if column.tag in PRIVATE_VRS:  # of unknown VR to pydicom in implicit files
                continue
            value = dataset[column.tag].value if column.tag in dataset else None
            if value is None or value == "" or (isinstance(value, MultiValue) and not len(value)):
                continue
            many = list(value) if isinstance(value, MultiValue) else [value]
            if column.type == TEXT:
                values[column.name] = "\\".join(str(v) for v in many).strip(" \0")
            elif column.type == REALS:
                values[column.name] = [float(v) for v in many]
            else:
                values[column.name] = float(many[0]) if column.type == REAL else int(many[0])
        native = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
        if "PixelData" in dataset and native:
            values["pixel_length"] = len(dataset.PixelData)
            values["pixels"] = hashlib.sha256(dataset.PixelData).hexdigest()
    return values


def patient_name(data: bytes) -> str:
    """As pydicom decodes it; what identifies persons besides is read the same way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        return str(dataset.get("PatientName") or "")


PRIVATE = {column.name for column in HEADER_COLUMNS if column.tag in PRIVATE_VRS}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_both_paths_agree_on_headers_of_the_corpus(corpus: Any, archive: str) -> None:
    files = preambled(corpus(archive), EACH.get(archive, 1))
    paths = list(files)
    walked = walk([files[path][: 2**21] for path in paths], [len(files[path]) for path in paths])
    assert len(walked.done) > 0.5 * len(paths)
    for place, row in zip(walked.done.tolist(), rows(walked), strict=True):
        assert row == slow(files[paths[place]]), paths[place]


@pytest.mark.parametrize("archive", ["geometry", "odd"])
def test_columns_equal_pydicoms_own_values(corpus: Any, archive: str) -> None:
    files = preambled(corpus(archive))
    paths = list(files)[::3]
    walked = walk([files[path][: 2**21] for path in paths], [len(files[path]) for path in paths])
    for place, row in zip(walked.done.tolist(), rows(walked), strict=True):
        data = files[paths[place]]
        expected = cooked(data)
        pixels = expected.pop("pixels", None)
        if pixels:
            start = row["pixel_offset"]
            assert hashlib.sha256(data[start : start + row["pixel_length"]]).hexdigest() == pixels
        row.pop("header_sha256")
        row.pop("pixel_offset", None)
        known, name = row.pop("identity", ""), patient_name(data).strip()
        if data.count(b"\x10\x00\x10\x00") == 1:  # of a name that stands twice pydicom may take the empty one
            assert known.split("\n")[0].strip().rstrip("=") == name, paths[place]  # it drops empty component groups
        row = {name: value for name, value in row.items() if name not in PRIVATE}
        for name in ("software_versions", "convolution_kernel", "image_type"):  # pydicom strips each value of several
            both = [values.pop(name, "") for values in (row, expected)]
            assert [part.strip() for part in both[0].split("\\")] == [part.strip() for part in both[1].split("\\")]
        assert row == expected, paths[place]


def made(*, implicit: bool, **attributes: Any) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4", "1.2.5"
    dataset.PatientID = "P"
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.9"
    inner = Dataset()
    inner.CodeValue = "X"
    item.PurposeOfReferenceCodeSequence = Items([inner])
    item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    item.is_undefined_length_sequence_item = True
    dataset.ReferencedImageSequence = Items([item, item])
    dataset["ReferencedImageSequence"].is_undefined_length = True
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.PixelData = b"\1\2" * 8
    dataset["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    dataset.file_meta = meta
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("implicit", [True, False])
def test_nested_sequences_of_undefined_length_are_passed(implicit: bool) -> None:
    data = made(implicit=implicit, ImagePositionPatient=[1, -2.5, 3e-4], InstanceNumber=7, PixelRepresentation=1)
    walked = walk([data], [len(data)])
    assert walked.done.tolist() == [0]
    assert rows(walked)[0] == slow(data)
    assert rows(walked)[0]["image_position_patient"] == [1.0, -2.5, 0.0003]


@pytest.mark.parametrize("implicit", [True, False])
def test_a_head_that_ends_early_is_short_never_wrong(implicit: bool) -> None:
    data = made(implicit=implicit, SeriesDescription="x" * 60)
    whole = walk([data], [len(data)])
    needed = rows(whole)[0]["pixel_offset"]
    for length in range(132, needed):
        walked = walk([data[:length]], [len(data)])
        assert walked.done.tolist() == []
        assert walked.short.tolist() == [0], length
    assert walk([data[:needed]], [len(data)]).done.tolist() == [0]


@pytest.mark.parametrize(
    "attributes",
    [
        {"SeriesDescription": "x", "SpecificCharacterSet": "ISO_IR 13"},
        {"SeriesDescription": "山", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
        {"SliceThickness": "1e300"},
        {"EchoNumbers": [1, 2]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"},
        {"SOPInstanceUID": ""},
    ],
)
def test_what_is_not_plain_is_left_to_pydicom(attributes: dict[str, Any]) -> None:
    data = made(implicit=False, **attributes)
    walked = walk([data], [len(data)])
    assert walked.done.tolist() == walked.short.tolist() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("ISO_IR 100", "Köln "), ("ISO_IR 192", "Köln 山"), ("ISO_IR 144", "Москва"), ("GB18030", "王"), (None, "plain")],
)
def test_texts_beyond_ascii_are_decoded(name: str | None, text: str) -> None:
    data = made(implicit=False, SpecificCharacterSet=name, SeriesDescription=text, ProtocolName="ascii")
    other = made(implicit=True)
    walked = walk([other, data, other], [len(other), len(data), len(other)])
    assert [row.get("series_description") for row in rows(walked)] == [None, text.strip(), None]
    assert rows(walked)[1] == slow(data)


def test_text_that_is_not_in_its_character_set_is_left_to_pydicom() -> None:
    data = made(implicit=False, SpecificCharacterSet="ISO_IR 192", SeriesDescription="abcd")
    walked = walk([data.replace(b"abcd", b"ab\xff\xfe")], [len(data)])
    assert walked.done.tolist() == []


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_damaged_bytes_are_never_read_differently(data: Any, implicit: bool) -> None:
    whole = bytearray(made(implicit=implicit, ImagePositionPatient=[1, 2, 3], Rows=4, Columns=4, EchoTime="3.5"))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(132, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(200, len(whole)))])
    walked = walk([damaged], [len(damaged)])
    for row in rows(walked):
        assert row == slow(damaged)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_survived(tail: bytes) -> None:
    data = bytes(128) + b"DICM" + tail
    walked = walk([data], [len(data)])
    assert np.array_equal(walked.done, []) or rows(walked)[0] == slow(data)
