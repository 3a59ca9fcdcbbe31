"""What a site has built under a plan, out of its published version: a receipt of tallies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.errors import PrivacyError
from builder.federation.counting import (
    EDGES,
    HISTOGRAM,
    MEASURED,
    binned,
    kind_of,
    tell_levels,
    tell_pair,
    tell_total,
    unstated,
    with_sizes,
)
from builder.federation.documents import Plan, Receipt, Spec, Table, Whose, digest
from builder.federation.exclusions import exclusions_of, tell_exclusions
from builder.federation.local import Terms
from builder.federation.offers import judged, lock_of, teller_of
from builder.federation.policy import Policy, permitted
from builder.federation.told import Ledger, Repeater, Teller
from builder.model.keyed import Key
from builder.report.people import one_row_each


@dataclass(frozen=True, eq=False)
class Published:
    """What a site has published.

    Parameters
    ----------
    version
        Its name.
    lock
        Versions of packages.
    index
        One row a sample.
    cohort
        One row a candidate series, as it was decided in the end.
    """

    version: str
    lock: Mapping[str, Any]
    index: pa.Table
    cohort: pa.Table


def make_receipt(
    documents: tuple[Spec, Plan],
    policy: Policy,
    terms: Terms,
    published: Published,
    ledger: Ledger,
    *,
    key: Key,
    nonce: str,
) -> Receipt:
    """Return the receipt of a published version, and note in the ledger what it tells.

    Where so few persons have come or left since the receipt before that new numbers would tell of them, its numbers are
    told again.

    Raises
    ------
    PrivacyError
        If a number would follow from this receipt together with what was told before, and those of the receipt before
        are too far off.
    """
    signed, plan = documents
    version, index = published.version, with_sizes(published.index, terms.sizes)
    columns, quantities, withheld = _asked(signed, policy, index)
    persons = one_row_each(index, ["split", *columns, *quantities])
    keys = {*persons["person_key"].to_pylist()}
    counted, before, known = version, ledger.receipts.get(digest(plan)), ledger.memory()
    tellers: dict[Whose, Teller | Repeater] = {"everybody": teller_of(ledger, key, keys, terms)}
    try:
        tables, untold = _tables(tellers["everybody"], persons, columns, quantities, terms)
    except PrivacyError as error:
        ledger.told = known  # nothing of it has left
        if before is None:
            raise
        tellers = dict.fromkeys(("everybody", "candidates"), Repeater(before, terms.k))
        try:
            tables, untold = _tables(tellers["everybody"], persons, columns, quantities, terms)
        except PrivacyError:
            raise error from None
        counted = before.counted
    tables += [t for pair in policy.pairs for t in tell_pair(tellers["everybody"], persons, pair, columns, withheld)]
    if "exclusions" in policy.tell:
        out = exclusions_of(published.cohort, keys, terms.outcomes)
        own = tellers.get("candidates") or teller_of(ledger, key, judged(out.of, terms), terms, of="candidates")
        tables += tell_exclusions(own, out, tables[1], withheld)
    return Receipt(
        federation=signed.federation,
        sequence=ledger.sequence("receipt"),
        nonce=nonce,
        site=policy.site,
        plan=digest(plan),
        version=version,
        counted=counted,
        k=terms.k,
        strata=tables[0],
        tables=tables[1:],
        lock=lock_of(published.lock),
        withheld=[*withheld, *untold],
    )


def _asked(signed: Spec, policy: Policy, index: pa.Table) -> tuple[dict[str, tuple[str, ...]], list[str], list[str]]:
    """Return the columns with their levels and the quantities that are told, and a line for each that is not."""
    asked, withheld = permitted(signed.columns, policy)
    columns = {name: levels for name, levels in asked.items() if name in index.column_names}
    quantities = [q for q in policy.histograms if kind_of(q) in EDGES and q in index.column_names]
    stay = [q for q in policy.histograms if q in MEASURED]
    withheld += [f"{quantity}: offers tell it, and receipts do not" for quantity in stay]
    withheld += unstated([*asked, *(q for q in policy.histograms if q not in stay)], index)
    return columns, quantities, withheld


def _tables(
    teller: Teller | Repeater,
    persons: pa.Table,
    columns: Mapping[str, Sequence[str]],
    quantities: Sequence[str],
    terms: Terms,
) -> tuple[list[Table], list[str]]:
    """Return the strata, the total and the other tables, and a line for each histogram that stays."""
    total = tell_total(teller, persons.num_rows)
    strata = {name: columns[name] for name in terms.strata if name in columns}
    tables = [tell_levels(teller, " x ".join(strata) or "strata", persons, strata, by=terms.splits), total]
    untold: list[str] = []
    for name, levels in columns.items():
        if name not in strata:
            tables.append(tell_levels(teller, name, persons, {name: levels}, by=terms.splits))
    for quantity in quantities:
        named, bins = binned(persons, quantity)
        try:
            tables.append(tell_levels(teller, f"{HISTOGRAM}{quantity}", named, bins, by=terms.splits))
        except PrivacyError:
            if quantity not in terms.grids:
                raise
            untold.append(f"{quantity}: not told beside what was told of it on another grid")
    return tables, untold
