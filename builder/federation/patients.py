"""Persons who may be patients of two sites: what is matched, who asks and is answered, and which split they go to."""

from collections.abc import Iterable, Mapping

import pyarrow as pa

from builder.errors import LayoutError, PrivacyError
from builder.federation.documents import Answer, Request, Spec, digest, read
from builder.federation.policy import Matching, Policy
from builder.federation.signing import read_signed
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.persons import normal_id, normal_issuer
from builder.split.alike import draw


def matching(policy: Policy) -> Matching:
    """Return with whom persons are matched. Raises PrivacyError for a site whose policy does not say so."""
    if policy.patients is None:
        raise PrivacyError(
            "policy: found no patients, expected the sites with whom persons are matched; without it nobody is asked "
            "and no request is answered"
        )
    return policy.patients


def key_check(key: Key) -> str:
    """Return what differs under another key."""
    return key.name("check", "patients")


def elements_of(
    identities: pa.Table, persons: Iterable[str | None], options: Matching, key: Key
) -> dict[str, set[str]]:
    """Return each identifier, keyed, and the persons who have it.

    Parameters
    ----------
    identities, persons
        Rows of IDENTITIES, and the person of each; None for whoever is not in the cohort.
    """
    second = "issuer_of_patient_id" if options.identifiers == "issuer_and_patient_id" else "patient_birth_date"
    found: dict[str, set[str]] = {}
    columns = (identities["patient_id"].to_pylist(), identities[second].to_pylist())
    for person, name, other in zip(persons, *columns, strict=True):
        parts = (normal_id(name), normal_issuer(other))
        if person is not None and all(parts):
            found.setdefault(key.name("patient", options.identifiers, *parts), set()).add(person)
    return found


def read_request(data: bytes, signed: Spec, policy: Policy, key: Key, *, where: str) -> Request:
    """Return the request of another site, which this one may answer.

    Raises
    ------
    LayoutError
        If the file was changed, or is of another spec, key or identifiers.
    PrivacyError
        If the policy does not allow the answer, somebody else signed it, or it asks about few persons.
    """
    options = matching(policy)
    site = read(data, Request, where=where)[0].site
    request = read_signed(data, Request, where=where, pinned=_pin(site, signed, policy, where))
    if request.to != policy.site or request.spec != digest(signed):
        raise LayoutError(
            f"{where}: found a request to {request.to}, perhaps under another spec, expected one to {policy.site} "
            f"under this spec; ask {site} for a new one"
        )
    if request.check != key_check(key) or request.identifiers != options.identifiers:
        raise LayoutError(
            f"{where}: found a request by {request.identifiers}, perhaps under another key, expected "
            f"{options.identifiers} and the key of patients.key in the policy; agree with {site}"
        )
    if request.membership and options.tell != "membership":
        raise PrivacyError(
            f"{where}: found a request that asks which persons are here, expected one for their number alone, which is "
            "all that the policy tells (patients.tell)"
        )
    if request.persons < policy.k:
        raise PrivacyError(
            f"{where}: found a request about {request.persons} identifiers, expected at least {policy.k}: the answer "
            "would tell of few persons"
        )
    return request


def count_answer(request: Request, policy: Policy, ledger: Ledger, *, where: str) -> None:
    """Note in the ledger that a request is answered. Raises PrivacyError if the site has asked too often."""
    name = f"answered {request.federation} {request.site}"
    known = ledger.seen.get(name, {"sequence": 0, "digest": ""})
    if known["digest"] == digest(request):
        return
    most = matching(policy).answers
    if known["sequence"] >= most:
        raise PrivacyError(
            f"{where}: found another request of {request.site}, expected at most {most}, which the policy allows: two "
            "answers tell of those who came between them; raise patients.answers if it may ask again"
        )
    ledger.seen[name] = {"sequence": known["sequence"] + 1, "digest": digest(request)}


def read_answer(data: bytes, signed: Spec, policy: Policy, *, where: str) -> Answer:
    """Return the answer of another site. Raises LayoutError and PrivacyError as ``read_request`` does."""
    matching(policy)
    site = read(data, Answer, where=where)[0].site
    answer = read_signed(data, Answer, where=where, pinned=_pin(site, signed, policy, where))
    if answer.to != policy.site:
        raise LayoutError(f"{where}: found an answer to {answer.to}, expected one to {policy.site}; ask {site} for it")
    return answer


def drawn_for(
    matched: Mapping[str, Iterable[str]], ratios: Mapping[str, float], key: Key
) -> tuple[dict[str, str], set[str]]:
    """Return the split of each person of some matched identifiers, and who is left out.

    Whoever has several identifiers that are drawn to several splits is left out: the other site may take them for
    several persons.
    """
    splits: dict[str, set[str]] = {}
    for element, persons in matched.items():
        for person in persons:
            splits.setdefault(person, set()).add(draw(key, element, ratios))
    torn = {person for person, own in splits.items() if len(own) > 1}
    return {person: min(own) for person, own in splits.items() if person not in torn}, torn


def _pin(site: str, signed: Spec, policy: Policy, where: str) -> dict[str, str]:
    known = {*matching(policy).sites} & {*signed.sites} - {policy.site}
    if site not in known:
        raise PrivacyError(
            f"{where}: found a file of {site}, expected one of another site of the spec that the policy names under "
            f"patients.sites: {', '.join(sorted(known)) or 'none'}"
        )
    return {signed.sites[site]: site}
