"""Search many datasets by what their catalogs say."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.catalog.cmimi import cmimi
from builder.catalog.facts import Facts
from builder.errors import LayoutError, SpecError, counted
from builder.library.training import read_training
from builder.library.uses import read_uses
from builder.library.versions import Version, open_version
from builder.model.layout import CURRENT
from builder.model.licenses import forbids_commercial_use, normal
from builder.storage import LocalStore, open_store

DEEPEST = 6
"""Levels of folders that are searched below a given folder."""

BESIDE = (".private", ".report", ".training", ".uses")
"""Suffixes of folders beside datasets; they hold no datasets and are skipped."""

COLUMNS = ("name", "modalities", "body_parts", "labels", "license", "persons", "samples", "c_mimi", "place")


@dataclass(frozen=True)
class Wanted:
    """What a dataset must have: at least one value of each filter that is not empty, regardless of case.

    Parameters
    ----------
    modalities, body_parts, labels
        Modalities and body parts of the images; names of labels or of their structures.
    licenses
        Licences, by any of their names.
    usage
        ``commercial`` requires that the licences of the dataset and of all its sources allow commercial use.
    words
        Texts that must all occur in the name, title, description, task or keywords.
    """

    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    usage: str | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Datasets that match, and datasets that could not be read."""

    rows: tuple[Mapping[str, Any], ...]
    searched: int
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return the rows as data that JSON can hold."""
        return {"searched": self.searched, "datasets": list(self.rows), "unreadable": dict(self.unreadable)}

    def text(self) -> str:
        """Return the rows as a text table."""
        cells = [[_cell(row[name]) for name in COLUMNS] for row in self.rows]
        heads = [name.replace("_", " ").replace("c mimi", "C-MIMI") for name in COLUMNS]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (heads, *cells)]
        lines = lines if cells else []
        lines.append(f"{len(self.rows)} of {counted(self.searched, 'dataset')}")
        return "\n".join([*lines, *(f"not read: {place}: {why}" for place, why in self.unreadable.items())])


def search(places: Sequence[str], wanted: Wanted) -> Found:
    """Find the datasets at or below each place that have what is wanted.

    A place is a dataset, or a local folder that contains datasets; object stores are not listed.

    Raises
    ------
    SpecError
        If the usage is unknown, or a place does not exist.
    """
    if wanted.usage not in (None, "commercial"):
        raise SpecError(f"--usage: found {wanted.usage!r}, expected 'commercial'")
    rows, unreadable = [], {}
    datasets = list(dict.fromkeys(d for place in places for d in _datasets(place)))
    for dataset in datasets:
        try:
            version = open_version(dataset)
            facts = version.facts()
            if matches(facts, wanted):
                rows.append(_row(dataset, version, facts))
        except LayoutError as error:
            unreadable[dataset] = str(error)
    rows.sort(key=lambda row: (row["name"], row["place"]))
    return Found(tuple(rows), len(datasets), unreadable)


def matches(facts: Facts, wanted: Wanted) -> bool:
    """Return whether a dataset has what is wanted."""
    labels = [*facts.labels, *(name for label in facts.labels.values() for name in label.structures)]
    licenses = [facts.license, *(s.license for s in facts.sources if s.license)]
    asked = (
        (wanted.modalities, facts.modalities),
        (wanted.body_parts, _body_parts(facts)),
        (wanted.labels, labels),
        ([normal(x) or x for x in wanted.licenses], [normal(x) or x for x in licenses]),
    )
    told = [facts.name, facts.description, facts.statement.title, facts.use_case.task, *facts.statement.keywords]
    text = " ".join(t for t in told if t).casefold()
    return (
        all(not values or _folded(values) & _folded(have) for values, have in asked)
        and all(word.casefold() in text for word in wanted.words)
        and (wanted.usage is None or all(forbids_commercial_use(x) is None for x in _all_licenses(facts)))
    )


def _all_licenses(facts: Facts) -> list[str | None]:
    return [facts.license, *(s.license for s in facts.sources)]


def _folded(values: Sequence[str]) -> set[str]:
    return {value.casefold() for value in values}


def _body_parts(facts: Facts) -> list[str]:
    return [v.value for v in facts.images.get("body_part", ()) if v.value]


def _row(dataset: str, version: Version, facts: Facts) -> dict[str, Any]:
    runs = tuple(run.sentence() for run in read_training(version))
    uses = read_uses(dataset).of(version.manifest.version)
    score = cmimi(facts, uses=uses, runs=runs)
    return {
        "name": facts.name,
        "title": facts.statement.title,
        "version": version.manifest.version,
        "modalities": list(facts.modalities),
        "body_parts": _body_parts(facts),
        "labels": sorted(facts.labels),
        "license": facts.license,
        "persons": facts.persons,
        "cases": facts.cases,
        "samples": facts.samples,
        "bytes": facts.shards.bytes,
        "c_mimi": f"{score['answered']}/{score['of']}",
        "uses": uses,
        "training_runs": len(runs),
        "place": dataset,
    }


def _cell(value: Any) -> str:
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def _datasets(place: str) -> Iterator[str]:
    """Yield the place itself if it is a dataset, else every dataset below it."""
    store = open_store(place)
    if store.exists(CURRENT):
        yield place
    elif isinstance(store, LocalStore):
        if not store.root.is_dir():
            raise SpecError(f"{place}: found no folder, expected a dataset, or a folder with datasets in it")
        yield from _below(store.root)
    else:
        raise SpecError(f"{place}: found no dataset, expected one: object stores are not searched for datasets")


def _below(root: Path) -> Iterator[str]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        if CURRENT in files and "versions" in names:
            yield str(here)
            names.clear()
        elif len(here.relative_to(root).parts) >= DEEPEST:
            names.clear()
        else:
            names[:] = sorted(n for n in names if not n.endswith(BESIDE) and not n.startswith("."))
