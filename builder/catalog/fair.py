"""Assess the FAIR principles, each with its evidence or "not met"."""

from typing import Any

from builder.catalog.answers import Answers, questions
from builder.catalog.facts import Facts

NOT_MET = "not met"


def fair(facts: Facts) -> list[dict[str, Any]]:
    """Return the fifteen principles in their published order."""
    answer = Answers(facts)
    found = {name: answer(asked["evidence"]) for name, asked in questions("fair.yaml").items()}
    return [
        {
            "principle": name,
            "statement": asked["statement"],
            "evidence": found[name] or NOT_MET,
            "met": bool(found[name]),
        }
        for name, asked in questions("fair.yaml").items()
    ]
