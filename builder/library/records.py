"""Render the catalog page of a published version again, with what has been reported since publication."""

from dataclasses import dataclass
from typing import Any

from builder.catalog.cmimi import cmimi
from builder.catalog.facts import todos
from builder.catalog.page import page
from builder.library.training import read_training
from builder.library.uses import read_uses
from builder.library.versions import open_version
from builder.storage import open_store

BESIDE = ".report"
"""Suffix of the folder for pages rendered after publication, because a published version is never changed."""


@dataclass(frozen=True)
class Records:
    """The location of the page, and how complete it is."""

    place: str
    completeness: dict[str, Any]
    uses: int
    runs: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return the records as data that JSON can hold."""
        return {"page": self.place, "c_mimi": self.completeness, "uses": self.uses, "training_runs": list(self.runs)}

    def text(self) -> str:
        """Return the completeness, the open items and the location of the page as text."""
        found = self.completeness
        lines = [f"C-MIMI: {found['answered']} of {found['of']} items answered"]
        lines += [f"  {item['answer']}" for item in found["items"] if todos(item["answer"])]
        lines.append(f"read sessions: {self.uses}, training runs: {len(self.runs)}")
        return "\n".join([*lines, self.place])


def render_records(url: str) -> Records:
    """Render ``<dataset>.report/<version>.catalog.html``.

    Parameters
    ----------
    url
        ``DATASET`` or ``DATASET@VERSION``.

    Raises
    ------
    LayoutError
        If there is no such version, or it was built without a catalog.
    """
    version = open_version(url)
    facts, number = version.facts(), version.manifest.version
    uses = read_uses(url).of(number)
    runs = tuple(run.sentence() for run in read_training(version))
    beside = open_store(version.store.url + BESIDE)
    name = f"{number}.catalog.html"
    beside.put(name, page(facts, uses=uses, runs=runs).encode())
    return Records(f"{beside.url}/{name}", cmimi(facts, uses=uses, runs=runs), uses, runs)
