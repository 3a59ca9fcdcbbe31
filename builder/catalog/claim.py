"""Answer the data items of the Checklist for Artificial Intelligence in Medical Imaging (CLAIM) of 2020."""

from typing import Any

from builder.catalog.answers import Answers, answered, questions
from builder.catalog.facts import Facts


def claim(facts: Facts) -> list[dict[str, Any]]:
    """Return items 7 to 21, each with its answer or a TODO."""
    answers = Answers(facts)
    return [
        {"item": number, "about": item["about"], **answered(item["answer"], answers)}
        for number, item in questions("claim.yaml").items()
    ]
