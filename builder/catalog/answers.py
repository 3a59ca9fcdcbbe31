"""Answer the questions of a record from YAML files, in which each answer is a Jinja template."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.catalog.facts import TODO, Facts, stated
from builder.catalog.reference import agreement, annotators, tools, who_stands_behind
from builder.catalog.terms import terms
from builder.errors import counted
from builder.pages import text_environment

if TYPE_CHECKING:
    from jinja2 import Template


class Answers:
    """Renders the templates of answers with the facts of one dataset, and ``more`` that a record needs by name."""

    def __init__(self, facts: Facts, **more: Any) -> None:
        sources = facts.sources
        self._known = {
            "facts": facts,
            "governance": facts.governance,
            "note": facts.statement.annotation,
            "note_of": facts.statement,
            "plural": counted,
            "doi": facts.statement.identifier,
            "columns": [column for table in facts.tables for column in table.columns],
            "sources": list(dict.fromkeys(f"{s.name} ({s.doi})" if s.doi else s.name for s in sources)),
            "sources_known": bool(sources) and all(s.citation or s.doi or s.page for s in sources),
            "origins": sorted({s.doi for s in sources if s.doi} | {s.page for s in sources if s.page}),
            "terms": terms(facts),
            "missing_data": _missing_data(facts),
            "who_stands_behind": who_stands_behind(facts),
            "annotators": annotators(facts),
            "tools": tools(facts),
            "agreement": agreement(facts),
            "figures": lambda dimension: [str(f) for f in facts.figures if f.dimension == dimension],
            "todo": lambda what: stated(None, what),
            **more,
        }

    def __call__(self, template: str) -> str:
        """Return the answer; "" when the facts do not hold one."""
        return _compiled(template).render(self._known)

    def value(self, expression: str) -> Any:
        """Return the value of a Jinja expression."""
        return text_environment().compile_expression(expression)(self._known)


@cache
def _compiled(template: str) -> "Template":
    """Compile a template once: the page of a catalog gives the answers of its documents again."""
    return text_environment().from_string(template)


@cache
def questions(name: str) -> dict[Any, Any]:
    """Return the questions of a file of this folder or below it, in its order."""
    from ruamel.yaml import YAML

    found: dict[Any, Any] = YAML(typ="safe", pure=True).load((Path(__file__).parent / name).read_text("utf-8"))
    return found


def answered(name: str, answers: Answers) -> dict[str, Any]:
    """Return an answer of ``answers.yaml``, or the TODO for it, and whether nothing of it is open."""
    known = questions("answers.yaml")[name]
    told = answers(known["answer"])
    return {"answer": told or stated(None, known["todo"]), "answered": bool(told) and TODO not in told}


def _missing_data(facts: Facts) -> str:
    """Return how missing values were handled, and which columns have some."""
    gaps = [f for f in facts.findings if "unknown for" in f]
    return "kept as missing values; nothing was imputed" + (f": {'; '.join(gaps)}" if gaps else "")
