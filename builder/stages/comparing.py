"""Compare the volumes of a dataset in tasks: each works on the volumes of some shards and leaves files for the next.

The tasks pass only names and counts. Small copies are read from the prints, where the shards left them; what a task
finds goes to a private folder. Volumes have numbers: their places in the order of their keys.
"""

import functools
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.copies import Match, Print, find_matches, parse_prints
from builder.copies.lists import Lists, centres_of, labels_of, sampled
from builder.copies.matching import agreement
from builder.copies.prints import LEVELS, SMALL, packed, unpacked
from builder.copies.screening import (
    FOUND,
    SPECTRUM,
    Places,
    Shorts,
    by_whole,
    moments,
    plain_hashes,
    promising,
    quick_spectra,
    scored,
    standardised,
    starts_of,
)
from builder.model.parquet import read_parquet
from builder.model.zarr_format import CHECKSUM_BYTES
from builder.stages.checked import read_checked, with_checksum
from builder.stages.shard import prints_path
from builder.storage import Store, open_store

PERSONS, PLACES, MOMENTS, CENTRES = "persons", "places", "moments", "centres"
"""Files with the person of every volume, as a number; with its portion and place there; with sums of spectra; and with
the centres of the lists in which spectra of very many volumes lie."""

TOGETHER = 16384
"""How many volumes' spectra a task reads at a time, about, which bounds memory (140 MB)."""

RECORD = np.dtype([("small", "<u2", (SMALL**3,)), ("levels", "<f4", (LEVELS,)), ("shape", "<i8", (3,))])
"""What a fit needs of a volume."""

PAIR = np.dtype([("found", FOUND), ("least", "<f8"), ("thick", "?")])
"""A pair to fit: see ``agreement``."""


@dataclass(frozen=True)
class Whole:
    """A comparison in one task: prints of shards, and the options of ``find_matches``."""

    prints: str
    shards: tuple[str, ...]
    thresholds: Mapping[str, float]
    neighbours: int


@dataclass(frozen=True)
class Portion:
    """The volumes of some shards.

    Parameters
    ----------
    prints, room
        Stores of the prints, and of the files that tasks leave for each other.
    number, portions
        Number of this portion, and how many there are.
    shards
        Fingerprints of the shards.
    rows
        Number of the volume of each print of each shard; -1 for a print that is left out, as another shard has it.
    """

    prints: str
    room: str
    number: int
    portions: int
    shards: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


def compare_whole(whole: Whole) -> tuple[Match, ...]:
    """Compare all volumes with each other."""
    prints = _private(whole.prints)
    found = {p.key: p for s in whole.shards for p in parse_prints(read_parquet(prints.read(prints_path(s))))}
    return find_matches(list(found.values()), thresholds=whole.thresholds, neighbours=whole.neighbours)


def sketch(portion: Portion) -> tuple[int, ...]:
    """Write hashes and spectra of a portion, and what fits need of its volumes; return the moments of the spectra."""
    prints, room = _private(portion.prints), _private(portion.room)
    taken: dict[int, Print] = {}
    for shard, rows in zip(portion.shards, portion.rows, strict=True):
        found = parse_prints(read_parquet(prints.read(prints_path(shard))))
        taken |= {n: p for n, p in zip(rows, found, strict=True) if n >= 0}
    held = [taken[n] for n in sorted(taken)]
    records = np.zeros(len(held), RECORD)
    for at, p in enumerate(held):
        records[at] = np.frombuffer(packed(p.small), "<u2"), p.levels, p.shape
    names = [hashlib.sha256(r.tobytes()).digest() for r in records]
    put_array(room, f"plain-{portion.number}", plain_hashes([p.small for p in held]))
    spectra = quick_spectra([p.small for p in held])
    put_array(room, f"raw-spectra-{portion.number}", spectra)
    put_array(room, f"names-{portion.number}", np.frombuffer(b"".join(names), np.uint8).reshape(-1, 32))
    room.put(_records(portion.number), b"".join(with_checksum(record.tobytes()) for record in records))
    return tuple(moments(spectra).tolist())


def level(portion: Portion) -> int:
    """Replace the spectra of a portion by those in which frequencies vary equally, and return their number."""
    room = _private(portion.room)
    name = f"spectra-{portion.number}"
    spectra = standardised(get_array(room, f"raw-{name}"), get_array(room, MOMENTS))
    put_array(room, name, spectra)
    return len(spectra)


