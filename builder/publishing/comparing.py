"""Compare all volumes of a dataset in tasks, and keep what was fitted for the versions that follow."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.copies import Match, Print, find_matches, lists, parse_prints, screening
from builder.copies.matching import confirmed, equal_planes, keep_best, limit, matches_of, thick
from builder.copies.prints import COMPARED, PRINTS, PRINTS_VERSION
from builder.model.parquet import parquet_bytes, read_parquet
from builder.stages.comparing import (
    MOMENTS,
    PAIR,
    PERSONS,
    PLACES,
    Portion,
    Whole,
    compare_whole,
    enlist,
    find_promising,
    fit_pairs,
    get_array,
    level,
    put_array,
    score,
    sketch,
    take_centres,
)
from builder.stages.graph import Runner, Task
from builder.stages.shard import prints_path
from builder.storage import Store

ALONE = 192
"""Up to so many volumes are compared in one task."""

VOLUMES, TASKS = 256, 64
"""How many volumes a task works on, or those of one shard if it has more; and how many tasks suffice for a step."""

ROOM = "comparison"
"""Folder, beside the prints, of what the tasks of one comparison leave for each other."""

FITS_VERSION = 4
"""Raised whenever a fit of the same two prints may give another value."""

FITS = f"fits.{PRINTS_VERSION}.{FITS_VERSION}.parquet"
"""How well the pairs agreed that the latest version fitted, under digests of all that a fit depends on."""

Fits = dict[bytes, float]


def read_facts(prints: Store, shards: Sequence[str]) -> list[list[Print]]:
    """Return the prints of each shard without their small copies."""
    columns = [name for name in PRINTS.names if name not in COMPARED]
    return [parse_prints(read_parquet(prints.read(prints_path(s)), columns=columns)) for s in shards]


def compare_in_tasks(
    prints: Store,
    shards: Sequence[str],
    facts: Sequence[Sequence[Print]],
    runner: Runner,
    *,
    thresholds: Mapping[str, float],
    neighbours: int,
) -> tuple[Match, ...]:
    """Return what ``find_matches`` returns for the prints of all shards.

    Few volumes are compared in one task. Of more, each task sketches, screens, scores or fits the volumes of some
    shards. Agreements of pairs that the version before fitted with the same small copies are read, not found again.

    Parameters
    ----------
    facts
        What ``read_facts`` gave for the shards.
    """
    latest = {p.key: (s, n) for s, held in enumerate(facts) for n, p in enumerate(held)}
    ordered = [facts[s][n] for _, (s, n) in sorted(latest.items())]
    if not neighbours:
        return find_matches(ordered, thresholds=thresholds, neighbours=0)
    if len(ordered) <= ALONE:
        whole = Whole(prints.url, tuple(shards), thresholds, neighbours)
        (outcome,) = runner.run([Task("leaks", compare_whole, whole)])
        found: tuple[Match, ...] = outcome.value
        return found
    room = prints.join(ROOM)
    _empty(room)
    number = {key: n for n, key in enumerate(sorted(latest))}
    rows = [
        tuple(number[p.key] if latest[p.key] == (s, n) else -1 for n, p in enumerate(held))
        for s, held in enumerate(facts)
    ]
    portions = _portions(prints, room, shards, rows)
    _put_places(room, ordered, portions)
    equal = equal_planes(ordered)
    chosen = _screened(runner, room, portions, neighbours)
    first = screening.fitted_first(chosen, len(ordered))
    before, kept = read_fits(prints), Fits()
    fitted: dict[tuple[int, int], float] = {}
    for name, some in (("fit", first), ("fit-more", ~first)):
        if name != "fit":
            alike = [n for pair in confirmed(ordered, equal, fitted, thresholds) for n in pair]
            some &= np.isin(chosen["whole"], alike) | np.isin(chosen["crop"], alike)
        pairs = _pairs(chosen[some], ordered, thresholds, equal)
        for at, key, value in _fitted(runner, room, portions, pairs, before, name):
            kept[key] = value
            keep_best(fitted, int(at["whole"]), int(at["crop"]), value)
    keep_fits(prints, kept)
    _empty(room)
    return matches_of(ordered, equal, fitted, thresholds=thresholds)


def _portions(prints: Store, room: Store, shards: Sequence[str], rows: Sequence[tuple[int, ...]]) -> list[Portion]:
    """Return the shards in portions of about VOLUMES volumes, or of more if there are very many."""
    groups: list[list[int]] = []
    least = max(VOLUMES, sum(map(len, rows)) // TASKS)
    size = least
    for n, held in enumerate(rows):
        if size >= least:
            groups.append([])
            size = 0
        groups[-1].append(n)
        size += sum(row >= 0 for row in held)
    return [
        Portion(prints.url, room.url, at, len(groups), tuple(shards[n] for n in g), tuple(rows[n] for n in g))
        for at, g in enumerate(groups)
    ]


def _put_places(room: Store, ordered: Sequence[Print], portions: Sequence[Portion]) -> None:
    places = np.zeros((len(ordered), 2), np.int32)
    for portion in portions:
        own = np.sort([n for rows in portion.rows for n in rows if n >= 0]).astype(np.int64)
        places[own] = np.stack([np.full(len(own), portion.number), np.arange(len(own))], axis=1)
    put_array(room, PLACES, places)
    put_array(room, PERSONS, np.unique([p.person_key for p in ordered], return_inverse=True)[1])


def _screened(runner: Runner, room: Store, portions: Sequence[Portion], neighbours: int) -> NDArray[Any]:
    """Return the pairs to fit, as FOUND."""
    sums = [np.array(found, np.int64) for _, found in _run(runner, "sketch", sketch, portions)]
    put_array(room, MOMENTS, np.sum(sums, axis=0))
    _run(runner, "level", level, portions)
    if len(get_array(room, PLACES)) >= lists.LISTED:
        _run(runner, "centres", take_centres, portions[:1])
        _run(runner, "list", enlist, portions)
    _run(runner, "screen", find_promising, portions)
    promising = np.concatenate([get_array(room, f"promising-{p.number}") for p in portions])
    portion_of = get_array(room, PLACES)[promising[:, 0], 0]
    for portion in portions:
        put_array(room, f"pairs-{portion.number}", promising[portion_of == portion.number])
    _run(runner, "score", score, portions)
    return screening.nearest(np.concatenate([get_array(room, f"scored-{p.number}") for p in portions]), neighbours)


def _pairs(
    chosen: NDArray[Any],
    ordered: Sequence[Print],
    thresholds: Mapping[str, float],
    equal: Mapping[tuple[int, int], int],
) -> NDArray[Any]:
    """Return the pairs to fit as PAIR, without those that have equal planes."""
    pairs = np.zeros(len(chosen), PAIR)
    pairs["found"] = chosen
    kept = np.ones(len(chosen), bool)
    for at, (i, j) in enumerate(zip(chosen["whole"].tolist(), chosen["crop"].tolist(), strict=True)):
        pairs[at]["least"] = limit(ordered[i], ordered[j], thresholds)
        pairs[at]["thick"] = thick(ordered[i], ordered[j])
        kept[at] = (min(i, j), max(i, j)) not in equal
    return pairs[kept]


def _fitted(
    runner: Runner, room: Store, portions: Sequence[Portion], pairs: NDArray[Any], before: Fits, name: str
) -> Iterator[tuple[Any, bytes, float]]:
    """Yield the place of each pair, its name, and how well it agrees; what an earlier version fitted is only read."""
    places = get_array(room, PLACES)
    names = np.zeros((len(places), 32), np.uint8)
    for portion in portions:
        names[places[:, 0] == portion.number] = get_array(room, f"names-{portion.number}")
    keys = [_key(pair, names) for pair in pairs]
    found = np.array([before.get(key, np.nan) for key in keys], dtype=np.float64)
    new = np.isnan(found)
    portion_of = places[pairs["found"]["whole"], 0]
    left = {p.number: np.flatnonzero(new & (portion_of == p.number)) for p in portions}
    for number, at in left.items():
        put_array(room, f"chosen-{number}", pairs[at])
    for portion, values in _run(runner, name, fit_pairs, [p for p in portions if len(left[p.number])]):
        found[left[portion.number]] = values
    yield from zip(pairs["found"], keys, found.tolist(), strict=True)


def read_fits(prints: Store) -> Fits:
    """Return the agreements that the latest version found; none if there are none of this version of builder."""
    if not prints.exists(FITS):
        return {}
    table = read_parquet(prints.read(FITS))
    return dict(zip(table["key"].to_pylist(), table["agreement"].to_pylist(), strict=True))


def keep_fits(prints: Store, fits: Fits) -> None:
    """Keep agreements for the next version, and forget all others: of volumes that left, nothing stays."""
    rows = sorted(fits.items())
    keys, values = pa.array([k for k, _ in rows], pa.binary()), pa.array([v for _, v in rows], pa.float64())
    prints.put(FITS, parquet_bytes(pa.table({"key": keys, "agreement": values})))


def _key(pair: NDArray[Any], names: NDArray[Any]) -> bytes:
    found = pair["found"]
    rest = found["starts"].tobytes() + pair["least"].tobytes() + pair["thick"].tobytes()
    return hashlib.sha256(names[found["whole"]].tobytes() + names[found["crop"]].tobytes() + rest).digest()


def _run(
    runner: Runner, name: str, function: Callable[[Portion], Any], portions: Sequence[Portion]
) -> Iterator[tuple[Portion, Any]]:
    tasks = [Task(f"leaks-{name}-{p.number}", function, p) for p in portions]
    return iter([(outcome.task.argument, outcome.value) for outcome in runner.run(tasks)])


def _empty(room: Store) -> None:
    for name in list(room.list()):
        room.delete(name)
