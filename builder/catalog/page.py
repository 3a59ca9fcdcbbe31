"""Render the catalog records as one page without network access or scripts; all text is escaped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.catalog.claim import claim
from builder.catalog.cmimi import cmimi
from builder.catalog.datasheet import questions_of
from builder.catalog.facts import TODO, Facts
from builder.catalog.fair import fair
from builder.catalog.terms import terms
from builder.catalog.use_case import use_case
from builder.pages import template_environment


def page(facts: Facts, *, uses: int | None = None, runs: Sequence[str] = ()) -> str:
    """Return the page as HTML text; ``uses`` and ``runs`` are as for ``cmimi``."""
    environment = template_environment(Path(__file__).parent)
    environment.filters["words"] = lambda name: name.replace("_", " ")
    environment.filters["items"] = _items
    environment.tests["open"] = _is_open
    text = environment.get_template("page.html.jinja").render(
        facts=facts,
        governance=facts.governance.model_dump(),
        card=use_case(facts),
        terms=terms(facts),
        cmimi=cmimi(facts, uses=uses, runs=tuple(runs)),
        fair=fair(facts),
        claim=claim(facts),
        datasheet=questions_of(facts),
    )
    return text if text.endswith("\n") else text + "\n"


def _items(value: Any) -> list[str]:
    """Return a text or list as a list of lines."""
    return [str(value)] if isinstance(value, str) else [str(v) for v in value]


def _is_open(value: Any) -> bool:
    """Return whether a person still has to supply this value."""
    return isinstance(value, str) and f"{TODO}:" in value
