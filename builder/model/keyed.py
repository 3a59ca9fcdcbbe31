"""Keyed names: the pseudonyms of persons, studies, series and cases outside the archive."""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from builder.errors import SpecError

MINIMUM_KEY_BYTES = 16


@dataclass(frozen=True)
class Key:
    """The secret behind every pseudonym; its ``repr`` never shows it.

    The same key gives the same names in every build, so versions of a dataset can be compared; without it nobody can
    test whether a known patient is in the set (NIST SP 800-107: HMAC as a keyed pseudonym).
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < MINIMUM_KEY_BYTES:
            raise SpecError(
                f"deid.patient_key: found {len(self.secret)} bytes, expected at least {MINIMUM_KEY_BYTES}; "
                "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )

    def name(self, kind: str, *parts: str) -> str:
        """Return a pseudonym of ``parts``: 26 lower-case base-32 letters (128 bits), different for every ``kind``."""
        return _base32(self.digest(kind, *parts)[:16])

    def names(self, kind: str, values: Iterable[str]) -> Iterator[str]:
        """Yield ``name`` of each of many values of one ``kind``."""
        return self.names_of(kind, ((value,) for value in values))

    def names_of(self, kind: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """Yield ``name`` of the parts in each of many rows. The letters of many are told together."""
        digests = self._digests(kind, rows)
        while some := list(islice(digests, _TOGETHER)):
            yield from _all_base32(some)

    def uid(self, source_uid: str) -> str:
        """Return the replacement of a UID: ``2.25.`` and 128 bits in decimal (PS3.5 B.2), equal wherever it recurs."""
        return "2.25." + str(int.from_bytes(self.digest("uid", source_uid)[:16], "big"))

    def number(self, kind: str, *parts: str) -> int:
        """Return a 64-bit number drawn from ``parts``, for buckets, orders and tie-breaks."""
        return int.from_bytes(self.digest(kind, *parts)[:8], "big")

    def numbers(self, kind: str, values: Iterable[str]) -> Iterator[int]:
        """Yield ``number`` of each of many values of one ``kind``."""
        return (int.from_bytes(found[:8], "big") for found in self._digests(kind, ((value,) for value in values)))

    def digest(self, kind: str, *parts: str) -> bytes:
        """Return the HMAC-SHA256 of ``kind`` and ``parts``, each after its length so that no two lists collide."""
        message = b"".join([_framed(part) for part in (kind, *parts)])
        return hmac.new(self.secret, message, hashlib.sha256).digest()

    def _digests(self, kind: str, rows: Iterable[Sequence[str]]) -> Iterator[bytes]:
        """Yield ``digest`` of the parts in each of many rows of one kind, which is hashed once."""
        # HMAC as in RFC 2104, because copies of its two hashes take half the time of a copy of ``hmac.HMAC``
        secret = self.secret if len(self.secret) <= _BLOCK else hashlib.sha256(self.secret).digest()
        inner, outer = (hashlib.sha256(bytes(b ^ pad for b in secret.ljust(_BLOCK, b"\0"))) for pad in (0x36, 0x5C))
        inner.update(_framed(kind))
        for parts in rows:
            within, found = inner.copy(), outer.copy()
            within.update(b"".join([_framed(part) for part in parts]))
            found.update(within.digest())
            yield found.digest()


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS = range(120, -1, -10)
"""Where the 13 pairs of letters of 128 bits begin."""

_BLOCK: Final = 64
"""Bytes of a block of SHA-256."""

_TOGETHER: Final = 4096
"""Number of names whose letters are told together."""
_LETTERS: Final = 26
_BEGINS: Final = 6 + 5 * np.arange(_LETTERS)
"""Bits at which the letters begin when a byte of zeros goes before the 16 bytes."""
_CODES: Final = np.frombuffer(_ALPHABET.encode(), np.uint8)


def _framed(part: str) -> bytes:
    data = part.encode()
    return len(data).to_bytes(4, "big") + data


def _base32(data: bytes) -> str:
    """Return 26 letters of 16 bytes, the first of three bits."""
    number = int.from_bytes(data, "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in _SHIFTS])


def _all_base32(digests: Sequence[bytes]) -> list[str]:
    """Return ``_base32`` of the first 16 bytes of each.

    A letter lies in two bytes at most, which are taken as one number of 16 bits.
    """
    data = np.zeros((len(digests), 18), np.uint16)
    data[:, 1:17] = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)[:, :16]
    first = _BEGINS // 8
    codes = ((data[:, first] << 8 | data[:, first + 1]) >> (11 - _BEGINS % 8)) & 31
    text = _CODES[codes].tobytes().decode()
    return [text[start : start + _LETTERS] for start in range(0, len(text), _LETTERS)]
