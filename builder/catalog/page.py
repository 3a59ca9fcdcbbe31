"""Render the catalog records as one page without network access or scripts; all text is escaped."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.catalog.checklists import checklists
from builder.catalog.claim import claim
from builder.catalog.cmimi import cmimi
from builder.catalog.datasheet import questions_of
from builder.catalog.facts import TODO, Facts
from builder.catalog.fair import fair
from builder.catalog.terms import terms
from builder.catalog.use_case import use_case
from builder.pages import template_environment

if TYPE_CHECKING:
    from jinja2 import Template

MEASURED = (1, 2, 3, 4, 6)
"""Items of C-MIMI that the data answer by themselves: they are shown first, with what is told of the population."""


_OPEN = re.compile(rf"(?:^|; ){TODO}: [^()]*(?:\([^()]*\))?(?=; |$)")
"""A part of an answer that a person still has to supply; it ends with the key of the spec, or with the answer."""
_ONE_KEY = re.compile(r"\(spec: ((?:governance|use_case|catalog)\.[a-z_.]+)\)")

_OF_RECORDS = {
    "page": ("Croissant, HealthDCAT-AP", "the address of the dataset's page"),
    "creators": ("Croissant, DataCite", "the creators"),
    "published": ("Croissant, DataCite, RO-Crate", "the date of publication"),
    "publisher": ("DataCite", "who publishes the dataset"),
    "identifier": ("DataCite, FAIR", "the DOI of the dataset"),
    "citation": ("Croissant", "how the dataset is to be cited"),
}
"""Keys of ``catalog`` that standards of records ask for: who asks, and what for."""


@dataclass(frozen=True)
class _Gap:
    about: str
    what: str
    asked_by: tuple[str, ...]


def page(facts: Facts, *, uses: int | None = None, runs: Sequence[str] = ()) -> str:
    """Return the page as HTML text; ``uses`` and ``runs`` are as for ``cmimi``."""
    governance = facts.governance.model_dump()
    parts: dict[str, Any] = {
        "card": use_case(facts),
        "terms": terms(facts),
        "cmimi": cmimi(facts, uses=uses, runs=tuple(runs)),
        "claim": claim(facts),
        "checklists": checklists(facts),
        "datasheet": questions_of(facts),
        "statement": facts.statement,
    }
    text = page_template().render(
        facts=facts, governance=governance, fair=fair(facts), gaps=_gaps(parts, governance), measured=MEASURED, **parts
    )
    return text if text.endswith("\n") else text + "\n"


@cache
def page_template() -> "Template":
    """Return the template of the page, which a process compiles once."""
    environment = template_environment(Path(__file__).parent)
    environment.filters["words"] = lambda name: name.replace("_", " ")
    environment.filters["told"] = _told
    environment.tests["known"] = _is_known
    return environment.get_template("page.html.jinja")


def _gaps(parts: Mapping[str, Any], governance: Mapping[str, Any]) -> list[_Gap]:
    """Return what nobody stated, once each, with the records that ask for it."""
    card, claims = parts["card"], parts["claim"]
    cmimi_items = [*parts["cmimi"]["items"], *parts["cmimi"]["beyond"]]
    asked = [("use case", name.replace("_", " "), value) for name, value in card.items()]
    asked += [("governance", n.replace("_", " "), v or f"{TODO}: state it (spec: governance.{n})")
              for n, v in governance.items()]  # fmt: skip
    asked += [(by, about, f"{TODO}: state {about} (spec: catalog.{name})")
              for name, (by, about) in _OF_RECORDS.items() if not getattr(parts["statement"], name)]  # fmt: skip
    asked += [("citations", "to be cited", value) for value in parts["terms"]["citations"]]
    asked += [("C-MIMI", row["about"], row["answer"]) for row in cmimi_items]
    asked += [("CLAIM", row["about"], row["answer"]) for row in claims]
    for table in parts["checklists"].values():
        asked += [(_short(table), row["about"], row["answer"]) for row in table["items"]]
    asked += [("datasheet", q, given) for questions in parts["datasheet"].values() for q, given in questions]
    found: dict[str, tuple[str, str, list[str]]] = {}
    for asked_by, about, value in asked:
        for text in value if isinstance(value, list | tuple) else [value]:
            for part in _OPEN.findall(str(text)):
                what = part.removeprefix("; ").removeprefix(f"{TODO}: ")
                key = _ONE_KEY.search(what)  # records that ask for one key of the spec in other words ask once
                found.setdefault(key[1] if key else what, (about, what, []))[2].append(asked_by)
    return [_Gap(about, what, tuple(dict.fromkeys(who))) for about, what, who in found.values()]


def _short(checklist: Mapping[str, Any]) -> str:
    """Return the name of a checklist without what it covers."""
    return str(checklist["title"]).partition(":")[0].partition(",")[0]


def _told(value: Any) -> Any:
    """Return what is known of a value: parts of a text or list that a person still has to supply are left away."""
    if isinstance(value, str):
        return _OPEN.sub("", value).removeprefix("; ")
    if isinstance(value, list | tuple):
        return [told for part in value if (told := _told(part))]
    return value


def _is_known(value: Any) -> bool:
    """Return whether anything of a value is known."""
    return bool(_told(value))
