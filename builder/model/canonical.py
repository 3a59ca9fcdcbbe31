"""Canonical JSON, in which equal values give equal bytes, and fingerprints of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""What canonical JSON holds: dict with text keys, list, tuple, str, int, finite float, bool, None."""


def canonical_json(document: Json) -> bytes:
    """Return UTF-8 JSON with sorted keys, no spaces, shortest floats and one newline: equal values give equal bytes.

    Raises
    ------
    ValueError
        For NaN and infinity, which JSON does not have.
    TypeError
        For keys that are not text, and for values JSON does not have.
    """
    _check_keys(document)
    return _written(document)


def fingerprint(*parts: Json) -> str:
    """Return 32 hex digits of the SHA-256 of ``parts``, bytes and JSON values; no two lists of parts hash alike."""
    return Fingerprint().also(*parts)


@dataclass(frozen=True)
class Keyless:
    """A part of a fingerprint that is a long list of lists of text and numbers: without keys, none is looked for."""

    document: Sequence[Sequence[str | int]]


class Fingerprint:
    """A fingerprint that begins with the same parts each time, which are hashed once."""

    def __init__(self, *parts: Json) -> None:
        self._digest = hashlib.sha256()
        _add(self._digest, parts)

    def also(self, *parts: Json) -> str:
        """Return what ``fingerprint`` gives for the first parts and these."""
        digest = self._digest.copy()
        _add(digest, parts)
        return digest.hexdigest()[:32]


def _add(digest: "hashlib._Hash", parts: Sequence[Json]) -> None:
    for part in parts:
        tag, data = (b"b", part) if isinstance(part, bytes) else (b"j", _json(part))
        digest.update(tag + len(data).to_bytes(8, "big") + data)


def _json(part: Json) -> bytes:
    return _written(part.document) if isinstance(part, Keyless) else canonical_json(part)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _written(document: Json) -> bytes:
    return _ENCODER.encode(document).encode() + b"\n"


_LEAVES = (str, float, int)
"""Types that are no mapping and make up most of a document: asking whether a value is a Mapping is slow."""


def _check_keys(document: Json) -> None:
    """Refuse keys that are not text: json.dumps would turn 1 and True into "1" and "true", and could merge keys."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            if not isinstance(key, str):
                raise TypeError(f"found the key {key!r} of type {type(key).__name__}, expected text")
            if not isinstance(value, _LEAVES):
                _check_keys(value)
    elif isinstance(document, (list, tuple)):
        for value in document:
            if not isinstance(value, _LEAVES):
                _check_keys(value)
