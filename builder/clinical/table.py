"""The options of a clinical table in a spec."""

import codecs
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from builder.clinical.column import ClinicalColumn, quoted
from builder.clinical.events import Event, event_columns
from builder.clinical.phenotypes import Phenotype
from builder.clinical.pick import Pick
from builder.extracts import AnyExtract
from builder.model.origin import Origin
from builder.model.patterns import check_pattern
from builder.model.samples import PLACE_COLUMNS, SAMPLE_COLUMNS
from builder.model.tables import SERIES

Fact: TypeAlias = Literal["person", "issuer", "study", "accession", "series", "instance", "file", "date"]
"""What of an image a column names: its PatientID and who issued that, its Study, Series or SOP Instance UID, its
accession number, the name or path of one of its files, or the date of its study."""

SHARED: Final[Mapping[str, tuple[str, ...]]] = {
    "sex": ("category", "text"),
    "age_years": ("number", "integer"),
    "site": ("category", "text"),
    "country": ("category", "text"),
    "collection": ("category", "text"),
}
"""Columns that headers or sources give too, with the types they may have. The table's value counts before theirs."""

PLANNING: Final = frozenset(
    (
        "accession_key", "case_key", "chunk", "clinical_rows", "clinical_unclear", "detail", "evidence_labels",
        "evidence_readers", "evidence_tiers", "evidence_times", "evidence_tools", "findings", "frame_lists",
        "holder_bytes", "holder_instances", "holders", "included", "intensity_high", "intensity_low",
        "intensity_median", "label_detail", "label_state", "label_status", "label_tier", "measure_names",
        "measure_values", "notes", "number_type", "number_type_sure", "peak_bytes", "reading_labels",
        "reading_quantities", "reading_readers", "reading_values", "reason", "rule", "series_uid", "stack_key",
        "study_date", "true_age_years", "usable_detail", "usable_reason", "voxel_bytes",
    )
)  # fmt: skip
"""Names of columns that a plan and a build add to those of SERIES and of samples."""

_TAKEN: Final = (
    PLANNING | {*SERIES.names} | {column.name for column in (*PLACE_COLUMNS, *SAMPLE_COLUMNS)}
) - SHARED.keys()

FINEST: Final[tuple[Fact, ...]] = ("instance", "file", "series", "study", "accession", "date", "issuer", "person")
"""Facts from the one that names the least to the one that names the most."""


