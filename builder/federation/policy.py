"""A site's policy: what may leave, and which specs are built. Nothing that a coordinator sends widens it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from builder.errors import PrivacyError, SpecError
from builder.federation.documents import Identifiers, Name, PublicKey
from builder.federation.suppression import SMALLEST_K
from builder.specfile import described
from builder.specfile.positions import parse_yaml, plain

ALWAYS = (
    *("name", "description", "license", "seed", "sources", "cohort", "volumes", "deid", "transforms", "samples"),
    *("splits", "max_lost", "report", "shards", "use_case", "governance", "catalog", "usage"),
)
"""Blocks of a spec that need no permission; ``Policy.allow`` names others."""


class Copying(BaseModel):
    """With which sites marks of images are exchanged.

    Parameters
    ----------
    sites
        Sites that may compare the marks of this one, and whose marks are compared here.
    key
        Where the key is that these sites share, and the coordinator does not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: Annotated[tuple[Name, ...], Field(min_length=1)]
    key: str


class Matching(BaseModel):
    """With which sites persons are matched who may be patients of both.

    Parameters
    ----------
    sites
        Sites that may ask, and that are asked.
    key
        Where the key is that these sites share, and the coordinator does not have.
    identifiers
        What is matched: the PatientID with its issuer (persons without one are not matched), or with the birth date.
    tell
        What a site that asks may learn, and what this one asks for: how many persons, or also which.
    python
        The Python of an environment that has openmined-psi.
    answers
        Most requests of one site that are answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: Annotated[tuple[Name, ...], Field(min_length=1)]
    key: str
    identifiers: Identifiers
    tell: Literal["sizes", "membership"] = "sizes"
    python: str
    answers: Annotated[int, Field(ge=1)] = 1


class Policy(BaseModel):
    """What a site has decided.

    Parameters
    ----------
    site
        Name of the site; the column ``site`` has it too.
    coordinator
        Public key whose specs and plans count.
    dataset
        Where the site's dataset is built. It stays at the site.
    ledger
        Private file that notes everything told; relative to the policy.
    k
        Smallest number that leaves; a larger one of the spec counts.
    offers
        Most offers that are made.
    columns
        Columns that may be told of, and the levels of each that may leave. Every other value is
        counted with the last one that a spec asks for.
    histograms
        Quantities that may be told of, on edges that builder ships; ``label_ml of LABEL.STRUCTURE`` is the size of a
        structure.
    pairs
        Pairs of those columns and quantities that receipts may cross, for their association.
    tell
        What else may be told, beside columns and histograms: ``exclusions``, how many persons each rule keeps out;
        and in offers ``coverage``, for how many structures of the spec persons have an ROI or segment by its name.
    allow
        Blocks that a spec may use beside the harmless ones: clinical, labels, consensus, persons, leaks.
    parameters
        Values of ``${NAME}`` in the spec's locations. A spec names no other place.
    patient_key
        Where the site's own key of pseudonyms is. That of the spec is not used.
    copies
        With which sites marks of images are exchanged; with none where it is not stated.
    patients
        With which sites persons are matched; with none where it is not stated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    coordinator: PublicKey
    dataset: Annotated[str, Field(min_length=1)]
    ledger: str = "federation-ledger.json"
    k: Annotated[int, Field(ge=SMALLEST_K)] = 11
    offers: Annotated[int, Field(ge=1)] = 3
    columns: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    histograms: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    tell: tuple[Literal["exclusions", "coverage"], ...] = ()
    allow: tuple[str, ...] = ()
    parameters: dict[str, str] = Field(default_factory=dict)
    patient_key: str = "${env:BUILDER_KEY}"
    copies: Copying | None = None
    patients: Matching | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Policy":
        for pair in self.pairs:
            strange = [name for name in pair if name not in self.columns and name not in self.histograms]
            if strange or pair[0] == pair[1]:
                raise ValueError(f"pairs: found {list(pair)}, expected two names of columns or histograms")
        if "coverage" in self.tell and any(name.startswith("label_ml") for name in self.histograms):
            raise ValueError(
                "tell: found coverage beside histograms of label_ml, expected one of the two: their difference would "
                "tell who has the name of a structure and nothing drawn"
            )
        return self


def read_policy(path: Path) -> Policy:
    """Return the policy in a file, with ``ledger`` as a whole path. Raises SpecError."""
    try:
        document = plain(parse_yaml(path.read_bytes(), str(path)))
        policy = Policy.model_validate(document)
    except FileNotFoundError:
        raise SpecError(f"{path}: found no file, expected the site's policy; docs/federation.md shows one") from None
    except ValidationError as error:
        lines = [message for _, message, _ in described(error, document, Policy)]
        raise SpecError("\n".join(f"{path}: {line}" for line in dict.fromkeys(lines))) from None
    return policy.model_copy(update={"ledger": str((path.parent / policy.ledger).resolve())})


def permitted(asked: dict[str, list[str]], policy: Policy) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the columns that may be told of, and a line for each that stays.

    Raises
    ------
    PrivacyError
        If a spec asks for a level that the policy does not list: a made-up level could carry a name.
    """
    found, withheld = {}, []
    for name, levels in sorted(asked.items()):
        if name not in policy.columns:
            withheld.append(f"{name}: the policy of the site tells nothing of this column")
            continue
        strange = [level for level in levels if level not in policy.columns[name]]
        if strange:
            raise PrivacyError(
                f"spec: found {len(strange)} levels of {name} that the policy does not list, expected some of "
                f"{list(policy.columns[name])}; add them to the policy if they may leave, or refuse the spec"
            )
        found[name] = tuple(levels)
    return found, withheld
