"""Text that may be published: a type that only the privacy gate can make, and the policy of every column of text.

The type is how the type checker finds code that goes around the gate: a plain ``str`` is no ``Cleared``. Arrow tables
have no such types, so writers ask ``check_policies`` as well, which refuses a column of text that nobody decided about.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias, final

import pyarrow as pa

from builder.errors import PrivacyError
from builder.model.classes import PREFIX
from builder.model.tables import WORKED_OUT


@final
class Seal:
    """What the gate shows in order to clear something; only ``builder.deid.gate`` and ``.documents`` may hold it."""

    __slots__ = ()


SEAL: Final = Seal()


@final
class Cleared(str):
    """Text that passed the gate (``builder.deid.gate``)."""

    __slots__ = ()

    def __new__(cls, text: str, seal: Seal) -> "Cleared":
        """Return the text as cleared text. Raises TypeError without the gate's seal."""
        if seal is not SEAL:
            raise TypeError("cleared text: found no seal, expected that builder.deid.gate makes it")
        return super().__new__(cls, text)

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, (str(self),))  # what is read back from a pickle passed no gate


@final
class ClearedBytes(bytes):
    """A document or table that passed the gate (``builder.deid.documents``): what a version is published from."""

    __slots__ = ()

    def __new__(cls, data: bytes, seal: Seal) -> "ClearedBytes":
        """Return the bytes as cleared bytes. Raises TypeError without the gate's seal."""
        if seal is not SEAL:
            raise TypeError("cleared bytes: found no seal, expected that builder.deid.documents makes them")
        return super().__new__(cls, data)


Cell: TypeAlias = Cleared | int | float | bool | None
"""A cell of a row that may be published."""


CODED: Final = "="
"""Stands before each code of a quantity that is published in our words for it."""


class Policy(StrEnum):
    """How the gate judges the text of a column."""

    KEY = "key"
    """A keyed name (``builder.model.keyed``) or a fingerprint."""
    OWN = "own"
    """Words of this program: verdicts, reasons, notes, names of rules."""
    MESSAGE = "message"
    """A sentence of this program, which may quote words of the spec."""
    SPEC = "spec"
    """A word of the spec: names of labels, structures, splits, sites."""
    TERM = "term"
    """Defined terms and enumerated values of DICOM (PS3.3), and registered UIDs."""
    KIND = "kind"
    """What the rule table says that a series is: a value of the shipped rules or of the spec's."""
    IMAGE_TYPE = "image_type"
    """Image Type (0008,0008): defined terms, value by value."""
    BODY_PART = "body_part"
    """Body Part Examined (0018,0015; PS3.16 Annex L), or words of anatomy."""
    KERNEL = "kernel"
    """Convolution Kernel (0018,1210): the forms vendors use."""
    VENDOR = "vendor"
    """A vendor of the shipped table."""
    MODEL = "model"
    """A model of the shipped table."""
    TOOL = "tool"
    """Vendors, models and programs of the shipped tables."""
    CODE = "code"
    """A coded concept ``<scheme>:<value>`` that DICOM's context groups hold."""
    MEANING = "meaning"
    """Our meaning of coded concepts that are marked with ``CODED``; a code that is not marked stays a code."""
    UNIT = "unit"
    """A UCUM unit."""
    CLASS = "class"
    """A class of things drawn: words of anatomy and imaging, or of the spec."""
    FINDING = "finding"
    """``<label>/<finding>``: words of the spec, of a lexicon, or coded concepts."""
    ANSWER = "answer"
    """The value of a finding: a word of the spec, a number, or a coded concept."""
    NUMBER = "number"
    """Small numbers and the keyed UIDs that number things."""
    READER = "reader"
    """A keyed reader, or as the spec names readers."""
    ORIGIN = "origin"
    """What a public registry or the spec states of a collection: its title, licence and citation."""
    DECLARED = "declared"
    """A clinical column of the spec: its levels, or text that passes the check of shapes and identifiers."""
    PROSE = "prose"
    """Text of a report that the spec publishes: scrubbed."""


