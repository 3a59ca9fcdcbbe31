"""k-anonymity of the released data: how many persons share each combination of quasi-identifiers.

Sources: k-anonymity (Sweeney 2002, doi:10.1142/S0218488502001648), l-diversity (Machanavajjhala 2007,
doi:10.1145/1217299.1217302), t-closeness (Li 2007, doi:10.1109/ICDE.2007.367856).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from builder.deid.values import OLDEST_AGE
from builder.errors import PrivacyError, counted

QUASI_IDENTIFIERS = (
    *("sex", "age_years", "age_band", "race", "ethnic_group", "site", "country", "region", "source", "vendor"),
)
"""Columns that somebody who knows a person may know as well, if they are released."""

TOLD_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vendor": ("manufacturer", "manufacturer_model"),
        "site": ("source",),
        "country": ("source",),
        "collection": ("source",),
        "age_years": ("age_band",),
        "age_band": ("age_years",),
    }
)
"""Column to the columns from which its value follows: they are withheld wherever it is withheld or made coarser."""

MOST_SHOWN = 20
"""Number of smallest groups that a report lists."""

Value = str | float | int | bool | None


class Anonymity(BaseModel):
    """What the spec demands of the released quasi-identifiers of all persons together.

    Parameters
    ----------
    k
        Fewest persons that may share a combination of values.
    columns
        Quasi-identifiers beside the usual ones (sex, age, race, ethnic group, site, country, region, source, vendor).
    sensitive
        Columns that nobody should learn from a person's group; l and t are computed for them.
    least_values
        l: distinct values that every sensitive column must have in each group.
    most_distance
        t: how far the values in a group may be from those of all persons, from 0 to 1.
    age_bands
        Width in years of the bands in which ages are released.
    groups
        Column to value to the group that is released in its place, e.g. ``site: {north: cities, south: cities}``.
    below
        What to do about persons in groups that fall short: ``report`` them, ``suppress`` their quasi-identifiers, or
        ``stop``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: Annotated[int, Field(ge=2, le=1000)] = 5
    columns: tuple[str, ...] = ()
    sensitive: tuple[str, ...] = ()
    least_values: Annotated[int, Field(ge=1)] | None = None
    most_distance: Annotated[float, Field(ge=0, le=1)] | None = None
    age_bands: Annotated[int, Field(ge=1, le=60)] | None = None
    groups: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    below: Literal["report", "suppress", "stop"] = "report"


@dataclass(frozen=True)
class Assessment:
    """How anonymous a released table is.

    Parameters
    ----------
    columns
        The quasi-identifiers that are released.
    persons, groups
        Persons with at least one of them, and combinations of values.
    k
        Size of the smallest group; 0 when nothing is released.
    below
        Persons in groups that fall short of what the spec demands.
    suppressed
        Persons whose quasi-identifiers are withheld.
    distinct, distance
        By sensitive column: l, the fewest distinct values in a group, and t, the largest distance of a group.
    smallest
        The smallest groups: their values and their size.
    """

    columns: tuple[str, ...]
    persons: int
    groups: int
    k: int
    below: int
    suppressed: int
    distinct: Mapping[str, int]
    distance: Mapping[str, float]
    smallest: tuple[Mapping[str, Any], ...]

    def facts(self) -> dict[str, Any]:
        """Return the assessment as data for JSON."""
        return asdict(self)

    def line(self, asked: int) -> str:
        """Return the assessment in one line, for a plan and a build."""
        if not self.columns:
            return "k-anonymity: no quasi-identifier is released"
        withheld = f", of {counted(self.suppressed, 'more person')} they are withheld" if self.suppressed else ""
        return (
            f"k-anonymity: {counted(self.groups, 'group')} of {counted(self.persons, 'person')} by "
            f"{', '.join(self.columns)}{withheld}; "
            f"the smallest has {self.k}, {counted(self.below, 'person is', 'persons are')} in groups below {asked}"
        )


