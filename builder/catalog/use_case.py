"""Build the use-case card."""

from typing import Any

from builder.catalog.answers import questions
from builder.catalog.facts import Facts, stated


def use_case(facts: Facts) -> dict[str, Any]:
    """Return what the dataset is for, its inputs and outputs, its population, and its limitations."""
    card = facts.use_case
    wanted = questions("use_case.yaml")

    def told(name: str) -> Any:
        """Return what the spec states, or a TODO in the words of ``use_case.yaml``."""
        said = getattr(card, name)
        return (list(said) if isinstance(said, tuple) else said) or stated(
            None, f"{wanted[name]} (spec: use_case.{name})"
        )

    return {
        "name": facts.statement.title or facts.name,
        **{name: told(name) for name in ("task", "clinical_question", "users", "setting")},
        "input": [f"{name}: {meaning}" for name, meaning in facts.arrays.items() if name not in facts.labels],
        "output": [f"{name}: {meaning}" for name, meaning in facts.labels.items()],
        "population": {
            "persons": facts.persons,
            **{name: [str(v) for v in found] for name, found in facts.people.items()},
        },
        **{name: told(name) for name in ("intended_use", "out_of_scope")},
        "limitations": [*card.limitations, *facts.findings],
    }
