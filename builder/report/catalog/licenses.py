"""Licences: their addresses, and what follows when data under several of them are combined."""

from collections.abc import Iterable

CREATIVE_COMMONS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    **{
        f"CC-{kind}-{version}": f"https://creativecommons.org/licenses/{kind.lower()}/{version}/"
        for kind in ("BY", "BY-SA", "BY-NC", "BY-ND", "BY-NC-SA", "BY-NC-ND")
        for version in ("2.0", "3.0", "4.0")
    },
}


def license_url(name: str) -> str:
    """The licence's address: Creative Commons' own, or SPDX's for anything that looks like its identifiers."""
    tidy = "-".join(name.replace(" ", "-").split("-")).strip("-")
    if name.startswith("http"):
        return name
    if tidy.upper() in CREATIVE_COMMONS:
        return CREATIVE_COMMONS[tidy.upper()]
    if name and all(c.isalnum() or c in ".-+" for c in name):
        return f"https://spdx.org/licenses/{name}"
    return name


def combine(licenses: Iterable[str | None]) -> tuple[str, ...]:
    """What the licences of all sources ask of the whole, in words; unknown ones are named, never guessed.

    Only Creative Commons licences are judged. Raises nothing: contradictions are sentences of the result.
    """
    found = sorted({x or "not stated" for x in licenses})
    known = [x for x in found if _normal(x) in CREATIVE_COMMONS]
    parts = {x: set(_normal(x).split("-")) for x in known}
    says = []
    unknown = [x for x in found if x not in known]
    if unknown:
        says.append(f"read by a person before publication: {', '.join(unknown)}")
    if any("ND" in p for p in parts.values()):
        says.append("adaptations must not be shared: a source is under a no-derivatives licence")
    if any("NC" in p for p in parts.values()):
        says.append("commercial use is not allowed: a source is under a non-commercial licence")
    alike = sorted(x for x, p in parts.items() if "SA" in p)
    if len({_normal(x).rsplit("-", 1)[0] for x in alike}) > 1:
        says.append(f"share-alike licences contradict each other: {', '.join(alike)}")
    elif alike:
        says.append(f"the whole must be shared under {alike[-1]} or a later version")
    if any("BY" in p for p in parts.values()):
        says.append("name the authors of every source")
    return tuple(says)


def allows_commercial_use(licenses: Iterable[str | None]) -> bool:
    """Whether every licence is a Creative Commons one without NC or ND; anything unknown is not proven."""
    parts = [_normal(x or "") for x in licenses]
    return bool(parts) and all(p in CREATIVE_COMMONS and not {"NC", "ND"} & set(p.split("-")) for p in parts)


def _normal(name: str) -> str:
    return name.upper().replace(" ", "-")
