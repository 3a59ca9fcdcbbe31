"""The last check before publishing: nothing that leaves contains a value of the source that names somebody."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid.uids import is_registered
from builder.deid.writing import UNSPACED_RUN, fold, unspaced_forms
from builder.errors import PrivacyError

SHORTEST = 4
"""Fewest characters of a value that is searched for."""

SHORTEST_NUMBER = 6
"""Fewest digits of a value that consists of digits, because a shorter one cannot be told from a count."""

IDENTIFYING_COLUMNS = (
    "patient_id",
    "accession_number",
    "device_serial_number",
    "study_uid",
    "series_uid",
    "sop_instance_uid",
    "frame_of_reference_uid",
)
"""Columns of the inventory whose values must not leave."""

_REMEDY = (
    "; leave the column out with deid.text.{name}: {{drop: true}}, replace single values with map, or list the levels "
    "of a clinical column"
)
_CHUNK = 1 << 22
_ROWS = 1 << 15
_LONGEST = 512
_LONGEST_UNSPACED = 12
_RUN = re.compile(rb"[0-9]+|[a-z\x80-\xff]+")
_DIGITS = re.sub(rb"[^0-9]", b" ", bytes(range(256)))
_LETTERS = re.sub(rb"[^a-z\x80-\xff]", b" ", bytes(range(256)))
"""Table for ``bytes.translate`` that keeps runs of one kind and puts spaces between them."""
_WORDS = re.sub(rb"[^a-z0-9\x80-\xff]", b" ", bytes(range(256)))
_LETTERED = re.compile(r"[^\W\d_]+")
_HASH = re.compile(rb"(?<![0-9a-z])(?:[0-9a-f]{32}(?:[0-9a-f]{32})?|[0-9a-hjkmnp-tv-z]{26})(?![0-9a-z])")
"""A fingerprint or checksum in hexadecimal, or a keyed name in base 32, in which "f012" occurs by chance."""
_TELLING = 12
"""Characters from which a value inside a hash is no coincidence: 16^12 exceeds the number of hashes in a dataset."""


@dataclass(frozen=True)
class Canaries:
    """Source values to look for, indexed by their longest run of letters or of digits.

    ``anchors`` maps such a run to the values that contain it. Output is cut into runs once, so the time of a scan does
    not grow with the number of values. A value is found wherever it occurs as a whole, in any case and also inside a
    longer text, unless its anchor run is itself part of a longer run of the same kind. A value of fewer than 12
    characters is ignored inside a hexadecimal hash (32 or 64 digits) or a keyed name (26 digits of base 32), where it
    occurs by chance. ``pairs`` are two words of a name, in either order and with anything between them. ``unspaced``
    are whole names in scripts that put no spaces between words. Values and output are compared as ``fold`` writes them.
    """

    anchors: dict[bytes, tuple[bytes, ...]]
    pairs: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    unspaced: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, values: Iterable[str], *, names: Iterable[str] = (), ordinary: frozenset[str] = frozenset()
    ) -> "Canaries":
        """Keep the values that are long enough to differ from words and counts, except ``ordinary`` lower-case texts.

        ``names`` are names of persons: any two words of one, unless both are ordinary words or one of them is short.
        """
        ordinary = frozenset(map(fold, ordinary))
        anchors: dict[bytes, set[bytes]] = {}
        for value in values:
            text = fold(value.strip(" \0")).strip()
            if len(text) < (SHORTEST_NUMBER if text.isdigit() else SHORTEST) or text in ordinary:
                continue
            needle = text.encode()[:_LONGEST]
            runs = _RUN.findall(needle)
            if runs:
                anchors.setdefault(max(runs, key=len), set()).add(needle)
        pairs: dict[bytes, set[bytes]] = {}
        said = "\n".join(" ".join(_LETTERED.findall(text)) for text in sorted(ordinary) if " " in text)
        unspaced: set[str] = set()
        for name in names:
            for pair in _pairs(name, ordinary):
                if pair not in said:
                    pairs.setdefault(max(pair.encode().split(), key=len), set()).add(pair.encode())
            for group in () if name.isascii() else name.split("="):
                parts = tuple(_LETTERED.findall(fold(group)))[:4]
                longer = 2 if len(parts) == 1 else max(map(len, parts), default=0)  # a part alone proves nothing
                unspaced |= {written for written in unspaced_forms(parts) if len(written) > longer}
        return cls(_frozen(anchors), _frozen(pairs), frozenset(unspaced - ordinary))

    def count_in(self, data: bytes | memoryview) -> int:
        """Return how many distinct values occur in ``data``. Memory stays within a few copies of 4 MiB."""
        return len(self.found_in(data))

    def found_in(self, data: bytes | memoryview) -> frozenset[bytes]:
        """Return the distinct values that occur in ``data``, in lower case. They are private."""
        found: set[bytes] = set()
        for chunk in _chunks(data):
            lower = _folded(chunk)
            runs = _runs(lower)
            for anchor in self.anchors.keys() & runs:
                found.update(needle for needle in self.anchors[anchor] if _stands_in(needle, lower))
            near = self.pairs.keys() & runs
            if near:
                words = b" ".join(lower.translate(_WORDS).split())
                found.update(n for anchor in near for n in self.pairs[anchor] if _stands_in(n, words))
            if self.unspaced and not lower.isascii():
                found.update(name.encode() for name in self.unspaced.intersection(_pieces(lower.decode())))
        return frozenset(found)

    def without_words(self) -> "Canaries":
        """Return the values that are more than one word of letters; inside a sentence a single word may be ordinary."""
        return self._without_words

    @cached_property
    def _without_words(self) -> "Canaries":
        # kept, because every document of a version is searched for them, and there may be a value for each person
        kept = {a: tuple(n for n in needles if not _is_word(n)) for a, needles in self.anchors.items()}
        return replace(self, anchors={a: needles for a, needles in kept.items() if needles})

    def without_numbers(self) -> "Canaries":
        """Return the values that do not consist of digits only; in documents, counts and sizes would equal some."""
        kept = {a: tuple(n for n in needles if not n.isdigit()) for a, needles in self.anchors.items()}
        return replace(self, anchors={a: needles for a, needles in kept.items() if needles})

    def without(self, found: frozenset[bytes]) -> "Canaries":
        """Return the values except ``found``, which occur in texts about nobody."""
        anchors, pairs = (
            {anchor: kept for anchor, needles in held.items() if (kept := tuple(n for n in needles if n not in found))}
            for held in (self.anchors, self.pairs)
        )
        return Canaries(anchors, pairs, self.unspaced - {name.decode() for name in found})

    def words(self) -> frozenset[str]:
        """Return the values that are one word of letters."""
        return self._words

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(n.decode() for needles in self.anchors.values() for n in needles if _is_word(n))


def _frozen(found: dict[bytes, set[bytes]]) -> dict[bytes, tuple[bytes, ...]]:
    return {anchor: tuple(needles) for anchor, needles in found.items()}


def _pairs(name: str, ordinary: frozenset[str]) -> Iterator[str]:
    """Return any two words of a name, in either order."""
    words = _LETTERED.findall(fold(name))[:4]
    for first, second in combinations(words, 2):
        if min(len(first), len(second)) >= 2 and not {first, second} <= ordinary:
            yield f"{first} {second}"
            yield f"{second} {first}"


def _is_word(needle: bytes) -> bool:
    return _RUN.fullmatch(needle) is not None and not needle.isdigit()


def values_to_find(instances: pa.Table, *, leaving: frozenset[str] = frozenset()) -> Iterator[str]:
    """Return the distinct values of ``IDENTIFYING_COLUMNS`` of an inventory, except registered UIDs.

    ``leaving`` names columns whose values leave.
    """
    for name in IDENTIFYING_COLUMNS:
        if name in instances.column_names and name not in leaving:
            values = pc.unique(instances.column(name)).to_pylist()
            yield from (value for value in values if value and not is_registered(value))


def assert_clean(
    data: bytes | memoryview | pa.Table,
    canaries: Canaries,
    *,
    where: str,
    counts: frozenset[str] = frozenset(),
    remedy: str = "",
) -> None:
    """Stop the build if a source value occurs in something that is about to leave.

    Parameters
    ----------
    data
        The bytes of a JSON, HTML or text file, or a table. In tables, every column of text, whole numbers, dates and
        bytes is searched, nested ones included, and also the names and metadata of the schema. Pass a compressed file
        as a table.
    canaries
        What must not occur.
    where
        What the message calls it.
    counts
        Columns of whole numbers that hold counts, sizes and positions, because a count may equal somebody's number.
    remedy
        What the author of the spec can do; it ends the message.

    Raises
    ------
    PrivacyError
        The message says where and how many, but never what.
    """
    if isinstance(data, pa.Table):
        _assert_clean_table(data, canaries, where=where, counts=counts)
        return
    count = canaries.count_in(data)
    if count:
        raise PrivacyError(
            f"{where}: found {count} value(s) of the source that name a person, a study or an object (not shown), "
            f"expected none; nothing is published{remedy}"
        )


def _assert_clean_table(table: pa.Table, canaries: Canaries, *, where: str, counts: frozenset[str]) -> None:
    described = [field.name.encode() for field in table.schema]
    described += [part for pair in (table.schema.metadata or {}).items() for part in pair]
    described += [part for field in table.schema for pair in (field.metadata or {}).items() for part in pair]
    assert_clean(b"\n".join(described), canaries, where=f"{where}, schema")
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in counts and pa.types.is_integer(column.type):
            continue
        for chunk in column.chunks:
            for text in _texts(chunk):
                assert_clean(text, canaries, where=f"{where}, column {name!r}", remedy=_REMEDY.format(name=name))


def _texts(array: pa.Array) -> Iterator[bytes]:
    """Yield the distinct values of an array as bytes with newlines between them, a bounded number at a time."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _texts(array.dictionary)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _texts(array.flatten())
    elif pa.types.is_map(kind):
        yield from _texts(array.keys)
        yield from _texts(array.items)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _texts(array.field(index))
    elif not (pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        yield from _joined(array if _holds_bytes(kind) else pc.cast(array, pa.large_string()))


def _holds_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _joined(array: pa.Array) -> Iterator[bytes]:
    """Yield values joined by newlines, some thousand at a time."""
    for start in range(0, len(array), _ROWS):
        part = array.slice(start, _ROWS).drop_null()
        part = pc.unique(pc.cast(part, pa.large_binary()))
        if len(part):
            whole = pa.ListArray.from_arrays(pa.array([0, len(part)], pa.int32()), part)
            yield pc.binary_join(whole, pa.scalar(b"\n", pa.large_binary()))[0].as_py()


def _chunks(data: bytes | memoryview) -> Iterator[bytes]:
    """Yield pieces of ``data`` that overlap by more than the longest value."""
    start = 0
    while True:
        yield bytes(data[start : start + _CHUNK + 2 * _LONGEST])
        start += _CHUNK
        if start >= len(data):
            return


def _folded(chunk: bytes) -> bytes:
    """Return UTF-8 as ``fold`` writes it; what is none becomes blanks."""
    return chunk.lower() if chunk.isascii() else fold(chunk.decode(errors="replace")).encode()


def _pieces(text: str) -> Iterator[str]:
    """Return every piece of the unspaced runs of a text that is as long as a name may be."""
    for run in UNSPACED_RUN.findall(text):
        for start in range(len(run)):
            yield from (run[start:stop] for stop in range(start + 2, min(start + _LONGEST_UNSPACED, len(run)) + 1))


def _runs(text: bytes) -> set[bytes]:
    """Return what ``_RUN`` finds, each run once. This takes a third of its time, because most runs of a text repeat."""
    return {*text.translate(_DIGITS).split(), *text.translate(_LETTERS).split()}


def _stands_in(needle: bytes, text: bytes) -> bool:
    """Return whether ``needle`` occurs and ends where runs end: "12345" does not occur in "912345".

    A number of JSON (after a colon, comma or bracket, without quotes) is a count and not somebody's number.
    """
    start = text.find(needle)
    while start >= 0:
        stop = start + len(needle)
        joined = _joins(text[max(start - 1, 0) : start], needle[:1]) or _joins(needle[-1:], text[stop : stop + 1])
        number = needle.isdigit() and _is_bare_number(text, start, stop)
        if not joined and not number and not _is_in_hash(text, start, stop):
            return True
        start = text.find(needle, start + 1)
    return False


def _is_bare_number(text: bytes, start: int, stop: int) -> bool:
    before, after = text[max(start - 8, 0) : start].rstrip(), text[stop : stop + 8].lstrip()
    return before[-1:] in (b":", b",", b"[") and after[:1] in (b",", b"]", b"}")


def _is_in_hash(text: bytes, start: int, stop: int) -> bool:
    """Return whether a short value is part of a hash or of a keyed name."""
    if stop - start >= _TELLING:
        return False
    begin = max(start - 65, 0)
    around = _HASH.finditer(text[begin : stop + 65])
    return any(begin + found.start() <= start and stop <= begin + found.end() for found in around)


def _joins(left: bytes, right: bytes) -> bool:
    """Return whether two neighbouring bytes belong to one run of digits or of letters."""
    return len(left) == len(right) == 1 and _RUN.fullmatch(left + right) is not None
