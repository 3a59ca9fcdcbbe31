"""Licences: their normalised names, their addresses, and the result of combining data under several of them."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

CREATIVE_COMMONS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    **{
        f"CC-{kind}-{version}": f"https://creativecommons.org/licenses/{kind.lower()}/{version}/"
        for kind in ("BY", "BY-SA", "BY-NC", "BY-ND", "BY-NC-SA", "BY-NC-ND")
        for version in ("1.0", "2.0", "2.5", "3.0", "4.0")
    },
}

OPEN: Mapping[str, frozenset[str]] = {
    **{name: frozenset({"BY"}) for name in ("MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause")},
    **{name: frozenset({"BY"}) for name in ("ODC-By-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0")},
    **{name: frozenset({"BY", "SA"}) for name in ("ODbL-1.0", "CDLA-Sharing-1.0")},
    "PDDL-1.0": frozenset(),
}
"""Licences that are judged beside Creative Commons': SPDX identifier to what they ask, in Creative Commons' letters."""

_WORDS = {
    "attribution": "BY",
    "noncommercial": "NC",
    "non-commercial": "NC",
    "sharealike": "SA",
    "share-alike": "SA",
    "noderivatives": "ND",
    "noderivs": "ND",
    "no-derivatives": "ND",
}
_SAYS_NOTHING = frozenset(
    ("creative", "commons", "public", "license", "licence", "unported", "international", "generic")
)
_ORDER = ("BY", "NC", "SA", "ND")
_VERSION = re.compile(r"(\d\.\d)")


@cache
def normal(name: str | None) -> str | None:
    """Return the SPDX identifier of a licence this module judges, from its name, address or identifier; else None."""
    text = (name or "").strip()
    known = {k.lower(): k for k in (*CREATIVE_COMMONS, *OPEN)}
    tidy = re.sub(r"[\s_-]+", "-", text.lower())
    if tidy in known:
        return known[tidy]
    by_address = {re.sub(r"^https?://(www\.)?", "", a): k for k, a in CREATIVE_COMMONS.items()}
    address = re.sub(r"^https?://(www\.)?", "", text.lower())
    for start, found in by_address.items():
        if address == start.rstrip("/") or address.startswith(start):
            return found
    return _spelled_out(text.lower(), known)


def license_url(name: str) -> str:
    """Return the licence's address: Creative Commons' own, or SPDX's for anything that looks like its identifiers."""
    if name.startswith("http"):
        return name
    found = normal(name)
    if found in CREATIVE_COMMONS:
        return CREATIVE_COMMONS[found]
    name = found or name
    if name and all(c.isalnum() or c in ".-+" for c in name):
        return f"https://spdx.org/licenses/{name}"
    return name


def combine(licenses: Iterable[str | None]) -> tuple[str, ...]:
    """Return what the licences of all sources require of the combined data, in words.

    Unknown licences are named and not guessed. Contradictions are reported as sentences of the result, not raised.
    """
    found = sorted({normal(x) or x or "not stated" for x in licenses})
    parts = {x: _asks(x) for x in found if normal(x) is not None}
    says = []
    unknown = [x for x in found if x not in parts]
    if unknown:
        says.append(f"read by a person before publication: {', '.join(unknown)}")
    if any("ND" in p for p in parts.values()):
        says.append("adaptations must not be shared: a source is under a no-derivatives licence")
    if any("NC" in p for p in parts.values()):
        says.append("commercial use is not allowed: a source is under a non-commercial licence")
    alike = sorted(x for x, p in parts.items() if "SA" in p)
    if len({x.rsplit("-", 1)[0] for x in alike}) > 1:
        says.append(f"share-alike licences contradict each other: {', '.join(alike)}")
    elif alike:
        says.append(f"the whole must be shared under {alike[-1]} or a later version")
    if any("BY" in p for p in parts.values()):
        says.append("name the authors of every source")
    return tuple(says)


def conflicts(own: str, sources: Iterable[str | None]) -> tuple[str, ...]:
    """Return where a dataset's own licence grants what a source's does not; nothing where that is not known."""
    if normal(own) is None:
        return ()
    mine = _asks(own)
    found = []
    for name in sorted({n for x in sources if (n := normal(x)) is not None}):
        asks = _asks(name)
        if "ND" in asks:
            found.append(f"{name} does not allow adaptations to be shared, whatever their licence")
        elif "SA" in asks and name.rsplit("-", 1)[0] != str(normal(own)).rsplit("-", 1)[0]:
            found.append(f"{name} must be shared alike, not under {own}")
        elif "NC" in asks and "NC" not in mine:
            found.append(f"{name} allows no commercial use, {own} does")
        elif "BY" in asks and "BY" not in mine:
            found.append(f"{name} asks for its authors to be named, {own} does not")
    return tuple(found)


def forbids_commercial_use(name: str | None) -> str | None:
    """Return why commercial use of data under a licence is not proven, or None if it is."""
    found = normal(name)
    if found is None:
        return "is not one this program can judge" if name else "is not stated"
    refused = {"NC": "allows no commercial use", "ND": "allows no adaptations"}
    return next((why for letters, why in refused.items() if letters in _asks(found)), None)


def allows_commercial_use(licenses: Iterable[str | None]) -> bool:
    """Return whether every licence is known and has neither NC nor ND; an unknown one proves nothing."""
    names = list(licenses)
    return bool(names) and all(forbids_commercial_use(name) is None for name in names)


def _asks(name: str) -> frozenset[str]:
    """Return the letters of a judged licence: BY, NC, SA, ND."""
    found = normal(name) or ""
    return OPEN[found] if found in OPEN else frozenset(found.split("-")) & frozenset(_ORDER)


def _spelled_out(text: str, known: Mapping[str, str]) -> str | None:
    """Return names such as ``Creative Commons Attribution-NonCommercial 4.0 International``."""
    version = _VERSION.search(text)
    if "creative commons" not in text or version is None:
        return None
    text = re.sub(r"(attribution|noncommercial)-(?=no|share)", r"\1 ", text)
    words = set(re.findall(r"[a-z-]+", text)) - _SAYS_NOTHING
    if not words <= _WORDS.keys():
        return None  # a word that may forbid something
    letters = {_WORDS[w] for w in words}
    kind = "-".join(x for x in _ORDER if x in letters)
    return known.get(f"cc-{kind}-{version[1]}".lower())
