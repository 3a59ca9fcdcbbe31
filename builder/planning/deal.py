"""Assign persons of the cohort to splits. Join those who must stay together first, and keep earlier assignments."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import SpecError
from builder.model.case import EVIDENCE_TIERS
from builder.model.classes import PREFIX, of_person
from builder.model.tables import used_rows
from builder.persons import Persons
from builder.persons.forest import Forest
from builder.planning.left_out import as_if_kept
from builder.planning.rows import LabelState, included, rows_of
from builder.spec import DatasetSpec
from builder.split import Group, Registry, assign, assign_by_quotas, deal_elsewhere, folds, hold_out, with_homes
from builder.split.alike import deal_alike, parse_alike
from builder.split.options import Splits
from builder.split.registry import pinned
from builder.split.shortfalls import shortfalls
from builder.storage import read_at

JOINING_KEYS = ("frame_of_reference_key", "accession_key")
"""Two persons who share one of these are assigned together. Shared studies and PatientIDs already make one person."""

MOST_SHARERS = 5
"""Most persons who may share a value. A more common value is a machine's default rather than a fact about a person."""


@dataclass(frozen=True)
class Shared:
    """What a key says about persons: groups that share a value, and values shared by too many to be meaningful."""

    key: str
    groups: tuple[tuple[str, ...], ...]
    too_common: int


def shared_keys(cohort: pa.Table) -> tuple[Shared, ...]:
    """Find frames of reference and accession numbers of used series that several persons share."""
    included = used_rows(cohort)
    found = []
    for name in JOINING_KEYS:
        if name not in included.column_names:
            continue
        counts = included[name].drop_null().value_counts()
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        known = included.filter(pc.is_in(included[name], repeated))
        holders: dict[str, set[str]] = {}
        for value, person in zip(known[name].to_pylist(), known["person_key"].to_pylist(), strict=True):
            holders.setdefault(value, set()).add(person)
        several = [tuple(sorted(h)) for h in holders.values() if len(h) > 1]
        groups = {h for h in several if len(h) <= MOST_SHARERS}
        found.append(Shared(name, tuple(sorted(groups)), sum(len(h) > MOST_SHARERS for h in several)))
    return tuple(found)


def deal(
    spec: DatasetSpec,
    cohort: pa.Table,
    persons: Persons,
    *,
    together: Iterable[Sequence[str]] = (),
    registry: Registry | None = None,
) -> pa.Table:
    """Return one row per person of the cohort: split, stratum, and the keyed PatientIDs that the person is known by.

    Parameters
    ----------
    together
        Groups of person keys to keep in one split, in addition to those of ``persons``. Groups that overlap are merged.
    registry
        Everybody who was assigned in earlier versions. They keep their splits.

    Raises
    ------
    SpecError
        When a column is missing, or a hold-out is impossible.
    LayoutError
        When persons who belong together got different splits before, and the spec does not say which one counts.
    """
    kept = {*included(cohort)["person_key"].to_pylist()}  # whoever is left out moves nobody
    given = _to_deal(spec, cohort, persons, together=together, registry=registry)
    people, strata, seed = given.people, list(spec.splits.stratify), spec.splits.seed
    if spec.splits.joint is None:
        dealt = assign(people, ratios=spec.splits.ratios, strata=strata, seed=seed, previous=given.previous)
    else:
        homed, quotas = with_homes(people, spec.splits.joint)
        dealt = assign_by_quotas(
            homed, quotas=quotas, strata=strata, seed=seed, previous=given.settled(), drawn=given.drawn
        )
    found = _expanded(dealt.append_column("folds", _folds(spec, people, dealt)), given.groups, persons)
    return found.filter(pc.is_in(found["person_key"], pa.array(sorted(kept), pa.string())))


def newcomers(
    spec: DatasetSpec,
    cohort: pa.Table,
    persons: Persons,
    *,
    together: Iterable[Sequence[str]] = (),
    registry: Registry | None = None,
) -> pa.Table:
    """Return whom the ratios or a joint plan would deal: one row a group of persons, with the columns of the strata.

    Parameters are those of ``deal``. Persons whom an earlier version dealt, a hold-out sets aside or ``tested`` bars
    are not among them; those whom another site has too are.
    """
    given = _to_deal(spec, cohort, persons, together=together, registry=registry)
    settled = given.settled()
    if settled is None:
        return given.people
    return given.people.filter(pc.invert(pc.is_in(given.people["person_key"], settled["person_key"].combine_chunks())))


