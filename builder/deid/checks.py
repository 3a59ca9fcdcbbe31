"""What each policy of the privacy gate lets out: one check for each kind of column."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid import terms
from builder.deid.identifiers import Identifiers
from builder.deid.text import scrub
from builder.model.cleared import CODED, Policy

LONGEST_TEXT: Final = 200
"""Most characters in a value of a clinical column."""

_KEYED = re.compile(r"[0-9a-hjkmnp-tv-z]{26}(?:-\d+)?|[0-9a-f]{32}")
_OWN_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FIGURE = r"-?\d{1,9}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?|[a-z_]{1,40}"
_CODE = rf"[a-z][a-z0-9_]{{0,63}}(?:[/+.][A-Za-z0-9_]{{1,64}}){{0,3}}(?:=(?:{_FIGURE})(?:,(?:{_FIGURE})){{0,9}})?"
_OWN_TEXT = re.compile(rf"(?:{_CODE})(?:; (?:{_CODE})){{0,20}}|[A-Z]{{1,3}}|\d{{1,2}}-\d{{1,2}}|90\+|SUVbw|Bq/ml|")
_RESCALE_TYPE = re.compile(r"rescale_type=(.*)")
_PET = re.compile(
    r"no_suv:(?!decay_correction_)[a-z_]{1,60}|no_suv:decay_correction_(?:none|start|admin|absent)"
    r"|pet_units=(?:CNTS|NONE|CM2|PCNT|CPS|BQML|MGMINML|UMOLMINML|MLMING|MLG|1CM|UMOLML|PROPCNTS|PROPCPS|MLMINML|MLML"
    r"|GML|STDDEV|absent)|suv_type=(?:BSA|BW|LBM|LBMJANMA|LBMJAMES128|IBW)"
)
"""Says why a PET is not in SUV. Quotes only defined terms of Units, SUV Type and Decay Correction (PS3.3 C.8.9.1)."""
_SEXES = frozenset({"M", "F", "O"})
"""Enumerated values of Patient's Sex (PS3.3 C.7.1.1)."""
_QUOTED_OF_PET = re.compile(r"pet_units=|suv_type=|decay_correction_")
_READER = re.compile(r"reader-[0-9a-f]{12}|reader\d{1,3}")
_NUMBERING = re.compile(r"\d{1,6}(?:\.\d{1,6})?|2\.25\.\d{1,39}")
_VERSIONED = re.compile(r"[a-z][a-z0-9_]*/\d{1,4}")


@dataclass(frozen=True)
class Words:
    """Words that come from no archive: those of the spec, and of the lexicons that the spec names."""

    spec: frozenset[str] = frozenset()

    def has(self, text: str) -> bool:
        """Return whether the text is one of these words."""
        return text in self.spec


def words_of(document: Any, *more: Iterable[str]) -> Words:
    """Return every text of a spec as it is published, keys included, and ``more``."""
    found: set[str] = set()
    todo = [document]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            found.add(node)
        elif isinstance(node, Mapping):
            found.update(k for k in node if isinstance(k, str))
            todo.extend(node.values())
        elif isinstance(node, list | tuple | set | frozenset):
            todo.extend(node)
    return Words(frozenset(found.union(*more)))


@dataclass(frozen=True)
class Against:
    """What a value is compared with: the words of the spec, and what identifies the persons."""

    words: Words
    known: Identifiers


def _keyed(_: Against, column: str, value: str) -> str | None:
    return value if _KEYED.fullmatch(value) else None


def all_keyed(values: pa.Array) -> bool:
    """Return whether all values are keyed names as the policy KEY asks for: it judges many at once."""
    return bool(pc.all(pc.match_substring_regex(values, f"^(?:{_KEYED.pattern})$"), min_count=0).as_py())


def _own(against: Against, column: str, value: str) -> str | None:
    """Pass codes with figures. A code that quotes an attribute may quote only its defined terms.

    A code against one of several images of a case begins with the name of that image.
    """
    image, slash, code = value.partition("/")
    if slash and against.words.has(image) and (_RESCALE_TYPE.fullmatch(code) or _PET.fullmatch(code)):
        return None if _own(against, column, code) is None else value
    if column == "sex":
        return value if value in _SEXES or against.words.has(value) else None
    quoted = _RESCALE_TYPE.fullmatch(value)
    if quoted is not None:
        return value if quoted[1] in terms.RESCALE_TYPES else None
    parts = value.split("; ")
    if len(parts) > 1 and any(_own(against, column, part) is None for part in parts):
        return None
    if len(parts) == 1 and _QUOTED_OF_PET.search(value) and not _PET.fullmatch(value):
        return None
    return value if _OWN_TEXT.fullmatch(value) or _PET.fullmatch(value) else None


def _message(against: Against, column: str, value: str) -> str | None:
    return value


