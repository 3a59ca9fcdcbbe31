"""Answer the data items of the Checklist for Artificial Intelligence in Medical Imaging (CLAIM)."""

from typing import Any

from builder.catalog.facts import TODO, Facts
from builder.catalog.reference import agreement, annotators, tools

ABOUT = {
    7: "data sources",
    8: "eligibility criteria: how, where and when cases were chosen, and who was left out",
    9: "data preprocessing steps",
    10: "selection of data subsets",
    11: "definitions of data elements",
    12: "de-identification methods",
    13: "how missing data were handled",
    14: "definition of the reference standard",
    15: "rationale for choosing the reference standard",
    16: "source of annotations; qualifications of annotators",
    17: "annotation tools",
    18: "inter- and intrarater variability",
    19: "intended sample size and how it was determined",
    20: "how data were assigned to partitions",
    21: "level at which partitions are disjoint",
}

SPEC = {14: "protocol", 15: "rationale", 16: "annotators", 17: "tools", 18: "agreement"}
"""Maps an item to the key of ``catalog.annotation`` that answers it."""


def claim(facts: Facts) -> list[dict[str, Any]]:
    """Return items 7 to 21 (Mongan 2020, doi:10.1148/ryai.2020200029), each with its answer or a TODO."""
    known = {**_data(facts), **_reference_standard(facts), **_partitions(facts)}
    answers = {i: known[i] or _todo(i, about) for i, about in ABOUT.items()}
    return [
        {"item": i, "about": about, "answer": answers[i], "answered": TODO not in answers[i]}
        for i, about in ABOUT.items()
    ]


def missing_data(facts: Facts) -> str:
    """Return how missing values were handled, and which columns have some."""
    gaps = [f for f in facts.findings if "unknown for" in f]
    return "kept as missing values; nothing was imputed" + (f": {'; '.join(gaps)}" if gaps else "")


def _todo(item: int, about: str) -> str:
    return f"{TODO}: state the {about}" + (f" (spec: catalog.annotation.{SPEC[item]})" if item in SPEC else "")


def _data(facts: Facts) -> dict[int, str | None]:
    sources = "; ".join(dict.fromkeys(f"{s.name} ({s.doi})" if s.doi else s.name for s in facts.sources))
    left = ", ".join(map(str, facts.left))
    chosen = [*facts.eligibility, *([f"left out: {left}"] if left else [])]
    return {
        7: sources or None,
        8: "; ".join(chosen) or None,
        9: "; ".join(facts.preprocessing) or None,
        10: facts.sampling,
        11: "; ".join(f"{t.name}: {len(t.columns)} columns, {t.rows} rows" for t in facts.tables) or None,
        12: "; ".join(facts.deidentification) or None,
        13: missing_data(facts),
    }


def _reference_standard(facts: Facts) -> dict[int, str | None]:
    note = facts.statement.annotation
    return {
        14: "; ".join([*facts.annotation, *([note.protocol] if note.protocol else [])]) or None,
        15: note.rationale,
        16: annotators(facts),
        17: tools(facts),
        18: agreement(facts),
    }


def _partitions(facts: Facts) -> dict[int, str | None]:
    strata = f"; {facts.strata} strata" if facts.strata else ""
    level = {True: "persons: none lies in two splits", False: "none: a person lies in two splits", None: None}
    return {
        19: "; ".join(facts.outcomes) or None,
        20: f"{facts.split_sentence}{strata}" if facts.split_sentence else None,
        21: level[facts.disjoint],
    }
