"""What a site could bring, out of its own plan: an offer. Nothing but numbers of persons, none below k, leaves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import PrivacyError
from builder.federation.counting import (
    BUILT,
    EDGES,
    HISTOGRAM,
    MEASURED,
    binned,
    column_of,
    counts_of,
    kind_of,
    prefixes,
    tell_levels,
    tell_total,
    unstated,
    with_measures,
)
from builder.federation.coverage import tell_coverage
from builder.federation.documents import Offer, Spec, Table, Whose, digest
from builder.federation.exclusions import exclusions_of, tell_exclusions
from builder.federation.local import Terms
from builder.federation.policy import Policy, permitted
from builder.federation.tables import Disclosed, matrix, part, patterns, vector
from builder.federation.told import Ledger, Teller, as_table, disclosed
from builder.model.canonical import fingerprint
from builder.model.keyed import Key
from builder.report.people import one_row_each

WAY: Final = "measures"
"""Under which name the ledger notes by which transforms and labels what it told was measured."""


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
    covered
        Persons of the cohort with how many structures of all labels take a name of theirs.
    measured
        What was measured of their images and labels, as ``with_measures`` takes it; None where nothing was.
    """

    people: pa.Table
    series: pa.Table
    lock: Mapping[str, object]
    covered: Mapping[str, int] = field(default_factory=dict)
    measured: pa.Table | None = None


def make_offer(
    signed: Spec, policy: Policy, terms: Terms, found: Newcomers, ledger: Ledger, *, key: Key, nonce: str
) -> Offer:
    """Return an offer of newcomers and of everybody beside whom they come, and note in the ledger what it tells.

    Raises
    ------
    PrivacyError
        If a number would follow from this offer together with what was told before, or the spec asks for levels that
        the policy does not list.
    """
    rows = found.series.filter(found.series["included"])
    # whom leave_out names is dealt as if kept, and is in no number
    people = found.people.filter(pc.is_in(found.people["person_key"], rows["person_key"].combine_chunks()))
    everybody, newcomers = ({*table["person_key"].to_pylist()} for table in (rows, people))
    asked, withheld = permitted(signed.columns, policy)
    strata = {name: asked[name] for name in terms.strata if name in asked}
    others = {name: asked[name] for name in asked if name not in strata and name in rows.column_names}
    teller, known = teller_of(ledger, key, everybody, terms), ledger.memory()
    try:
        tables = [tell_total(teller, len(everybody)), *_tables(teller, rows, others, policy.histograms)]
    except PrivacyError:
        if everybody == newcomers:
            raise
        ledger.told, tables = known, []
        withheld.append("everybody: not told beside what was told before")
    if tables and found.measured is not None:
        rows = with_measures(rows, found.measured, terms.sizes)
        quantities = [quantity for quantity in policy.histograms if kind_of(quantity) in MEASURED]
        tables += _tell_measures(teller, one_row_each(rows, quantities), quantities, terms, withheld)
    if tables and "coverage" in policy.tell:
        own = teller_of(ledger, key, judged(found.covered, terms), terms)
        tables += tell_coverage(own, found.covered, terms.structures, withheld)
    if tables and "exclusions" in policy.tell:
        found_out = exclusions_of(found.series, everybody, terms.outcomes)
        own = teller_of(ledger, key, judged(found_out.of, terms), terms, of="candidates")
        tables += tell_exclusions(own, found_out, tables[0], withheld)
    settled = rows.filter(pc.invert(pc.is_in(rows["person_key"], people["person_key"].combine_chunks())))
    first, known = teller_of(ledger, key, newcomers, terms, of="newcomers"), ledger.memory()
    dealt = _nothing(first, strata)
    try:
        dealt = _tell_newcomers(first, people, one_row_each(settled, list(strata)), strata) if tables else dealt
    except PrivacyError:
        if everybody == newcomers:
            raise
        ledger.told = known
    if all(row.persons is None for row in dealt.rows):  # too few, or too near to another number: nobody sees which
        withheld.append("newcomers: their number is not told; the ratios deal them")
    return Offer(
        federation=signed.federation,
        sequence=ledger.sequence("offer"),
        nonce=nonce,
        site=policy.site,
        spec=digest(signed),
        k=terms.k,
        strata=dealt,
        tables=tables,
        lock=lock_of(found.lock),
        withheld=[*withheld, *_absent([*(n for n in asked if n not in strata), *policy.histograms], rows)],
    )


