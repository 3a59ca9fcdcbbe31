"""Read DICOM JSON (PS3.18 annex F), in which DICOMweb servers list and describe objects."""

import io
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.protocols import Description
from builder.sources.http import Answer
from builder.sources.patience import Fault

VALUES_LIMIT: Final = 256
"""Most values of an element in a description; longer elements are left out."""

UID: Final = re.compile(r"[0-9.]{1,64}")
_AVAILABLE_SYNTAXES = "00083002"


def json_list(answer: Answer) -> list[dict[str, Any]]:
    if answer.status == 204:
        return []
    body = answer.body()
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        shown = answer.headers.get("content-type", "").partition(";")[0][:40] or "no type"
        what = f"{len(body)} bytes of type {shown}" if body else "an empty answer with status 200"
        raise Fault(f"found {what}, expected a list in JSON") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Fault("found JSON that is not a list of data sets (PS3.18 annex F)")
    return found


def uid_of(item: Mapping[str, Any], tag: str) -> str:
    uid = value_of(item, tag)
    if uid is None or not UID.fullmatch(uid):
        raise Fault(f"found a result without a UID in ({tag[:4]},{tag[4:]}), expected one in each")
    return uid


def value_of(item: Mapping[str, Any], tag: str) -> str | None:
    values = (item.get(tag) or {}).get("Value") or [None]
    return values[0] if isinstance(values[0], str) else None


def count_of(item: Mapping[str, Any], tag: str) -> int | None:
    """Return a count that the server states; None when it states none."""
    values = (item.get(tag) or {}).get("Value") or [None]
    try:
        return int(values[0])
    except (TypeError, ValueError):
        return None


def syntax_of(item: Mapping[str, Any]) -> str:
    """Return the transfer syntax that metadata state, if they state one; several are a choice."""
    stated = (item.get(_AVAILABLE_SYNTAXES) or {}).get("Value") or []
    return stated[0] if len(stated) == 1 and isinstance(stated[0], str) and UID.fullmatch(stated[0]) else ""


def header_file(item: Mapping[str, Any], syntax: str) -> Description | CaseError:
    """Encode metadata (PS3.18 annex F) as a DICOM file without bulk data and pixels."""
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), parsing(Reason.UNREADABLE, "pydicom cannot parse the metadata"):
            warnings.simplefilter("ignore")
            dataset = Dataset.from_json(_without_bulk(item))
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    except CaseError as error:
        return error
    return Description(stream.getvalue(), whole=False, transfer_syntax_uid=syntax or None)


def _without_bulk(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without file meta information, bulk data and pixels, at any depth."""
    kept: dict[str, Any] = {}
    for tag, element in item.items():
        if tag.startswith("0002") or tag in ("7FE00008", "7FE00009", "7FE00010") or "BulkDataURI" in element:
            continue
        if element.get("vr") != "SQ" and len(element.get("Value", ())) > VALUES_LIMIT:
            continue  # contours, which are slow to convert and useless to the index
        if element.get("vr") == "SQ":
            element = {"vr": "SQ", "Value": [_without_bulk(child) for child in element.get("Value", [])]}
        kept[tag] = element
    return kept
