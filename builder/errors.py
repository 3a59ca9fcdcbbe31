"""All exceptions of the project, grouped by what the caller does next, and how messages count things."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun, as messages say it: ``1 person``, ``3,000 persons``, ``2 studies``.

    ``several`` is what follows any number but 1; without it, ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


class BuilderError(Exception):
    """The base class of all errors that this project raises on purpose."""


class SpecError(BuilderError):
    """The spec or the command line has an error that the user must fix (exit code 2).

    Parameters
    ----------
    message
        All faults, one per line, each ``file:line:column: what was found, what was expected``.
    faults
        The same faults in machine-readable form, if they are in a file: ``file``, ``line``, ``column``, ``message``.
    """

    def __init__(self, message: str, *, faults: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(dict(fault) for fault in faults)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_spec_error, (self.args[0], self.faults))


class MissingExtra(BuilderError):
    """A package is not installed. The user installs the named extra or, if there is none, the package itself.

    Packages without an extra belong to the full install, and may be missing where datasets are only read.
    """

    def __init__(self, package: str, extra: str = "") -> None:
        super().__init__(package, extra)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        wanted = f"'medical-dataset-builder[{self.extra}]'" if self.extra else self.package
        return f"the Python package {self.package!r} is not installed; install it with: pip install {wanted}"


class SourceError(BuilderError):
    """A source did not answer as expected. The runner retries.

    ``host`` is the server or file system and never names a patient. ``attempt`` counts from 1.
    """

    def __init__(self, message: str, *, host: str = "", attempt: int = 1) -> None:
        super().__init__(message)
        self.host = host
        self.attempt = attempt

    def __reduce__(self) -> tuple[Any, ...]:
        return (_source_error, (type(self), self.args[0], self.host, self.attempt))


class IncompleteError(SourceError):
    """A server answers, but did not give one object or list whole, after all tries.

    The object may be sound. It is never taken for absent or damaged: the run stops, or the study is left out until the
    next run.
    """


class ElsewhereError(SourceError):
    """A server does not hold all that a list names. The message says how much of it another public server holds."""


class Reason(StrEnum):
    """The reason why an object, series or case is not in the dataset. Every exclusion row holds one of these."""

    # files
    NOT_DICOM = "not_dicom"
    UNREADABLE = "unreadable"
    MISSING_UID = "missing_uid"
    TOO_LARGE = "too_large"
    DUPLICATE_SAME = "duplicate_same_bytes"
    DUPLICATE_FORMAT = "duplicate_format"
    DUPLICATE_CONFLICT = "duplicate_conflicting"
    NOT_AN_IMAGE = "not_an_image"
    SOURCE_CHANGED = "source_changed"
    SOURCE_MISSING = "source_missing"
    SOURCE_INCOMPLETE = "source_incomplete"
    HEADERS_DISAGREE = "headers_disagree"
    # geometry
    UNKNOWN_GEOMETRY = "unknown_geometry"
    IRREGULAR_SPACING = "irregular_spacing"
    GAPPED = "gapped"
    SHEARED = "sheared"
    DUPLICATE_POSITIONS = "duplicate_positions"
    MIXED_ORIENTATION = "mixed_orientation"
    SINGLE_SLICE = "single_slice"
    TIME_SERIES = "time_series"
    UNSUPPORTED_OBJECT = "unsupported_object"
    # pixels
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    UNDECODABLE_PIXELS = "undecodable_pixels"
    INCONSISTENT_PIXELS = "inconsistent_pixels"
    UNKNOWN_UNITS = "unknown_units"
    # labels
    LABEL_MISSING = "label_missing"
    LABEL_AMBIGUOUS = "label_ambiguous"
    LABEL_UNREADABLE = "label_unreadable"
    LABEL_EMPTY = "label_empty"
    LABEL_OFF_GRID = "label_off_grid"
    LABEL_GEOMETRY = "label_geometry_conflict"
    LABEL_UNPROVEN = "label_failed_proof"
    # persons
    WITHDRAWN = "withdrawn"
    # clinical and cohort
    CLINICAL_MISSING = "clinical_missing"
    CLINICAL_AMBIGUOUS = "clinical_ambiguous"
    COHORT_RULE = "cohort_rule"
    ONE_PER_RULE = "one_per_rule"
    NOT_SELECTED = "not_selected"
    LEFT_OUT = "left_out"
    IMAGE_MISSING = "image_missing"
    IMAGE_NOT_ALIGNED = "image_not_aligned"
    IMAGE_UNUSED = "image_unused"
    VISIT_MISSING = "visit_missing"
    VISIT_UNDATED = "visit_undated"
    VISIT_UNUSED = "visit_unused"
    # privacy
    BURNED_IN = "burned_in_annotation"
    FACE_SHOWN = "face_shown"
    # work
    NO_SAMPLES = "no_samples"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    INTERNAL_ERROR = "internal_error"


class CaseError(BuilderError):
    """One case, series or object cannot be used. It is excluded with this reason, and everything else continues.

    ``detail`` says what was found and what was expected. It never contains a patient's value, a UID or a path.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.picture: bytes | None = None
        """A PNG that shows the problem, if it can be seen."""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


class OutcomeError(BuilderError):
    """The dataset would be empty, or too much of it was lost. Nothing is published; earlier versions stay."""


class PrivacyError(BuilderError):
    """An identifier could have been disclosed. The build stops and nothing is published."""


class LayoutError(BuilderError):
    """The files on disk do not match their manifest. Reading or resuming is refused."""


class ResourceError(BuilderError):
    """The available resources are not sufficient, so the work is not started.

    ``projected`` and ``available`` are bytes.
    """

    def __init__(self, message: str, *, projected: int = 0, available: int = 0) -> None:
        super().__init__(message)
        self.projected = projected
        self.available = available

    def __reduce__(self) -> tuple[Any, ...]:
        return (_resource_error, (self.args[0], self.projected, self.available))


def _spec_error(message: str, faults: Sequence[Mapping[str, Any]]) -> SpecError:
    return SpecError(message, faults=faults)


def _source_error(kind: type[SourceError], message: str, host: str, attempt: int) -> SourceError:
    return kind(message, host=host, attempt=attempt)


def _resource_error(message: str, projected: int, available: int) -> ResourceError:
    return ResourceError(message, projected=projected, available=available)
