"""What a series is: type, plane, contrast phase, body region, fat suppression and kernel, by a table of rules."""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import SpecError
from builder.imaging.series_types.texts import TEXTS, normalised, pattern_of
from builder.model.expression import Expression
from builder.model.expression import compile as compile_expression
from builder.model.tables import GRID_COLUMNS, READ_COLUMNS, SERIES_COLUMNS, WORKED_OUT

UNKNOWN: Final = "unknown"
"""What a series is when no rule fits."""

ORDER: Final = ("plane", "body_region", "kernel_type", "series_type", "fat_suppression", "phase")
"""The order in which the columns are worked out; a rule may read those before its own."""

REGIONS: Final = (
    *("head", "neck", "chest", "heart", "breast", "abdomen", "pelvis", "spine", "upper_limb", "lower_limb"),
    *("limb", "whole_body"),
)
"""Terms that ``<text>.regions`` counts."""

_KEYED = {"series_key", "study_key", "person_key", "frame_of_reference_key", "study_day", "annotations", "license"}


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Parameters
    ----------
    column
        The column it decides, one of ``WORKED_OUT``.
    value
        What the series is where the rule fits.
    name
        What ``<column>_rule`` says then.
    when
        An expression over ``rule_schema()``.
    """

    column: str
    value: str
    name: str
    when: str


@dataclass(frozen=True)
class Step:
    """Rules that are tried together, and the terms of other texts that must not have been said before."""

    rules: tuple[Rule, ...]
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The shipped rules: terms by name, and steps by column, in their order."""

    terms: Mapping[str, tuple[str, ...]]
    steps: Mapping[str, tuple[Step, ...]]

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """Every value that the rules of a column give, sorted, without ``UNKNOWN``."""
        found = {c: {r.value for s in steps for r in s.rules} - {UNKNOWN} for c, steps in self.steps.items()}
        return {column: tuple(sorted(values)) for column, values in found.items()}


def _written() -> bytes:
    return files(__package__).joinpath("rules.toml").read_bytes()


@cache
def table_digest() -> str:
    """Return the SHA-256 of the shipped table. What was worked out with another table is out of date."""
    return hashlib.sha256(_written()).hexdigest()


@cache
def shipped() -> Table:
    """Return the rules that come with the package."""
    document = tomllib.loads(_written().decode())
    terms = {name: tuple(words) for name, words in document["terms"].items()}
    steps: dict[str, tuple[Step, ...]] = dict.fromkeys(ORDER, ())
    for block in document["table"]:
        steps[block["column"]] += tuple(_steps(block))
    return Table(terms, steps)


def _steps(block: Mapping[str, object]) -> Iterable[Step]:
    """Yield the rules of a block once for each of its texts; a later text speaks where the earlier ones are silent."""
    column, lines, texts = str(block["column"]), block["rules"], block.get("texts")
    assert isinstance(lines, list)
    rules = tuple(Rule(column, line["is"], line["name"], line["when"]) for line in lines)
    if not isinstance(texts, list):
        yield Step(rules)
        return
    asked = sorted({name for rule in rules for name in re.findall(r"\bTEXT\.(\w+)", rule.when)} - {"regions"})
    for place, text in enumerate(texts):
        own = (
            replace(rule, name=f"{text}_{rule.name}", when=re.sub(r"\bTEXT\.", f"{text}.", rule.when)) for rule in rules
        )
        yield Step(tuple(own), tuple(f"{earlier}.{name}" for earlier in texts[:place] for name in asked))


@cache
def rule_schema() -> pa.Schema:
    """Return the columns that rules may read: headers, geometry, and what the texts say (``series.t1``)."""
    fields = {c.name: c.field for c in (*SERIES_COLUMNS, *READ_COLUMNS, *GRID_COLUMNS) if c.name not in _KEYED}
    said = [pa.field(f"{text}.{term}", pa.bool_()) for text in TEXTS for term in shipped().terms]
    counted = [pa.field(f"{text}.regions", pa.int64()) for text in TEXTS]
    found = [pa.field(name, pa.string()) for name in ORDER]
    return pa.schema([*fields.values(), *said, *counted, *found])