def protect(cohort: pa.Table, options: Anonymity, *, released: Collection[str]) -> tuple[pa.Table, Assessment]:
    """Return the cohort as it may be released, and how anonymous it is then.

    Parameters
    ----------
    cohort
        One row a stack, with ``person_key``. Excluded rows count too: the published cohort table lists them.
    released
        Columns that cross into the dataset.

    Raises
    ------
    PrivacyError
        If the spec says to stop and a group falls short.
    """
    table = _generalised(cohort, options)
    columns = _quasi_identifiers(table, options, released)
    persons = _persons(table, columns)
    short = _falling_short(table, options, persons) if columns else frozenset()
    found = _assess(table, options, columns, persons, below=len(short))
    if not short or options.below == "report":
        return table, found
    if options.below == "stop":
        raise PrivacyError(
            f"deid.anonymity: found {counted(len(short), 'person')} in groups that fall short (the smallest has "
            f"{found.k}), "
            f"expected groups of {options.k} persons or more by {', '.join(columns)}; generalise with age_bands or "
            "groups, retain fewer columns, or set below: suppress"
        )
    table = _suppressed(table, columns, short)
    persons = _persons(table, columns)
    below = len(_falling_short(table, options, persons) - short)
    shown = {person: values for person, values in persons.items() if person not in short}
    return table, _assess(table, options, columns, shown, below=below, suppressed=len(short))


def _quasi_identifiers(table: pa.Table, options: Anonymity, released: Collection[str]) -> tuple[str, ...]:
    """The released columns that count, those of a case's other images (``pet.vendor``) too."""
    held = [name for name in table.column_names if name in released]
    found = [n for column in (*QUASI_IDENTIFIERS, *options.columns) for n in _of_any_image(held, column)]
    # The band follows from the age; where ages become bands, no age is left.
    told = "age_band" if options.age_bands is None else "age_years"
    other = "age_years" if options.age_bands is None else "age_band"
    return tuple(n for n in dict.fromkeys(found) if not (_bare(n) == told and _beside(n, other) in found))


def _of_any_image(names: Iterable[str], column: str) -> list[str]:
    return [name for name in names if column in (name, _bare(name))]


def _bare(name: str) -> str:
    """The column of which ``NAME.column`` holds what another image of the case has."""
    return name.rpartition(".")[2]


def _beside(name: str, column: str) -> str:
    """Another column of the same image."""
    image, dot, _ = name.rpartition(".")
    return f"{image}{dot}{column}"


def _generalised(cohort: pa.Table, options: Anonymity) -> pa.Table:
    """Turn ages into bands and values into groups where the spec says so; a value without a group stays."""
    table = cohort
    if options.age_bands is not None:
        for name in _of_any_image(cohort.column_names, "age_years"):
            bands = [_band(age, options.age_bands) for age in table.column(name).to_pylist()]
            table = _with(table, _beside(name, "age_band"), pa.array(bands, pa.string()))
            table = _with(table, name, pa.nulls(table.num_rows, table.schema.field(name).type))
    for column, groups in options.groups.items():
        for name in _of_any_image(cohort.column_names, column):
            before = table.column(name).to_pylist()
            values = [groups.get(v, v) if isinstance(v, str) else v for v in before]
            coarser = [new != old for new, old in zip(values, before, strict=True)]
            table = _with(table, name, pa.array(values, table.schema.field(name).type))
            table = _withheld(table, [_beside(name, teller) for teller in TOLD_BY.get(_bare(name), ())], coarser)
    return table


def _band(age: float | None, years: int) -> str | None:
    if age is None:
        return None
    if age >= OLDEST_AGE:
        return f"{OLDEST_AGE}+"
    low = int(max(age, 0) // years * years)
    return f"{low}-{min(low + years, OLDEST_AGE) - 1}"


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.schema.get_field_index(name), name, values)