class ClinicalTable(BaseModel):
    """A table that is joined to the images.

    Parameters
    ----------
    url
        CSV, TSV, XLSX, Parquet or BCR Biotab file, told by its content.
    extract
        In place of ``url``: where else the table is taken from, such as a query to a database.
    person_id
        Heading of the column that holds the PatientID; the same as ``by: {heading: person}``.
    by
        Heading to what of the image it names: ``person``, ``issuer`` (of the person's id), ``study``, ``accession``,
        ``series``, ``instance``, ``file`` (name or path of a file) or ``date`` (of the study). A row belongs to the
        images for which all of them agree.
    within_days
        How many days a ``date`` may lie from that of the study.
    person_pattern
        A regular expression (RE2) that a person's id must match in full; its first group, if any, is the PatientID.
    issuer
        Who issued the ids of the table, as Issuer of Patient ID (0010,0021) says it: the row of a person then needs an
        image whose id has this issuer.
    issuer_names
        How the column of an ``issuer`` writes it, to Issuer of Patient ID: ``{"urn:oid:1.2.276.0.76.3": NORTH}``.
    site, source
        The site, or the position in ``sources`` from 0, whose ids the table uses. Tables of different sites may give
        the same column.
    sheet
        Name of an XLSX sheet. Without it, the first sheet that is not hidden.
    encoding
        Encoding of a text table, such as ``cp1250``; without it UTF-8, UTF-16 or Windows-1252, told by the bytes.
    header_row
        Number of the row with the headings, from 1.
    cardinality, pick
        ``one`` row (several that say the same count as one; several that differ are ambiguous and give no value), or
        ``many``, of which ``pick`` takes one.
    missing
        Codes that mean no value, beside an empty cell.
    min_matched
        Fraction of the persons (studies, series) with images that must have a row. Without it one must, and a column
        without any value that can be taken, or levels that no cell has, stop the plan; 0 allows all of that.
    max_lost_cells
        Largest fraction of a column's filled cells that may be lost since they cannot be read as declared. Without it
        more than a tenth stop the plan when they are at least 5.
    dated_by
        Heading of the column with the date on which a row's values were known. Rows dated after the image's study are
        not joined to it, unless all columns are ``report.outcomes``; nor are rows without a date.
    date_format
        ``strptime`` format of these dates; ISO 8601 without it.
    timeless
        Columns that are true at any time, such as sex. Others are dated or outcomes where cases have several visits, in
        an ``extract``, and where rows are chosen by a day that may lie after the study.
    origin
        Where the table came from, and its licence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(default=None, min_length=1)
    extract: AnyExtract | None = None
    person_id: str | None = None
    by: Mapping[str, Fact] = Field(default_factory=dict)
    within_days: int = Field(default=0, ge=0, le=366)
    person_pattern: str | None = None
    issuer: str | None = Field(default=None, min_length=1)
    issuer_names: Mapping[str, str] = Field(default_factory=dict)
    site: str | None = None
    source: int | None = Field(default=None, ge=0)
    sheet: str | None = None
    encoding: str | None = None
    header_row: int = Field(default=1, ge=1)
    cardinality: Literal["one", "many"] = "one"
    pick: Pick | None = None
    missing: tuple[str, ...] = ()
    columns: Mapping[str, ClinicalColumn] = Field(default_factory=dict)
    """Name of a column in the dataset to the column of the table it is made of, with its type and range."""
    phenotypes: Mapping[str, Phenotype] = Field(default_factory=dict)
    """In place of columns: name of a column to the codes and days that decide it, from all rows of a person."""
    events: Mapping[str, Event] = Field(default_factory=dict)
    """Outcomes with the time to them, made of two columns of this table."""
    min_matched: float | None = Field(default=None, ge=0.0, le=1.0)
    max_lost_cells: float | None = Field(default=None, ge=0.0, le=1.0)
    dated_by: str | None = Field(default=None, min_length=1)
    date_format: str | None = None
    timeless: tuple[str, ...] = ()
    origin: Origin = Origin()

    @property
    def title(self) -> str:
        """What messages call it: the name of its file, or what its extract is called."""
        return self.extract.title if self.extract is not None else (self.url or "").rpartition("/")[2]

    @property
    def joins(self) -> Mapping[str, Fact]:
        """Heading to the fact it names, ``person_id`` among them."""
        own: dict[str, Fact] = {} if self.person_id is None else {self.person_id: "person"}
        return {**own, **self.by}

    @property
    def unit(self) -> Literal["person", "study", "series"]:
        """The columns that identify the table's rows."""
        finest = min(self.joins.values(), key=FINEST.index)
        if finest in ("instance", "file", "series"):
            return "series"
        return "person" if finest in ("person", "issuer") else "study"

    @property
    def dated(self) -> tuple[str, ...]:
        """The columns that say how many days lie between two dates."""
        days = [name for name, column in self.columns.items() if column.type == "date"]
        timed = [n for n, event in self.events.items() if event.time in days or event.censored in days]
        return (*days, *(event_columns(name)[1] for name in timed))

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The columns of events, and those that events are made of."""
        return tuple(c for name, event in self.events.items() for c in (*event_columns(name), *event.sources))

    @property
    def is_up_to_study(self) -> bool:
        """Whether the day by which a row is picked or joined cannot lie after the study."""
        picked = self.pick is not None and self.pick.take == "last_before"
        return picked or ("date" in self.joins.values() and not self.within_days)

    @property
    def names(self) -> tuple[str, ...]:
        """The dataset's columns it gives, in order."""
        made = (column for name in self.events for column in event_columns(name))
        return (*self.columns, *made, *self.phenotypes)

    @property
    def headings(self) -> tuple[str, ...]:
        """Every heading that the declaration names, each once."""
        picked = () if self.pick is None else (*self.pick.where, *([] if self.pick.by is None else [self.pick.by]))
        dated = () if self.dated_by is None else (self.dated_by,)
        units = (c.unit_from for c in self.columns.values() if c.unit_from is not None)
        own = (*(c.source for c in self.columns.values()), *units, *self.coded)
        return tuple(dict.fromkeys((*self.joins, *own, *picked, *dated)))

    @property
    def coded(self) -> tuple[str, ...]:
        """The headings that phenotypes read."""
        return tuple(dict.fromkeys(heading for p in self.phenotypes.values() for heading in p.headings))

    @field_validator("missing", mode="before")
    @classmethod
    def _codes_are_texts(cls, codes: Any) -> Any:
        if not isinstance(codes, list | tuple):
            raise ValueError(f"found {codes!r}, expected a list of codes: [{codes}]")
        for code in codes:
            quoted(code, "a code")
        return codes

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                codecs.lookup(encoding)
            except LookupError:
                raise ValueError(f"found the encoding {encoding!r}, expected a name such as utf-8 or cp1250") from None
        return encoding

    @field_validator("person_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return None if pattern is None else check_pattern(pattern)

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> "ClinicalTable":
        if (self.url is None) == (self.extract is None):
            found = "neither url nor extract" if self.url is None else "both url and extract"
            raise ValueError(f"found {found}, expected one of them: a file, or where else the table is taken from")
        own = {"sheet": self.sheet, "encoding": self.encoding, "header_row": None if self.header_row == 1 else 1}
        given = [name for name, value in own.items() if value is not None]
        if self.extract is not None and given:
            raise ValueError(f"found {given[0]} with an extract, which has none, expected it with the url of a file")
        return self

    @model_validator(mode="after")
    def _has_columns_or_phenotypes(self) -> "ClinicalTable":
        if bool(self.columns) == bool(self.phenotypes):
            found = "both columns and phenotypes" if self.columns else "neither columns nor phenotypes"
            raise ValueError(f"found {found}, expected one of them: declare a table twice for both")
        if self.phenotypes and (self.pick is not None or self.unit != "person"):
            raise ValueError("phenotypes: found pick, or rows that are not of persons, expected person_id and all rows")
        return self

    @model_validator(mode="after")
    def _names_are_free(self) -> "ClinicalTable":
        for name in self.names:
            if name in _TAKEN:
                raise ValueError(
                    f"columns: found the name {name!r}, which the dataset uses for a column of its own, expected "
                    f"another one, such as {'clinical_' + name!r}"
                )
        for name, types in SHARED.items():
            if name in self.columns and self.columns[name].type not in types:
                raise ValueError(
                    f"columns: found {name!r} of type {self.columns[name].type}, expected {' or '.join(types)}, as "
                    "the images' own"
                )
        return self

    @model_validator(mode="after")
    def _joins_by_something(self) -> "ClinicalTable":
        facts = list(self.joins.values())
        if not facts or facts == ["date"]:
            raise ValueError(
                "found nothing that says whose a row is, expected person_id, or by: a heading to one of person, study, "
                "accession, series, instance, file (and issuer or date beside one of them)"
            )
        twice = {fact for fact in facts if facts.count(fact) > 1}
        if twice:
            raise ValueError(f"by: found two columns for {sorted(twice)[0]}, expected one")
        by_person = {
            "a person_pattern": self.person_pattern is not None,
            "an issuer": self.issuer is not None or "issuer" in facts,
        }
        for what, there in by_person.items():
            if there and "person" not in facts:
                raise ValueError(f"found {what} without a column for the person")
        if "issuer" in facts and self.issuer is not None:
            raise ValueError("found an issuer of the table and a column of issuers, expected one of them")
        if self.issuer_names and "issuer" not in facts:
            raise ValueError("found issuer_names without a column of issuers (by: {HEADING: issuer})")
        if self.within_days and "date" not in facts:
            raise ValueError("found within_days without a column for the date of the study")
        return self

    @model_validator(mode="after")
    def _says_when(self) -> "ClinicalTable":
        unknown = [name for name in self.timeless if name not in self.names]
        if unknown:
            raise ValueError(f"timeless: found {unknown[0]!r}, expected columns of this table: {list(self.names)}")
        if self.date_format is not None and (self.dated_by is None or "%y" in self.date_format):
            raise ValueError("date_format: found it without dated_by or with %y, expected years of four digits (%Y)")
        return self

    @model_validator(mode="after")
    def _picks_from_many(self) -> "ClinicalTable":
        if (self.cardinality == "many") != (self.pick is not None):
            raise ValueError(
                f"found cardinality {self.cardinality} {'without' if self.pick is None else 'with'} a pick rule, "
                "expected one with many and none with one"
            )
        return self

    @model_validator(mode="after")
    def _events_use_columns(self) -> "ClinicalTable":
        for name, event in self.events.items():
            unknown = [column for column in event.sources if column not in self.columns]
            if unknown:
                raise ValueError(f"events.{name}: found the column {unknown[0]!r}, expected one declared in columns")
            times = [column for column in (event.time, event.censored) if column is not None]
            if any(self.columns[column].type not in ("number", "integer", "date") for column in times):
                raise ValueError(f"events.{name}: found a time that is no number, integer or date")
            if len({self.columns[column].unit for column in times}) > 1:
                raise ValueError(f"events.{name}: found times of different units, expected one")
        twice = set(self.columns) & {column for name in self.events for column in event_columns(name)}
        if twice:
            raise ValueError(f"events: found {sorted(twice)} among columns, expected other names")
        return self


def check_shared_columns(tables: tuple[ClinicalTable, ...]) -> None:
    """Raise ValueError where two tables give one column and are not of two sites, or declare it differently."""
    for i, table in enumerate(tables):
        for other in tables[:i]:
            for name in sorted({*table.names} & {*other.names}):
                if not _are_apart(table, other):
                    raise ValueError(
                        f"clinical: found the column {name!r} in several tables, expected each name once, or tables "
                        "that each state a site (or source) of their own"
                    )
                if _shape(table, name) != _shape(other, name):
                    raise ValueError(f"clinical: found the column {name!r} with two types or units, expected one")


def _are_apart(one: ClinicalTable, other: ClinicalTable) -> bool:
    by_site = one.site is not None and other.site is not None and one.site != other.site
    return by_site or (one.source is not None and other.source is not None and one.source != other.source)


def _shape(table: ClinicalTable, name: str) -> tuple[str | None, ...]:
    if name in table.columns:
        return (table.columns[name].type, table.columns[name].unit)
    if name in table.phenotypes:
        return ("boolean", None)
    event = next(e for label, e in table.events.items() if name in event_columns(label))
    time = table.columns[event.time]
    return ("event", name.rpartition("_")[2], "d" if time.type == "date" else time.unit)
