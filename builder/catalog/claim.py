"""Answer the data items of the Checklist for Artificial Intelligence in Medical Imaging (CLAIM)."""

from typing import Any

from builder.catalog.answers import Answers, questions
from builder.catalog.facts import TODO, Facts, stated


def claim(facts: Facts) -> list[dict[str, Any]]:
    """Return items 7 to 21, each with its answer or a TODO."""
    answer = Answers(facts)
    return [
        _item(number, item["about"], answer(item["answer"]) or stated(None, _wanted(**item)))
        for number, item in questions("claim.yaml").items()
    ]


def _item(number: int, about: str, answer: str) -> dict[str, Any]:
    return {"item": number, "about": about, "answer": answer, "answered": TODO not in answer}


def _wanted(*, about: str, answer: str, spec: str | None = None) -> str:
    """Return what to state, and the key of the spec that takes it."""
    return f"the {about}" + (f" (spec: catalog.annotation.{spec})" if spec else "")