def _spec(against: Against, column: str, value: str) -> str | None:
    """Pass words between slashes; ``<reader>~<reader>`` in the name of a measure is a pair of readers."""
    if against.words.has(value):
        return value
    apart = "[/~]" if column == "measure_names" else "/"
    known = all(against.words.has(part) or _OWN_WORD.fullmatch(part) for part in re.split(apart, value))
    return value if known else None


def _term(against: Against, column: str, value: str) -> str | None:
    return terms.term(column, value)


def _kind(against: Against, column: str, value: str) -> str | None:
    return value if against.words.has(value) else terms.term(column, value)


def _class(against: Against, column: str, value: str) -> str | None:
    return value if against.words.has(value) else terms.imaging_words(value)


def _code(against: Against, column: str, value: str) -> str | None:
    return value if against.words.has(value) else terms.concept(value)


def _meaning(against: Against, column: str, value: str) -> str | None:
    """Replace marked codes by our meaning of them; pass codes, and words of the program and of the spec."""
    if against.words.has(value) or _OWN_QUANTITIES.fullmatch(value):
        return value
    if not value.startswith(CODED):
        return terms.concept(value)
    parts = value.removeprefix(CODED).split(CODED)
    meanings = [terms.meaning(part) or (part if against.words.has(part) else None) for part in parts]
    return ", ".join(m for m in meanings if m is not None) if None not in meanings else None


_OWN_QUANTITIES = re.compile(r"long_axis|long_axis_stated|short_axis|unknown")


def _finding(against: Against, column: str, value: str) -> str | None:
    """Pass ``<label>/<finding>``, ``<label>/codes/<number>/<code>`` of documents, and what a line measures."""
    if against.words.has(value) or _OWN_QUANTITIES.fullmatch(value):
        return value
    parts = value.split("/")
    known = all(
        not part or against.words.has(part) or part == "codes" or terms.concept(part) or part in _OWN_FINDINGS
        or (before == "codes" and re.fullmatch(r"\d{1,4}", part))
        for before, part in zip(("", *parts), parts, strict=False)
    )  # fmt: skip
    return value if known else None


_OWN_FINDINGS = frozenset({"ImagingPhysicalEntity", "ImagingObservationEntity", "is_key_image", "key_images"})


def _answer(against: Against, column: str, value: str) -> str | None:
    if against.words.has(value) or value in _ANSWERS:
        return value
    return _unclaimed(against, terms.number(value)) or terms.concept(value)


def _unclaimed(against: Against, number: str | None) -> str | None:
    """Pass a number unless it is the person's own: many registers have numbers of six digits or fewer."""
    return None if number is None or against.known.occur_in(number) else number


_ANSWERS = frozenset({"positive", "negative", "uncertain", "absent", "alternative", "true", "false"})


def _tool(against: Against, column: str, value: str) -> str | None:
    return value if against.words.has(value) or _VERSIONED.fullmatch(value) else terms.tool(value)


def _reader(against: Against, column: str, value: str) -> str | None:
    known = all(not part or _READER.fullmatch(part) or against.words.has(part) for part in value.split("+"))
    return value if known or against.words.has(value) else None


def _numbering(against: Against, column: str, value: str) -> str | None:
    return _unclaimed(against, value) if not value or _NUMBERING.fullmatch(value) else None


def _declared(against: Against, column: str, value: str) -> str | None:
    return value if len(value) <= LONGEST_TEXT else None


def _prose(against: Against, column: str, value: str) -> str | None:
    return scrub(value, known=against.known)


def _worded(check: terms.Check) -> Callable[[Against, str, str], str | None]:
    def judge(against: Against, column: str, value: str) -> str | None:
        return value if against.words.has(value) else check(value)

    return judge


CHECKS: Mapping[Policy, Callable[[Against, str, str], str | None]] = MappingProxyType(
    {
        Policy.KEY: _keyed,
        Policy.OWN: _own,
        Policy.MESSAGE: _message,
        Policy.SPEC: _spec,
        Policy.TERM: _term,
        Policy.KIND: _kind,
        Policy.IMAGE_TYPE: _worded(terms.image_type),
        Policy.BODY_PART: _worded(terms.body_part),
        Policy.KERNEL: _worded(terms.kernel),
        Policy.VENDOR: _worded(terms.vendor),
        Policy.MODEL: _worded(terms.model),
        Policy.TOOL: _tool,
        Policy.CODE: _code,
        Policy.MEANING: _meaning,
        Policy.UNIT: _worded(terms.unit),
        Policy.CLASS: _class,
        Policy.FINDING: _finding,
        Policy.ANSWER: _answer,
        Policy.NUMBER: _numbering,
        Policy.READER: _reader,
        Policy.ORIGIN: _message,
        Policy.DECLARED: _declared,
        Policy.PROSE: _prose,
    }
)
