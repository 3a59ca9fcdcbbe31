"""The same image at two sites: keyed digests find exact copies, keyed bands of a hash find near ones.

A site gives away the marks of each image, made with a key that only the sites share. Without the key they say nothing.
With it, a site could try all values of a band and so learn roughly where another site's volume is brighter than its
surroundings, on a grid of 8 x 8 x 8; it is no image of a person, but a site that does not want this gives no marks.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from builder.copies.matching import SHARED_PLANES
from builder.copies.prints import Print, Reals
from builder.copies.screening import FLIPS, plain_hash
from builder.federation.documents import Volume
from builder.federation.tables import Integers
from builder.model.keyed import Key

BITS: Final = 20
"""Bits of a band: each says on which side of a keyed plane a hash lies (Charikar 2002, doi:10.1145/509907.509965)."""

BANDS: Final = 64
"""Bands of a volume."""

SHARED: Final = 8
"""Fewest bands that near copies share. Heads of two persons share up to six: with fewer, persons would be left out."""


@dataclass(frozen=True)
class Match:
    """An image of this site that another site has as well.

    Parameters
    ----------
    own, person_key
        Name of the image at this site, and of its person.
    site, number
        The other site, and the place of the image in its marks, from 1.
    planes
        Number of planes that are equal to the digit.
    bands
        Most bands shared, in any flip.
    """

    own: str
    person_key: str
    site: str
    number: int
    exact: bool
    planes: int
    bands: int


def marks(volume: Print, key: Key, *, near: bool = True) -> Volume:
    """Return what may be given away of an image to sites that have the same key; bands only if near copies count."""
    planes = sorted(key.names("plane", map(str, volume.planes)))
    bands = list(_bands(plain_hash(volume.small), key)) if near else []
    return Volume(exact=key.name("exact", volume.digest), planes=planes, bands=bands)


def all_marks(volumes: Iterable[Print], key: Key, *, near: bool) -> list[Volume]:
    """Return the marks of all images, in an order that says nothing of where each comes from."""
    return sorted((marks(v, key, near=near) for v in volumes), key=lambda m: (m.exact, m.planes, m.bands))


def key_check(key: Key) -> str:
    """Return what differs under another key."""
    return key.name("check", "marks")


def copies(own: Sequence[Print], site: str, others: Sequence[Volume], key: Key, *, shared: int = SHARED) -> list[Match]:
    """Return the images of a site that another site has as well: equal pixels, shared planes or near hashes.

    Planes count where they are at least ``SHARED_PLANES`` of the smaller image. The own images are compared in all
    eight flips, and are near where they share ``shared`` bands. Both sites need the same key: with another one, nothing
    is found.
    """
    by_exact: dict[str, list[int]] = {}
    by_plane: dict[str, list[int]] = {}
    by_band: dict[tuple[int, str], list[int]] = {}
    for number, other in enumerate(others, 1):
        if other.planes:  # constant planes say nothing of where an image is from
            by_exact.setdefault(other.exact, []).append(number)
        for plane in other.planes:
            by_plane.setdefault(plane, []).append(number)
        for at in enumerate(other.bands):
            by_band.setdefault(at, []).append(number)
    found = []
    for volume in own:
        mine = marks(volume, key)
        exact = set(by_exact.get(mine.exact, ()))
        planes = Counter(number for plane in mine.planes for number in by_plane.get(plane, ()))
        bands: Counter[int] = Counter()
        for flipped in _flips(plain_hash(volume.small)):
            bands |= Counter(n for at in enumerate(_bands(flipped, key)) for n in by_band.get(at, ()))
        alike = {n for n, equal in planes.items() if equal >= SHARED_PLANES * _fewer(mine, others[n - 1])}
        near = {number for number, count in bands.items() if count >= shared}
        found += [
            Match(volume.key, volume.person_key, site, number, number in exact, planes[number], bands[number])
            for number in sorted(exact | alike | near)
        ]
    return found


def _fewer(one: Volume, other: Volume) -> int:
    return min(len(one.planes), len(other.planes))


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