@dataclass(frozen=True, eq=False)
class _ToDeal:
    """Whom a plan deals.

    Parameters
    ----------
    people
        Groups of persons who must stay together, with the columns of the strata.
    groups
        First person to all persons of each group.
    previous
        Groups whose split is settled already.
    drawn
        Those of them who are newcomers, and whose split is that of another site which has them too.
    """

    people: pa.Table
    groups: dict[str, list[str]]
    previous: pa.Table | None
    drawn: Mapping[str, str]

    def settled(self) -> pa.Table | None:
        """Return whose split is settled, without newcomers."""
        if self.previous is None:
            return None
        newcomers = pc.is_in(self.previous["person_key"], pa.array([*self.drawn], pa.string()))
        return self.previous.filter(pc.invert(newcomers))


def _to_deal(
    spec: DatasetSpec,
    cohort: pa.Table,
    persons: Persons,
    *,
    together: Iterable[Sequence[str]],
    registry: Registry | None,
) -> _ToDeal:
    """Return groups of persons, and whose split is settled already."""
    strata = list(spec.splits.stratify)
    held = [h.column for h in spec.splits.hold_out]
    missing = [c for c in dict.fromkeys((*strata, *held)) if c not in cohort.column_names]
    if missing:
        raise SpecError(f"splits: found the columns {missing}, expected columns of SERIES or of a clinical table")
    kept = {*included(cohort)["person_key"].to_pylist()}
    cohort = as_if_kept(cohort)
    leader = _leaders(cohort, [*together, *persons.together])
    people = _people(cohort, strata, leader)
    groups: dict[str, list[str]] = {}
    for person, first in sorted(leader.items()):
        groups.setdefault(first, []).append(person)
    previous = _previous(spec, persons, groups, registry)
    if spec.splits.hold_out:
        places = _places(cohort, list(dict.fromkeys(held)), leader)
        previous = hold_out(places, spec.splits.hold_out, previous=previous)
    barred = {leader[person] for person in _barred(spec, cohort)}
    drawn: dict[str, str] = {}
    if spec.splits.alike is not None:
        known = set() if previous is None else {*previous["person_key"].to_pylist()}
        alike = parse_alike(read_alike(spec.splits.alike))
        previous = deal_alike(groups, alike, spec.splits, previous=previous, barred=barred, kept=kept)
        rows = [] if previous is None else previous.to_pylist()
        drawn = {r["person_key"]: r["split"] for r in rows if r["person_key"] not in known | barred}
    return _ToDeal(people, groups, deal_elsewhere(people, barred, spec.splits, previous=previous), drawn)


def cannot(spec: DatasetSpec, cohort: pa.Table, splits: pa.Table) -> tuple[str, ...]:
    """Return a sentence for each requirement of the spec on the splits that these persons cannot meet."""
    strata = list(spec.splits.stratify)
    everybody = {person: person for person in splits["person_key"].to_pylist()}
    if not everybody:  # another message reports that nobody is left
        return ()
    held = [rule.split for rule in spec.splits.hold_out]
    people = _people(cohort, strata, everybody)
    return shortfalls(people, splits, ratios=spec.splits.ratios, strata=strata, also=held)


def read_alike(url: str) -> bytes:
    """Return the bytes of the file that ``splits.alike`` names. Raises SpecError."""
    try:
        return read_at(url)
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError("splits.alike: found no file there, expected one that builder site matched wrote") from None


def alike_lock(splits: Splits) -> Mapping[str, str]:
    """Return what the lock of a version says of the file of ``splits.alike``; nothing without one."""
    return {} if splits.alike is None else {"alike": hashlib.sha256(read_alike(splits.alike)).hexdigest()}


