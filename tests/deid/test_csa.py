"""The reduced CSA header is read by nibabel to the same geometry, and holds nothing else."""

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from builder.deid.csa import KEPT, _write, reduce_csa
from builder.deid.headers import deidentify
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.model.keyed import Key

with warnings.catch_warnings():  # nibabel calls its own module experimental
    warnings.simplefilter("ignore")
    from nibabel.nicom import csareader


def test_nibabel_reads_the_same_numbers(corpus: Callable[[str], Path]) -> None:
    paths = sorted((corpus("geometry") / "mosaic_siemens").rglob("*.dcm"))
    assert paths
    for path in paths:
        source = dcmread(path)
        before = csareader.read(source[0x00291010].value)
        result = deidentify(source, profile=Profile(), uids=UidMap(Key(b"sixteen bytes and more")), person="p")
        reduced = result[0x00291010].value
        after = csareader.read(reduced)
        assert set(after["tags"]) == set(KEPT)
        assert csareader.get_n_mosaic(after) == csareader.get_n_mosaic(before)
        assert list(csareader.get_slice_normal(after)) == list(csareader.get_slice_normal(before))
        assert len(reduced) < 600 < len(source[0x00291010].value)


@given(st.binary(max_size=400))
def test_malformed_headers_give_nothing_or_little(content: bytes) -> None:
    for start in (b"", b"SV10\4\3\2\1\2\0\0\0M\0\0\0"):
        result = reduce_csa(start + content)
        assert result is None or len(result) < 1000


@pytest.mark.parametrize("text", [b"Doe^Jane", b"1; DROP", b"\xff\xff", b"0.5x"])
def test_values_that_are_not_numbers_are_dropped(text: bytes) -> None:
    content = b"SV10\4\3\2\1" + struct.pack("<II", 1, 77)
    content += struct.pack("<64sI4sIII", b"SliceNormalVector", 1, b"FD\0\0", 4, 1, 77)
    content += struct.pack("<4I", len(text), len(text), 77, len(text)) + text.ljust(8, b"\0")
    assert reduce_csa(content) is None


@pytest.mark.parametrize(("length", "fits"), [(2, True), (4, True), (5, False), (2**31, False)])
def test_an_item_may_not_reach_beyond_the_header(length: int, fits: bool) -> None:
    content = b"SV10\4\3\2\1" + struct.pack("<II", 1, 77)
    content += struct.pack("<64sI4sIII", b"NumberOfImagesInMosaic", 1, b"US\0\0", 6, 1, 77)
    content += struct.pack("<4I", length, length, 77, length) + b"36\0\0"
    assert (reduce_csa(content) is not None) is fits


def test_a_header_of_more_than_a_thousand_tags_is_not_walked() -> None:
    tag = struct.pack("<64sI4sIII", b"NumberOfImagesInMosaic", 1, b"US\0\0", 6, 1, 77)
    tag += struct.pack("<4I", 2, 2, 77, 2) + b"36\0\0"

    def header(tags: int) -> bytes:
        return b"SV10\4\3\2\1" + struct.pack("<II", tags, 77) + tags * tag

    assert reduce_csa(header(1000)) == reduce_csa(header(1)) is not None
    assert reduce_csa(header(1001)) is None


@pytest.mark.parametrize("item", [b"1", b"12", b"123", b"1234"])
def test_an_item_is_padded_to_whole_words_with_its_terminator(item: bytes) -> None:
    written = len(_write({"A": (item,)})) - len(_write({"A": ()})) - 16
    assert written == (4 if len(item) < 4 else 8)