CLOSED: Final = frozenset(Policy) - {Policy.DECLARED, Policy.PROSE, Policy.ORIGIN, Policy.MESSAGE}
"""Policies whose values come from closed vocabularies: a patient may be called Hand, and a hand is no leak."""

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        **dict.fromkeys(("sample_key", "case_key", "series_key", "study_key", "person_key", "object_key"), Policy.KEY),
        **dict.fromkeys(("frame_of_reference_key", "accession_key", "device_serial_key", "key"), Policy.KEY),
        **dict.fromkeys(("members", "bare", "studies", "shard", "serves"), Policy.KEY),
        **dict.fromkeys(("domain", "notes", "findings", "header_findings", "verdict", "split_rule"), Policy.OWN),
        **dict.fromkeys(("orientation", "annotations", "label_status", "label_tier", "evidence_tiers"), Policy.OWN),
        **dict.fromkeys(("level", "stage", "reason", "status", "role", "kind", "sex", "age_band"), Policy.OWN),
        **dict.fromkeys(("detail", "stratum"), Policy.MESSAGE),
        **dict.fromkeys(
            ("split", "split_published", "moved_from", "rule", "centred_on", "site", "country"), Policy.SPEC
        ),
        "image_name": Policy.SPEC,
        "collection": Policy.SPEC,
        **dict.fromkeys(("segment_names", "box_names", "landmark_names", "measurement_names"), Policy.SPEC),
        **dict.fromkeys(("text_names", "measure_names", "evidence_labels", "evidence_times"), Policy.SPEC),
        "reading_labels": Policy.SPEC,
        **dict.fromkeys(("modality", "sop_class_uid", "transfer_syntax_uid"), Policy.TERM),
        **dict.fromkeys(("photometric_interpretation", "units", "decay_correction"), Policy.TERM),
        **dict.fromkeys(("lossy_image_compression", "patient_position"), Policy.TERM),
        **dict.fromkeys(("view_position", "laterality"), Policy.TERM),
        **dict.fromkeys(WORKED_OUT, Policy.KIND),
        **dict.fromkeys((f"{name}_rule" for name in WORKED_OUT), Policy.SPEC),
        "image_type": Policy.IMAGE_TYPE,
        "body_part": Policy.BODY_PART,
        "convolution_kernel": Policy.KERNEL,
        "manufacturer": Policy.VENDOR,
        "vendor": Policy.VENDOR,
        "manufacturer_model": Policy.MODEL,
        "ethnic_group": Policy.CLASS,
        "evidence_tools": Policy.TOOL,
        **dict.fromkeys(("segment_categories", "segment_types", "measurement_concepts"), Policy.CODE),
        **dict.fromkeys(("measurement_findings", "measurement_sites"), Policy.CODE),
        "measurement_quantities": Policy.MEANING,
        "measurement_units": Policy.UNIT,
        **dict.fromkeys(("box_classes", "landmark_classes"), Policy.CLASS),
        **dict.fromkeys(("class_names", "reading_quantities"), Policy.FINDING),
        **dict.fromkeys(("class_values", "reading_values"), Policy.ANSWER),
        **dict.fromkeys(("landmark_groups", "measurement_tracking"), Policy.NUMBER),
        **dict.fromkeys(("evidence_readers", "reading_readers"), Policy.READER),
        **dict.fromkeys(("license", "title", "citation", "doi", "page"), Policy.ORIGIN),
        "texts": Policy.PROSE,
    }
)
"""All columns of text that leave, except those that the spec declares."""

_EVIDENCE: Mapping[str, Policy] = MappingProxyType(
    {"tier": Policy.OWN, "readers": Policy.READER, "tool": Policy.TOOL, "time": Policy.SPEC}
)
_OF_EVIDENCE = re.compile(r"evidence\.[a-z][a-z0-9_]*\.([a-z]+)")


def policy_of(column: str, declared: Iterable[str] = ()) -> Policy | None:
    """Return the policy of a column of text, or None if nobody has decided about it."""
    found = _OF_EVIDENCE.fullmatch(column)
    if found is not None:
        return _EVIDENCE.get(found[1])
    if column.startswith(PREFIX):
        return Policy.ANSWER
    if column.startswith("text."):
        return Policy.PROSE
    known = frozenset(declared)
    name = bare_column(column, known)
    if name in known and name in _OF_TABLES:
        return Policy.DECLARED
    return POLICIES.get(name) or (Policy.DECLARED if name in known else None)


_OF_TABLES = frozenset({"sex", "site", "country", "collection"})
"""Columns of the spec's words or of codes of the header; where a clinical table gives them instead, they hold text."""


def bare_column(column: str, declared: Iterable[str] = ()) -> str:
    """Return the name of a column without the name of the image before it, as in ``adc.vendor``."""
    known = frozenset(declared)
    bare = column.rpartition(".")[2]
    return bare if column not in POLICIES and column not in known and (bare in POLICIES or bare in known) else column


def check_policies(schema: pa.Schema, *, where: str, declared: Iterable[str] = ()) -> None:
    """Refuse a column that holds text, at any depth, and has no policy.

    Raises
    ------
    PrivacyError
        Naming the column.
    """
    for field in schema:
        if holds_text(field.type) and policy_of(field.name, declared) is None:
            raise PrivacyError(
                f"{where}: found the column of text {field.name!r} without a policy of the privacy gate, expected one "
                "in builder.model.cleared.POLICIES; nothing is written"
            )


def holds_text(kind: pa.DataType) -> bool:
    """Return whether values of a type may be, or contain, text or bytes."""
    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    if pa.types.is_map(kind):
        return holds_text(kind.key_type) or holds_text(kind.item_type)
    if pa.types.is_struct(kind):
        return any(holds_text(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return holds_text(kind.value_type)
    return not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )
