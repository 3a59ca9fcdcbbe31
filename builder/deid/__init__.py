"""The spec's ``deid`` block: the secret behind the pseudonyms, what may leave, and what happens to risky pixels."""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from builder.defacers import AnyDefacer, Surface
from builder.deid.anonymity import Anonymity
from builder.deid.options import ColumnText
from builder.deid.profile import Option, Profile
from builder.errors import SpecError
from builder.model.keyed import Key
from builder.model.secrets import MAKE_ONE, check_strength, read_variable
from builder.model.tables import WORKED_OUT

ACQUISITION = (
    *(name for kind in WORKED_OUT for name in (kind, f"{kind}_rule")),
    *("echo_time", "repetition_time", "inversion_time", "flip_angle", "echo_train_length", "b_value", "exposure_mas"),
    *("coverage_mm", "view_position", "laterality", "patient_position", "photometric_interpretation", "bits_stored"),
    *("decay_correction", "lossy_image_compression"),
)
"""Columns that say how an image was made or what the rule table takes it for. Each leaves if ``retain`` names it."""

RETAINABLE = (
    *("sex", "age_years", "age_band", "site", "country", "collection", "source"),
    *("study_day", "days_after_image", "delta_days"),
    *ACQUISITION,
)
"""What crosses into a dataset only when ``retain`` names it. Columns of clinical tables that hold dates are the only
other names that ``retain`` takes; dates, names and numbers themselves never cross."""

LONGEST_OFFSET = 3653
"""Most days between two dates that may leave, whatever a spec says: ten years."""

OptionName = Literal[
    "retain_safe_private",
    "retain_uids",
    "retain_device_identity",
    "retain_institution_identity",
    "retain_patient_characteristics",
    "retain_longitudinal_full_dates",
    "retain_longitudinal_modified_dates",
    "clean_descriptors",
    "clean_structured_content",
    "clean_graphics",
]

_REFERENCE = re.compile(r"\$\{(?:env:(?P<env>[A-Za-z_][A-Za-z0-9_]*)|file:(?P<file>[^{}\x00-\x1f]+))\}")


