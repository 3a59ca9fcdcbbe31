"""The gate for whole documents: JSON, pages, tables and pictures are searched before they are published."""

import base64
import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from builder.deid.leaks import Canaries, assert_clean
from builder.errors import PrivacyError
from builder.model.cleared import CLOSED, SEAL, ClearedBytes, check_policies, policy_of

_INLINE = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=]+)")
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf"})
ANY: Final = frozenset({"*"})


@cache
def keys() -> Mapping[str, frozenset[str]]:
    """Keys at the top of each JSON document that is published, by a pattern of its path (``documents.txt``).

    Without any, the document is a list; with ``*`` its keys are names of splits, or values of a column that was judged.
    Below a key of this table stands what is computed from judged tables and the program's own words, and is searched.
    """
    found: dict[str, frozenset[str]] = {}
    for part in (files("builder.deid") / "documents.txt").read_text(encoding="ascii").split("[[")[1:]:
        pattern, _, names = part.partition("]]\n")
        found[pattern] = frozenset(name for n in names.replace("\n", " ").split(",") if (name := n.strip()))
    return MappingProxyType(found)


def clear_document(path: str, data: bytes, canaries: Canaries, *, numbered: Canaries | None = None) -> ClearedBytes:
    """A document that may be published.

    Parameters
    ----------
    path
        Of the document in its version, for messages and to know its kind.
    canaries
        What must not occur in it. A value that is one word of letters is looked for as a whole text of JSON only,
        because inside a sentence it may be anybody's word.
    numbered
        The same for texts of JSON, where numbers stand apart; by default ``canaries``.

    Raises
    ------
    PrivacyError
        For a JSON key without a policy, a picture with text in it, and a value of the archive.
    """
    inside = canaries.without_words()
    if path.endswith(".json"):
        document = json.loads(data)
        check_keys(path, document)
        _search_document(path, document, numbered or canaries, words=canaries.words())
    elif not path.endswith(".parquet"):  # tables are searched before they are packed
        assert_clean(data, inside, where=path)
        for picture in _INLINE.findall(data):
            check_picture(path, base64.b64decode(picture))
    if data.startswith(_PNG):
        check_picture(path, data)
    return ClearedBytes(data, SEAL)


def _search_document(path: str, document: Any, canaries: Canaries, *, words: frozenset[str]) -> None:
    """Search every text of a JSON document; a message names the keys at its top below which something was found."""
    inside = canaries.without_words()

    def found(node: Any) -> int:
        texts = texts_of(node)
        alone = words & {text.strip().lower() for text in texts}
        return inside.count_in("\0".join(texts).encode()) + len(alone)

    count = found(document)
    if count:
        parts = document.items() if isinstance(document, dict) and _keys_of(path) != ANY else ()
        keys = ", ".join(repr(key) for key, node in parts if found({key: node}))
        raise PrivacyError(
            f"{path}{', ' + keys if keys else ''}: found {count} value(s) of the source that name a person, a study or "
            "an object (not shown), expected none; nothing is published. Leave the column that they come from out with "
            "deid.text.<column>: {drop: true}, or replace the values with map"
        )


def search_table(
    path: str, table: pa.Table, canaries: Canaries, *, counts: frozenset[str], declared: Collection[str]
) -> None:
    """Search the columns of a table whose text comes from no closed vocabulary, and its numbers but for ``counts``.

    Raises
    ------
    PrivacyError
        For a column of text without a policy, and for a value of the archive, naming the column.
    """
    check_policies(table.schema, where=path, declared=declared)
    closed = [field.name for field in table.schema if policy_of(field.name, declared) in CLOSED]
    assert_clean(table.drop_columns(closed), canaries, where=path, counts=counts)


def check_keys(path: str, document: Any) -> None:
    """Refuse a JSON document with a key at its top that has no policy.

    Raises
    ------
    PrivacyError
        Naming the document; the key is shown, because a program wrote it.
    """
    known = _keys_of(path)
    if known is None:
        raise PrivacyError(
            f"{path}: found a document without a policy of the privacy gate, expected one in "
            "builder/deid/documents.txt; nothing is published"
        )
    if known != ANY and isinstance(document, Mapping):
        unknown = sorted(set(document) - known)
        if unknown:
            raise PrivacyError(
                f"{path}: found the key {unknown[0]!r} without a policy of the privacy gate, expected one in "
                "builder/deid/documents.txt; nothing is published"
            )


def _keys_of(path: str) -> frozenset[str] | None:
    return next((names for pattern, names in keys().items() if re.fullmatch(pattern, path)), None)


def check_picture(path: str, data: bytes) -> None:
    """Refuse a PNG that holds text beside its pixels. Raises PrivacyError."""
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in _TEXT_CHUNKS:
            raise PrivacyError(f"{path}: found a picture with text in it ({kind.decode()}), expected pixels only")
        at += 12 + length


def texts_of(document: Any) -> dict[str, None]:
    """Every text of a JSON document, keys too, once: most are said again and again.

    Join them with zeros, across which nothing is taken for the number of a list.
    """
    found: dict[str, None] = {}
    todo = [document]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            found[node] = None
        elif isinstance(node, dict):
            found.update(dict.fromkeys(node))
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return found
