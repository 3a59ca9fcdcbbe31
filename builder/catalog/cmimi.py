"""Describe a dataset by the sixteen items of baseline metadata of the C-MIMI whitepaper, with a completeness score."""

from collections.abc import Iterable, Mapping
from typing import Any

from builder.catalog.answers import Answers, questions
from builder.catalog.facts import PLACES, TODO, Facts, RangeFacts, ValueCount

RESOLUTION = ("slices", "rows", "columns", "spacing_slice_mm", "spacing_row_mm", "spacing_column_mm")
"""Ranges that tell the resolution of the images rather than how they were acquired."""

DEEP_LEARNING = ("architecture", "loss", "optimizer", "learning_rate", "batch_size", "epochs")
"""The six parameters that a training run reports back (``builder record-training``)."""


def cmimi(facts: Facts, *, uses: int | None = None, runs: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return each item with its answer or a TODO, how many of the sixteen are answered, and what is told beyond them.

    Parameters
    ----------
    uses
        Number of read sessions in the log of use; None before publication, when nobody can have read the version.
    runs
        What training runs reported back, one text per run.
    """
    answers = Answers(
        facts,
        uses=uses,
        runs=runs,
        places=PLACES,
        population=[name for name in facts.people if name not in PLACES],
        resolution=[name for name in facts.ranges if name in RESOLUTION],
        acquisition=[name for name in facts.ranges if name not in ("age_years", *RESOLUTION)],
        counted=_counted,
        ranged=lambda names: [_ranged(name, facts.ranges[name]) for name in names if name in facts.ranges],
    )
    asked = questions("cmimi.yaml")
    items = [{"item": number, **_item(one, answers)} for number, one in asked["items"].items()]
    answered = sum(1 for item in items if item["answered"])
    return {
        "items": items,
        "answered": answered,
        "of": len(items),
        "completeness": answered / len(items),
        "beyond": [_item(one, answers) for one in asked["beyond"]],
    }


def _item(asked: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    """Return one item; ``asked`` is what ``cmimi.yaml`` says of it."""
    missing = [name for name, expression in asked.get("needs", {}).items() if not answers.value(expression)]
    found = "" if missing else answers(asked["answer"])
    about = asked["about"] if asked["about"].startswith("who ") else f"the {asked['about']}"
    wanted = asked.get("todo") or f"state {', '.join(missing) or about}"
    wanted += f" (spec: {asked['spec']})" if "spec" in asked else ""
    told = found or "; ".join(filter(None, (answers(asked.get("known", "")), f"{TODO}: {wanted}")))
    return {"about": asked["about"], "answer": told, "answered": bool(found)}


def _counted(found: Mapping[str, Iterable[ValueCount]], *names: str) -> list[str]:
    """Return for each of these columns that has values their counts as text."""
    told = ((name, ", ".join(str(v) for v in found.get(name, ()) if v.value is not None)) for name in names)
    return [f"{name.replace('_', ' ')}: {words}" for name, words in told if words]


def _ranged(name: str, found: RangeFacts) -> str:
    unit = f" {found.unit}" if found.unit else ""
    words = name.removesuffix("_mm").removesuffix("_years").replace("_", " ")
    if found.low == found.high:
        return f"{words}: {found.low:g}{unit}"
    return f"{words}: {found.low:g} to {found.high:g}{unit}, median {found.median:g}"
