"""The same image at two sites: keyed digests find exact copies, keyed bands of a hash find near ones.

A site gives away one ``Marks`` a volume, made with a key that only the sites share. Without the key they say nothing.
With it, a site could try all values of a band and so learn roughly where another site's volume is brighter than its
surroundings, on a grid of 8 x 8 x 8; it is no image of a person, but a site that does not want this gives no marks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from builder.copies.prints import Print, Reals
from builder.copies.screening import FLIPS, plain_hash
from builder.federation.tables import Integers
from builder.model.keyed import Key

BITS: Final = 20
"""Bits of a band: each says on which side of a keyed plane a hash lies (Charikar 2002, doi:10.1145/509907.509965)."""

BANDS: Final = 64
"""Bands of a volume."""

SHARED: Final = 2
"""Fewest bands that near copies share."""


@dataclass(frozen=True)
class Marks:
    """What a site gives away of a volume; all of it is keyed.

    Parameters
    ----------
    name
        The site's own keyed name of the case.
    exact
        Of the digest of all pixels, whatever the order of slices.
    planes
        Of the digest of each plane, sorted.
    bands
        One a band, in order; none for a volume without structure.
    """

    name: str
    exact: str
    planes: tuple[str, ...]
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """A volume of this site that another site has as well.

    Parameters
    ----------
    own, other
        Names of the case at this site and at the other.
    planes
        Number of planes that are equal to the digit.
    bands
        Most bands shared, in any flip.
    """

    own: str
    other: str
    exact: bool
    planes: int
    bands: int


def marks(volume: Print, key: Key) -> Marks:
    """Return what may be given away of a volume to sites that have the same key."""
    planes = tuple(sorted(key.names("plane", map(str, volume.planes))))
    return Marks(volume.key, key.name("exact", volume.digest), planes, _bands(plain_hash(volume.small), key))


def copies(own: Sequence[Print], others: Iterable[Marks], key: Key) -> list[Match]:
    """Return the volumes of a site that another site has as well, by exact pixels, equal planes or near hashes.

    The own volumes are compared in all eight flips. Both sites need the same key: with another one, nothing is found.
    """
    by_exact: dict[str, list[str]] = {}
    by_plane: dict[str, list[str]] = {}
    by_band: dict[tuple[int, str], list[str]] = {}
    for other in others:
        if other.planes:  # constant planes say nothing of where a volume is from
            by_exact.setdefault(other.exact, []).append(other.name)
        for plane in other.planes:
            by_plane.setdefault(plane, []).append(other.name)
        for place, band in enumerate(other.bands):
            by_band.setdefault((place, band), []).append(other.name)
    found = []
    for volume in own:
        mine = marks(volume, key)
        exact = set(by_exact.get(mine.exact, ()))
        planes = _counted(name for plane in mine.planes for name in by_plane.get(plane, ()))
        bands: dict[str, int] = {}
        for flipped in _flips(plain_hash(volume.small)):
            shared = _counted(n for at in enumerate(_bands(flipped, key)) for n in by_band.get(at, ()))
            bands = {name: max(bands.get(name, 0), shared.get(name, 0)) for name in {*bands, *shared}}
        near = {name for name, number in bands.items() if number >= SHARED}
        found += [
            Match(volume.key, name, name in exact, planes.get(name, 0), bands.get(name, 0))
            for name in sorted({*exact, *planes, *near})
        ]
    return found


def _counted(names: Iterable[str]) -> Mapping[str, int]:
    numbers: dict[str, int] = {}
    for name in names:
        numbers[name] = numbers.get(name, 0) + 1
    return numbers


def _flips(hashed: Reals) -> Iterator[Reals]:
    for a, b, c in FLIPS:
        yield hashed[::a, ::b, ::c]


def _bands(hashed: Reals, key: Key) -> tuple[str, ...]:
    if not hashed.any():
        return ()
    sides = _planes(key, hashed.size) @ hashed.reshape(-1).astype(np.int64) >= 0
    packed = np.packbits(sides.reshape(BANDS, BITS), axis=1)
    return tuple(key.name("band", str(place), row.tobytes().hex()) for place, row in enumerate(packed))


@lru_cache(maxsize=1)
def _planes(key: Key, size: int) -> Integers:
    """Return (bit, value) keyed planes of ones and minus ones, whose products with a hash are exact."""
    draw = np.random.PCG64(int.from_bytes(key.digest("planes"), "big"))
    raw = draw.random_raw(BANDS * BITS * size // 64)  # the stream of a bit generator does not change between releases
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8))
    return (bits.astype(np.int64) * 2 - 1).reshape(BANDS * BITS, size)
