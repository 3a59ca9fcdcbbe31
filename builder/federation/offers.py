"""What a site could bring, out of its own plan: an offer. Nothing but numbers of persons, none below k, leaves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from builder.federation.counting import EDGES, HISTOGRAM, binned, tell_levels, tell_total, unstated
from builder.federation.documents import Offer, Spec, Table, digest
from builder.federation.local import Terms
from builder.federation.policy import Policy, permitted
from builder.federation.told import Ledger, Teller
from builder.model.canonical import fingerprint
from builder.model.keyed import Key
from builder.report.people import one_row_each


@dataclass(frozen=True, eq=False)
class Newcomers:
    """Whom a site would bring.

    Parameters
    ----------
    people
        One row a person to be dealt, or a group who must stay together, with the columns of the strata.
    series
        The rows of the cohort.
    lock
        Versions, as a plan has them.
    """

    people: pa.Table
    series: pa.Table
    lock: Mapping[str, object]


def make_offer(
    signed: Spec, policy: Policy, terms: Terms, found: Newcomers, ledger: Ledger, *, key: Key, nonce: str
) -> Offer:
    """Return an offer of newcomers, and note in the ledger what it tells.

    Raises
    ------
    PrivacyError
        If a number would follow from this offer together with what was told before, or the spec asks for levels that
        the policy does not list.
    """
    keys = found.people["person_key"].combine_chunks()
    rows = found.series.filter(pc.and_(found.series["included"], pc.is_in(found.series["person_key"], keys)))
    asked, withheld = permitted(signed.columns, policy)
    strata = {name: asked[name] for name in terms.strata if name in asked}
    others = [name for name in asked if name not in strata and name in rows.column_names]
    persons = one_row_each(rows, [*others, *(q for q in policy.histograms if q in EDGES)])
    teller = teller_of(ledger, key, keys.to_pylist(), terms)
    total = tell_total(teller, found.people.num_rows)
    told = tell_levels(teller, " x ".join(strata) or "strata", found.people, strata)
    return Offer(
        federation=signed.federation,
        sequence=ledger.sequence("offer"),
        nonce=nonce,
        site=policy.site,
        spec=digest(signed),
        k=terms.k,
        strata=told,
        tables=[total, *_tables(teller, persons, {name: asked[name] for name in others}, policy.histograms)],
        lock=lock_of(found.lock),
        withheld=[*withheld, *unstated([*(n for n in asked if n not in strata), *policy.histograms], rows)],
    )


def teller_of(ledger: Ledger, key: Key, persons: Sequence[str], terms: Terms) -> Teller:
    """Return who tells of these persons."""
    return Teller(ledger, terms.k, key.name("told", fingerprint(sorted(persons))), terms.question)


def lock_of(lock: Mapping[str, object]) -> dict[str, str]:
    """Return the versions that bytes depend on."""
    packages = lock.get("packages")
    found = dict(packages) if isinstance(packages, Mapping) else {}
    return {str(k): str(v) for k, v in {**found, "python": lock.get("python"), "engine": lock.get("engine")}.items()}


def _tables(
    teller: Teller, persons: pa.Table, columns: Mapping[str, Sequence[str]], quantities: Sequence[str]
) -> Iterator[Table]:
    for name, levels in columns.items():
        yield tell_levels(teller, name, persons, {name: levels})
    for quantity in quantities:
        if quantity in persons.column_names and quantity in EDGES:
            named, bins = binned(persons, quantity)
            yield tell_levels(teller, f"{HISTOGRAM}{quantity}", named, bins)
