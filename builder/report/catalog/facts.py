"""What is known of a dataset, gathered once; every record is rendered from it and from nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

TODO = "TODO"
"""Begins every text that only a person can supply."""


PARQUET = "application/x-parquet"
"""Media type of tables: what Croissant's readers know, not the registered application/vnd.apache.parquet."""


@dataclass(frozen=True)
class StoredFile:
    """One published object: path below the folder of the records, size, checksum, and ``PARQUET`` for tables."""

    path: str
    bytes: int
    sha256: str
    media_type: str


@dataclass(frozen=True)
class SourceFacts:
    """Where images or tables came from. ``license`` is an SPDX identifier where there is one."""

    name: str
    url: str | None = None
    license: str | None = None
    citation: str | None = None
    doi: str | None = None


@dataclass(frozen=True)
class Governance:
    """What only the dataset's owner can say; None is not stated."""

    owner: str | None = None
    responsible: str | None = None
    contact: str | None = None
    access: str | None = None
    costs: str | None = None
    ethics_approval: str | None = None
    maintenance: str | None = None
    intended_use: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything the catalog says of one version of a dataset.

    Parameters
    ----------
    name, version, description, license
        As the spec states them; ``license`` an SPDX identifier or a name.
    identifier, url, creators, publisher, published, keywords
        None or empty where nobody stated them; ``published`` is an ISO 8601 date.
    tables
        Parquet tables by path: their Arrow schemas (unit and DICOM tag in the fields' metadata).
    keys
        Path of a table to its key columns.
    files
        Tables, documents and manifest, each with checksum.
    shards
        How many shards there are, and their bytes; their checksums are in the manifest.
    arrays
        Name of an array of each sample to its meaning, e.g. ``image: float32 (channel, slice, row, column), SUVbw``.
    report
        The report's document.
    preprocessing, deidentification, annotation
        Steps in words, in order.
    """

    name: str
    version: str
    license: str
    description: str | None = None
    identifier: str | None = None
    url: str | None = None
    creators: tuple[str, ...] = ()
    publisher: str | None = None
    published: str | None = None
    keywords: tuple[str, ...] = ()
    citation: str | None = None
    sources: tuple[SourceFacts, ...] = ()
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: tuple[StoredFile, ...] = ()
    shards: tuple[int, int] = (0, 0)
    arrays: Mapping[str, str] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: tuple[str, ...] = ()
    deidentification: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    governance: Governance = Governance()


def stated(value: str | None, what: str) -> str:
    """The value, or a TODO that says what to state."""
    return value if value else f"{TODO}: state {what}"


def counts(facts: Facts, key: str) -> int:
    """Persons, cases or samples in all splits of the report."""
    return sum(int(row[key]) for row in facts.report.get("splits", ()))


def split_sentence(facts: Facts) -> str:
    """``train 24 persons, 24 cases; ...``; empty without a report."""
    rows = facts.report.get("splits", ())
    return "; ".join(f"{r['split']} {r['persons']} persons, {r['cases']} cases, {r['samples']} samples" for r in rows)


def findings(facts: Facts) -> list[str]:
    """What the report found that a user must know: untested groups, associations, gaps in the data."""
    report, found = facts.report, []
    for row in report.get("associations", ()):
        if row["q"] < 0.05:
            strength = f"Cramer's V {row['cramers_v']:.2f}, q {row['q']:.3g}"
            found.append(f"{row['label']} is associated with {row['group']} ({strength})")
    for entry in report.get("power", {}).get("outcomes", ()):
        silent = [f"{r['column']} = {r['level']}" for r in entry["groups"] if not r["speaks"]]
        if silent:
            found.append(
                f"the {report['power']['split']} split cannot speak for {entry['outcome']} in: {', '.join(silent)}"
            )
    for entry in report.get("table_one", ()):
        for row in entry.get("levels", ()):
            share = row["cells"]["all"]["share"]
            if row["level"] == "missing" and share:
                found.append(f"{entry['column']} is unknown for {100 * share:.1f} % of the persons")
    return found


def todos(value: Any) -> list[str]:
    """Every TODO in a document, in order."""
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in todos(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in todos(v)]
    if isinstance(value, str):
        return [line for line in value.splitlines() if TODO in line]
    return []