def work_out(series: pa.Table, more: Sequence[Rule] = ()) -> pa.Table:
    """Return ``<column>`` and ``<column>_rule`` for each of ``WORKED_OUT``, parallel to ``series``.

    Parameters
    ----------
    series
        One row per stack. Columns of ``rule_schema`` that it lacks are missing everywhere.
    more
        Rules of a spec, which come before the shipped ones.

    Raises
    ------
    SpecError
        When a rule of ``more`` does not compile.
    """
    facts = _Facts(series)
    found: dict[str, pa.Array] = {}
    for column in ORDER:
        own = Step(tuple(rule for rule in more if rule.column == column))
        value, name = _decide(facts, (own, *shipped().steps[column]))
        facts.add(column, value)
        found |= {column: value, f"{column}_rule": name}
    return pa.table({name: found[name] for kind in WORKED_OUT for name in (kind, f"{kind}_rule")})


def _decide(facts: "_Facts", steps: Sequence[Step]) -> tuple[pa.Array, pa.Array]:
    rows = facts.rows
    value, name = pa.repeat(pa.scalar(UNKNOWN), rows), pa.nulls(rows, pa.string())
    open_ = pa.repeat(pa.scalar(True), rows)
    for step in steps:
        asked = open_
        for said in step.unless:
            asked = pc.and_(asked, pc.invert(facts.get(said)))
        for rule in step.rules:
            waiting = pc.and_(asked, open_)
            if not pc.any(waiting).as_py():
                break
            fits = pc.and_(waiting, facts.mask(rule))
            value = pc.if_else(fits, pa.scalar(rule.value, pa.string()), value)
            name = pc.if_else(fits, pa.scalar(rule.name, pa.string()), name)
            open_ = pc.and_(open_, pc.invert(fits))
    return value, name


class _Facts:
    """The columns of ``rule_schema``, each made when a rule first asks for it."""

    def __init__(self, series: pa.Table) -> None:
        self.rows = series.num_rows
        self._series = series
        self._made: dict[str, pa.Array] = {}

    def add(self, name: str, values: pa.Array) -> None:
        self._made[name] = values

    def mask(self, rule: Rule) -> pa.Array:
        """Return where a rule's expression is true."""
        expression = compiled(rule.when)
        if not expression.columns:
            return expression.mask(pa.table({"": pa.nulls(self.rows)}))
        return expression.mask(pa.table({name: self.get(name) for name in expression.columns}))

    def get(self, name: str) -> pa.Array:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> pa.Array:
        text, _, term = name.partition(".")
        if term == "regions":
            counts = [pc.cast(self.get(f"{text}.{region}"), pa.int64()) for region in REGIONS]
            total = counts[0]
            for count in counts[1:]:
                total = pc.add(total, count)
            return total
        if term:
            return self._texts.say(text, term)
        kind = rule_schema().field(name).type
        if name not in self._series.column_names:
            return pa.nulls(self.rows, kind)
        return self._series.column(name).cast(kind).combine_chunks()

    @cached_property
    def _texts(self) -> "_Texts":
        return _Texts({text: self.get(column) for text, column in TEXTS.items()})


class _Texts:
    """Columns of texts of one length. Each distinct text is looked at once, as preparing a search costs the most."""

    def __init__(self, columns: Mapping[str, pa.Array]) -> None:
        coded = pa.chunked_array(list(columns.values()), pa.string()).combine_chunks().dictionary_encode("encode")
        rows = len(coded) // len(columns)
        self._texts = normalised(coded.dictionary)
        self._places = {name: coded.indices.slice(n * rows, rows) for n, name in enumerate(columns)}
        self._said: dict[str, pa.Array] = {}

    def say(self, column: str, term: str) -> pa.Array:
        """Return which texts of a column hold a word of a term."""
        if term not in self._said:
            self._said[term] = pc.match_substring_regex(self._texts, _term_pattern(term))
        return self._said[term].take(self._places[column])


@cache
def _term_pattern(term: str) -> str:
    return pattern_of(shipped().terms[term])


@cache
def compiled(when: str) -> Expression:
    """Compile the condition of a rule. Raises SpecError."""
    try:
        return compile_expression(when, rule_schema())
    except SpecError as error:
        raise SpecError(f"series rule {when!r}: {error}") from error
