"""How people write names and dates: accents, other scripts, words without spaces between them, months in words.

Names and texts are compared after ``fold``, so that an umlaut, its vowel alone and letters of full width are one, and
so is a name in Cyrillic and in Latin letters. Cyrillic and Greek become Latin by one scheme (``writing.txt``, close to
BGN/PCGN); other schemes give other spellings, which are not found.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import permutations
from typing import Final

_LETTERS, _NAMES_OF_MONTHS = (
    (files("builder.deid") / "writing.txt").read_text(encoding="utf-8").removeprefix("[[letters]]").split("[[months]]")
)
_LATIN: Final = {letter: "".join(latin) for entry in _LETTERS.split(",") for letter, *latin in [entry.split()]}
"""Letters that have no accent to lose, and the Latin letters that stand for them."""


class _Table(dict[int, str]):
    """Map a character after NFKD to its plain form; each is worked out once."""

    def __missing__(self, point: int) -> str:
        self[point] = found = _plain(chr(point))
        return found


def _plain(char: str) -> str:
    kind = unicodedata.category(char)
    if kind[0] == "M" or kind == "Cf":  # accents, vowel points, soft hyphens, marks of direction
        return ""
    if kind == "Nd":
        return str(unicodedata.digit(char))
    if "\u30a1" <= char <= "\u30f6":  # katakana as hiragana
        return chr(ord(char) - 0x60)
    if kind[0] == "L":
        lower = char.casefold()
        return _LATIN.get(lower, lower)
    if char in "\u2018\u2019\u02bc":
        return "'"
    return "-" if kind == "Pd" else char.lower() if char.isascii() else " "


_TABLE: Final = _Table()


def fold(text: str) -> str:
    """Return a text in lower case without accents, Cyrillic and Greek in Latin letters, digits as 0 to 9."""
    if text.isascii():
        return text.lower()
    # Composing afterwards puts the syllables of Hangul together again.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", text).translate(_TABLE))


def replace(pattern: re.Pattern[str], text: str, mark: str) -> str:
    """Return the text with ``mark`` in place of what the pattern finds in its folded form."""
    whole, folded = text, text.lower()
    places: Sequence[int] = range(len(text))
    if not text.isascii():
        whole = unicodedata.normalize("NFC", text)
        letters = [fold(char) for char in whole]
        folded = "".join(letters)
        places = [place for place, plain in enumerate(letters) for _ in plain]
    kept, start = [], 0
    for found in pattern.finditer(folded):
        if found.start() < found.end():
            kept += [whole[start : places[found.start()]], mark]
            start = places[found.end() - 1] + 1
    return "".join(kept) + whole[start:]


_UNSPACED = "\u3041-\u3096\u30fc\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\u3005\u0e00-\u0e7f"
UNSPACED_RUN: Final = re.compile(f"[{_UNSPACED}]+")
"""Letters of scripts that put no space between words, or put endings on names: Han, kana, Hangul, Thai."""


def unspaced_forms(name: tuple[str, ...]) -> Iterator[str]:
    """Return how a name is written in scripts without spaces: whole, in both orders, and each part of two letters."""
    if not all(UNSPACED_RUN.fullmatch(part) for part in name):
        return
    yield from (part for part in name if len(part) >= 2)
    yield from (first + second for first, second in permutations(name, 2))


_SPELLED = re.compile(r"(?<![^\W\d_])(?:[^\W\d_][ .-]{1,2}){3,}[^\W\d_](?![^\W\d_])")
_BETWEEN = re.compile(r"[ .-]+")


def unspell(folded: str) -> str:
    """Return a folded text with words that are written letter by letter ("s i m p s o n") as words."""
    return _SPELLED.sub(lambda match: _BETWEEN.sub("", match[0]), folded)


_WORD = re.compile(r"[^\W\d_]+")
_UMLAUTS = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("å", "aa"), ("ø", "oe"))


def spellings(name: str) -> Iterator[str]:
    """Return the folded words of a name: with ü as u and as ue, whichever of the two it is written with."""
    for lower in _WORD.findall(unicodedata.normalize("NFC", name).casefold()):
        yield fold(lower)
        expanded = contracted = lower
        for letter, pair in _UMLAUTS:
            expanded, contracted = expanded.replace(letter, pair), contracted.replace(pair, pair[0])
        yield fold(expanded)
        if len(contracted) >= 4:
            yield fold(contracted)


_MONTHS: Final = tuple(
    "|".join(sorted(map(fold, names.split()), key=len, reverse=True))
    for names in re.split(r"\n(?! )", _NAMES_OF_MONTHS.strip())
)
_ENGLISH = "jan|feb|mar|apr|jun|jul|aug|sept?|oct|okt|nov|dec|dez"
_MONTH = rf"(?:{'|'.join(_MONTHS)}|(?:{_ENGLISH})\b\.?)"
_YEAR = r"(?:1[89]|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_GAP = r"(?: ?[-/.:_'] ?|,| )"
_OF = r"[\W_]{0,3}(?:(?:of|de|del|di|den)\b[ ]?)?"
DATE: Final = re.compile(
    rf"(?<!\d){_YEAR}{_GAP}{_MONTH_NUMBER}{_GAP}{_DAY}(?!\d)"
    rf"|(?<!\d)(?:{_DAY}{_GAP}{_MONTH_NUMBER}|{_MONTH_NUMBER}{_GAP}{_DAY}){_GAP}{_YEAR}(?!\d)"
    r"|(?<![\d-])(?:0[1-9]|[12]\d|3[01])-(?:0[1-9]|1[0-2])-\d\d(?![\d-])"
    rf"|(?<!\d){_DAY}(?:st|nd|rd|th|er|o|a)?{_OF}{_MONTH}{_OF}(?:\d{{4}}|'?\d\d)(?!\d)"
    rf"|(?<![^\W\d_]){_MONTH}[\W_]{{0,2}}{_DAY}(?:st|nd|rd|th)?[\W_]{{0,2}}\d{{4}}(?!\d)"
    rf"|(?<!\d){_YEAR}[\W_]{{1,3}}{_MONTH}[\W_]{{0,2}}{_DAY}(?!\d)"
    rf"|(?<![^\W\d_])(?:{'|'.join(_MONTHS)}){_OF}{_YEAR}(?!\d)"
    rf"|(?<!\d){_DAY} ?[./ -] ?(?:i{{1,3}}|iv|vi{{0,3}}|ix|xi{{0,2}}) ?[./ -] ?{_YEAR}(?!\d)"
    r"|\d{1,4} ?[\u5e74\ub144] ?\d{1,2} ?[\u6708\uc6d4](?: ?\d{1,2})?"
)
"""Matches a date in folded text: numbers in each order, months in words of fifteen languages or Roman numbers, and the
years, months and days of Chinese, Japanese and Korean, those of eras too."""


def says_a_date(text: str) -> bool:
    """Return whether a text holds the shape of a date."""
    return DATE.search(fold(text)) is not None