class MaskRegion(BaseModel):
    """A rectangle of the image plane that is blanked in images of one size.

    ``rows`` and ``columns`` are half-open ranges of pixel indices; ``size`` (rows, columns) says which images the
    rectangle was drawn for: an image of another size is not covered by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[int, int]
    """Rows from the first to before the last, e.g. [0, 40]."""
    columns: tuple[int, int]
    """Columns from the first to before the last."""
    size: tuple[int, int]
    """(rows, columns) of the images the rectangle was drawn for."""
    modality: str | None = Field(default=None, pattern=r"^[A-Z]{2,16}$")
    """Modality of these images; any without it."""

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for name, (start, stop), length in (("rows", self.rows, self.size[0]), ("columns", self.columns, self.size[1])):
            if not 0 <= start < stop <= length:
                raise ValueError(f"{name}: found [{start}, {stop}), expected 0 <= start < stop <= {length} (size)")
        return self


class Deid(BaseModel):
    """How the build de-identifies (PS3.15 Annex E).

    Parameters
    ----------
    patient_key
        Where the secret behind all pseudonyms is found: ``${env:NAME}`` or ``${file:/path}``. Never the secret itself:
        the spec is published with the dataset.
    retain
        Characteristics of the person that may cross into the dataset (``source``, the position in the spec's sources,
        tells the site), and columns that say how many days lie between two dates: ``study_day``, ``days_after_image``
        of labels, and clinical columns of type ``date`` or the times of events made of them. A column whose name or
        heading says that it holds dates of birth is published without values, whatever ``retain`` says; so is every
        single time that docs/privacy-rules.md withholds. The plan says how many.
    most_days
        Most days that such a column may say, before or after. A longer time becomes one day more: 366 then means
        "more than a year later".
    text
        What may leave of single columns of text, in addition to what their closed vocabularies hold.
    options
        Options of the profile (PS3.15 E.3) that decide what objects keep in memory. Whatever they keep, only
        ``retain`` and the allow list of columns decide what enters the dataset.
    burned_in
        What happens to images that may carry text in their pixels: ``refuse`` excludes them; ``mask`` blanks
        ``mask_regions`` and refuses those that no region covers.
    outside_regions
        What happens to pixels outside the regions that an ultrasound image states (Sequence of Ultrasound Regions,
        0018,6011): ``keep``, or ``blank``, as names and dates stand there. An image without regions stays as it is.
    reviewed
        Modalities whose pixels a person has looked at and found clean. This admits ultrasound, angiography,
        photographs and secondary captures, but no image that says BurnedInAnnotation YES.
    faces
        What happens to faces in heads of CT, MR and PET: ``keep`` notes that they may be there, ``refuse`` leaves out
        every image that shows a face or may show one, ``remove`` takes them out of the voxels before any transform.
    defacer
        What of a head is taken out.
    face_review
        Which images of heads wait for a person: ``none``, those that are ``doubtful``, or ``all``. Without a decision
        doubtful ones are left out.
    face_decisions
        Private table of what people decided about heads (``uid,decision``); without it the one that ``builder view``
        writes.
    anonymity
        What the released quasi-identifiers must satisfy, and what happens where they do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    VERSION: ClassVar[int] = 5

    patient_key: str
    retain: tuple[str, ...] = ()
    most_days: int = Field(default=365, ge=1, le=LONGEST_OFFSET)
    text: Mapping[str, ColumnText] = Field(default_factory=dict)
    options: tuple[OptionName, ...] = (
        "clean_descriptors",
        "clean_graphics",
        "clean_structured_content",
        "retain_longitudinal_modified_dates",
        "retain_patient_characteristics",
        "retain_safe_private",
    )
    burned_in: Literal["refuse", "mask"] = "refuse"
    mask_regions: tuple[MaskRegion, ...] = ()
    """Rectangles that are blanked with ``burned_in: mask``."""
    outside_regions: Literal["keep", "blank"] = "keep"
    reviewed: tuple[str, ...] = ()
    faces: Literal["keep", "refuse", "remove"] = "keep"
    defacer: AnyDefacer = Surface()
    face_review: Literal["none", "doubtful", "all"] = "none"
    face_decisions: str | None = Field(default=None, min_length=1)
    anonymity: Anonymity = Anonymity()

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @property
    def profile(self) -> Profile:
        """Return the Basic Profile with this block's options."""
        return Profile(frozenset(Option(name) for name in self.options))

    @field_validator("patient_key", mode="before")
    @classmethod
    def _is_reference(cls, value: Any) -> Any:
        return checked_reference(value)

    @field_validator("retain")
    @classmethod
    def _in_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @field_validator("options")
    @classmethod
    def _are_compatible(cls, value: tuple[OptionName, ...]) -> tuple[OptionName, ...]:
        if {"retain_longitudinal_full_dates", "retain_longitudinal_modified_dates"} <= set(value):
            raise ValueError("found full and modified dates retained, expected at most one of the two")
        return tuple(sorted(set(value)))

    @field_validator("reviewed")
    @classmethod
    def _are_modalities(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if re.fullmatch(r"[A-Z]{2,16}", name) is None:
                raise ValueError(f"found {name!r}, expected a modality (0008,0060), such as US")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _regions_need_mask(self) -> Self:
        if (self.burned_in == "mask") != bool(self.mask_regions):
            raise ValueError(
                f"found burned_in {self.burned_in} with {len(self.mask_regions)} mask_regions, "
                "expected regions exactly when burned_in is mask"
            )
        return self

    @model_validator(mode="after")
    def _faces_are_looked_for(self) -> Self:
        if self.faces == "keep" and (self.face_review != "none" or self.face_decisions is not None):
            raise ValueError(
                "found face_review or face_decisions with faces: keep, expected faces: remove or refuse, because "
                "nothing is looked for otherwise"
            )
        return self

    @model_validator(mode="after")
    def _bands_are_released(self) -> Self:
        if self.anonymity.age_bands is not None and "age_years" in self.retain and "age_band" not in self.retain:
            raise ValueError(
                "found anonymity.age_bands with age_years in retain and no age_band, expected age_band there: ages "
                "leave only as bands, so that nothing of them would leave"
            )
        return self


def checked_reference(value: Any) -> str:
    """Return a reference to a secret as it stands. Raises ValueError for anything else, such as the secret itself."""
    if not isinstance(value, str) or _REFERENCE.fullmatch(value) is None:
        raise ValueError(
            "found a literal value (not shown), expected a reference: ${env:NAME} or ${file:/path}; a secret in "
            "the spec would be published with the dataset and undo every pseudonym"
        )
    return value


def resolve_key(
    reference: str,
    environment: Mapping[str, str],
    *,
    read: Callable[[str], bytes] | None = None,
    where: str = "deid.patient_key",
    begun: str = "dataset",
) -> Key:
    """Return the secret that a reference such as ``patient_key`` points to.

    Parameters
    ----------
    reference
        ``${env:NAME}`` or ``${file:/path}``.
    environment
        The process environment, given by the caller.
    read
        Reads a file for ``${file:...}``; None where files are not available.
    where, begun
        What messages call the option, and what was begun with the key.

    Raises
    ------
    SpecError
        If this is no reference, if it points to nothing or to a variable that a spec may not read, or if the secret
        could be guessed. The message never shows the secret.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise SpecError(f"{where}: found a literal value (not shown), expected ${{env:NAME}} or ${{file:/path}}")
    if match["env"] is not None:
        advice = f"; export the key that the {begun} was begun with; for a new {begun} {MAKE_ONE}, and keep it"
        secret = read_variable(match["env"], environment, where=where, advice=advice).strip().encode()
        return Key(check_strength(secret, where=where))
    if read is None:
        raise SpecError(f"{where}: found ${{file:...}}, expected ${{env:NAME}} where no file can be read")
    try:
        secret = read(match["file"]).strip()
    except OSError as error:
        message = f"{where}: the file cannot be read ({type(error).__name__}), expected it to hold the secret"
        raise SpecError(message) from None
    return Key(check_strength(secret, where=where))
