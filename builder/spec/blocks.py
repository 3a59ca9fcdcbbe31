"""The blocks of a spec that belong to no other room: persons, report, leaks, shards, and how much may be lost."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydicom.datadict import dictionary_VR, tag_for_keyword

from builder.deid import checked_reference
from builder.persons import PLACEHOLDERS, Aliases, Naming, normal_id
from builder.shards import CodecName, FieldStorage


class PersonOptions(BaseModel):
    """How PatientIDs become persons, beside shared StudyInstanceUIDs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    aliases: tuple[Aliases, ...] = ()
    """Tables whose rows hold PatientIDs of one person each. A URL alone is a table of two columns."""
    shared_ids: bool = False
    """Whether the sources that state no site number their patients together. Without it a PatientID that two of them
    have stops the plan, unless a study proves that it is one patient's."""
    placeholders: tuple[str, ...] = PLACEHOLDERS
    """PatientIDs that name nobody: each study under them is a person of its own, as a study without a PatientID is."""
    leading_zeros: Literal["join", "report", "distinct"] = "report"
    """Whether 17 and 0017 of one hospital are one patient. ``report``: they are not, and are counted."""
    on_conflict: Literal["report", "stop"] = "report"
    """What to do when one PatientID has several sexes or birth dates."""

    @field_validator("aliases", mode="before", json_schema_input_type=str | Aliases | tuple[str | Aliases, ...])
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        tables = given if isinstance(given, list | tuple) else () if given is None else (given,)
        return tuple({"url": table} if isinstance(table, str) else table for table in tables)

    def naming(self, sites: Sequence[str | None], *, named_studies: Collection[int] = ()) -> Naming:
        """Return the rules for naming persons in the sources of these sites; ``named_studies`` as in ``Naming``."""
        placeholders = frozenset(map(normal_id, self.placeholders))
        return Naming(tuple(sites), placeholders, self.leading_zeros, self.shared_ids, frozenset(named_studies))


class Reference(BaseModel):
    """A population the dataset is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    """Which population, and where its figures are from."""
    shares: Mapping[str, Mapping[str, Annotated[float, Field(gt=0)]]]
    """Column to level to share, e.g. ``sex: {F: 0.51, M: 0.49}``; shares are scaled to a sum of 1."""


class ReportOptions(BaseModel):
    """What the report breaks down, and how small cells are protected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: tuple[str, ...] = ("sex", "age_band", "vendor", "site")
    """Columns by which the report breaks everything down, e.g. ``[sex, age_band, vendor, site]``."""
    outcomes: tuple[str, ...] = ()
    """Columns a model is to predict, beside the labels: associations, metadata baseline and power are theirs too."""
    reference: Reference | None = None
    """A population the dataset is compared with."""
    mask_below: Annotated[int, Field(ge=0, le=100)] = 0
    """Counts below this are masked, with complementary suppression; 0 shows all."""
    thumbnails: Annotated[int, Field(ge=0, le=64)] = 12
    """How many samples the report shows as pictures."""


class LeakOptions(BaseModel):
    """How images under two names are looked for, and what happens to the persons they are found with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: Literal["near", "exact", "off"] = "near"
    """``near``: equal pixels, shared planes, and copies that were cropped, rescaled, compressed, flipped or windowed;
    ``exact``: equal pixels and shared planes only."""
    on_match: Literal["merge", "stop", "report"] = "merge"
    """``merge``: the persons go to one split; ``stop``: nothing is published; ``report``: the certificate tells."""
    thresholds: Mapping[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """Correlation from which two volumes count as one image, by modality, in place of the measured defaults."""


class ShardOptions(BaseModel):
    """How large a shard grows: whichever bound is reached first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_mib: Annotated[float, Field(gt=0, le=4096)] = 64
    """Uncompressed bytes of the samples of one shard."""
    cases: Annotated[int, Field(ge=1, le=4096)] = 32
    """Largest number of cases in one shard."""
    codec: CodecName = "fast"
    """Compression: ``fast`` to write and read, ``small``, ``archive`` (smallest, and slow to write), or ``training``,
    from which random crops of whole volumes are read fastest, and which takes ten to ninety times as long to write as
    ``fast``. ``crops`` is an earlier form of ``training``, for datasets that have it."""
    fields: Mapping[str, FieldStorage] = Field(default_factory=dict)
    """How single fields are stored: ``image``, or a mask by its label's name."""


ReleasedKind = Literal["SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG", "KO", "SR", "PR"]


class TextOptions(BaseModel):
    """Which images of a release may show text in their pixels, and what happens to them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    devices: str | None = Field(default=None, min_length=1)
    """Table of rules for images by their header, which are asked before the rules of the package."""
    found: Literal["blank", "queue"] | None = None
    """Text that ``builder find-text`` found: it is blanked, or a person decides. An image that no rule clears and that
    was not searched waits, too. Without this option nothing is searched."""
    nothing_found: Literal["queue", "release"] = "queue"
    """Images whose header raises doubt and in which nothing was found: a person looks at them, or they leave."""

    @model_validator(mode="after")
    def _searched(self) -> Self:
        if self.nothing_found == "release" and self.found is None:
            raise ValueError("found nothing_found: release without found, expected found: blank or found: queue")
        return self


class ReleaseOptions(BaseModel):
    """What ``builder release`` writes beside the images of the cohort, and what it takes out of every object."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    objects: tuple[ReleasedKind, ...] = ("KO", "PR", "REG", "RTDOSE", "RTPLAN", "RTSTRUCT", "SEG", "SR")
    """Kinds of objects that go with the images they refer to, e.g. ``[SEG, RTSTRUCT]``."""
    remove: tuple[str, ...] = ()
    """Keywords of attributes that go from every object, at every depth, e.g. ``[SeriesDescription]``."""
    words: tuple[str, ...] = ()
    """Words that labels of structures and segments may hold beside those of imaging and of the spec: ``[igtv]``."""
    decisions: str | None = Field(default=None, min_length=1)
    """Private table of what people decided about images that may show text: rectangles to blank, or none."""
    undecided: Literal["wait", "leave_out"] = "wait"
    """Images that may show text and that nobody decided about: publishing waits for decisions, or they are left out."""
    text: TextOptions | None = None
    """Rules and policy for text in pixels. Without it only headers that raise doubt, and decisions, count."""
    crosswalk: str | None = None
    """Where a key of its own is found, as for ``deid.patient_key``. With it the private table that leads from released
    names back to the archive's is kept, encrypted; what is released stays the same."""

    @field_validator("crosswalk", mode="before")
    @classmethod
    def _is_reference(cls, value: Any) -> Any:
        return None if value is None else checked_reference(value)

    @field_validator("objects")
    @classmethod
    def _in_order(cls, value: tuple[ReleasedKind, ...]) -> tuple[ReleasedKind, ...]:
        return tuple(sorted(set(value)))

    @field_validator("remove")
    @classmethod
    def _are_keywords(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if tag_for_keyword(name) is None:
                raise ValueError(f"found {name!r}, expected a keyword of DICOM (PS3.6), such as SeriesDescription")
            if dictionary_VR(name) == "UI":
                raise ValueError(f"found {name}, expected no UID: all of them are replaced")
        return tuple(sorted(set(value)))


class MostLost(BaseModel):
    """How much of the plan a build may lose and still be published; beyond it what was published before stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Share of the planned cases."""
    persons: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the persons with a planned case."""
    at_least: Annotated[int, Field(ge=1)] = 5
    """A loss of fewer cases or persons than this stops nothing, whatever share it is."""
