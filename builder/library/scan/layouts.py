"""Layouts that the names of image files suggest: which part of a path is a patient, a visit or a kind of image."""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from builder.model.places import stem_of, suffix_of

MASK_FOLDERS: Final = frozenset(
    {"annotations", "derivatives", "label", "labels", "labelstr", "labelsts", "mask", "masks", "seg", "segmentation"}
    | {"segmentations"}
)
MASK_NAME: Final = re.compile(
    r"(?i)[-_. ][a-z]{0,3}(?:seg|segmentation|mask|labels?|gt|roi)s?(?:[-_.]?(?:manual|reader\d*|\d+))?$"
)

_PATIENT = re.compile(r"(?i)(?:sub|subj|subject|pat|patient|pt|case|person|participant)[-_ ]?[a-z]{0,3}\d+")
"""A folder or beginning of a name that calls itself a patient."""

_DATE = r"(?:\d{4}-?\d{2}-?\d{2}|\d{2}-\d{2}-\d{4})"
_VISIT = re.compile(
    rf"(?i)(?:(?:ses|session|study|visit|scan|tp|timepoint|fu|followup|day|week|month|year)[-_ ]?\d+|baseline|{_DATE})"
)
_NUMBERED = re.compile("[0-9-]+")

_NOBODY: Final = frozenset(
    {"all", "anat", "data", "dataset", "image", "images", "imagestr", "imagests", "img", "imgs", "nifti", "raw"}
    | {"scans", "test", "train", "training", "val", "valid", "validation", "volumes"}
)
"""Names of folders that are no patient's."""

MOST_KINDS: Final = 8
"""Kinds of image that a pattern lists, so that masks beside them do not fit."""


def suggested(places: Sequence[str], documents: Sequence[str]) -> str:
    """Return a layout to start from, by the names of files alone; "" without images.

    Parameters
    ----------
    places
        Of all image files that are not DICOM, masks among them.
    documents
        Places of JSON files.
    """
    if not places:
        return ""
    names = {posixpath.basename(place) for place in documents}
    if "dataset_description.json" in names:
        return "bids"
    trained = [place for place in places if "imagesTr" in place.split("/")]
    if "dataset.json" in names and trained:
        stems = [place.removesuffix(suffix_of(place)) for place in trained]
        return "nnunet" if all(stem[-5:-4] == "_" and stem[-4:].isdigit() for stem in stems) else "msd"
    masks = [place for place in places if is_mask(place)]
    images = [place for place in places if not is_mask(place)] or list(places)
    suffix = Counter(suffix_of(place) for place in images).most_common(1)[0][0]
    mine = [place for place in images if place.endswith(suffix)]
    return f'{{pattern: "{_pattern(_alike(mine, masks), masks, suffix)}", modality: CODE}}'


def is_mask(place: str) -> bool:
    """Return whether the name of a file or of a folder above it says that it is a mask."""
    return in_masks(place) or MASK_NAME.search("_" + stem_of(place)) is not None


def in_masks(place: str) -> bool:
    """Return whether a folder above a file says that masks lie in it."""
    return not MASK_FOLDERS.isdisjoint(place.lower().split("/")[:-1])


def _alike(images: Sequence[str], masks: Sequence[str]) -> list[str]:
    """Return the images at one depth: beside the folders of masks if there are any, else where most images are."""
    beside = {posixpath.dirname(posixpath.dirname(mask)) for mask in masks if in_masks(mask)} - {""}
    depths = Counter(place.count("/") for place in images if posixpath.dirname(place) in beside)
    depths = depths or Counter(place.count("/") for place in images)
    depth = depths.most_common(1)[0][0]
    return [place for place in images if place.count("/") == depth]


def _pattern(images: Sequence[str], masks: Sequence[str], suffix: str) -> str:
    folders = [place.split("/")[:-1] for place in images]
    stems = [stem_of(place) for place in images]
    inner = {posixpath.dirname(posixpath.dirname(mask)) for mask in masks if in_masks(mask)}
    fields = _folder_fields(folders, stems, inner)
    rests = list(stems)
    begun = ""
    for field, depth in fields.items():
        own = [folder[depth] for folder in folders]
        for sign in "_-":
            if all(rest.startswith(name + sign) for rest, name in zip(rests, own, strict=True)):
                rests = [rest[len(name) + 1 :] for rest, name in zip(rests, own, strict=True)]
                begun += f"{{{field}}}{sign}"
        if rests == own:
            rests, begun = [""] * len(rests), begun + f"{{{field}}}"
    if "patient" not in fields:
        name = _numbered(stems, [stem_of(mask) for mask in masks])
    else:
        own_names = not begun and len({tuple(folder) for folder in folders}) == len(folders) == len({*rests}) > 1
        homes = {posixpath.dirname(place) for place in images}
        beside = any(posixpath.dirname(mask) in homes for mask in masks)
        name = "*" if own_names else begun + _rest(rests, visit="visit" not in fields, beside=beside)
    return f"{_lead(folders, fields, masks=bool(masks))}{name}{suffix}"


