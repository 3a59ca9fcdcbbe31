"""Which strata of a joint plan stand alone, and which are pooled because a site could not tell them.

The rule: a stratum that every site could tell stands alone. Of the rest, those that agree in all columns but the last
are one pool, if every site could tell their sum; then those that agree in all but the last two, and so on; what is left
is one pool of everybody else. A person belongs to the stratum or pool that names most levels of that person.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from builder.errors import LayoutError
from builder.federation.tables import ANY, Disclosed, Pattern, cells_of

RULE = (
    "a stratum that every site could tell stands alone; of the others, those that agree in all columns but the last "
    "are one pool, then those that agree in all but the last two, and so on"
)
"""The rule in words, for a plan and a report."""


@dataclass(frozen=True)
class Pools:
    """Strata and pools of strata, and the persons of each site in them.

    Parameters
    ----------
    patterns
        A stratum has a level in every column; a pool ends in ``ANY`` and holds whoever is in no narrower one.
    persons
        Site to persons in each.
    untold
        Sites with so few persons that not even their number is told: they are in no quota.
    """

    patterns: tuple[Pattern, ...]
    persons: Mapping[str, tuple[int, ...]]
    untold: tuple[str, ...]


def pool(told: Mapping[str, Disclosed]) -> Pools:
    """Return the strata and pools in which every site could tell its persons.

    Parameters
    ----------
    told
        Site to its table. All have the same columns, and tell of all crossings of the first few.

    Raises
    ------
    LayoutError
        If the columns differ, or the numbers of a site do not add up.
    """
    sites = {site: table for site, table in sorted(told.items()) if table.shown.get(_everybody(table)) is not None}
    untold = tuple(site for site in sorted(told) if site not in sites)
    if not sites:
        return Pools((), {}, untold)
    columns = next(iter(sites.values())).columns
    strange = [site for site, table in sites.items() if table.columns != columns]
    if strange:
        raise LayoutError(f"{strange[0]}: found a table of other columns or levels, expected those of the other sites")
    home: dict[Pattern, Pattern] = {}
    persons: dict[Pattern, dict[str, int]] = {}
    for kept in range(len(columns), -1, -1):
        groups: dict[Pattern, list[Pattern]] = {}
        for cell in cells_of(columns):
            groups.setdefault((*cell[:kept], *[ANY] * (len(columns) - kept)), []).append(cell)
        for pattern, inside in groups.items():
            if all(cell in home for cell in inside):
                continue
            narrower = {home[cell] for cell in inside if cell in home}
            left = {site: _left(table, pattern, [persons[p][site] for p in narrower]) for site, table in sites.items()}
            numbers = {site: n for site, n in left.items() if n is not None and n >= sites[site].k}
            if len(numbers) == len(sites):
                persons[pattern] = numbers
                home.update({cell: pattern for cell in inside if cell not in home})
            elif not kept:
                wrong = next(site for site in sites if site not in numbers)
                raise LayoutError(f"{wrong}: found strata that do not add up to its persons, expected that they do")
    ordered = tuple(sorted(persons))
    return Pools(ordered, {site: tuple(persons[p][site] for p in ordered) for site in sites}, untold)


def home_of(cell: Sequence[str], patterns: Iterable[Pattern]) -> Pattern | None:
    """Return the stratum or pool of a person with these levels; None where there is none."""
    fitting = [pattern for pattern in patterns if _within(cell, pattern)]
    return min(fitting, key=lambda pattern: pattern.count(ANY), default=None)


def _everybody(table: Disclosed) -> Pattern:
    return (ANY,) * len(table.columns)


def _within(cell: Sequence[str], pattern: Pattern) -> bool:
    return all(want in (ANY, have) for have, want in zip(cell, pattern, strict=True))


def _left(table: Disclosed, pattern: Pattern, taken: Sequence[int]) -> int | None:
    """Return a site's persons in a pattern beside those in narrower strata and pools; None if it did not tell."""
    told = table.shown.get(pattern)
    return None if told is None else told - sum(taken)
