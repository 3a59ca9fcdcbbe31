"""Where the masks of images lie, by the paths of both: what a mask label would say to find them."""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder.labels.mask import FORMATS
from builder.library.scan.layouts import is_mask
from builder.model.places import place_of, stem_of, suffix_of
from builder.planning.inventory import Inventory

MOST_IMAGES: Final = 2000
"""Series that are compared with the paths of masks, by order of appearance."""

MOST_TRIED: Final = 20
"""Images of which the place of their masks is worked out; it is then tried on all of them."""

COLUMNS: Final = (
    *("series_uid", "study_uid", "patient_id", "accession_number", "source", "path", "member", "format"),
    *("layout", "visit", "image", "modality"),
)
NAMING: Final = ("series", "study", "accession", "stem", "patient", "visit", "image")
"""Facts of an image that the name of its mask may hold, the most telling first."""


_ELSEWHERE: Final = re.compile(r"(?i)(?:^|[_/])space-(?!orig|native|scanner|individual|t1w|t2w)")
"""BIDS's word for a space that is not the images' own, such as an atlas: a mask there does not lie on the images."""


@dataclass(frozen=True)
class Masks:
    """Files that are masks of the images by their paths.

    Parameters
    ----------
    match
        The pattern of their paths, as a mask label takes it.
    structures
        What ``{structure}`` in ``match`` stands for, where each structure has a file of its own; else empty.
    images, of
        How many images have such a file, of how many that were compared.
    kinds
        Modality and name of the images that have one, each "" where nobody states it.
    """

    match: str
    structures: tuple[str, ...]
    images: int
    of: int
    kinds: frozenset[tuple[str, str]]

    def facts(self) -> dict[str, Any]:
        """Return them as JSON-able data."""
        return {"match": self.match, "structures": list(self.structures), "images": self.images, "of": self.of}


@dataclass(frozen=True)
class _Image:
    """One series: its source, where it lies, and the facts that a pattern may be filled with."""

    source: int
    kind: tuple[str, str]
    facts: Mapping[str, str]


