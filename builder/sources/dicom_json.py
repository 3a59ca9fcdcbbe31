"""Read DICOM JSON (PS3.18 annex F), in which DICOMweb servers list and describe objects."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from builder.sources.http import Answer
from builder.sources.patience import Fault

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
