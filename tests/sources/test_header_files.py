"""Metadata become the file that pydicom writes of the whole data set, byte for byte."""

import io
import json
import warnings
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from builder.errors import CaseError
from builder.sources.header_files import HeaderFiles

NAMED: dict[str, Any] = {
    "00080016": {"vr": "UI", "Value": [CTImageStorage]},
    "00080018": {"vr": "UI", "Value": ["1.2.3"]},
}
WORDS = st.text(st.sampled_from("aZ 9.^=\\üß田"), max_size=5)
UIDS = st.text(st.sampled_from("01."), min_size=1, max_size=9)
REALS = st.floats(allow_nan=False, width=32) | st.integers(-(2**33), 2**33)
SHORT = st.integers(-(2**17), 2**17)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("AE", "AS", "CS", "DT", "LO", "LT", "SH", "ST", "UC", "UT"), WORDS),
    **dict.fromkeys(("DS", "FL", "FD"), REALS),
    **dict.fromkeys(("IS", "US", "SS", "UL", "SL"), SHORT | st.sampled_from(["7", None, True, 2**32])),
    "UI": UIDS | WORDS,
    "DA": st.sampled_from(["20200101", "", "2020"]),
    "AT": st.sampled_from(["00280010", "x"]),
    "PN": st.fixed_dictionaries({"Alphabetic": WORDS}, optional={"Ideographic": WORDS}) | WORDS,
}
CHARSETS = ("ISO_IR 100", "ISO_IR 192", "ISO_IR 13", "GB18030", "odd")


def elements(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    plain = st.one_of(
        *(st.fixed_dictionaries({"vr": st.just(vr), "Value": st.lists(v, max_size=3)}) for vr, v in VALUES.items()),
        st.just({"vr": "OB", "InlineBinary": "AAEC"}),
        st.just({"vr": "UN", "BulkDataURI": "http://there"}),
        st.just({"vr": "US or SS", "Value": [1]}),
        st.sampled_from([{"vr": vr} for vr in ("CS", "DS", "SQ", "PN", "OW")]),
    )
    if not depth:
        return plain
    children = st.lists(items(depth - 1), max_size=2)
    return plain | st.fixed_dictionaries({"vr": st.just("SQ"), "Value": children})


def items(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    tags = st.sampled_from(["00080001", "00080008", "0008103e", "00091001", "00100010", "00281052", "300A00B0"])
    charset = st.sampled_from([{}, *({"00080005": {"vr": "CS", "Value": [name]}} for name in CHARSETS)])
    return st.tuples(st.dictionaries(tags, elements(depth), max_size=4), charset).map(lambda two: two[0] | two[1])


def by_pydicom(item: dict[str, Any]) -> bytes:
    dataset = Dataset.from_json({tag: element for tag, element in item.items() if "BulkDataURI" not in element})
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def without_bulk(item: dict[str, Any]) -> dict[str, Any]:
    kept = {tag: element for tag, element in item.items() if "BulkDataURI" not in element}
    return {
        tag: element | {"Value": [without_bulk(child) for child in element["Value"]]}
        if element["vr"] == "SQ" and "Value" in element
        else element
        for tag, element in kept.items()
    }


@given(st.lists(items(2), min_size=1, max_size=3))
def test_the_bytes_are_those_of_pydicom(given_items: list[dict[str, Any]]) -> None:
    files = HeaderFiles()
    for item in [*given_items, *given_items]:  # the second time from what is known
        found = files.of(NAMED | item, "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = by_pydicom(without_bulk(NAMED | item))
            except Exception:  # noqa: BLE001 - whatever pydicom refuses
                assert isinstance(found, CaseError)
                continue
        assert not isinstance(found, CaseError)
        assert found.data == expected


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "test-SR.dcm"])
def test_real_metadata(name: str) -> None:
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file(name))
    dataset.pop("PixelData", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        item = json.loads(json.dumps(dataset.to_json_dict(suppress_invalid_tags=True)))
        expected = by_pydicom(item)
    found = HeaderFiles().of(item, "1.2")
    assert not isinstance(found, CaseError)
    assert found.data == expected
