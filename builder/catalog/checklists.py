"""Fill in checklists: for each item that a dataset can answer, the answer and where the dataset tells it."""

from collections.abc import Mapping
from typing import Any

from builder.catalog.answers import Answers, answered, questions
from builder.catalog.facts import Facts

CHECKLISTS = ("claim_2024", "tripod_ai", "stard_ai", "metric", "neurips_2026", "ai_act", "ehds")
"""Files of ``checklists/``; the answers that they name are in ``answers.yaml``."""


def checklists(facts: Facts) -> dict[str, Any]:
    """Return each checklist with its source, its items, and how many of them are answered."""
    answers = Answers(facts)
    return {name: _filled(questions(f"checklists/{name}.yaml"), answers) for name in CHECKLISTS}


def _filled(asked: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    items = [_item(str(number), one, answers) for number, one in asked["items"].items()]
    return {
        "title": asked["title"],
        "source": asked["source"],
        "of_the_study": [str(number) for number in asked.get("of_the_study", ())],
        "items": items,
        "answered": sum(item["answered"] for item in items),
        "of": len(items),
    }


def _item(number: str, asked: Mapping[str, str], answers: Answers) -> dict[str, Any]:
    """Return one item: its number, what it is about, where its answer is told, and the answer or a TODO."""
    where = questions("answers.yaml")[asked["answer"]]["where"]
    return {"item": number, "about": asked["about"], "where": where, **answered(asked["answer"], answers)}
