"""Conditions on the header of an image, in the language in which CTP's filters and pixel anonymizers are written.

A term is ``identifier.method("text")``, ``true.`` or ``false.``; ``+`` is or, ``*`` is and, ``!`` is not, with ``!``
before ``*`` before ``+``, and parentheses. An identifier is a keyword (``Modality``), a tag (``[0008,0060]``), or
several joined by ``::``, each but the last a sequence whose first item counts. Source: "The CTP DICOM Filter", RSNA
MIRC wiki.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

Test = Callable[[Dataset], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<mark>[()+*!])|(?P<word>true\.|false\.)(?!\w)"
    r"|(?P<name>(?:\w+|\[[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\])(?:::(?:\w+|\[[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}\]))*)"
    r"\.(?P<method>\w+)\(\s*\"(?P<text>[^\"]*)\"\s*\))"
)
_LONGEST = 4096
"""Characters of a condition, so that nesting cannot exhaust the stack."""


def _less(value: str, text: str) -> bool:
    number, limit = _number(value), _number(text)
    return number is not None and limit is not None and number < limit


def _greater(value: str, text: str) -> bool:
    return _less(text, value)


def _number(text: str) -> float | None:
    """Return the number that the digits of a text say, as CTP reads it; None without digits."""
    digits = re.sub(r"[^0-9.]", "", text.split("\\")[0])
    try:
        return float(digits)
    except ValueError:
        return None


METHODS: Mapping[str, Callable[[str, str], bool]] = {
    "equals": lambda value, text: value == text,
    "equalsIgnoreCase": lambda value, text: value.lower() == text.lower(),
    "contains": lambda value, text: text in value,
    "containsIgnoreCase": lambda value, text: text.lower() in value.lower(),
    "startsWith": lambda value, text: value.startswith(text),
    "startsWithIgnoreCase": lambda value, text: value.lower().startswith(text.lower()),
    "endsWith": lambda value, text: value.endswith(text),
    "endsWithIgnoreCase": lambda value, text: value.lower().endswith(text.lower()),
    "matches": lambda value, text: re.fullmatch(text, value) is not None,
    "isLessThan": _less,
    "isGreaterThan": _greater,
}
"""Method to what it says of a value and the text in the condition."""


@lru_cache(maxsize=4096)
def parse_condition(text: str) -> Test:
    """Return the test that a condition stands for.

    Raises
    ------
    ValueError
        If it is none, names what DICOM does not have, or uses a method that is not in ``METHODS``.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"found a condition of {len(text)} characters, expected at most {_LONGEST}")
    reading = _Reading(_tokens(text))
    test = reading.either()
    if reading.left:
        raise ValueError(f"found {reading.left[0].group().strip()!r} after a condition, expected +, * or its end")
    return test


def _tokens(text: str) -> list[re.Match[str]]:
    found, place, text = [], 0, text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(
                f'found {text[place : place + 40].strip()!r}, expected a term such as Modality.equals("US")'
            )
        found.append(match)
        place = match.end()
    return found


@dataclass
class _Reading:
    left: list[re.Match[str]]

    def either(self) -> Test:
        tests = [self._both()]
        while self._takes("+"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda header: any(test(header) for test in tests)

    def _both(self) -> Test:
        tests = [self._single()]
        while self._takes("*"):
            tests.append(self._single())
        return tests[0] if len(tests) == 1 else lambda header: all(test(header) for test in tests)

    def _single(self) -> Test:
        if self._takes("!"):
            test = self._single()
            return lambda header: not test(header)
        if self._takes("("):
            test = self.either()
            if not self._takes(")"):
                raise ValueError("found a parenthesis that is not closed, expected )")
            return test
        if not self.left or self.left[0]["mark"]:
            found = self.left[0].group().strip() if self.left else "the end"
            raise ValueError(f'found {found}, expected a term such as Modality.equals("US")')
        return _term(self.left.pop(0))

    def _takes(self, mark: str) -> bool:
        if self.left and self.left[0]["mark"] == mark:
            self.left.pop(0)
            return True
        return False


def _term(match: re.Match[str]) -> Test:
    if match["word"]:
        always = match["word"] == "true."
        return lambda header: always
    path = [_tag(name) for name in match["name"].split("::")]
    if match["method"] not in METHODS:
        raise ValueError(f"found the method {match['method']!r}, expected one of {', '.join(METHODS)}")
    method, text = METHODS[match["method"]], match["text"]
    if match["method"] == "matches":
        try:
            re.compile(text)
        except re.error:
            raise ValueError(f"found {text!r}, expected a regular expression") from None
    return lambda header: method(value_at(header, path), text)


def _tag(name: str) -> int:
    tag = int(name[1:5] + name[6:10], 16) if name.startswith("[") else tag_for_keyword(_OLD_NAMES.get(name, name))
    if tag is None:
        raise ValueError(f"found {name!r}, expected a keyword of DICOM (PS3.6) or a tag such as [0008,0060]")
    return tag


_OLD_NAMES = {"SeqOfUltrasoundRegions": "SequenceOfUltrasoundRegions", "BurnedInAnnotations": "BurnedInAnnotation"}
"""Names of CTP that PS3.6 writes otherwise."""


def value_at(header: Dataset, path: Sequence[int]) -> str:
    """Return a value as text, several joined by a backslash; "" if there is none."""
    for tag in path[:-1]:
        items = header[Tag(tag)].value if Tag(tag) in header else None
        if not isinstance(items, Items) or not items:
            return ""
        header = items[0]
    element = header.get(Tag(path[-1]))
    if element is None or element.value is None:
        return ""
    if isinstance(element.value, Items):
        return "items" if element.value else ""
    value = element.value
    return value.strip() if isinstance(value, str) else "\\".join(map(str, value)) if element.VM > 1 else str(value)
