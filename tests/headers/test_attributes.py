"""The pydicom path on damaged files: a header or a reason, never another exception."""

import io
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from builder.errors import CaseError, Reason
from builder.headers.attributes import read_header
from builder.headers.walker import walk
from builder.imaging.parse import parse_instance

NAMES = [
    "CT_small.dcm",
    "rtplan.dcm",
    "image_dfl.dcm",
    "ExplVR_BigEnd.dcm",
    "reportsi.dcm",
    "nested_priv_SQ.dcm",
    "no_meta.dcm",
]
FILES = {name: Path(str(get_testdata_file(name, download=False))).read_bytes()[:12_000] for name in NAMES}


def header_or_reason(data: bytes) -> Any:
    try:
        return read_header(lambda start, length: data[start : start + length], len(data))
    except CaseError as error:
        return error.reason


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_gives_a_header_or_a_reason(name: str, data: Any) -> None:
    whole = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    found = header_or_reason(damaged)
    assert found in (Reason.UNREADABLE, Reason.TOO_LARGE) or found.sha256


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_header_or_a_reason(data: bytes) -> None:
    found = header_or_reason(data)
    assert found in (Reason.UNREADABLE, Reason.TOO_LARGE) or found.sha256


def test_a_deflated_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.headers.attributes.HEADER_LIMIT", 10_000)
    whole = Path(str(get_testdata_file("image_dfl.dcm", download=False))).read_bytes()
    assert header_or_reason(whole) is Reason.TOO_LARGE


def test_a_million_empty_items_are_refused_before_they_are_parsed() -> None:
    """8 MB in a sequence of defined length, which pydicom reads as bytes and enters later, in 50 s."""
    whole = bytearray(FILES[NAMES[0]])
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1_000_000
    whole += struct.pack("<HH2sHI", 0xFFFA, 0xFFFA, b"SQ", 0, len(items)) + items
    start = time.process_time()
    with pytest.raises(CaseError) as caught:
        parse_instance(bytes(whole))
    assert caught.value.reason is Reason.TOO_LARGE
    front = whole[:132] + whole[-len(items) - 12 :]
    assert header_or_reason(bytes(front)) is Reason.TOO_LARGE
    assert time.process_time() - start < 5


def radiograph(position: str | None, *codes: tuple[str, str], sop_class: str = "1.2.840.10008.5.1.4.1.1.1.2") -> bytes:
    """A mammogram's header with View Position and View Code Sequence as given."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2", "1.2.1", "MG"
    if position is not None:
        dataset.ViewPosition = position
    dataset.ViewCodeSequence = [Dataset() for _ in codes]
    for item, (scheme, value) in zip(dataset.ViewCodeSequence, codes, strict=True):
        item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning = scheme, value, "x"
    return encoded(dataset)


def encoded(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "view"),
    [
        (radiograph(None, ("SCT", "399368009")), "MLO"),
        (radiograph("", ("SNM3", "R-10242")), "CC"),
        (radiograph(None, ("SRT", "R-10214"), sop_class="1.2.840.10008.5.1.4.1.1.1.1"), "PA"),
        (radiograph("MLO", ("SCT", "399162004")), "MLO"),
        (radiograph(None, ("SCT", "399368009"), ("SCT", "399162004")), None),
        (radiograph(None, ("99HOUSE", "V1")), None),
        (radiograph(None), None),
    ],
)
def test_the_view_is_that_of_its_code_where_no_position_is_stated(data: bytes, view: str | None) -> None:
    """View Position is optional in mammograms (PS3.3 C.8.11.7); View Code Sequence is not."""
    assert header_or_reason(data).values.get("view_position") == view
    walked = walk([data], [len(data)])
    assert [*walked.done] in ([], [0])
    if 0 in walked.done:
        assert walked.columns["view_position"].to_pylist() == [view]


def test_a_damaged_code_of_a_view_costs_only_the_view() -> None:
    data = radiograph(None, ("SCT", "399368009"))
    place = data.index(b"SH", data.index(b"\xfe\xff\x00\xe0"))  # the type of the first value in the item
    found = header_or_reason(data[:place] + b"OB\xff\xff\xff\xff\xff\x7f" + data[place + 8 :])
    assert found.values["modality"] == "MG"
    assert found.values.get("view_position") is None