def _folder_fields(folders: Sequence[Sequence[str]], stems: Sequence[str], inner: Collection[str]) -> dict[str, int]:
    """Return the depth of the folder that is the patient's, and of the visit's; nothing where files lie side by side.

    Parameters
    ----------
    inner
        Folders in which folders of masks lie.
    """
    last = len(folders[0]) - 1
    while last >= 0 and all(folder[last].lower() in _NOBODY for folder in folders):
        last -= 1
    if last < 0:
        return {}
    if last > 0 and all(_VISIT.fullmatch(folder[last]) for folder in folders):
        return {"patient": last - 1, "visit": last}
    own = {tuple(folder[: last + 1]) for folder in folders}
    pairs = list(zip(stems, folders, strict=True))
    named = all(stem == f[last] or stem.startswith((f"{f[last]}_", f"{f[last]}-")) for stem, f in pairs)
    repeated = len({*stems}) < len(stems)
    alone = len(own) == len(folders) > 1
    around = all("/".join(folder) in inner for folder in folders)
    if named or repeated or alone or around or all(_PATIENT.match(folder[last]) for folder in folders):
        return {"patient": last}
    return {}


def _rest(rests: Sequence[str], *, visit: bool, beside: bool) -> str:
    """Return what the rest of a name says: a visit and a kind of image, told from masks where these lie beside them."""
    if not any(rests):
        return ""
    before = ""
    firsts = [rest.partition("_")[0] for rest in rests]
    dated = all(_VISIT.fullmatch(first) or _NUMBERED.fullmatch(first) for first in firsts)
    if visit and dated and all("_" in rest for rest in rests):
        before, rests = "{visit:" + _allowed(firsts) + "}_", [rest.partition("_")[2] for rest in rests]
    return f"{before}{{image{_kinds(rests) if beside else ''}}}"


def _allowed(firsts: Sequence[str]) -> str:
    return "[0-9-]+" if all(_NUMBERED.fullmatch(first) for first in firsts) else "[^_]+"


def _kinds(rests: Sequence[str]) -> str:
    """Return what an image may be named, where masks lie among the images and few names are enough."""
    kinds = sorted({*rests})
    few = len(kinds) <= MOST_KINDS and all(re.fullmatch(r"[\w-]+", kind) for kind in kinds)
    return ":" + "|".join(kinds) if few else ""


def _lead(folders: Sequence[Sequence[str]], fields: Mapping[str, int], *, masks: bool) -> str:
    """Return the folders of the pattern: fixed where masks in other folders must not fit."""
    names = {depth: f"{{{field}}}" for field, depth in fields.items()}
    depth = len(folders[0])
    first = min(names, default=depth)
    above = [{folder[level] for folder in folders} for level in range(first)]
    if masks:
        lead = "".join(f"{level.pop()}/" if len(level) == 1 and _is_plain(*level) else "*/" for level in above)
    else:
        lead = "**/" if above else ""
    return lead + "".join(f"{names.get(level, '*')}/" for level in range(first, depth))


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[\w. -]+", name) is not None


def _numbered(stems: Sequence[str], masks: Sequence[str]) -> str:
    """Return who and what files are that lie beside each other: a number that several begin with is a patient's."""
    firsts, _, rests = zip(*(stem.partition("_") for stem in stems), strict=True)
    numbered = all(rests) and all(re.search("[0-9]", first) for first in firsts)
    if numbered and 1 < len({*firsts}) < len(firsts):
        visit = all(_NUMBERED.fullmatch(rest) for rest in rests)
        kinds = _kinds(rests) if masks else ""
        return "{patient:[^_]+}_" + ("{visit:[0-9-]+}" if visit else f"{{image{kinds}}}")
    if not masks:
        return "{patient}"
    shapes = {re.sub("[0-9]+", "[0-9]+", stem) if re.fullmatch(r"[\w-]+", stem) else "" for stem in stems}
    shape = shapes.pop() if len(shapes) == 1 else "[^_]+" if not any("_" in stem for stem in stems) else ""
    return f"{{patient:{shape}}}" if shape and not any(re.fullmatch(shape, mask) for mask in masks) else "{patient}"


_COLUMNS: Final = {
    "patient": re.compile(r"(?i)patient|subject|person|participant|\bpid\b|^(?:case|image)?[-_ ]?(?:id|name)$|^case$"),
    "visit": re.compile(r"(?i)visit|session|time.?point"),
    "split": re.compile(r"(?i)^(?:split|fold|set|subset)$"),
}
"""Headings that say who and what a row is of; of several that fit, the kind of word that stands first here counts."""

_MASK_HEADING: Final = re.compile(r"(?i)(?:^|[^a-z])(?:mask|label|seg|segmentation|annotation|gt|roi)s?(?:$|[^a-z])")


def tabled(path: str, headings: Sequence[str], paths: Mapping[str, int], *, images: int) -> str:
    """Return the layout of a table that lists the images; "" where it lists less than half of them.

    Parameters
    ----------
    path
        Of the table.
    paths
        How many files here the column of a heading leads to, by heading.
    images
        Number of image files that are no masks by their names.
    """
    labels = [heading for heading in paths if _MASK_HEADING.search(heading) and paths[heading]]
    columns = [heading for heading in paths if heading not in labels and paths[heading]]
    if not columns or 2 * sum(paths.values()) < images:
        return ""
    others = [heading for heading in headings if heading not in paths]
    found = {name: next((h for h in others if said.search(h)), None) for name, said in _COLUMNS.items()}
    patient = min((h for h in others if _COLUMNS["patient"].search(h)), key=_rank, default=None)
    if patient is None:
        return ""
    options: dict[str, object] = {"table": path, "path": columns[0] if len(columns) == 1 else columns}
    options |= {name: heading for name, heading in {**found, "patient": patient}.items() if heading}
    if labels:
        options["labels"] = labels[0] if len(labels) == 1 else labels
    written = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in options.items())
    return f"{{{written}, modality: CODE}}"


def _rank(heading: str) -> int:
    """Return how far a heading is from naming a patient: words for persons stand before words for rows."""
    return 0 if re.search(r"(?i)patient|subject|person|participant|\bpid\b", heading) else 1
