"""What is known of a dataset, gathered once; every record is rendered from it and from nothing else.

Facts are plain values that JSON can hold: they are stored with the version (``catalog/facts.json``), so that records
can be rendered again, and datasets searched, without opening a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from builder.catalog.statement import Governance, Statement, UseCase
from builder.errors import LayoutError

FACTS_VERSION = 1

TODO = "TODO"
"""Begins every text that only a person can supply."""

PLACES = ("site", "country", "collection")
"""Columns that say where images are from."""

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
class ColumnFacts:
    """A column: Arrow's name of its type (``list<double>``), unit (UCUM) and DICOM attribute (``gggg,eeee``)."""

    name: str
    type: str
    unit: str | None = None
    dicom_tag: str | None = None


@dataclass(frozen=True)
class TableFacts:
    """A Parquet table: path below the folder of the records, rows, columns, and those that name a row."""

    path: str
    rows: int
    columns: tuple[ColumnFacts, ...]
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name without its ending."""
        return self.path.rsplit("/", 1)[-1].removesuffix(".parquet")


@dataclass(frozen=True)
class ShardFacts:
    """How many shards there are, their bytes, and their folders below the folder of the records."""

    number: int = 0
    bytes: int = 0
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFacts:
    """Where images, labels or a clinical table came from, under one set of terms.

    Parameters
    ----------
    name
        Title of the collection, else what kind of source it is.
    role
        ``image``, ``label`` or ``clinical``.
    series
        How many series; 0 for tables and for labels that are files.
    """

    name: str
    role: str = "image"
    series: int = 0
    license: str | None = None
    citation: str | None = None
    doi: str | None = None
    page: str | None = None


@dataclass(frozen=True)
class SplitFacts:
    """Size of one split."""

    split: str
    persons: int
    cases: int
    samples: int


@dataclass(frozen=True)
class LeftFacts:
    """What was left out for one reason: ``things`` of a ``level`` (file, series, case)."""

    reason: str
    level: str
    things: int

    def __str__(self) -> str:
        things = self.level if self.level == "series" or self.things == 1 else f"{self.level}s"
        return f"{self.reason.replace('_', ' ')}: {self.things} {things}"


@dataclass(frozen=True)
class LabelFacts:
    """A label: the kind of object it was read from, and the names of its structures."""

    kind: str
    structures: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = f"{', '.join(self.structures)}, " if self.structures else ""
        return f"{names}read from {self.kind} objects"


@dataclass(frozen=True)
class ValueCount:
    """A value (None: not known) and the number of cases or persons that have it (None: masked)."""

    value: str | None
    count: int | None

    def __str__(self) -> str:
        return f"{self.value or 'not known'}" + ("" if self.count is None else f" ({self.count})")


@dataclass(frozen=True)
class RangeFacts:
    """Smallest, median and largest of a number over cases, in ``unit`` (UCUM)."""

    low: float
    median: float
    high: float
    unit: str | None = None


@dataclass(frozen=True)
class ProcedureFacts:
    """Studies by RadLex Playbook procedure."""

    studies: int
    mapped: int
    without_description: int
    procedures: tuple[tuple[str, str, int], ...] = ()
    """(RPID, name, studies)"""


@dataclass(frozen=True)
class EvidenceFacts:
    """Who stands behind a label: its cases by tier of evidence, how many readers are named, its cases by tool."""

    label: str
    tiers: tuple[ValueCount, ...]
    readers: int = 0
    tools: tuple[ValueCount, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything the catalog says of one version of a dataset.

    Parameters
    ----------
    name, version, license, description, usage
        As the spec states them; ``version`` is the fingerprint of what is described.
    governance, use_case, statement
        What people said of it.
    tables, files, shards
        Every published object but the records.
    arrays
        Name of an array of each sample to its meaning, e.g. ``image: float32, 1 channel, ...``.
    labels
        Name of a label to what it was read from, and its structures.
    images
        Column (``modality``, ``vendor``, ``body_part``, ...) to its values by number of cases.
    people
        Column (``sex``, ``age_band``, ``site``, ...) to its values by number of persons.
    ranges
        Column (``age_years``, ``spacing_row_mm``, ...) to its range over cases.
    source_files, source_bytes
        Files found in the archive, and bytes of the images used.
    splits, strata, disjoint
        Sizes, number of strata, and whether no person is in two splits (None: not looked at).
    left, findings, outcomes
        What was left out, what a user must know, and the size of each outcome in the test split.
    sampling, preprocessing, deidentification, annotation
        Steps in words, in order.
    procedures
        RadLex Playbook procedures; None where no table was given.
    eligibility
        Rules by which series were chosen, in words of the spec.
    evidence, agreed
        Who stands behind the labels, and where several readers were compared.
    """

    name: str
    version: str
    license: str
    description: str | None = None
    usage: str | None = None
    governance: Governance = field(default_factory=Governance)
    use_case: UseCase = field(default_factory=UseCase)
    statement: Statement = field(default_factory=Statement)
    sources: tuple[SourceFacts, ...] = ()
    tables: tuple[TableFacts, ...] = ()
    files: tuple[StoredFile, ...] = ()
    shards: ShardFacts = ShardFacts()
    arrays: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, LabelFacts] = field(default_factory=dict)
    images: Mapping[str, tuple[ValueCount, ...]] = field(default_factory=dict)
    people: Mapping[str, tuple[ValueCount, ...]] = field(default_factory=dict)
    ranges: Mapping[str, RangeFacts] = field(default_factory=dict)
    source_files: int = 0
    source_bytes: int = 0
    splits: tuple[SplitFacts, ...] = ()
    strata: int | None = None
    disjoint: bool | None = None
    left: tuple[LeftFacts, ...] = ()
    findings: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    sampling: str | None = None
    preprocessing: tuple[str, ...] = ()
    deidentification: tuple[str, ...] = ()
    annotation: tuple[str, ...] = ()
    procedures: ProcedureFacts | None = None
    eligibility: tuple[str, ...] = ()
    evidence: tuple[EvidenceFacts, ...] = ()
    agreed: tuple[str, ...] = ()
    facts_version: int = FACTS_VERSION

    @property
    def persons(self) -> int:
        """Persons in all splits."""
        return sum(row.persons for row in self.splits)

    @property
    def cases(self) -> int:
        """Cases in all splits."""
        return sum(row.cases for row in self.splits)

    @property
    def samples(self) -> int:
        """Samples in all splits."""
        return sum(row.samples for row in self.splits)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the images, sorted."""
        return tuple(sorted(v.value for v in self.images.get("modality", ()) if v.value))

    @property
    def split_sentence(self) -> str | None:
        """``train 24 persons, 24 cases, 96 samples; ...``; None without splits."""
        words = (f"{r.split} {r.persons} persons, {r.cases} cases, {r.samples} samples" for r in self.splits)
        return "; ".join(words) or None


def facts_document(facts: Facts) -> dict[str, Any]:
    """The facts as JSON-able data; ``parse_facts`` is its inverse."""
    document: dict[str, Any] = TypeAdapter(Facts).dump_python(facts, mode="json")
    return document


def parse_facts(document: Mapping[str, Any]) -> Facts:
    """Facts from their document. Raises LayoutError for one of another version."""
    found = document.get("facts_version")
    if found != FACTS_VERSION:
        raise LayoutError(f"facts: found version {found!r}, expected {FACTS_VERSION}; build the dataset again")
    try:
        return TypeAdapter(Facts).validate_python(dict(document))
    except ValidationError as error:
        raise LayoutError(f"facts: found {error.error_count()} entries that do not fit, expected none") from None


def stated(value: str | None, what: str) -> str:
    """The value, or a TODO that says what to state."""
    return value if value else f"{TODO}: state {what}"


def todos(value: Any) -> list[str]:
    """Every TODO in a document, in order."""
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in todos(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in todos(v)]
    if isinstance(value, str):
        return [line for line in value.splitlines() if TODO in line]
    return []
