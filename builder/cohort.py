"""Which series are in: rules applied in a fixed order, so that every exclusion has exactly one recorded rule."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.errors import Reason
from builder.model.expression import compile as compile_expression
from builder.model.sorting import ordered
from builder.registrars import AnyRegistrar

VERDICT_COLUMNS = (("included", pa.bool_()), ("rule", pa.string()), ("reason", pa.string()), ("detail", pa.string()))


class Rule(BaseModel):
    """A named condition every case must meet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    """Name under which the exclusions are listed."""
    keep: str
    """Expression over the columns of SERIES, CHOICE and the clinical columns; a comparison with a missing value is
    false."""


class SeriesRule(BaseModel):
    """A rule that says what a series is, tried before the shipped ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Literal["series_type", "plane", "phase", "body_region", "fat_suppression", "kernel_type"]
    """The column that the rule fills."""
    value: Annotated[str, Field(alias="is", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
    """What the series is where the rule fits: one of the shipped values or a new one."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    """What the column of rules says where this one fired."""
    when: str
    """Expression over headers and the words of descriptions, as in the shipped table."""


ImageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]

RESERVED = ("evidence", "grid", "image", "label", "present")
"""Names that no image may have, because columns and fields of a dataset begin with them."""


class CaseImage(BaseModel):
    """How one image of a case is chosen, and what proves that it lies where the reference lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    select: str
    """Expression that tells the series of this image from all others."""
    prefer: tuple[str, ...] = ("-instances", "series_key")
    """Column names, ``-`` for descending: which series is taken where several fit. A series that a label refers to goes
    before all others."""
    aligned: Literal["frame", "grid", "registration", "assumed", "none"] = "frame"
    """Why the image may be put onto the reference's grid. ``frame``: both state one Frame of Reference UID; ``grid``:
    both have the same affine and shape; ``registration``: a DICOM Spatial Registration object of the archive, or a
    transform file, places one frame in the other; ``assumed``: you say so; ``none``: it keeps its own grid, as a field
    of its own. The first image needs none."""
    transform_files: str | None = None
    """With ``aligned: registration``: path or URL of ITK's files (.tfm, .txt, .h5) that place this image, with
    ``{patient}``, ``{visit}`` or ``{series}`` for what tells them apart; without it Spatial Registration objects do."""
    registrar: AnyRegistrar | None = None
    """With ``aligned: registration``: the registrar that finds in the build how this image lies on the reference. It is
    given the reference as that is in the sample; what it found is in the sample's notes."""
    required: bool = True
    """Whether a case without this image is excluded; otherwise the channel of the image is filled."""
    within_days: Annotated[int, Field(ge=0)] | None = None
    """Largest distance of the image's study from the reference's; without it the image is of the reference's study."""


