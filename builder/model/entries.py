"""Read a stored JSON document entry by entry: whatever is not as expected is a LayoutError that says where.

Documents of a dataset come from outside: whoever can write to the store can write anything into them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import LayoutError
from builder.model.canonical import Json

_MAXIMUM_DOCUMENT_BYTES = 1 << 30


def json_object(data: bytes, name: str) -> Mapping[str, Json]:
    """Parse a document that holds one JSON object."""
    if len(data) > _MAXIMUM_DOCUMENT_BYTES:
        raise LayoutError(f"{name}: found {len(data)} bytes, expected at most {_MAXIMUM_DOCUMENT_BYTES}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{name}: found no valid JSON ({error}); the file is damaged or was cut short") from error
    if not isinstance(document, dict):
        raise LayoutError(f"{name}: found {type(document).__name__}, expected an object")
    return document


_DEEPEST = 64


@dataclass(frozen=True)
class Entries:
    """A JSON object and where it stands, read entry by entry."""

    document: Mapping[str, Json]
    where: str

    def text(self, key: str) -> str:
        """Return a string."""
        return str(self._take(key, str))

    def named(self, key: str, pattern: re.Pattern[str]) -> str:
        """Return a name that may become part of a path. The message does not repeat it, as it may hold anything."""
        found = self.text(key)
        if pattern.fullmatch(found) is None:
            raise LayoutError(f"{self.where}: found a {key} that cannot be one, expected {pattern.pattern}")
        return found

    def count(self, key: str) -> int:
        """Return a whole number from 0 on."""
        number = int(self._take(key, int))
        if number < 0:
            raise LayoutError(f"{self.where}: found {key} = {number}, expected 0 or more")
        return number

    def counts(self, key: str) -> dict[str, int]:
        """Return a JSON object of whole numbers."""
        inside = Entries(self.mapping(key), f"{self.where}: {key}")
        return {name: inside.count(name) for name in inside.document}

    def mapping(self, key: str) -> Mapping[str, Json]:
        """Return an object whose keys are not known in advance, nested no deeper than code can follow."""
        found: Mapping[str, Json] = self._take(key, dict)
        level: list[Json] = [found]
        for _ in range(_DEEPEST):
            inside = (e.values() if isinstance(e, dict) else e for e in level if isinstance(e, dict | list))
            level = [each for values in inside for each in values]
        if level:
            raise LayoutError(f"{self.where}: found {key} nested deeper than {_DEEPEST} levels, expected fewer")
        return found

    def block(self, key: str) -> Mapping[str, Json]:
        """Return an object that may be missing."""
        return self.mapping(key) if key in self.document else {}

    def numbers(self, key: str) -> list[Json]:
        """Return a list."""
        found: list[Json] = self._take(key, list)
        return found

    def three(self, key: str) -> tuple[int, int, int]:
        """Return positive counts along (slice, row, column)."""
        found = self.numbers(key)
        if len(found) != 3 or any(not isinstance(n, int) or n < 1 for n in found):
            expected = "three positive counts (slice, row, column)"
            raise LayoutError(f"{self.where}: found {key} = {found!r}, expected {expected}")
        return (found[0], found[1], found[2])

    def entries(self, key: str) -> "list[Entries]":
        """Return a list of objects, each to be read in the same way."""
        found = self._take(key, list)
        wrong = next((i for i, entry in enumerate(found) if not isinstance(entry, dict)), None)
        if wrong is not None:
            kind = type(found[wrong]).__name__
            raise LayoutError(f"{self.where}: found {kind} as {key}[{wrong}], expected an object")
        return [Entries(entry, f"{self.where}: {key}[{i}]") for i, entry in enumerate(found)]

    def _take(self, key: str, kind: type) -> Json:
        value = self.document.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            found = type(value).__name__ if key in self.document else "nothing"
            raise LayoutError(f"{self.where}: found {found} as {key}, expected {kind.__name__}")
        return value