def _absent(names: Sequence[str], rows: pa.Table) -> Iterator[str]:
    """Yield a line for each column or quantity that an offer does not have."""
    missing = [name for name in names if name not in rows.column_names]
    built = [name for name in missing if kind_of(name) in BUILT]
    yield from (f"{name}: an offer is made before anything is built; receipts tell it" for name in built)
    unmeasured = [name for name in missing if kind_of(name) in MEASURED and name not in built]
    yield from (f"{name}: only an offer tells it for which images are measured" for name in unmeasured)
    yield from unstated([name for name in missing if name not in built and name not in unmeasured], rows)


def teller_of(ledger: Ledger, key: Key, persons: Iterable[str], terms: Terms, *, of: Whose = "everybody") -> Teller:
    """Return who tells of these persons."""
    return Teller(ledger, terms.k, key.name("told", fingerprint(sorted(persons))), terms.question, of, terms.grids)


def judged(found: Mapping[str, object], terms: Terms) -> list[str]:
    """Return what tells persons and what a spec says of each from others.

    The question counts as well: that a spec which asks otherwise says the same of everybody is not told.
    """
    return [terms.question, *(f"{person} {said}" for person, said in found.items())]


def _tell_newcomers(teller: Teller, people: pa.Table, settled: pa.Table, strata: Mapping[str, Sequence[str]]) -> Table:
    """Tell how many newcomers are in each stratum, unless that would tell who has left since the newest receipt.

    ``settled`` are the others of the cohort. Who adds the newcomers to those of the receipt, and subtracts everybody,
    has the persons who left.
    """
    ledger, name = teller.ledger, " x ".join(strata) or "strata"
    last = max(ledger.receipts.values(), key=lambda made: made.sequence, default=None)
    stayed = counts_of(settled, strata)
    before = None if last is None else part(disclosed(last.strata, last.k), strata)
    wanted = list(before.shown) if before is not None and before.columns == stayed.columns else []
    now = (matrix(stayed.columns, wanted) @ vector(stayed)).tolist() if wanted else []
    if before is not None and any(0 < abs(n - before.shown[p]) < teller.k for p, n in zip(wanted, now, strict=True)):
        raise PrivacyError("newcomers: found that few persons have left since the newest receipt, expected k or none")
    tell_total(teller, people.num_rows)
    return tell_levels(teller, name, people, strata)


def _nothing(teller: Teller, strata: Mapping[str, Sequence[str]]) -> Table:
    """Return the table of the strata without a number."""
    columns = [column_of(name, levels) for name, levels in strata.items()]
    hidden = Disclosed(tuple(columns), teller.k, {}, tuple(patterns(columns, prefixes(list(strata)))))
    return as_table(" x ".join(strata) or "strata", hidden, teller.of)


def lock_of(lock: Mapping[str, object]) -> dict[str, str]:
    """Return the versions that bytes depend on."""
    packages = lock.get("packages")
    found = dict(packages) if isinstance(packages, Mapping) else {}
    return {str(k): str(v) for k, v in {**found, "python": lock.get("python"), "engine": lock.get("engine")}.items()}


def _tell_measures(
    teller: Teller, persons: pa.Table, quantities: Sequence[str], terms: Terms, withheld: list[str]
) -> Iterator[Table]:
    """Yield the histogram of each quantity that was measured, or add a line to ``withheld`` that says why it stays.

    They are told of one way of measuring alone. That nobody is in another band when the percentile or the grid is
    another would say of everybody that the change makes no difference.
    """
    way = {"digest": terms.measures}
    if quantities and teller.ledger.seen.setdefault(WAY, way) != way:
        withheld.append(
            "measures: those told before were measured by other transforms or labels, and no others are told"
        )
        return
    for quantity in quantities:
        named, bins = binned(persons, quantity)
        try:
            yield tell_levels(teller, f"{HISTOGRAM}{quantity}", named, bins)
        except PrivacyError:
            withheld.append(f"{quantity}: not told beside what was told before")


def _tables(
    teller: Teller, rows: pa.Table, columns: Mapping[str, Sequence[str]], quantities: Sequence[str]
) -> Iterator[Table]:
    persons = one_row_each(rows, [*columns, *(q for q in quantities if q in EDGES)])
    for name, levels in columns.items():
        yield tell_levels(teller, name, persons, {name: levels})
    for quantity in quantities:
        if quantity in persons.column_names and quantity in EDGES:
            named, bins = binned(persons, quantity)
            yield tell_levels(teller, f"{HISTOGRAM}{quantity}", named, bins)