def joined(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Map each person in a group to the first of all persons who belong together with that person."""
    forest: Forest[str] = Forest()
    for one, *others in groups:
        for other in others:
            forest.add(one)
            forest.add(other)
            forest.join(one, other)
    return {person: forest.find(person) for person in forest.nodes()}


def _barred(spec: DatasetSpec, cohort: pa.Table) -> set[str]:
    """Return the persons who may not be tested on, because a case of theirs lacks a label or has weaker evidence."""
    if not spec.labels:
        return set()
    options = spec.splits.tested
    rows = rows_of(included(cohort), LabelState)
    barred: set[str] = set()
    if options.labels == "complete":
        barred |= {row.person_key for row in rows if row.label_status != "labelled"}
    if options.evidence == "as_strong":
        ranks = [(row.person_key, EVIDENCE_TIERS.index(row.label_tier) if row.label_tier else None) for row in rows]
        best = min((rank for _, rank in ranks if rank is not None), default=0)
        barred |= {person for person, rank in ranks if rank is None or rank > best}
    return barred


def _leaders(cohort: pa.Table, together: Iterable[Sequence[str]]) -> dict[str, str]:
    everybody = set(cohort.filter(cohort["included"])["person_key"].to_pylist())
    first = joined([[p for p in group if p in everybody] for group in together if set(group) & everybody])
    return {person: first.get(person, person) for person in everybody}


def _people(cohort: pa.Table, columns: Sequence[str], leader: Mapping[str, str]) -> pa.Table:
    """Return groups of persons with their first value of each column (rows are sorted), and their series.

    Of a class label it is the value of ``builder.model.classes.of_person``, because it differs between images.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in cohort.filter(cohort["included"]).select(["person_key", *columns]).to_pylist():
        first = leader[row["person_key"]]
        group = rows.setdefault(first, {**row, "person_key": first, "series": 0})
        group["series"] += 1
        for column in columns:
            if column.startswith(PREFIX):
                group[column] = of_person([group[column], row[column]], cohort.schema.field(column))
            group[column] = row[column] if group[column] is None else group[column]
    fields = [cohort.schema.field(c).remove_metadata() for c in columns]
    schema = pa.schema([("person_key", pa.string()), *fields, ("series", pa.int64())])
    return pa.Table.from_pylist([rows[p] for p in sorted(rows)], schema=schema)


def _places(cohort: pa.Table, columns: Sequence[str], leader: Mapping[str, str]) -> pa.Table:
    """Return groups of persons with all values of each column, because one series at a held-out site is enough."""
    found: dict[str, dict[str, list[Any]]] = {}
    for row in cohort.filter(cohort["included"]).select(["person_key", *columns]).to_pylist():
        cells = found.setdefault(leader[row["person_key"]], {c: [] for c in columns})
        for column, values in cells.items():
            given = row[column] if isinstance(row[column], list) else [row[column]]
            values += [v for v in given if v is not None and v not in values]
    keys = sorted(found)
    cells = {c: pa.array([found[k][c] for k in keys]) for c in columns}
    return pa.table({"person_key": pa.array(keys, pa.string()), **cells})


def _previous(
    spec: DatasetSpec, persons: Persons, groups: Mapping[str, Sequence[str]], registry: Registry | None
) -> pa.Table | None:
    """Return the earlier splits of the groups of persons who were assigned before, under the current keys."""
    if registry is None or not registry.table.num_rows:
        return None
    splits = registry.table["split"].to_pylist()
    known = {
        first: Group(tuple(group), tuple(sorted({splits[row] for p in group for row in registry.found.get(p, ())})))
        for first, group in groups.items()
    }
    return pinned(known, on_merge=spec.splits.on_merge)


def _folds(spec: DatasetSpec, people: pa.Table, dealt: pa.Table) -> pa.Array:
    """Return the fold of everybody in each repeat, null for persons who take no part in the folds."""
    options = spec.splits.folds
    kind = pa.list_(pa.int32())
    if options is None:
        return pa.nulls(dealt.num_rows, kind)
    training = set(spec.splits.ratios) - set(spec.splits.tested.splits)
    inside = pc.is_in(dealt["split"], pa.array(sorted(training), pa.string()))
    chosen = people.filter(pc.is_in(people["person_key"], dealt.filter(inside)["person_key"]))
    found = folds(chosen, options.k, strata=list(spec.splits.stratify), seed=spec.splits.seed, repeats=options.repeats)
    of: dict[str, list[int]] = {}
    for person, fold in zip(found["person_key"].to_pylist(), found["fold"].to_pylist(), strict=True):
        of.setdefault(person, []).append(fold)  # repeats are in order
    return pa.array([of.get(person) for person in dealt["person_key"].to_pylist()], kind)


def _expanded(dealt: pa.Table, groups: Mapping[str, Sequence[str]], persons: Persons) -> pa.Table:
    """Return a row for every person of a group, with the person's own keyed PatientIDs."""
    firsts = enumerate(dealt["person_key"].to_pylist())
    people = sorted((person, row) for row, first in firsts for person in groups[first])
    own = dealt.take(pa.array([row for _, row in people], pa.int64()))
    found = {
        "person_key": pa.array([person for person, _ in people], pa.string()),
        "members": pa.array([persons.members[person] for person, _ in people], pa.list_(pa.string())),
        **{name: own[name] for name in ("split", "stratum", "pooled", "folds")},
    }
    return pa.table(found)