def _persons(table: pa.Table, columns: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return each released person's combination of values; several values of one person (two vendors) are one set."""
    capped = ([_capped(name, value) for value in table.column(name).to_pylist()] for name in columns)
    rows = zip(*capped, strict=True) if columns else [()] * table.num_rows
    own: dict[str, set[tuple[Value, ...]]] = {}
    alike: dict[tuple[Value, ...], tuple[Value, ...]] = {}
    for person, row in zip(table.column("person_key").to_pylist(), rows, strict=True):
        own.setdefault(person, set()).add(alike.setdefault(row, row))
    return {person: _together(found) for person, found in sorted(own.items())}


def _capped(name: str, value: Any) -> Value:
    """Return an age as it will be released: whole years, and 90 for all above 89."""
    if value is None or isinstance(value, str):
        return value
    if _bare(name) == "age_years":
        return min(int(value), OLDEST_AGE)
    found: Value = value if isinstance(value, float | int | bool) else str(value)
    return found


def _together(rows: Collection[tuple[Value, ...]]) -> tuple[Any, ...]:
    """Return one row as it is, and of several the values of each column."""
    if len(rows) == 1:
        return next(iter(rows))
    return tuple(_one({value for value in held if value is not None}) for held in zip(*rows, strict=True))


def _one(held: set[Value]) -> Any:
    if len(held) <= 1:
        return next(iter(held), None)
    return tuple(sorted(held, key=str))


def _groups(persons: Mapping[str, tuple[Any, ...]]) -> dict[tuple[Any, ...], list[str]]:
    groups: dict[tuple[Any, ...], list[str]] = {}
    for person, values in persons.items():
        groups.setdefault(values, []).append(person)
    return groups


def _falling_short(table: pa.Table, options: Anonymity, persons: Mapping[str, tuple[Any, ...]]) -> frozenset[str]:
    """Return the persons in groups that are too small, too uniform or too unlike all persons."""
    groups = _groups(persons)
    short = {p for held in groups.values() if len(held) < options.k for p in held}
    for name in _sensitive(table, options):
        own = {person: values[0] for person, values in _persons(table, [name]).items()}
        everybody = list(own.values())
        for held in groups.values():
            values = [own[p] for p in held]
            if options.least_values is not None and len(set(values)) < options.least_values:
                short |= set(held)
            if options.most_distance is not None and distance(values, everybody) > options.most_distance:
                short |= set(held)
    return frozenset(short)


def _sensitive(table: pa.Table, options: Anonymity) -> list[str]:
    return [name for name in options.sensitive if name in table.column_names]


def _assess(
    table: pa.Table,
    options: Anonymity,
    columns: tuple[str, ...],
    persons: Mapping[str, tuple[Any, ...]],
    *,
    below: int,
    suppressed: int = 0,
) -> Assessment:
    groups = _groups(persons) if columns else {}
    distinct, far = {}, {}
    for name in _sensitive(table, options):
        own = {person: values[0] for person, values in _persons(table, [name]).items()}
        everybody = list(own.values())
        held = [[own[p] for p in members] for members in groups.values()]
        distinct[name] = min((len(set(values)) for values in held), default=0)
        far[name] = round(max((distance(values, everybody) for values in held), default=0.0), 6)
    ordered = sorted(groups.items(), key=lambda item: (len(item[1]), str(item[0])))
    return Assessment(
        columns=columns,
        persons=len(persons),
        groups=len(groups),
        k=min((len(members) for members in groups.values()), default=0),
        below=below,
        suppressed=suppressed,
        distinct=distinct,
        distance=far,
        smallest=tuple(
            {"values": dict(zip(columns, map(_text, values), strict=True)), "persons": len(members)}
            for values, members in ordered[:MOST_SHOWN]
            if len(members) < options.k
        ),
    )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return " + ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def distance(group: Sequence[Any], everybody: Sequence[Any]) -> float:
    """Return the earth mover's distance of a group's values from those of all; categories lie one step apart."""
    here, all_of_them = Counter(group), Counter(everybody)
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in all_of_them)
    values = sorted(all_of_them, key=None if numeric else str)
    gaps = [here[v] / len(group) - all_of_them[v] / len(everybody) for v in values]
    if not numeric or len(values) < 2:
        return sum(map(abs, gaps)) / 2
    total, moved = 0.0, 0.0
    for gap in gaps[:-1]:
        moved += gap
        total += abs(moved)
    return total / (len(values) - 1)


def _suppressed(table: pa.Table, columns: Sequence[str], persons: Collection[str]) -> pa.Table:
    """The table without the values of some persons, and without what their values follow from."""
    hidden = [p in persons for p in table.column("person_key").to_pylist()]
    tellers = [_beside(name, teller) for name in columns for teller in TOLD_BY.get(_bare(name), ())]
    return _withheld(table, [*columns, *tellers], hidden)


def _withheld(table: pa.Table, names: Sequence[str], hidden: Sequence[bool]) -> pa.Table:
    for name in dict.fromkeys(names):
        if name in table.column_names:
            kept = [None if h else v for h, v in zip(hidden, table.column(name).to_pylist(), strict=True)]
            table = _with(table, name, pa.array(kept, table.schema.field(name).type))
    return table
