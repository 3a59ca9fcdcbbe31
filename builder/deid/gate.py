"""The one gate for text: it lets out values of closed vocabularies, values declared and checked, and scrubbed prose.

Every other value is dropped from its cell, counted by column, and listed in the private workspace, so that the author
of a spec can declare it. Nothing else in the project can make ``Cleared`` text.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builder.deid.checks import CHECKS, LONGEST_TEXT, Against, Words, all_keyed
from builder.deid.identifiers import NOTHING_KNOWN, Identifiers
from builder.deid.options import ColumnText
from builder.deid.writing import fold, says_a_date
from builder.errors import PrivacyError
from builder.model.case import ClearedSample, Sample, Scalar
from builder.model.cleared import (
    CLOSED,
    POLICIES,
    SEAL,
    Cell,
    Cleared,
    Policy,
    bare_column,
    check_policies,
    policy_of,
)
from builder.model.options import WITHHELD
from builder.model.patterns import fits

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_ABROAD = (
    r"\b[^\W\d_]{3,30}(?:strasse|str\.|gasse|platz|allee|straat|laan|gatan|utca) ?\d{1,4}\b"
    r"|\b(?:rue|calle|rua|ulica|ulitsa|ul\.|piazza) (?:[^\W\d_]{1,20}[ ,]{1,2}){1,4}\d{1,4}\b"
    r"|\b\d{1,4},? (?:rue|avenue|place) [^\W\d_]|\b(?:herr|frau|madame|monsieur|senora?|signora?|mme|mlle) [^\W\d_]"
    r"|\b0\d(?:[ .-]\d{2}){4}\b|\b0\d{2,4}[ /-]\d{4,8}\b"
)
"""Streets, titles and telephone numbers as they are written outside English, in folded text."""
_STREET = r"(?:street|avenue|road|boulevard|lane|drive|square|court|place|terrace|strasse|stra\u00dfe)"
LOOKS_LIKE_IDENTIFIER: Final = re.compile(
    r"\^|@|\d{7,}|\b(?:19|20)\d{2}[-/.]?(?:0[1-9]|1[0-2])[-/.]?(?:0[1-9]|[12]\d|3[01])\b"
    r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b|\b\d{1,2}-\d{1,2}-\d{4}\b|\b\d+(?:\.\d+){4,}"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?[ .,-]{{0,2}}{_MONTH}\b[ .,-]{{0,2}}\d{{2,4}}\b"
    rf"|\b{_MONTH}\b[ .]{{0,2}}(?:\d{{1,2}}(?:st|nd|rd|th)?,?[ ])?\d{{4}}\b"
    r"|\b\d{3}\)?[ ./-]\d{3,4}[ ./-]\d{3,5}\b|\+\d{2}[\d ()./-]{6}"
    rf"|\b\d{{1,5}} [^\W\d_]{{2,30}}(?: [^\W\d_]{{2,30}})? {_STREET}\b|\b(?:dr|prof|mrs?|ms)\. ?[^\W\d_]"
    rf"|\b(?:www\.|https?:)|{_ABROAD}",
    re.IGNORECASE,
)
"""Matches a DICOM name, an address (mail, street, page), a telephone number, a long number, a date, a UID, and a person
with a title."""


def looks_like_identifier(text: str) -> bool:
    """Return whether a text holds the shape of an identifier, in whichever script its letters and digits are."""
    if LOOKS_LIKE_IDENTIFIER.search(text):
        return True
    return says_a_date(text) or (not text.isascii() and LOOKS_LIKE_IDENTIFIER.search(fold(text)) is not None)


_OF_SEVERAL_WORDS = frozenset(
    {Policy.CLASS, Policy.BODY_PART, Policy.KERNEL, Policy.IMAGE_TYPE, Policy.MODEL, Policy.TOOL}
)
"""Closed vocabularies of words, not of values: two words of them side by side may be somebody's name."""


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
            return self._texts(column.name, pa.chunked_array(values.chunks, column.type).combine_chunks())
        if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            lists = pa.chunked_array(values.chunks, column.type).combine_chunks()
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
            starts = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
            judged = self._texts(column.name, lists.flatten())
            return pa.ListArray.from_arrays(starts, judged, mask=pc.is_null(lists)).cast(column.type)
        return None

    def _texts(self, column: str, values: pa.Array) -> pa.Array:
        """Judge each distinct text once."""
        coded = values.dictionary_encode()
        texts = coded.dictionary
        if policy_of(column, self.declared) is Policy.KEY and column not in self.rules and all_keyed(texts):
            return values
        judged = [self.text(column, text) for text in texts.to_pylist()]
        if None in judged:
            counts = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(texts)).tolist()
            for text, kept, count in zip(texts.to_pylist(), judged, counts, strict=True):
                if kept is None:
                    self.dropped[column, text] += count - 1
        return pa.array(judged, pa.string()).take(coded.indices)

    def _of_persons(
        self, values: pa.Array, column: str, known: Callable[[int], Identifiers], suspect: Callable[[str], bool]
    ) -> pa.Array:
        """Return the values without those that say who the person of their row is."""
        doubtful = {v for v in values.unique().to_pylist() if v and not self.words.has(v) and suspect(v)}
        if not doubtful:
            return values
        kept = values.to_pylist()
        for row, value in enumerate(kept):
            if value in doubtful and known(row).are_said_by(value):
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
        found = CHECKS[policy](Against(self.words, self.known), bare_column(column, self.declared), value)
        if found is None and rule is not None and rule.pattern is not None and fits(rule.pattern, value):
            return self._unknown(value)
        if policy in _OF_SEVERAL_WORDS and not self.words.has(found or ""):
            found = None if found is None or self.known.names_both_in(found) else found
        if found is None or policy in CLOSED:
            return None if found is None else Cleared(found, SEAL)
        if policy is Policy.DECLARED and bare_column(column) in POLICIES and self.words.has(value):
            return Cleared(value, SEAL)  # the site of a source beside a table's
        if policy is Policy.ORIGIN:  # citations hold dates and long numbers
            return None if self.known.occur_in(found) else Cleared(found, SEAL)
        return self._unknown(found)

    def _unknown(self, value: str) -> Cleared | None:
        """Return the value, unless it looks like an identifier, or says who somebody is and is no word of the spec."""
        if looks_like_identifier(value) or (not self.words.has(value) and self.known.are_said_by(value)):
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
        if text is not None and (len(text) > LONGEST_TEXT or looks_like_identifier(text)):
            raise PrivacyError(
                f"{name}: found a text that is longer than {LONGEST_TEXT} characters or has the shape of a name, a "
                "date, a long number or an address (not shown), expected a short text of another kind"
            )
