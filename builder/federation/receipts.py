"""What a site has built under a plan, out of its published version: a receipt of tallies."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from builder.federation.counting import EDGES, binned, tell_levels, tell_total
from builder.federation.documents import Plan, Receipt, Spec, digest
from builder.federation.local import Terms
from builder.federation.offers import lock_of, teller_of
from builder.federation.policy import Policy, permitted
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.report.people import one_row_each


def make_receipt(
    documents: tuple[Spec, Plan],
    policy: Policy,
    terms: Terms,
    published: tuple[str, Mapping[str, Any], pa.Table],
    ledger: Ledger,
    *,
    key: Key,
    nonce: str,
) -> Receipt:
    """Return the receipt of a published version, and note in the ledger what it tells.

    Parameters
    ----------
    published
        Name of the version, its lock and its index.
    """
    signed, plan = documents
    version, lock, index = published
    asked, withheld = permitted(signed.columns, policy)
    names = [name for name in asked if name in index.column_names]
    quantities = [q for q in policy.histograms if q in EDGES and q in index.column_names]
    persons = one_row_each(index, ["split", *names, *quantities])
    keys = persons["person_key"].to_pylist()
    teller = teller_of(ledger, key, keys, terms)
    tables = [tell_total(teller, persons.num_rows)]
    strata = {name: asked[name] for name in terms.strata if name in names}
    told = tell_levels(teller, " x ".join(strata) or "strata", persons, strata, by=terms.splits)
    for name in names:
        if name not in strata:
            tables.append(tell_levels(teller, name, persons, {name: asked[name]}, by=terms.splits))
    for quantity in quantities:
        named, bins = binned(persons, quantity)
        tables.append(tell_levels(teller, f"histogram of {quantity}", named, bins, by=terms.splits))
    return Receipt(
        federation=signed.federation,
        sequence=ledger.sequence("receipt"),
        nonce=nonce,
        site=policy.site,
        plan=digest(plan),
        version=version,
        k=terms.k,
        strata=told,
        tables=tables,
        lock=lock_of(lock),
        withheld=withheld,
    )