def masks_of(inventory: Inventory) -> Masks | None:
    """Return where most images have a mask, None where no path of a mask holds a fact of an image."""
    table = inventory.annotations(columns=["status", "format", "source", "path", "member"])
    places: dict[int, set[str]] = {}
    for row in table.to_pylist():
        place = place_of(row["path"], row["member"] or "")
        mask = suffix_of(place) and is_mask(place) and not _ELSEWHERE.search(place)
        if mask and row["status"] == "file" and row["format"] in FORMATS:
            places.setdefault(row["source"], set()).add(place)
    if not places:
        return None
    images = [image for image in _images(inventory) if image.source in places]
    step = -(-len(images) // MOST_TRIED) or 1
    found: Counter[str] = Counter()
    for image in images[::step]:
        found.update(set(_patterns(image, sorted(places[image.source]))))
    reached = {p: {n: path for n, i in enumerate(images) if (path := _filled(p, i)) in places[i.source]} for p in found}
    if not reached:
        return None
    match, names = _structures({pattern: len(paths) for pattern, paths in reached.items()})
    if names:
        each = [match.replace("{structure}", name) for name in names]
        mine = [image for image in images if any(_filled(p, image) in places[image.source] for p in each)]
    else:
        match = min(reached, key=lambda p: (-len({*reached[p].values()}), -len(reached[p]), len(p), p))
        mine = [images[number] for number in reached[match]]
    return Masks(match, names, len(mine), len(images), frozenset(image.kind for image in mine))


def mask_lines(masks: Masks | None) -> Iterator[str]:
    """Yield what a terminal shows of them."""
    if masks is not None:
        each = f", a file for each of {len(masks.structures)} structures" if masks.structures else ""
        yield f'  masks of {masks.images} of {masks.of} images: match: "{masks.match}"{each}'


def _images(inventory: Inventory) -> list[_Image]:
    """Return the first series of the archive, one entry each."""
    found: dict[str, _Image] = {}
    for number in range(len(inventory.chunks)):
        for row in inventory.chunk(number, columns=COLUMNS).to_pylist():
            if len(found) >= MOST_IMAGES:
                return list(found.values())
            if row["series_uid"] not in found:
                kind = (row["modality"] or "", row["image"] or "")
                found[row["series_uid"]] = _Image(row["source"], kind, _facts(row))
    return list(found.values())


def _facts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts of a series, by the names that ``match`` has for them."""
    laid = bool(row["layout"])
    place = place_of(row["path"], row["member"] or "") if laid else row["path"].replace("\\", "/")
    folder = posixpath.dirname(place)
    facts = {
        "folder": folder, "parent": posixpath.dirname(folder), "stem": stem_of(place) if laid else "",
        "series": row["series_uid"], "study": row["study_uid"], "patient": (row["patient_id"] or "").strip(),
        "accession": (row["accession_number"] or "").strip(), "visit": row["visit"], "image": row["image"],
    }  # fmt: skip
    own = json.loads(row["layout"])["fields"] if laid else {}
    return {name: value for name, value in {**facts, **own}.items() if value}


def _patterns(image: _Image, places: Sequence[str]) -> Iterator[str]:
    """Yield the patterns that lead from an image to masks: their paths with the image's own facts as fields."""
    named = [(name, image.facts[name]) for name in NAMING if name in image.facts]
    above = [(name, image.facts[name] + "/") for name in ("folder", "parent") if name in image.facts]
    for place in places:
        if not any(value in place for _, value in (*named, *above)):
            continue
        lead, rest = next((("{" + n + "}/", place[len(v) :]) for n, v in above if place.startswith(v)), ("", place))
        pattern = lead + _with_fields(rest, named)
        own = "{folder}" in pattern or any(f"{{{name}}}" in pattern for name in NAMING)
        if own and "{" not in rest and not re.search(r"[*?\[\]]", place):
            yield pattern


def _with_fields(text: str, named: Sequence[tuple[str, str]]) -> str:
    """Return a text in which the facts that stand as words of their own are fields."""
    parts: list[str] = [text]
    for name, value in named:
        cut = re.compile(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])")
        split: list[str] = []
        for part in parts:
            pieces = [part] if part.startswith("{") else cut.split(part)
            split += [
                piece for place, piece in enumerate(pieces) for piece in ([f"{{{name}}}"] * (place > 0) + [piece])
            ]
        parts = split
    return "".join(parts)


def _filled(pattern: str, image: _Image) -> str:
    """Return the path that a pattern means for an image, "" where the image lacks a fact."""
    names = re.findall(r"\{([a-z_0-9]+)\}", pattern)
    if any(name not in image.facts for name in names):
        return ""
    for name in names:
        pattern = pattern.replace(f"{{{name}}}", image.facts[name])
    return posixpath.normpath(pattern)


def _structures(counted: Mapping[str, int]) -> tuple[str, tuple[str, ...]]:
    """Return the pattern of files for one structure each, with the structures; none unless images have several."""
    grouped: dict[tuple[str, str], dict[str, int]] = {}
    for pattern, count in counted.items():
        folder, _, name = pattern.rpartition("/")
        suffix = suffix_of(name)
        held = re.fullmatch(r"((?:\{[a-z_]+\}[-_.])*)([^{}]+)", name.removesuffix(suffix))
        if held and is_mask(f"{folder}/x"):
            grouped.setdefault((f"{folder}/{held[1]}", suffix), {})[held[2]] = count
    if not grouped:
        return "", ()
    (lead, suffix), names = max(grouped.items(), key=lambda item: (len(item[1]), sum(item[1].values()), item[0]))
    return (f"{lead}{{structure}}{suffix}", tuple(sorted(names))) if len(names) > 1 else ("", ())
