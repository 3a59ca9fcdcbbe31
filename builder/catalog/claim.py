"""Answer the data items of the Checklist for Artificial Intelligence in Medical Imaging (CLAIM) of 2020."""

from typing import Any

from builder.catalog.answers import Answers, answered, questions
from builder.catalog.facts import Facts


def claim(facts: Facts) -> list[dict[str, Any]]:
    """Return items 7 to 21, each with where the dataset tells it, and its answer or a TODO."""
    answers, known = Answers(facts), questions("answers.yaml")
    return [
        {
            "item": number,
            "about": item["about"],
            "where": known[item["answer"]]["where"],
            **answered(item["answer"], answers),
        }
        for number, item in questions("claim.yaml").items()
    ]
