"""Marks from site to site: who may have them, whose are compared, what is told of copies, and who leaves them out."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import pyarrow as pa

from builder.copies.prints import Print
from builder.errors import LayoutError, PrivacyError
from builder.federation.counting import tell_levels, tell_total
from builder.federation.documents import Copies, Marks, Plan, Spec, digest, read
from builder.federation.leaks import Match, all_marks, key_check
from builder.federation.local import Terms
from builder.federation.policy import Copying, Policy
from builder.federation.signing import read_signed
from builder.federation.told import Teller
from builder.model.keyed import Key


def allowed(policy: Policy) -> Copying:
    """Return with whom marks are exchanged. Raises PrivacyError for a site whose policy does not say so."""
    if policy.copies is None:
        raise PrivacyError(
            "policy: found no copies, expected the sites with whom marks of images are exchanged; without it no mark "
            "leaves and none is compared"
        )
    return policy.copies


def make_marks(
    documents: tuple[Spec, Plan], policy: Policy, terms: Terms, volumes: Sequence[Print], key: Key, *,
    sequence: int, nonce: str,
) -> Marks:  # fmt: skip
    """Return the marks of the images that a site has published.

    Raises
    ------
    PrivacyError
        If the policy does not allow it, or there are fewer than ``k`` persons: marks tell how many images there are.
    """
    signed, plan = documents
    options = allowed(policy)
    if len({volume.person_key for volume in volumes}) < terms.k:
        raise PrivacyError(
            f"{policy.dataset}: found images of fewer than {terms.k} persons, expected as many as the policy's k, "
            "because marks tell how many images there are; wait until more persons have come"
        )
    return Marks(
        federation=signed.federation,
        sequence=sequence,
        nonce=nonce,
        site=policy.site,
        plan=digest(plan),
        readers=sorted({*options.sites} - {policy.site}),
        check=key_check(key),
        volumes=all_marks(volumes, key, near=terms.near),
    )


def read_marks(data: bytes, documents: tuple[Spec, Plan], policy: Policy, key: Key, *, where: str) -> Marks:
    """Return the marks of another site.

    Raises
    ------
    LayoutError
        If the file was changed, or is of another plan or key.
    PrivacyError
        If the policy does not allow it, or another site than those of the policy signed the marks, or they were not
        made for this one.
    """
    signed, plan = documents
    sites = {site: signed.sites[site] for site in sorted({*allowed(policy).sites} & {*signed.sites} - {policy.site})}
    unchecked, _ = read(data, Marks, where=where)
    if unchecked.site not in sites:
        raise PrivacyError(
            f"{where}: found marks of {unchecked.site}, expected those of another site of the spec that the policy "
            f"names under copies.sites: {', '.join(sites) or 'none'}"
        )
    marks = read_signed(data, Marks, where=where, pinned={sites[unchecked.site]: unchecked.site})
    if marks.plan != digest(plan):
        raise LayoutError(
            f"{where}: found marks under another plan, expected those under this one; ask {marks.site} for new ones"
        )
    if policy.site not in marks.readers:
        raise PrivacyError(
            f"{where}: found marks for {', '.join(marks.readers)}, expected some for {policy.site}; ask {marks.site} "
            "to name this site in its policy, and to make them again"
        )
    if marks.check != key_check(key):
        raise LayoutError(
            f"{where}: found marks that were made with another key, expected that of copies.key in the policy; agree "
            f"on one key with {marks.site}"
        )
    return marks


def to_leave_out(found: Iterable[Match], site: str) -> set[str]:
    """Return the persons whom a site leaves out: those with an image that a site has whose name comes before its own.

    Persons, and not images: another image of such a person could lie in another split than the copy.
    """
    return {match.person_key for match in found if match.site < site}


def make_copies(
    documents: tuple[Spec, Plan],
    policy: Policy,
    teller: Teller,
    persons: Sequence[str],
    found: Mapping[str, Collection[str]],
    *,
    nonce: str,
) -> Copies:
    """Return how many persons have an image at each site that was compared; the ledger notes what it tells.

    Parameters
    ----------
    persons
        All persons whose images were compared.
    found
        Site to the persons with an image there.

    Raises
    ------
    PrivacyError
        If a number would follow from this together with what was told before.
    """
    signed, plan = documents
    table = pa.table({"person_key": pa.array(persons, pa.string())})
    tables = [tell_total(teller, len(persons))]
    for site, own in sorted(found.items()):
        name = f"copies at {site}"
        table = table.append_column(name, pa.array([person in own for person in persons]))
        tables.append(tell_levels(teller, name, table, {name: ["true", "false"]}))
    return Copies(
        federation=signed.federation,
        sequence=teller.ledger.sequence("copies"),
        nonce=nonce,
        site=policy.site,
        plan=digest(plan),
        k=teller.k,
        tables=tables,
    )
