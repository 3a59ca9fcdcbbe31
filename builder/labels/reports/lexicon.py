"""Lexicons: expressions that name a finding, and words that deny it, doubt it or end the scope of such a word."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

Expressions: TypeAlias = tuple[re.Pattern[str], ...]


@dataclass(frozen=True)
class Lexicon:
    """The compiled expressions of one lexicon.

    ``findings`` maps a finding to its expressions, and ``apparent`` maps it to expressions that only look like it.
    ``cues`` maps a role to its expressions: ``negated``, ``uncertain`` and ``alternative``, each with ``before``,
    ``after`` or ``next``; ``stop``, ``apparent`` and ``other``. ``any_finding`` matches wherever an expression of any
    finding does, which skips most sentences cheaply.
    """

    findings: Mapping[str, Expressions]
    apparent: Mapping[str, Expressions]
    cues: Mapping[str, Expressions]
    any_finding: re.Pattern[str]


@cache
def load_lexicon(name: str = "chest14") -> Lexicon:
    """Load a packaged lexicon by its name."""
    folder = files("builder.labels.reports")
    findings: dict[str, list[re.Pattern[str]]] = {}
    apparent: dict[str, list[re.Pattern[str]]] = {}
    for key, expression in _rows(folder.joinpath(f"{name}.tsv").read_text(encoding="utf-8")):
        target = apparent if expression.startswith("!") else findings
        target.setdefault(key, []).append(_compile(expression.removeprefix("!")))
    cues: dict[str, list[re.Pattern[str]]] = {}
    for key, expression in _rows(folder.joinpath("cues.tsv").read_text(encoding="utf-8")):
        cues.setdefault(key, []).append(_compile(expression))
    every = "|".join(expression.pattern for expressions in findings.values() for expression in expressions)
    return Lexicon(_freeze(findings), _freeze(apparent), _freeze(cues), re.compile(every, re.IGNORECASE))


def _rows(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(key, expression) for key, _, expression in (line.partition("\t") for line in lines)]


def _compile(expression: str) -> re.Pattern[str]:
    spaced = re.sub(r"(?<!\\) ", r"\\s+", expression.replace(" ?", r"\s*"))
    return re.compile(rf"(?<!\w)(?:{spaced})(?!\w)", re.IGNORECASE)


def _freeze(table: dict[str, list[re.Pattern[str]]]) -> Mapping[str, Expressions]:
    return {key: tuple(expressions) for key, expressions in table.items()}
