"""The documents that travel between a coordinator and its sites, and from site to site. A person can read each.

A file is JSON of ``document`` and ``signature``. Its text is the one that ``written`` gives, to the byte: whatever else
stands in a file was added by somebody, and is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.errors import LayoutError, counted
from builder.model.canonical import Json, canonical_json
from builder.specfile.messages import described

FORMAT: Final = 3
"""Increased when what a document says changes its meaning; every document states it, and others are refused."""

MOST_BYTES: Final = 4 << 20
"""No document is larger: it holds numbers that a person reads."""

MOST_BYTES_OF_KEYED: Final = 256 << 20
"""What holds keyed values and no numbers is larger: marks about 10 kB for an image of 200 slices."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Digest | Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
PublicKey = Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")]
Keyed = Annotated[str, Field(pattern=r"^[0-9a-hjkmnp-tv-z]{26}$")]
Hexadecimal = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]
Identifiers = Literal["issuer_and_patient_id", "patient_id_and_birth_date"]
Text = Annotated[str, Field(max_length=400)]
Millimetres = Annotated[float, Field(gt=0, le=1000)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Hidden: TypeAlias = Count | None
"""A count, or null where it is suppressed."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Row(_Closed):
    """A number of a table: a level of each column, ``*`` for any, and how many persons are there."""

    levels: list[Text]
    persons: Hidden


class Levels(_Closed):
    """A column and its levels; the last one holds all values that are not listed."""

    name: Text
    levels: list[Text]


Whose = Literal["everybody", "newcomers", "candidates"]
"""Whom a table counts: the persons of the cohort (in an offer) or of the dataset (in a receipt); those of them whom a
joint plan deals, where persons who must stay together count as one; or all who have an image that the rules judged."""


class Table(_Closed):
    """Persons by the levels of some columns, with sums. Suppressed numbers are null; a bin is a level "2 to 3"."""

    name: Text
    of: Whose = "everybody"
    columns: list[Levels]
    rows: list[Row]


class _Document(_Closed):
    """What every document begins with; ``nonce`` makes two documents differ that say the same."""

    format: Literal[3] = FORMAT
    federation: Name
    sequence: Annotated[int, Field(ge=1, lt=1 << 31)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Spec(_Document):
    """What a coordinator asks its sites to build: the text of a spec, and the sites with their public keys."""

    kind: Literal["spec"] = "spec"
    spec: Annotated[str, Field(max_length=1 << 20)]
    columns: dict[Text, list[Text]]
    sites: Annotated[dict[Name, PublicKey], Field(min_length=1, max_length=1000)]


class Offer(_Document):
    """What a site could bring, as numbers: ``strata`` counts newcomers, whom a joint plan deals, all else everybody."""

    kind: Literal["offer"] = "offer"
    site: Name
    spec: Digest
    k: Annotated[int, Field(ge=2)]
    strata: Table
    tables: list[Table]
    lock: dict[Text, Text]
    withheld: list[Text]


class Quota(_Closed):
    """How many newcomers of a stratum go to each split at a site; ``*`` is every level."""

    levels: list[Text]
    counts: dict[Text, Count]


class Plan(_Document):
    """The joint plan: one rule for all sites, and a quota for each site and stratum.

    Parameters
    ----------
    spacing_mm
        Fitted spacing along slice, row and column, which takes the place of the spec's; null for an axis that
        the spec keeps, and null where nothing was fitted.
    clip
        Fitted limits of intensities, which take the place of the spec's ``clip_percent``; null where they were not.
    """

    kind: Literal["plan"] = "plan"
    spec: Digest
    offers: dict[Name, Digest]
    ratios: dict[Text, float]
    columns: list[Levels]
    quotas: dict[Name, list[Quota]]
    held_out: dict[Name, Text]
    rules: list[Text]
    differences: list[Text]
    tables: list[Table]
    spacing_mm: Annotated[list[Millimetres | None], Field(min_length=3, max_length=3)] | None = None
    clip: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class Receipt(_Document):
    """What a site has built under a plan, as tallies.

    Parameters
    ----------
    version
        That of the site's dataset.
    counted
        The version whose persons the numbers are of: an earlier one where so few have come or left since that new
        numbers would tell of them. Each number is then off by fewer than ``k``.
    """

    kind: Literal["receipt"] = "receipt"
    site: Name
    plan: Digest
    version: Version
    counted: Version
    k: Annotated[int, Field(ge=2)]
    strata: Table
    tables: list[Table]
    lock: dict[Text, Text]
    withheld: list[Text]


class Volume(_Closed):
    """The keyed marks of one image, without a name: see ``builder.federation.leaks``.

    Parameters
    ----------
    exact
        Of the digest of all pixels, whatever the order of slices.
    planes
        Of the digest of each plane that is not constant, sorted.
    bands
        One a band, in order; none for an image without structure.
    """

    exact: Keyed
    planes: list[Keyed]
    bands: list[Keyed]


class Marks(_Document):
    """The marks of all images that a site has published, for the sites that share a key. No coordinator has the key.

    Parameters
    ----------
    readers
        The sites that may compare them.
    check
        Differs under another key, so that two keys are told from two archives.
    volumes
        Sorted by ``exact``, so that their places say nothing.
    """

    kind: Literal["marks"] = "marks"
    site: Name
    plan: Digest
    readers: list[Name]
    check: Keyed
    volumes: list[Volume]


class Copies(_Document):
    """How many persons of a site have an image that another site has as well, as tables of numbers."""

    kind: Literal["copies"] = "copies"
    site: Name
    plan: Digest
    k: Annotated[int, Field(ge=2)]
    tables: list[Table]


class Request(_Document):
    """The first message of a private set intersection: the identifiers of a site's persons, encrypted by its own key.

    Parameters
    ----------
    to
        The site that is asked.
    identifiers
        What is matched.
    membership
        Whether the asking site learns which of its persons the other has, or only how many.
    check
        Differs under another shared key.
    persons
        How many identifiers there are.
    message
        The library's message, as hexadecimal digits.
    """

    kind: Literal["request"] = "request"
    site: Name
    to: Name
    spec: Digest
    identifiers: Identifiers
    membership: bool
    check: Keyed
    persons: Count
    message: Hexadecimal


class Answer(_Document):
    """The second message: the request encrypted once more, and the answering site's own identifiers, encrypted."""

    kind: Literal["answer"] = "answer"
    site: Name
    to: Name
    request: Digest
    membership: bool
    setup: Hexadecimal
    message: Hexadecimal


Document: TypeAlias = Spec | Offer | Plan | Receipt | Marks | Copies | Request | Answer
D = TypeVar("D", Spec, Offer, Plan, Receipt, Marks, Copies, Request, Answer)
KINDS: Final[Mapping[str, type[Document]]] = {
    "spec": Spec,
    "offer": Offer,
    "plan": Plan,
    "receipt": Receipt,
    "marks": Marks,
    "copies": Copies,
    "request": Request,
    "answer": Answer,
}


class Signature(_Closed):
    """Who signed, and the Ed25519 signature (RFC 8032) of ``signed_bytes``, in hexadecimal digits."""

    key: PublicKey
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Envelope(_Closed):
    """A file: the document, and its signature once somebody has approved it."""

    document: Annotated[Document, Field(discriminator="kind")]
    signature: Signature | None = None


def signed_bytes(document: Document) -> bytes:
    """Return what is signed: it names the kind, so that nothing that was signed as one thing passes as another."""
    return f"builder federation {FORMAT} {document.kind}\n".encode() + canonical_json(document.model_dump(mode="json"))


def digest(document: Document) -> str:
    """Return the SHA-256 of what is signed, by which other documents name this one."""
    return hashlib.sha256(signed_bytes(document)).hexdigest()


def written(document: Document, signature: Signature | None = None) -> bytes:
    """Return the text of a file: sorted keys, one fact a line."""
    facts = Envelope(document=document, signature=signature).model_dump(mode="json")
    return (json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read(data: bytes, kind: type[D], *, where: str) -> tuple[D, Signature | None]:
    """Return the document in a file and its signature, which nobody has checked yet.

    Raises
    ------
    LayoutError
        If it is no document, one of another kind or format, or its text is not the one that ``written`` gives.
    """
    name = kind.model_fields["kind"].default
    facts = _facts(data, name, where)
    found = facts["document"].get("kind")
    if found != name:
        raise LayoutError(
            f"{where}: found {with_article(found)}, expected {with_article(name)} of a federation; name the right file"
        )
    if facts["document"].get("format") != FORMAT:
        raise LayoutError(
            f"{where}: found format {facts['document'].get('format')!r} of the {name}, expected {FORMAT}; both sides "
            "need releases of builder that write the same format"
        )
    try:
        envelope = Envelope.model_validate_json(data)
    except ValidationError as error:
        _, message, _ = next(described(error, facts, Envelope, kind))
        raise LayoutError(f"{where}: {message}; it was changed or damaged: ask for it again") from None
    document = envelope.document
    if not isinstance(document, kind) or written(document, envelope.signature) != data:
        raise LayoutError(
            f"{where}: found a text that says the same as a {name}, but was not written by builder, expected the file "
            "as it was written, to the byte; ask for it again, and send files as attachments"
        )
    return document, envelope.signature


def kind_of(data: bytes) -> str:
    """Return the kind that a file says it is of; "" where it says none."""
    try:
        return str(json.loads(data)["document"]["kind"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def _facts(data: bytes, name: str, where: str) -> dict[str, Any]:
    most = MOST_BYTES_OF_KEYED if name in ("marks", "request", "answer") else MOST_BYTES
    if len(data) > most:
        raise LayoutError(f"{where}: found {counted(len(data), 'byte')}, expected at most {most:,}")
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("document"), dict):
        raise LayoutError(
            f"{where}: found no document of a federation, expected JSON of 'document' and 'signature', as builder "
            f"writes {with_article(name)}; it was cut off or is another file"
        )
    return facts


def with_article(kind: Any) -> str:
    """Return the name of a kind as a sentence has it."""
    if kind in ("marks", "copies"):
        return str(kind)
    return f"an {kind}" if str(kind)[:1] in "aeio" else f"a {kind}" if kind in KINDS else "something else"


def published_schemas() -> dict[str, Json]:
    """Return the JSON Schema of each kind of file, for those who check what leaves by other programs."""
    schemas: dict[str, Json] = {}
    for name, kind in KINDS.items():
        schema = kind.model_json_schema()
        definitions = {**schema.pop("$defs", {}), **Signature.model_json_schema().pop("$defs", {})}
        schemas[name] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"{name} of a federation",
            "type": "object",
            "additionalProperties": False,
            "required": ["document", "signature"],
            "properties": {
                "document": {**schema, "required": sorted(schema["properties"])},
                "signature": {"anyOf": [Signature.model_json_schema(), {"type": "null"}]},
            },
            "$defs": definitions,
        }
    return schemas