class Visits(BaseModel):
    """How the visits of a person become one case: days on which the person has the images that the spec requires."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: Annotated[tuple[ImageName, ...], Field(min_length=2, max_length=16)] = ("baseline", "followup")
    """What the visits of a case are called, in the order of time. The first is the index visit."""
    choose: Literal["consecutive", "first_two", "first_last"] = "consecutive"
    """``consecutive``: as many visits in a row as there are names, so that a visit may be in several cases;
    ``first_two`` and ``first_last``: one case for each person."""
    gap_days: tuple[int, int] | None = None
    """Fewest and most days between a visit and the next one of its case."""
    aligned: Literal["none", "frame", "registration", "assumed"] = "none"
    """Why later visits may be put onto the grid of the first; ``none`` keeps each visit on a grid of its own."""
    transform_files: str | None = None
    """With ``aligned: registration``: as of an image; the files place the reference of a later visit on the first's."""
    registrar: AnyRegistrar | None = None
    """With ``aligned: registration``: the registrar that finds in the build how the reference of a later visit lies on
    the first visit's. The other images of that visit move with it."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Visits":
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names: found {list(self.names)}, expected each name once")
        if self.choose != "consecutive" and len(self.names) != 2:
            raise ValueError(f"names: found {len(self.names)} with choose: {self.choose}, expected two")
        if self.gap_days is not None and not 0 <= self.gap_days[0] <= self.gap_days[1]:
            raise ValueError(f"gap_days: found {list(self.gap_days)}, expected the fewest days and then the most")
        return self


class Cohort(BaseModel):
    """The spec's ``cohort:`` block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    """Expression that tells the image series this dataset is about from all others."""
    rules: tuple[Rule, ...] = ()
    """Named conditions, checked in this order; an excluded series is listed under the first it does not meet."""
    series_rules: tuple[SeriesRule, ...] = ()
    """Rules that say what a series is (its type, plane, phase, ...), tried in this order before the shipped ones."""
    clinical: Literal["required", "optional"] = "optional"
    """Whether a person without a clinical row is excluded."""
    labels: Literal["required", "optional"] = "required"
    """Whether a series to which a declared label does not link is excluded."""
    leave_out: str | None = None
    """Path or URL of a file with the keyed names of cases or persons to leave out, one a line, as ``builder view``
    writes it. It counts last, so that nothing takes their place, and moves nobody between splits."""
    twins: Literal["dicom", "files", "keep"] = "dicom"
    """Which of an image that the archive holds as DICOM and as another file is used; the other is a duplicate."""
    one_per: Literal["person", "study", "series"] = "series"
    """Keep one series of each person or study, or every series."""
    prefer: tuple[str, ...] = ("-instances", "series_key")
    """Column names, ``-`` for descending: which series is kept where ``one_per`` leaves a choice."""
    case: Literal["series", "study", "person"] = "series"
    """With ``images``: whether every series, one of each study or one of each person is the reference of a case."""
    images: Mapping[ImageName, CaseImage] = Field(default_factory=dict)
    """The images of a case by name, in place of ``image``. The first is the reference: it gives the grid, the case's
    name and the columns without prefix."""
    visits: Visits | None = None
    """With ``case: person``: cases of several visits, each with the ``images``, then called ``VISIT.NAME``."""

    @model_validator(mode="after")
    def _one_image_or_several(self) -> "Cohort":
        if not self.images:
            if self.case != "series" or self.visits is not None:
                found = "case" if self.visits is None else "visits"
                raise ValueError(f"{found}: found it without images, expected one_per for cases of one image")
            return self
        single = _stated(self, "image", "one_per", "prefer")
        if single:
            raise ValueError(
                f"images: found {', '.join(single)} beside it, expected case in place of one_per, and image and prefer "
                "of each image"
            )
        if self.visits is not None:
            _check_visits(self)
        elif len(self.images) < 2:
            raise ValueError("images: found one image, expected at least two; write cohort.image for one")
        if taken := sorted(self.images.keys() & set(RESERVED)):
            raise ValueError(f"images: found the name {taken[0]!r}, which is reserved, expected another one")
        for name, image in self.images.items():
            _check_registration(f"images.{name}", image)
        first = next(iter(self.images))
        stated = _stated(self.images[first], "aligned", "required", "within_days", "transform_files", "registrar")
        if stated:
            raise ValueError(f"images.{first}: found {stated[0]} of the reference, which the other images follow")
        apart = [n for n, i in self.images.items() if i.aligned == "none" and not i.required]
        if apart:
            raise ValueError(
                f"images.{apart[0]}: found required: false with aligned: none, expected an image that every case has, "
                "as a field on a grid of its own cannot be filled"
            )
        return self

    @property
    def reference(self) -> str:
        """Name of the image that gives the grid; "" for cases of one image."""
        return next(iter(self.members), "")

    @property
    def members(self) -> Mapping[str, CaseImage]:
        """The images of a case by the names that they have in it: ``NAME``, or ``VISIT.NAME`` where it has visits."""
        if self.visits is None:
            return self.images
        found = {}
        for visit in self.visits.names:
            for name, image in self.images.items():
                found[f"{visit}.{name}"] = image if visit == self.visits.names[0] else self._later(name, image)
        return found

    def _later(self, name: str, image: CaseImage) -> CaseImage:
        """Return an image of a later visit, related to the first visit's reference if one grid is for all visits."""
        assert self.visits is not None
        aligned = self.visits.aligned
        if name == next(iter(self.images)):
            told = {"transform_files": self.visits.transform_files, "registrar": self.visits.registrar}
            return image.model_copy(update={"aligned": aligned, **told})
        if aligned != "none" and image.aligned in ("frame", "registration"):
            return image.model_copy(update={"aligned": aligned})
        return image

    @property
    def grids(self) -> Mapping[str, tuple[str, ...]]:
        """The images that lie on one grid, by the name of the one that gives it, the case's reference first."""
        found: dict[str, list[str]] = {}
        home = ""
        for name, image in self.members.items():
            visit, _, own = name.rpartition(".")
            if not found or (visit and own == next(iter(self.images)) and image.aligned == "none"):
                home = name
            lead = name if name == home or image.aligned == "none" else home
            found.setdefault(lead, []).append(name)
        return {lead: tuple(names) for lead, names in found.items()}

    @property
    def partners(self) -> Mapping[str, CaseImage]:
        """The other images of a case, by name."""
        return {name: image for name, image in self.members.items() if name != self.reference}


def _check_visits(cohort: Cohort) -> None:
    """Raise ValueError for what cases of several visits cannot have."""
    assert cohort.visits is not None
    if cohort.case != "person":
        raise ValueError(f"visits: found case: {cohort.case}, expected person, whose visits are put together")
    _check_registration("visits", cohort.visits)
    taken = sorted({*cohort.visits.names} & {*RESERVED, *cohort.images})
    if taken:
        raise ValueError(f"visits.names: found {taken[0]!r}, which is an image or reserved, expected another name")


def bare_image(name: str) -> str:
    """Return the name of an image in the spec, without the visit that it has in a case."""
    return name.rpartition(".")[2]


def _check_registration(place: str, options: CaseImage | Visits) -> None:
    """Raise ValueError for a registration that nothing asks for, or files that all persons would share."""
    pattern, registrar = options.transform_files, options.registrar
    if registrar is not None and (options.aligned != "registration" or pattern is not None):
        found = "transform_files" if pattern is not None else f"aligned: {options.aligned}"
        raise ValueError(f"{place}: found registrar with {found}, expected aligned: registration and one way")
    if pattern is None:
        return
    if options.aligned != "registration":
        raise ValueError(f"{place}: found transform_files with aligned: {options.aligned}, expected registration")
    if "{patient}" not in pattern and "{series}" not in pattern:
        raise ValueError(
            f"{place}.transform_files: found neither {{patient}} nor {{series}}, expected one, as a file places the "
            "image of one person"
        )


def _stated(options: BaseModel, *names: str) -> list[str]:
    """Return which of some options are not at their default."""
    fields = type(options).model_fields
    return [name for name in names if getattr(options, name) != fields[name].get_default(call_default_factory=True)]


def select_cohort(candidates: pa.Table, options: Cohort, *, labelled: bool) -> pa.Table:
    """Decide about every candidate.

    Parameters
    ----------
    candidates
        One row a stack: the SERIES columns, the clinical columns, and ``usable_reason`` / ``usable_detail`` (why the
        geometry policy refuses it; null when usable), ``clinical_rows`` (rows that matched the person),
        ``clinical_unclear`` (whether it has rows that contradict each other), ``label_state`` (``linked``, ``missing``
        or ``ambiguous``) and ``label_detail``.
    labelled
        Whether the spec declares labels at all.

    Returns
    -------
    pyarrow.Table
        The candidates sorted by series_key and stack, with columns ``included``, ``rule``, ``reason`` and ``detail``.
        Rules run in this order: image, geometry, clinical, the named rules, labels, one_per; the first that fails is
        the one recorded.

    Raises
    ------
    SpecError
        For an expression that names unknown columns or compares unlike types.
    """
    table = ordered(candidates, ["series_key", "stack"])
    ledger = Decisions(table.num_rows)
    if options.image is not None:
        ledger.exclude(~mask_of(options.image, table), "image", Reason.NOT_SELECTED)
    ledger.exclude_where(table, "usable_reason", "geometry", "usable_detail")
    if options.clinical == "required":
        require_clinical(table, ledger)
    for rule in options.rules:
        ledger.exclude(~mask_of(rule.keep, table), rule.name, Reason.COHORT_RULE)
    if labelled and options.labels == "required":
        details = table.column("label_detail").to_pylist()
        ledger.exclude(equal_to(table, "label_state", "missing"), "labels", Reason.LABEL_MISSING, details)
        ledger.exclude(equal_to(table, "label_state", "ambiguous"), "labels", Reason.LABEL_AMBIGUOUS, details)
    if options.one_per != "series":
        ledger.exclude(_surplus(table, options, ledger.included), f"one_per_{options.one_per}", Reason.ONE_PER_RULE)
    return ledger.append_to(table)


def require_clinical(table: pa.Table, ledger: "Decisions") -> None:
    """Exclude the rows of persons without a clinical row."""
    without = equal_to(table, "clinical_rows", 0)
    unclear = without & equal_to(table, "clinical_unclear", True)
    ledger.exclude(unclear, "clinical", Reason.CLINICAL_AMBIGUOUS)
    ledger.exclude(without, "clinical", Reason.CLINICAL_MISSING)


class Decisions:
    """The verdict of every row so far; the first rule that excludes a row wins."""

    def __init__(self, rows: int) -> None:
        """Start with every row included."""
        self.included = [True] * rows
        self._rule: list[str | None] = [None] * rows
        self._reason: list[str | None] = [None] * rows
        self._detail: list[str | None] = [None] * rows

    def exclude(self, failing: "Flags", rule: str, reason: Reason, details: Sequence[str | None] = ()) -> None:
        """Exclude the rows that fail."""
        for row, fails in enumerate(failing.values):
            if fails:
                self.refuse(row, rule, reason, details[row] if details else None)

    def refuse(self, row: int, rule: str, reason: Reason, detail: str | None = None) -> None:
        """Exclude one row, unless it is excluded already."""
        if self.included[row]:
            self._set(row, rule, reason.value, detail)

    def exclude_where(self, table: pa.Table, reasons: str, rule: str, details: str) -> None:
        """Exclude the rows that have a reason in a column of the table."""
        texts = table.column(details).to_pylist()
        for row, reason in enumerate(table.column(reasons).to_pylist()):
            if reason is not None and self.included[row]:
                self._set(row, rule, reason, texts[row])

    def append_to(self, table: pa.Table) -> pa.Table:
        """Return the table with the columns of the verdict."""
        columns = (self.included, self._rule, self._reason, self._detail)
        for (name, kind), values in zip(VERDICT_COLUMNS, columns, strict=True):
            table = table.append_column(name, pa.array(values, kind))
        return table

    def _set(self, row: int, rule: str, reason: str, detail: str | None) -> None:
        self.included[row] = False
        self._rule[row], self._reason[row], self._detail[row] = rule, reason, detail


class Flags:
    """A boolean a row, with ``~`` and ``&``."""

    def __init__(self, values: list[bool]) -> None:
        """Hold one boolean a row."""
        self.values = values

    def __invert__(self) -> "Flags":
        return Flags([not v for v in self.values])

    def __and__(self, other: "Flags") -> "Flags":
        return Flags([one and two for one, two in zip(self.values, other.values, strict=True)])


def mask_of(text: str, table: pa.Table) -> Flags:
    """Return whether each row fulfils an expression."""
    return Flags([bool(v) for v in compile_expression(text, table.schema).mask(table).to_pylist()])


def equal_to(table: pa.Table, column: str, value: str | int | bool) -> Flags:
    """Return whether each row has a value in a column."""
    return Flags([bool(v) for v in pc.equal(table.column(column), value).to_pylist()])


def preferred(table: pa.Table, prefer: Sequence[str]) -> list[int]:
    """Return the rows in the order of preference; ties go to series_key and stack."""
    order = [(c.removeprefix("-"), "descending" if c.startswith("-") else "ascending") for c in prefer]
    named = {name for name, _ in order}
    order += [(n, "ascending") for n in ("series_key", "stack") if n not in named]
    rows: list[int] = pc.sort_indices(table, sort_keys=order).to_pylist()
    return rows


def _surplus(table: pa.Table, options: Cohort, included: Sequence[bool]) -> Flags:
    """Return all included rows but the preferred one of each person or study; ties go to series_key and stack."""
    ranked = preferred(table, options.prefer)
    groups = table.column(f"{options.one_per}_key").to_pylist()
    taken: set[str] = set()
    surplus = [False] * table.num_rows
    for row in ranked:
        if included[row]:
            surplus[row] = groups[row] in taken
            taken.add(groups[row])
    return Flags(surplus)
