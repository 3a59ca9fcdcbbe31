"""The one gate for text: it lets out values of closed vocabularies, values declared and checked, and scrubbed prose.

Every other value is dropped from its cell, counted by column, and listed in the private workspace, so that the author
of a spec can declare it. Nothing else in the project can make ``Cleared`` text.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from builder.deid import terms
from builder.deid.identifiers import NOTHING_KNOWN, Identifiers
from builder.deid.options import ColumnText
from builder.deid.text import scrub
from builder.errors import PrivacyError
from builder.model.case import ClearedSample, Sample, Scalar
from builder.model.cleared import (
    CLOSED,
    CODED,
    POLICIES,
    SEAL,
    Cell,
    Cleared,
    Policy,
    bare_column,
    check_policies,
    policy_of,
)
from builder.model.patterns import fits

WITHHELD: Final = "(withheld)"
"""Replaces a message if part of it may identify somebody."""

LONGEST_TEXT: Final = 200
"""Most characters in a value of a clinical column."""

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_STREET = r"(?:street|avenue|road|boulevard|lane|drive|square|court|place|terrace|strasse|stra\u00dfe)"
LOOKS_LIKE_IDENTIFIER: Final = re.compile(
    r"\^|@|\d{7,}|\b(?:19|20)\d{2}[-/.]?(?:0[1-9]|1[0-2])[-/.]?(?:0[1-9]|[12]\d|3[01])\b"
    r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b|\b\d{1,2}-\d{1,2}-\d{4}\b|\b\d+(?:\.\d+){4,}"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?[ .,-]{{0,2}}{_MONTH}\b[ .,-]{{0,2}}\d{{2,4}}\b"
    rf"|\b{_MONTH}\b[ .]{{0,2}}(?:\d{{1,2}}(?:st|nd|rd|th)?,?[ ])?\d{{4}}\b"
    r"|\b\d{3}\)?[ ./-]\d{3,4}[ ./-]\d{3,5}\b|\+\d{2}[\d ()./-]{6}"
    rf"|\b\d{{1,5}} [^\W\d_]{{2,30}}(?: [^\W\d_]{{2,30}})? {_STREET}\b|\b(?:dr|prof|mrs?|ms)\. ?[^\W\d_]"
    r"|\b(?:www\.|https?:)",
    re.IGNORECASE,
)
"""Matches a DICOM name, an address (mail, street, page), a telephone number, a long number, a date, a UID, and a person
with a title."""

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


@dataclass
class Gate:
    """Judges text by the policy of its column.

    Parameters
    ----------
    words
        The spec's own words.
    rules
        What the spec says about single columns (``deid.text``).
    declared
        Clinical columns of the spec.
    known
        What identifies the persons whose text is judged. A value that says any of it does not leave, unless it comes
        from a closed vocabulary.
    dropped
        Maps (column, value) to how often it was dropped; private.
    """

    words: Words
    rules: Mapping[str, ColumnText] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()
    known: Identifiers = NOTHING_KNOWN
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False, compare=False)
    _judged: dict[tuple[str, str], Cleared | None] = field(default_factory=dict, repr=False, compare=False)

    def meet(self, known: Identifiers) -> None:
        """Learn what identifies more persons, and judge everything anew from then on."""
        self.known = self.known | known
        self._judged.clear()

    def sample(self, sample: Sample) -> ClearedSample:
        """Return the sample with each of its texts judged."""
        row = {name: self._cell(name, value) for name, value in sample.row.items()}
        ragged = {name: [self._cell(name, value) for value in values] for name, values in sample.ragged.items()}
        for name, together in _NAMED.items():
            _drop_unnamed(ragged, name, together)
        return ClearedSample(sample.arrays, sample.geometry, row, ragged)

    def text(self, column: str, value: str | None) -> Cleared | None:
        """Return a value, or None if it must not leave. Raises PrivacyError for a column without a policy."""
        if value is None or isinstance(value, Cleared):
            return value
        if (column, value) not in self._judged:
            self._judged[column, value] = self._judge(column, value)
        judged = self._judged[column, value]
        if judged is None:
            self.dropped[column, value] += 1
        return judged

    def message(self, text: str) -> Cleared:
        """Return a sentence of this program, or ``WITHHELD`` if it quotes something that may identify somebody."""
        return self.text("detail", text) or Cleared(WITHHELD, SEAL)

    def table(
        self,
        table: pa.Table,
        *,
        where: str,
        known: Callable[[int], Identifiers] | None = None,
        suspect: Callable[[str], bool] | None = None,
    ) -> pa.Table:
        """Return the table with each of its texts judged; columns without text stay as they are.

        Parameters
        ----------
        known
            Returns what identifies the person of a row number. It is called for text of no closed vocabulary.
        suspect
            Returns whether a text may name anybody at all. Without it, every row is compared.

        Raises
        ------
        PrivacyError
            If a column of text has no policy.
        """
        check_policies(table.schema, where=where, declared=self.declared)
        for place, column in enumerate(table.schema):
            judged = self._column(table.column(place), column)
            if judged is not None and known is not None and policy_of(column.name, self.declared) not in CLOSED:
                judged = self._of_persons(judged, column.name, known, suspect or bool)
            if judged is not None:
                table = table.set_column(place, column, judged)
        return table

    def _column(self, values: pa.ChunkedArray, column: pa.Field) -> pa.Array | None:
        if pa.types.is_string(column.type):
            coded = pa.chunked_array(values.chunks, column.type).combine_chunks().dictionary_encode()
            counts = Counter(coded.indices.to_pylist())
            judged = []
            for place, value in enumerate(coded.dictionary.to_pylist()):
                judged.append(self.text(column.name, value))
                if judged[-1] is None:
                    self.dropped[column.name, value] += counts[place] - 1
            return pa.array(judged, pa.string()).take(coded.indices)
        if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            rows = values.to_pylist()
            kept = [None if row is None else [self.text(column.name, v) for v in row] for row in rows]
            return pa.array(kept, column.type)
        return None

    def _of_persons(
        self, values: pa.Array, column: str, known: Callable[[int], Identifiers], suspect: Callable[[str], bool]
    ) -> pa.Array:
        """Return the values without those that say who the person of their row is."""
        doubtful = {v for v in values.unique().to_pylist() if v and not self.words.has(v) and suspect(v)}
        if not doubtful:
            return values
        kept = values.to_pylist()
        for row, value in enumerate(kept):
            if value in doubtful and known(row).occur_in(value):
                self.dropped[column, value] += 1
                kept[row] = None
        return pa.array(kept, pa.string())

    def _cell(self, column: str, value: Scalar) -> Cell:
        return self.text(column, value) if isinstance(value, str) else value

    def _judge(self, column: str, value: str) -> Cleared | None:
        policy = policy_of(column, self.declared)
        if policy is None:
            raise PrivacyError(
                f"column {column!r}: found text without a policy of the privacy gate, expected one in "
                "builder.model.cleared.POLICIES; nothing is written"
            )
        rule = self.rules.get(column)
        if rule is not None and rule.drop:
            return None
        if rule is not None and value in rule.map:
            return Cleared(rule.map[value], SEAL)
        if rule is not None and value in rule.values:
            return Cleared(value, SEAL)
        found = _CHECKS[policy](self, bare_column(column, self.declared), value)
        if found is None and rule is not None and rule.pattern is not None and fits(rule.pattern, value):
            return self._unknown(value)
        if found is None or policy in CLOSED:
            return None if found is None else Cleared(found, SEAL)
        if policy is Policy.DECLARED and bare_column(column) in POLICIES and self.words.has(value):
            return Cleared(value, SEAL)  # the site of a source beside a table's
        if policy is Policy.ORIGIN:  # citations hold dates and long numbers
            return None if self.known.occur_in(found) else Cleared(found, SEAL)
        return self._unknown(found)

    def _unknown(self, value: str) -> Cleared | None:
        """Return the value, unless it has the shape of an identifier or says who somebody is."""
        if LOOKS_LIKE_IDENTIFIER.search(value) or self.known.occur_in(value):
            return None
        return Cleared(value, SEAL)


_READINGS = ("reading_labels", "reading_readers", "reading_quantities", "reading_values")
_EVIDENCE = ("evidence_labels", "evidence_tiers", "evidence_readers", "evidence_tools", "evidence_times")
_NAMED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "class_names": ("class_names", "class_values"),
        "measure_names": ("measure_names", "measure_values"),
        "evidence_labels": _EVIDENCE,
        **dict.fromkeys(("reading_labels", "reading_readers", "reading_quantities"), _READINGS),
    }
)
"""Lists whose entries mean nothing without their name."""


def _drop_unnamed(ragged: dict[str, list[Cell]], name: str, together: tuple[str, ...]) -> None:
    named = [place for place, value in enumerate(ragged.get(name, ())) if value is not None]
    for column in together if name in ragged else ():
        ragged[column] = [ragged[column][place] for place in named]


def refuse_identifiers(texts: Mapping[str, str | None]) -> None:
    """Refuse texts that have the shape of a name, a date, a UID, an address or a long number.

    Raises
    ------
    PrivacyError
        The message names the text by its key and never shows it.
    """
    for name, text in texts.items():
        if text is not None and (len(text) > LONGEST_TEXT or LOOKS_LIKE_IDENTIFIER.search(text)):
            raise PrivacyError(
                f"{name}: found a text that is longer than {LONGEST_TEXT} characters or has the shape of a name, a "
                "date, a long number or an address (not shown), expected a short text of another kind"
            )


def _keyed(_: Gate, column: str, value: str) -> str | None:
    return value if _KEYED.fullmatch(value) else None


def _own(gate: Gate, column: str, value: str) -> str | None:
    """Pass codes with figures. A code that quotes an attribute may quote only its defined terms.

    A code about one of several images of a case begins with the name of that image.
    """
    image, slash, code = value.partition("/")
    if slash and gate.words.has(image) and (_RESCALE_TYPE.fullmatch(code) or _PET.fullmatch(code)):
        return None if _own(gate, column, code) is None else value
    quoted = _RESCALE_TYPE.fullmatch(value)
    if quoted is not None:
        return value if quoted[1] in terms.RESCALE_TYPES else None
    parts = value.split("; ")
    if len(parts) > 1 and any(_own(gate, column, part) is None for part in parts):
        return None
    if len(parts) == 1 and _QUOTED_OF_PET.search(value) and not _PET.fullmatch(value):
        return None
    return value if _OWN_TEXT.fullmatch(value) or _PET.fullmatch(value) else None


def _message(gate: Gate, column: str, value: str) -> str | None:
    return value


def _spec(gate: Gate, column: str, value: str) -> str | None:
    """Pass words between slashes; ``<reader>~<reader>`` in the name of a measure is a pair of readers."""
    if gate.words.has(value):
        return value
    apart = "[/~]" if column == "measure_names" else "/"
    known = all(gate.words.has(part) or _OWN_WORD.fullmatch(part) for part in re.split(apart, value))
    return value if known else None


def _term(gate: Gate, column: str, value: str) -> str | None:
    return terms.term(column, value)


def _kind(gate: Gate, column: str, value: str) -> str | None:
    return value if gate.words.has(value) else terms.term(column, value)


def _class(gate: Gate, column: str, value: str) -> str | None:
    return value if gate.words.has(value) else terms.imaging_words(value)


def _code(gate: Gate, column: str, value: str) -> str | None:
    return value if gate.words.has(value) else terms.concept(value)


def _meaning(gate: Gate, column: str, value: str) -> str | None:
    """Replace marked codes by our meaning of them; pass codes, and words of the program and of the spec."""
    if gate.words.has(value) or _OWN_QUANTITIES.fullmatch(value):
        return value
    if not value.startswith(CODED):
        return terms.concept(value)
    parts = value.removeprefix(CODED).split(CODED)
    meanings = [terms.meaning(part) or (part if gate.words.has(part) else None) for part in parts]
    return ", ".join(m for m in meanings if m is not None) if None not in meanings else None


_OWN_QUANTITIES = re.compile(r"long_axis|long_axis_stated|short_axis|unknown")


def _finding(gate: Gate, column: str, value: str) -> str | None:
    """Pass ``<label>/<finding>``, ``<label>/codes/<number>/<code>`` of documents, and what a line measures."""
    if gate.words.has(value) or _OWN_QUANTITIES.fullmatch(value):
        return value
    parts = value.split("/")
    known = all(
        not part or gate.words.has(part) or part == "codes" or terms.concept(part) or part in _OWN_FINDINGS
        or (before == "codes" and re.fullmatch(r"\d{1,4}", part))
        for before, part in zip(("", *parts), parts, strict=False)
    )  # fmt: skip
    return value if known else None


_OWN_FINDINGS = frozenset({"ImagingPhysicalEntity", "ImagingObservationEntity", "is_key_image", "key_images"})


def _answer(gate: Gate, column: str, value: str) -> str | None:
    if gate.words.has(value) or value in _ANSWERS:
        return value
    return _unclaimed(gate, terms.number(value)) or terms.concept(value)


def _unclaimed(gate: Gate, number: str | None) -> str | None:
    """Pass a number unless it is the person's own: many registers have numbers of six digits or fewer."""
    return None if number is None or gate.known.occur_in(number) else number


_ANSWERS = frozenset({"positive", "negative", "uncertain", "absent", "alternative", "true", "false"})


def _tool(gate: Gate, column: str, value: str) -> str | None:
    return value if gate.words.has(value) or _VERSIONED.fullmatch(value) else terms.tool(value)


def _reader(gate: Gate, column: str, value: str) -> str | None:
    known = all(not part or _READER.fullmatch(part) or gate.words.has(part) for part in value.split("+"))
    return value if known or gate.words.has(value) else None


def _numbering(gate: Gate, column: str, value: str) -> str | None:
    return _unclaimed(gate, value) if not value or _NUMBERING.fullmatch(value) else None


def _declared(gate: Gate, column: str, value: str) -> str | None:
    return value if len(value) <= LONGEST_TEXT else None


def _prose(gate: Gate, column: str, value: str) -> str | None:
    return scrub(value, known=gate.known)


def _worded(check: terms.Check) -> Callable[[Gate, str, str], str | None]:
    def judge(gate: Gate, column: str, value: str) -> str | None:
        return value if gate.words.has(value) else check(value)

    return judge


_CHECKS: Mapping[Policy, Callable[[Gate, str, str], str | None]] = MappingProxyType(
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
