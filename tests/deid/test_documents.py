"""Whole documents: keys without a decision, and names in texts, pages and pictures, are refused."""

import dataclasses
import json
import struct
import zlib
from base64 import b64encode

import pytest

from builder.catalog.facts import Facts
from builder.deid.documents import check_keys, clear_document, keys
from builder.deid.leaks import Canaries
from builder.errors import PrivacyError

NAMES = ["SIMPSON^HOMER^JAY", "Hand^Young"]
ORDINARY = frozenset({"hand", "young"})
CANARIES = Canaries.of(["MRN-55512345", "Springfield General", "Bouvier"], names=NAMES, ordinary=ORDINARY)
REPORT = "report/report.json"


def refused(path: str, data: bytes) -> bool:
    try:
        clear_document(path, data, CANARIES)
    except PrivacyError:
        return True
    return False


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in (head, *chunks, (b"IEND", b"")):
        found += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return found


@pytest.mark.parametrize(
    "text",
    ["Homer Simpson", "simpson, homer", "seen by HOMER-J SIMPSON^HOMER", "jay simpson", "mrn-55512345",
     "of springfield general", "Bouvier"],
)  # fmt: skip
def test_an_identifier_is_found_in_values_keys_and_pages(text: str) -> None:
    assert refused(REPORT, json.dumps({"labels": [{"name": text}]}).encode())
    assert refused(REPORT, json.dumps({"labels": {text: 1}}).encode())
    if text != "Bouvier":  # one word may be anybody's in a sentence
        assert refused("report/index.html", f"<p>{text}</p>".encode())
        assert refused("exports/splits.csv", f"a,b\n{text},1\n".encode())


def test_texts_without_identifiers_pass() -> None:
    document = {"labels": [{"name": "a young hand", "note": "Bouvier was here", "n": 55512345}], "title": "hand young"}
    assert not refused(REPORT, json.dumps(document).encode())
    assert not refused("report/index.html", b"<p>the simpson paradox; homer</p>")
    assert not refused("report/index.html", b"<p>no picturtEXt</p>"), "no picture, though it spells a chunk of one"


def test_a_key_or_document_without_a_decision_is_refused() -> None:
    with pytest.raises(PrivacyError, match="reader_notes"):
        check_keys(REPORT, {"labels": [], "reader_notes": []})
    with pytest.raises(PrivacyError, match="without a policy"):
        check_keys("report/notes.json", {})
    check_keys("exports/datalist.json", {"train": []})
    check_keys("dataset.json", {"name": "lungs", "spec": {}})


def test_the_table_lists_every_key_of_the_records() -> None:
    assert {f.name for f in dataclasses.fields(Facts)} <= keys()[r"catalog/facts\.json"]


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"eXIf"])
def test_pictures_hold_only_pixels(kind: bytes) -> None:
    with_text, without = png((kind, b"Comment\0x")), png((b"IDAT", zlib.compress(b"\0\0")))
    assert refused("failed/x.png", with_text)
    assert not refused("failed/x.png", without)
    page = "<img src='data:image/png;base64,{}'>"
    assert refused("report/index.html", page.format(b64encode(with_text).decode()).encode())
    assert not refused("report/index.html", page.format(b64encode(without).decode()).encode())
