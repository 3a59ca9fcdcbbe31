"""How a PatientID is written before it is compared, and to whom it belongs: its issuer, else its source's site."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

from builder.model.keyed import Key

Identity = tuple[str, str]
"""(namespace, PatientID), both in their normal form. A study stands for itself where its PatientID names nobody."""

STUDY: Final = "\0study"
"""Namespace of studies without a PatientID: the study's UID is the name."""

ALIAS: Final = "alias\0"
"""Prefix of the namespace of ids that only an alias table has."""

_SITE: Final = "site\0"

PLACEHOLDERS: Final = (
    "0", "anon", "anonymised", "anonymized", "anonymous", "deidentified", "dummy", "n/a", "na", "nan", "nil", "no id",
    "no name", "noid", "none", "null", "patient", "patient id", "patientid", "removed", "test", "unk", "unknown",
    "unnamed", "xxx", "xxxx", "-", "--", "---", ".", "?", "??", "???",
)  # fmt: skip
"""PatientIDs that de-identification tools and consoles write for any patient. They name nobody."""


def normal_id(text: str | None) -> str:
    """Return a PatientID (0010,0020) in the form in which it is compared.

    Unicode's compatibility form (NFKC) without case and without invisible characters (controls, NUL padding, zero-width
    characters); runs of white space become one blank, and none is left at the ends. Source: Unicode 16.0, 5.18.4 and
    UAX #15.
    """
    if text and text.isascii() and text.isprintable():  # nothing to fold but case; most ids, and much faster
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text or "").casefold())
    shown = (" " if c.isspace() else c for c in folded if c.isspace() or unicodedata.category(c) not in _INVISIBLE)
    return " ".join("".join(shown).split())


_INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs"})

normal_issuer = normal_id
"""An Issuer of Patient ID (0010,0021) as it is compared: by the same rule."""


@dataclass(frozen=True)
class Naming:
    """The spec's rules of who a PatientID belongs to.

    Parameters
    ----------
    sites
        The site of each source, in order; None for a source that states none.
    placeholders
        PatientIDs that name nobody, in normal form.
    leading_zeros
        ``join``: ids of one namespace that differ only in leading zeros are one id; ``report``: they are counted;
        ``distinct``: they are different and need no mention.
    shared_ids
        Whether all sources without a site number their patients together.
    named_studies
        Positions of the sources whose studies are named after their patients, as those of image files are: that two of
        them have a study in common proves nothing.
    """

    sites: tuple[str | None, ...] = ()
    placeholders: frozenset[str] = frozenset(PLACEHOLDERS)
    leading_zeros: Literal["join", "report", "distinct"] = "report"
    shared_ids: bool = False
    named_studies: frozenset[int] = frozenset()

    def place(self, source: int | None) -> str:
        """Return the namespace of a source's PatientIDs without issuer: its site, or "" if it states none."""
        return self._places[source] if source is not None and source < len(self._places) else ""

    @cached_property
    def _places(self) -> tuple[str, ...]:
        return tuple(self.namespace(site) for site in self.sites)

    def namespace(self, site: str | None) -> str:
        """Return the namespace of a site; "" for none."""
        name = normal_id(site)
        return f"{_SITE}{name}" if name else ""

    def identity(
        self, patient_id: str | None, issuer: str | None, study_uid: str | None, source: int | None = None
    ) -> Identity:
        """Return the identity of an object; one whose PatientID names nobody belongs to its study alone."""
        name = normal_id(patient_id)
        if not name or name in self.placeholders:
            return (STUDY, study_uid or "")
        return (normal_issuer(issuer) or self.place(source), name)


class Seen(NamedTuple):
    """One distinct way in which objects name their patient."""

    who: Identity
    spelling: tuple[str, str]
    study: str
    sex: str
    birth: str
    place: str
    source: int


def keyed_names(key: Key, spelling: tuple[str, str], who: Identity) -> tuple[str, str]:
    """Return the keyed name of a PatientID as an object writes it (issuer, id), and that of its normal form.

    The first is what the releases without namespaces used, but for ids that belong to a site.
    """
    return key.name("patient", *_as_written(spelling, who)), identity_name(key, who)


def written_names(key: Key, rows: Iterable[Seen]) -> Iterator[str]:
    """Yield the first of ``keyed_names`` of each row."""
    return key.names_of("patient", (_as_written(row.spelling, row.who) for row in rows))


def _as_written(spelling: tuple[str, str], who: Identity) -> tuple[str, ...]:
    namespace = who[0]
    if namespace == STUDY:
        return who
    return (*spelling, namespace.removeprefix(_SITE)) if namespace.startswith(_SITE) else spelling


def identity_name(key: Key, who: Identity) -> str:
    """Return the keyed name of a PatientID in its normal form."""
    return key.name("identity", *who)


def identity_names(key: Key, identities: Iterable[Identity]) -> Iterator[str]:
    """Yield ``identity_name`` of each."""
    return key.names_of("identity", identities)


def former_names(key: Key, rows: Iterable[Seen]) -> Iterator[str]:
    """Yield the names that releases before namespaces made from issuer and id, whatever the site."""
    return key.names_of("patient", (row.spelling for row in rows))


def bare_name(key: Key, who: Identity) -> str:
    """Return the keyed name of a PatientID alone, whatever its issuer and site: several people may share it."""
    return key.name("identity", "", who[1])


def bare_names(key: Key, identities: Iterable[Identity]) -> Iterator[str]:
    """Yield ``bare_name`` of each."""
    return key.names_of("identity", (("", name) for _, name in identities))


def without_zeros(name: str) -> str:
    """Strip the zeros that an id begins with, as a spreadsheet does; an id that is not a number stays."""
    return name.lstrip("0") or name[-1:] if name.isdigit() else name


def lookup_names(key: Key, patient_id: str, sites: Sequence[str | None], issuer: str = "") -> set[str]:
    """Return every keyed name that a dataset may have for a PatientID as somebody types it, with or without issuer."""
    naming = Naming()
    raw, folded = patient_id.strip(), normal_id(patient_id)
    namespaces = {normal_issuer(issuer)} if issuer else {"", *(naming.namespace(site) for site in sites)}
    found = {key.name("patient", issuer.strip(), raw)}
    for namespace in namespaces:
        found |= {*keyed_names(key, (issuer.strip(), raw), (namespace, folded))}
    return found
