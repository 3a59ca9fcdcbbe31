"""Hold what is known about a dataset; every catalog record is rendered from these facts and nothing else.

Facts are plain values that JSON can hold. They are stored with the version (``catalog/facts.json``), so that records
can be rendered again and datasets searched without opening a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from builder.catalog.figures import FigureFacts, OverlapFacts
from builder.catalog.statement import Governance, Statement, UseCase
from builder.errors import LayoutError, counted

FACTS_VERSION = 1

TODO = "TODO"
"""Starts every text that only a person can supply."""

PLACES = ("site", "country", "collection")
"""Columns that say where the images come from."""

PARQUET = "application/x-parquet"
"""Media type of tables that Croissant readers know, instead of the registered application/vnd.apache.parquet."""


@dataclass(frozen=True)
class StoredFile:
    """One published object: path relative to the folder of the records, size, checksum and media type."""

    path: str
    bytes: int
    sha256: str
    media_type: str


@dataclass(frozen=True)
class ColumnFacts:
    """A column: name of its Arrow type (``list<double>``), unit (UCUM) and DICOM attribute (``gggg,eeee``)."""

    name: str
    type: str
    unit: str | None = None
    dicom_tag: str | None = None


@dataclass(frozen=True)
class TableFacts:
    """A Parquet table: path relative to the folder of the records, rows, columns, and the columns that name a row."""

    path: str
    rows: int
    columns: tuple[ColumnFacts, ...]
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name without its extension."""
        return self.path.rsplit("/", 1)[-1].removesuffix(".parquet")


@dataclass(frozen=True)
class ShardFacts:
    """Number of shards, their bytes, and their folders relative to the folder of the records."""

    number: int = 0
    bytes: int = 0
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFacts:
    """Where images, labels or a clinical table came from, under one set of terms.

    Parameters
    ----------
    name
        Title of the collection, or else the kind of source.
    role
        ``image``, ``label`` or ``clinical``.
    series
        Number of series; 0 for tables and for labels that are files.
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
    """The size of one split."""

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
    """Smallest, median and largest value of a number over cases, in ``unit`` (UCUM)."""

    low: float
    median: float
    high: float
    unit: str | None = None


@dataclass(frozen=True)
class ProcedureFacts:
    """Numbers of studies by RadLex Playbook procedure."""

    studies: int
    mapped: int
    without_description: int
    procedures: tuple[tuple[str, str, int], ...] = ()
    """(RPID, name, studies)"""


@dataclass(frozen=True)
class EvidenceFacts:
    """Evidence for a label: its cases by tier of evidence, the number of named readers, and its cases by tool."""

    label: str
    tiers: tuple[ValueCount, ...]
    readers: int = 0
    tools: tuple[ValueCount, ...] = ()


@dataclass(frozen=True)
class Amounts:
    """How much was used, in which form it came, and in which form it is stored.

    Parameters
    ----------
    examinations, series, images
        Numbers of studies, series and instances of the images used.
    images_a_series
        Fewest and most images of a series.
    syntaxes
        Transfer syntaxes of the source images, with numbers of series; null where a source does not state one.
    stored
        How the fields of a sample are compressed.
    associated
        Maps kinds of data beside the images (``demographic``, ``timeline``, ...) to their columns.
    """

    examinations: int = 0
    series: int = 0
    images: int = 0
    images_a_series: tuple[int, int] | None = None
    syntaxes: tuple[ValueCount, ...] = ()
    stored: tuple[str, ...] = ()
    associated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PeriodFacts:
    """The years of the first and the last study of a site (None: of all) in a split, and its number of persons."""

    site: str | None
    split: str
    first: int
    last: int
    persons: int

    def __str__(self) -> str:
        years = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        return f"{f'{self.site}, ' if self.site else ''}{self.split}: {years}"


@dataclass(frozen=True)
class DistributionFacts:
    """Numbers of cases that are normal and abnormal, and that show each pathology; ``missed`` names without a label."""

    cases: int
    normal: int
    abnormal: int
    pathologies: tuple[ValueCount, ...] = ()
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything that the catalog says about one version of a dataset.

    Parameters
    ----------
    name, version, license, description, usage
        As stated in the spec; ``version`` is the fingerprint of the content that is described.
    governance, use_case, statement
        What people stated about the dataset.
    tables, files, shards
        Every published object except the records themselves.
    arrays
        Maps each array of a sample to its meaning, e.g. ``image: float32, 1 channel, ...``.
    labels
        Maps each label to what it was read from, and its structures.
    images
        Maps a column (``modality``, ``vendor``, ``body_part``, ...) to its values, with numbers of cases.
    people
        Maps a column (``sex``, ``age_band``, ``site``, ...) to its values, with numbers of persons.
    ranges
        Maps a column (``age_years``, ``spacing_row_mm``, ...) to its range over cases.
    source_files, source_bytes
        Files found in the archive, and bytes of the images used.
    splits, strata, disjoint
        Sizes, number of strata, and whether no person is in two splits (None: not checked).
    left, findings, outcomes
        What was left out, findings that a user must know, and the size of each outcome in the test split.
    sampling, preprocessing, deidentification, annotation
        Steps in words, in the order in which they run.
    procedures
        RadLex Playbook procedures; None if no table was given.
    eligibility
        Rules by which series were chosen, in the words of the spec.
    evidence, agreed
        Evidence behind the labels, and where several readers were compared.
    amounts
        Numbers of examinations and images, and how they are stored.
    periods
        Years of acquisition by site and split.
    distribution
        Share of normal cases and number of each pathology; None unless the spec names the pathologies.
    figures
        Figures of completeness, uniqueness, validity, consistency and timeliness.
    independence
        What the test split shares with the training split.
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
    amounts: Amounts = Amounts()
    periods: tuple[PeriodFacts, ...] = ()
    distribution: DistributionFacts | None = None
    figures: tuple[FigureFacts, ...] = ()
    independence: tuple[OverlapFacts, ...] = ()
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
        """The splits as text, ``train 24 persons, 24 cases, 96 samples; ...``; None without splits."""
        words = (
            f"{r.split} {counted(r.persons, 'person')}, {counted(r.cases, 'case')}, {counted(r.samples, 'sample')}"
            for r in self.splits
        )
        return "; ".join(words) or None


def facts_document(facts: Facts) -> dict[str, Any]:
    """Return the facts as data that JSON can hold; ``parse_facts`` is the inverse."""
    document: dict[str, Any] = TypeAdapter(Facts).dump_python(facts, mode="json")
    return document


def parse_facts(document: Mapping[str, Any]) -> Facts:
    """Read facts from their document. Raises LayoutError if the document is damaged or of another version."""
    found = document.get("facts_version")
    if found != FACTS_VERSION:
        raise LayoutError(f"facts: found version {found!r}, expected {FACTS_VERSION}; build the dataset again")
    try:
        return TypeAdapter(Facts).validate_python(dict(document))
    except ValidationError as error:
        raise LayoutError(
            f"facts: found {counted(error.error_count(), 'entry that does', 'entries that do')} not fit, expected none"
        ) from None


def stated(value: str | None, what: str) -> str:
    """Return the value, or a TODO that says what to state."""
    return value if value else f"{TODO}: state {what}"


def todos(value: Any) -> list[str]:
    """Return every TODO in a document, in order."""
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in todos(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in todos(v)]
    if isinstance(value, str):
        return [line for line in value.splitlines() if TODO in line]
    return []
