"""The gate for whole documents: it searches JSON, pages, tables and pictures before they are published."""

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
from builder.deid.writing import fold
from builder.errors import PrivacyError
from builder.model.cleared import CLOSED, SEAL, ClearedBytes, check_policies, policy_of

_INLINE = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=]+)")
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf"})
ANY: Final = frozenset({"*"})


@cache
def keys() -> Mapping[str, frozenset[str]]:
    """Return the top-level keys of each published JSON document, by a pattern of its path (``documents.txt``).

    A document without keys is a list; ``*`` stands for names of splits or for values of a column that was judged. What
    lies below a key is computed from judged tables and the program's own words, and is searched as well.
    """
    found: dict[str, frozenset[str]] = {}
    for part in (files("builder.deid") / "documents.txt").read_text(encoding="ascii").split("[[")[1:]:
        pattern, _, names = part.partition("]]\n")
        found[pattern] = frozenset(name for n in names.replace("\n", " ").split(",") if (name := n.strip()))
    return MappingProxyType(found)


def clear_document(path: str, data: bytes, canaries: Canaries, *, numbered: Canaries | None = None) -> ClearedBytes:
    """Search a document, and return it marked as one that may be published.

    Parameters
    ----------
    path
        Path of the document in its version. Messages name it, and it tells the kind of document.
    canaries
        What must not occur in it. A value that is one word of letters is only compared with whole texts of JSON,
        because inside a sentence it may be an ordinary word.
    numbered
        What must not occur in texts of JSON, where numbers stand apart; ``canaries`` by default.

    Raises
    ------
    PrivacyError
        If a JSON key has no policy, a picture holds text, or a value of the archive occurs.
    """
    inside = canaries.without_words()
    if path.endswith(".json"):
        document = json.loads(data)
        check_keys(path, document)
        _search_document(path, document, numbered or canaries, words=canaries.words())
    elif not path.endswith(".parquet"):  # tables were searched before they were packed
        assert_clean(data, inside, where=path)
        for picture in _INLINE.findall(data):
            check_picture(path, base64.b64decode(picture))
    if data.startswith(_PNG):
        check_picture(path, data)
    return ClearedBytes(data, SEAL)


def _search_document(path: str, document: Any, canaries: Canaries, *, words: frozenset[str]) -> None:
    """Search every text of a JSON document. The message names the top-level keys below which something was found."""
    inside = canaries.without_words()

    def found(node: Any) -> int:
        texts = texts_of(node)
        alone = words & {fold(text).strip() for text in texts}
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
    """Search the columns of a table whose text is from no closed vocabulary, and all numbers except ``counts``.

    Raises
    ------
    PrivacyError
        If a column of text has no policy, or a value of the archive occurs; the message names the column.
    """
    check_policies(table.schema, where=path, declared=declared)
    closed = [field.name for field in table.schema if policy_of(field.name, declared) in CLOSED]
    assert_clean(table.drop_columns(closed), canaries, where=path, counts=counts)


def check_keys(path: str, document: Any) -> None:
    """Refuse a JSON document whose top level has a key without a policy.

    Raises
    ------
    PrivacyError
        The message names the document and shows the key, because a program wrote it.
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
    """Return every text of a JSON document once, keys included, because most of them recur many times.

    Join them with zero bytes, so that nothing across two of them is taken for a number in a list.
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