def take_centres(portion: Portion) -> int:
    """Write the centres of lists, from a sample of all portions, and return how many there are."""
    room = _private(portion.room)
    places = get_array(room, PLACES)
    chosen = np.arange(len(places)) % sampled(len(places)) == 0
    some = [get_array(room, f"spectra-{n}")[places[chosen & (places[:, 0] == n), 1]] for n in range(portion.portions)]
    order = np.argsort(np.argsort(places[chosen, 0], kind="stable"), kind="stable")
    centres = centres_of(np.concatenate(some)[order], len(places), SPECTRUM)
    put_array(room, CENTRES, centres)
    return len(centres)


def enlist(portion: Portion) -> int:
    """Write the list of every view of a portion, and return the number of its volumes."""
    room = _private(portion.room)
    labels = labels_of(get_array(room, f"spectra-{portion.number}"), get_array(room, CENTRES))
    put_array(room, f"labels-{portion.number}", labels)
    return len(labels)


def find_promising(portion: Portion) -> int:
    """Write the pairs that are near by their spectra and of which the crop is of the portion; return their number."""
    room = _private(portion.room)
    places = get_array(room, PLACES)
    rows = [np.flatnonzero(places[:, 0] == n) for n in range(portion.portions)]
    own = get_array(room, f"spectra-{portion.number}")[:, 0]
    lists = None
    if room.exists(f"{CENTRES}.npy"):
        labels = np.concatenate([get_array(room, f"labels-{n}") for n in range(portion.portions)])
        lists = Lists(get_array(room, CENTRES), labels[np.argsort(np.concatenate(rows))])
    found = promising(rows[portion.number], own, _spectra(room, rows), get_array(room, PERSONS), lists=lists)
    put_array(room, f"promising-{portion.number}", found.astype(np.int32))
    return len(found)


def _spectra(room: Store, rows: Sequence[Places]) -> Iterator[tuple[Places, Shorts]]:
    """Yield numbers and spectra of the volumes of some portions: of many, because a part of each list is small."""
    step = max(1, TOGETHER // max(1, len(rows[0])))
    for first in range(0, len(rows), step):
        some = range(first, min(first + step, len(rows)))
        yield np.concatenate([rows[n] for n in some]), np.concatenate([get_array(room, f"spectra-{n}") for n in some])


def score(portion: Portion) -> int:
    """Write the pairs of which the whole is of the portion and whose hashes are near; return their number."""
    room = _private(portion.room)
    places = get_array(room, PLACES)
    plain = np.concatenate([get_array(room, f"plain-{n}") for n in range(portion.portions)])
    starts = np.concatenate([[0], np.cumsum(np.bincount(places[:, 0], minlength=portion.portions))])
    plain = plain[starts[places[:, 0]] + places[:, 1]]
    pairs, held = get_array(room, f"pairs-{portion.number}"), _Records(room, places)
    found = [scored(held.print_of(whole).small, whole, crops, plain) for whole, crops in by_whole(pairs)]
    put_array(room, f"scored-{portion.number}", np.concatenate([np.empty(0, FOUND), *found]))
    return sum(map(len, found))


def fit_pairs(portion: Portion) -> tuple[float, ...]:
    """Return how well the pairs agree that were chosen for a portion."""
    room = _private(portion.room)
    read = functools.lru_cache(maxsize=32)(_Records(room, get_array(room, PLACES)).print_of)
    return tuple(
        agreement(
            read(int(pair["found"]["whole"])), read(int(pair["found"]["crop"])),
            starts_of(pair["found"]), least=float(pair["least"]), thick=bool(pair["thick"]),
        )
        for pair in get_array(room, f"chosen-{portion.number}")
    )  # fmt: skip


def put_array(room: Store, name: str, array: NDArray[Any]) -> None:
    """Write an array into the folder of a comparison."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    room.put(f"{name}.npy", sink.getvalue())


def get_array(room: Store, name: str) -> NDArray[Any]:
    """Read an array from the folder of a comparison."""
    found: NDArray[Any] = np.load(io.BytesIO(room.read(f"{name}.npy")), allow_pickle=False)
    return found


@dataclass(frozen=True)
class _Records:
    """Small copies on disk, read one at a time."""

    room: Store
    places: NDArray[Any]

    def print_of(self, number: int) -> Print:
        """Return what a fit needs of a volume."""
        portion, place = self.places[number].tolist()
        length = RECORD.itemsize + CHECKSUM_BYTES
        data = read_checked(self.room, _records(portion), place * length, length=length)
        record = np.frombuffer(data, RECORD)[0]
        small = unpacked(record["small"].tobytes())
        return Print("", "", None, "", small, record["levels"], tuple(record["shape"].tolist()))


def _records(portion: int) -> str:
    return f"small-{portion}.bin"


def _private(url: str) -> Store:
    return open_store(url, directory_mode=0o700)
