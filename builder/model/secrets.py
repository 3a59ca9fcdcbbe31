"""Which environment variables a spec may read, and which texts may be a key."""

import re
from collections.abc import Mapping

from builder.errors import SpecError

PREFIX = "BUILDER_"
"""A spec may read environment variables whose names begin with this."""

ALLOW = "BUILDER_ALLOW_ENV"
"""Further names that the person who runs a spec allows it to read, separated by commas."""

MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"

LEAST_BYTES = 16
_HEX = re.compile(rb"[0-9a-fA-F]{32,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{22,}={0,2}")
_WORDS = re.compile(rb"[a-z]{5,}|[A-Z]{5,}|[A-Z][a-z]{4,}|[0-9]{4,}")
_COUNTING = (b"0123456789abcdef0123456789", b"abcdefghijklmnopqrstuvwxyz", b"qwertyuiop", b"asdfghjkl", b"zxcvbnm")


def read_variable(name: str, environment: Mapping[str, str], *, where: str, advice: str = "") -> str:
    """Return the value of an environment variable that a spec names.

    A spec may come from somebody else. If it could read any variable, a source's ``sign_in`` could send any secret of
    the person who runs it to any server. ``advice`` ends the message about a variable that is not set.

    Raises
    ------
    SpecError
        When the name is not allowed, or the variable has no value.
    """
    allowed = {each.strip() for each in environment.get(ALLOW, "").split(",")}
    if not name.startswith(PREFIX) and name not in allowed:
        raise SpecError(
            f"{where}: found the environment variable {name}, expected one whose name begins with {PREFIX}; rename it, "
            f"or allow this spec to read it with {ALLOW}={name}"
        )
    value = environment.get(name)
    if not value:
        raise SpecError(f"{where}: environment variable {name} is not set, expected it to hold the secret{advice}")
    return value


def check_strength(secret: bytes, *, where: str) -> bytes:
    """Return ``secret`` after checking that it can hold 128 bits that nobody can guess.

    Every dataset publishes a check value of its key, so that another key is noticed. With a key that can be guessed,
    that value would confirm the guess and undo every pseudonym.

    Raises
    ------
    SpecError
        When it is neither 32 or more hexadecimal digits, nor 22 or more characters of base64, nor 16 or more random
        bytes, or when it looks like words, a date, counting or the repetition of a short piece. Hexadecimal digits are
        judged leniently from 64 on (``_is_random_hex``).
    """
    text = secret.isascii() and secret.decode("ascii").isprintable()
    if not text:
        strong = len(secret) >= LEAST_BYTES and len(set(secret)) >= LEAST_BYTES // 2
    elif _HEX.fullmatch(secret):
        strong = _is_random_hex(secret.lower())
    else:
        kinds = (rb"[a-z]", rb"[A-Z]")  # one in forty random texts of 22 characters has no digit
        strong = _BASE64.fullmatch(secret) is not None and all(re.search(kind, secret) for kind in kinds)
        strong = strong and not _is_made_of_words(secret) and not _counts(secret) and 2 * _piece(secret) > len(secret)
    if not strong:
        raise SpecError(
            f"{where}: found {len(secret)} bytes that could be guessed, expected 128 random bits or more "
            f"(32 hexadecimal digits, 22 characters of base64, or 16 bytes); {MAKE_ONE}, and keep it"
        )
    return secret


def _is_made_of_words(secret: bytes) -> bool:
    """Return whether words and years are seven tenths of a text; of random base64 one in a thousand has so many."""
    return 10 * sum(map(len, _WORDS.findall(secret))) >= 7 * len(secret)


def _counts(secret: bytes) -> bool:
    """Return whether a text counts up or down, or walks along the keyboard, for eight characters or more."""
    low = secret.lower()
    rows = (*_COUNTING, *(row[::-1] for row in _COUNTING))
    return any(row[at : at + 8] in low for row in rows for at in range(len(row) - 7))


def _is_random_hex(low: bytes) -> bool:
    """Return whether hexadecimal digits look drawn: of several kinds, none too often, more than decimal ones.

    64 digits, the form that ``secrets.token_hex(32)`` writes, may repeat a piece of two or more: datasets are in use
    with such keys, and with another key they could not grow.
    """
    if 2 * max(map(low.count, set(low))) > len(low):
        return False
    if len(low) >= 64:
        return True
    decimal = low.isdigit() and len(low) < 39  # 39 decimal digits hold 128 bits
    return len(set(low)) >= 4 and _piece(low) > 4 and not _counts(low) and not decimal


def _piece(secret: bytes) -> int:
    """Return the length of the shortest piece whose repetition begins with the whole text."""
    units = (secret[:size] * (len(secret) // size + 1) for size in range(1, len(secret) + 1))
    return next(size for size, unit in enumerate(units, start=1) if unit[: len(secret)] == secret)
