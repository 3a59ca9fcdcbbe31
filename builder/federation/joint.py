"""Offers of all sites to one joint plan: strata and pools, quotas, tables added up, and how the sites differ."""

from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from builder.errors import LayoutError
from builder.federation.documents import Levels, Offer, Plan, Quota, Row, Spec, Table, digest
from builder.federation.fitting import fit_clip, fit_spacing
from builder.federation.local import held_out
from builder.federation.pooling import RULE, pool
from builder.federation.quotas import quotas
from builder.federation.told import disclosed
from builder.specfile import parse_spec

Fitted = Literal["spacing", "clip"]
"""What of a spec can be fitted on merged histograms."""


def make_plan(
    signed: Spec, offers: Mapping[str, Offer], *, sequence: int, nonce: str, fit: Collection[Fitted] = ()
) -> Plan:
    """Return the joint plan of the sites that offered. Raises as ``fit_spacing`` and ``fit_clip`` do for ``fit``.

    Raises
    ------
    LayoutError
        If the tables of the sites do not fit to each other.
    """
    spec = parse_spec(signed.spec.encode(), name="spec")
    out = {site: split for site, split in held_out(spec).items() if site in offers}
    told = {site: disclosed(offer.strata, offer.k) for site, offer in offers.items() if site not in out}
    pools = pool(told)
    found = quotas(pools, spec.splits.ratios, seed=spec.splits.seed)
    columns = next((list(table.columns) for table in told.values()), [])
    shares = {
        site: [
            Quota(levels=list(pattern), counts=dict(zip(found.splits, row, strict=True)))
            for pattern, row in zip(found.patterns, rows, strict=True)
            if sum(row)
        ]
        for site, rows in found.counts.items()
    }
    spacing = fit_spacing(spec, offers) if "spacing" in fit else None
    clip = fit_clip(spec, offers) if "clip" in fit else None
    return Plan(
        federation=signed.federation,
        sequence=sequence,
        nonce=nonce,
        spec=digest(signed),
        offers={site: digest(offer) for site, offer in sorted(offers.items())},
        ratios=spec.splits.ratios,
        columns=[Levels(name=column.name, levels=list(column.levels)) for column in columns],
        quotas=shares,
        held_out=out,
        rules=[
            RULE,
            "quotas bind newcomers, also those whom two sites deal alike; whom a site's registry knows keeps the split",
            *(spacing.rules if spacing is not None else []),
            *(clip.rules if clip is not None else []),
        ],
        differences=[
            *_differences(offers),
            *(f"{site}: too few persons to tell, dealt by the ratios" for site in pools.untold),
        ],
        tables=added({site: [offer.strata, *offer.tables] for site, offer in offers.items()}),
        spacing_mm=None if spacing is None else spacing.mm,
        clip=None if clip is None else clip.limits,
    )


def added(tables: Mapping[str, list[Table]]) -> list[Table]:
    """Add tables of several sites up. A number that one of them hides is null; so is one that a site lacks."""
    names: dict[str, list[Table]] = {}
    for site in sorted(tables):
        for table in tables[site]:
            names.setdefault(table.name, []).append(table)
    found = []
    for name, parts in sorted(names.items()):
        first = parts[0]
        if len(parts) < len(tables) or any((part.columns, part.of) != (first.columns, first.of) for part in parts):
            continue  # what one site does not tell has no joint number
        rows = [{tuple(row.levels): row.persons for row in part.rows} for part in parts]
        patterns = sorted(set().union(*rows))
        sums = {p: [row.get(p) for row in rows] for p in patterns}
        found.append(
            Table(
                name=name,
                of=first.of,
                columns=first.columns,
                rows=[
                    Row(levels=list(p), persons=None if None in n else sum(v for v in n if v is not None))
                    for p, n in sums.items()
                ],
            )
        )
    return found


def check_offers(signed: Spec, offers: Mapping[str, tuple[str, Offer]]) -> None:
    """Raise LayoutError for an offer of another spec, or under another site's name; ``offers`` has each file's name."""
    for site, (where, offer) in offers.items():
        if offer.spec != digest(signed) or offer.federation != signed.federation:
            raise LayoutError(
                f"{where}: found an offer of another spec, expected one of this; ask the site to offer again"
            )
        if offer.site != site:
            raise LayoutError(f"{where}: found the site {offer.site} signed with the key of {site}, expected one site")


def _differences(offers: Mapping[str, Offer]) -> Iterator[str]:
    packages: dict[str, dict[str, str]] = {}
    for site, offer in sorted(offers.items()):
        yield from (f"{site}: {line}" for line in offer.withheld)
        for name, version in offer.lock.items():
            packages.setdefault(name, {})[site] = version
    for name, versions in sorted(packages.items()):
        if len(set(versions.values())) > 1:
            yield f"{name}: " + ", ".join(f"{site} {version}" for site, version in versions.items())
    names = {site: {t.name for t in offer.tables} for site, offer in offers.items()}
    everything = set().union(*names.values())
    for site, own in sorted(names.items()):
        yield from (f"{site}: tells nothing of {name}" for name in sorted(everything - own))
