"""Which environment variables a spec may read, and which texts may be a key."""

import base64
import re
from collections.abc import Iterator, Mapping

from builder.errors import SpecError

PREFIX = "BUILDER_"
"""A spec may read environment variables whose names begin with this."""

ALLOW = "BUILDER_ALLOW_ENV"
"""Further names that the person who runs a spec allows it to read, separated by commas."""

MAKE_ONE = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"

LEAST_BYTES = 16
_JUDGED_BYTES = 64
"""A key of many bytes is as strong as its beginning, and judging takes time that grows with the cube of the length."""

_TRUSTED_DIGITS = 64
"""So many hexadecimal digits, the form that ``MAKE_ONE`` writes, may have a pattern: datasets were begun with such
keys, and under another key nobody in them would be known again. Only digits that are mostly one and the same are
refused."""

_HEX = re.compile(rb"[0-9a-fA-F]{32,}")
_BASE64 = re.compile(rb"(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9+/_-]{22,}={0,2}")
_WORDS = re.compile(rb"[a-z]{5,}|[A-Z]{5,}|[A-Z][a-z]{4,}|[0-9]{4,}")
_HEX_WORDS = re.compile(
    r"dead|beef|cafe|babe|face|feed|fade|deaf|f00d|d00d|c0de|c0ffee|defec8|decade|facade|deca|fbad|bad|ba5e"
)
_COUNTING = (b"0123456789abcdef0123456789", b"abcdefghijklmnopqrstuvwxyz", b"qwertyuiop", b"asdfghjkl", b"zxcvbnm")


_WITH_SECRET = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@\s]*:[^/?#\s]*@|[^\s]*[?&#](?i:"
    r"sig|signature|x-amz-signature|x-goog-signature|x-amz-security-token|(?:access_|auth_)?token|"
    r"api[_-]?key|passw(?:or)?d|(?:client_)?secret)=[^&#\s])"
)
"""An address with a password before its host, or with a key or signature among its parameters."""


def places_of_secrets(document: object, *, within: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the place, such as ``sources.0.url``, of every address in a document that holds a secret."""
    if isinstance(document, str):
        if _WITH_SECRET.search(document):
            yield ".".join(within)
    elif isinstance(document, Mapping):
        for name, value in document.items():
            yield from places_of_secrets(value, within=(*within, str(name)))
    elif isinstance(document, list | tuple):
        for number, value in enumerate(document):
            yield from places_of_secrets(value, within=(*within, str(number)))


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

    A secret has 32 or more hexadecimal digits, or 22 or more characters of base64 (capital and small letters), or 16 or
    more other bytes. The bytes that the text stands for must not have a pattern
    (``_has_pattern``), and the text itself must not be words, counting or repetition; 64 hexadecimal digits or more are
    judged leniently (``_TRUSTED_DIGITS``). Fewer than one in 10**9 of the
    keys that ``secrets.token_hex(32)`` makes is refused, fewer than one in 10**6 of random keys of 128 bits in
    hexadecimal digits or bytes, and one in 1,000 of those in base64, which are easily taken for words.

    Raises
    ------
    SpecError
        When the secret has another form, or a pattern.
    """
    text = secret.isascii() and secret.decode("ascii").isprintable()
    if not text:
        strong = len(secret) >= LEAST_BYTES and not _has_pattern(secret)
    elif _HEX.fullmatch(secret) and len(secret) >= _TRUSTED_DIGITS:
        strong = 2 * max(map(secret.lower().count, set(secret.lower()))) <= len(secret)
    elif _HEX.fullmatch(secret):
        strong = not _has_pattern(bytes.fromhex(secret[: len(secret) & ~1].decode()))
    else:
        strong = _BASE64.fullmatch(secret) is not None
        strong = strong and not _is_made_of_words(secret) and not _counts(secret) and not _repeats(secret)
        strong = strong and not _has_pattern(_decoded(secret))
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
    """Return whether a quarter of a text, eight characters at least, counts up or down or walks along the keyboard."""
    low, length = secret.lower(), max(8, len(secret) // 4)
    rows = (*_COUNTING, *(row[::-1] for row in _COUNTING))
    return any(row[at : at + length] in low for row in rows for at in range(len(row) - length + 1))


def _has_pattern(data: bytes) -> bool:
    """Return whether bytes are text or decimal digits, have few different values, or follow from each other by a rule.

    The rules that are tried: at least half of the bytes, or of the hexadecimal digits, repeat or mirror what came
    before them; or the differences between bytes, or between digits, up to eight digits apart do. Differences find
    counting in steps of any size, also where two or four series take turns; differences of differences find squares.
    """
    data = data[:_JUDGED_BYTES]
    text = data.hex()
    readable = data.isascii() and data.decode("ascii").isprintable()
    worded = 2 * sum(map(len, _HEX_WORDS.findall(text))) >= len(text)
    if (
        readable
        or worded
        or text.isdigit()
        or text.isalpha()
        or _counts(text.encode())
        or 2 * len(set(data)) < len(data)
    ):
        return True
    digits = bytes(int(digit, 16) for digit in text)
    steps = [_differences(data, lag, 256) for lag in (1, 2, 4)]
    turns = [_differences(digits, lag, 16) for lag in (1, 2, 4, 8)]
    return any(_repeats(each, least=2) for each in (data, *steps, _differences(steps[0], 1, 256))) or any(
        _repeats(each) for each in (digits, *turns)
    )


def _differences(units: bytes, lag: int, modulus: int) -> bytes:
    return bytes((later - earlier) % modulus for earlier, later in zip(units, units[lag:], strict=False))


def _repeats(units: bytes, *, least: int = 4) -> bool:
    """Return whether at least half of a text is made of pieces of ``least`` units or more that occur earlier in it."""
    units = units[: 2 * _JUDGED_BYTES]
    return 2 * sum(_repeated(units, least)) >= len(units)


def _repeated(units: bytes, least: int) -> Iterator[int]:
    """Yield the lengths of the pieces that repeat, or mirror, what came before."""
    at = 0
    while at + least <= len(units):
        size = least if _occurs(units, at, least) else 0
        while size and at + size < len(units) and _occurs(units, at, size + 1):
            size += 1
        yield size
        at += size or 1


def _occurs(units: bytes, at: int, size: int) -> bool:
    piece = units[at : at + size]
    return piece in units[: at + size - 1] or piece[::-1] in units[:at]


def _decoded(text: bytes) -> bytes:
    """Return the bytes that base64 of either alphabet stands for; a last character that holds less than one is left."""
    plain = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    return base64.b64decode(plain + b"=" * (-len(plain) % 4))
