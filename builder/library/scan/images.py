"""Image files that no layout makes images: grouped by format and shape, with a layout that would read them."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder.errors import BuilderError
from builder.files import PICTURES, VOLUMES, FileFacts, read_facts
from builder.model.places import place_of, stem_of, suffix_of
from builder.planning.inventory import Inventory
from builder.sources import AnySource
from builder.stages.listed import Listed

MOST_OPENED: Final = 500
"""Files of one format whose headers are read, spread over the archive; the others are counted."""

HEADER_BYTES: Final = 64 * 2**10
PICTURE_BYTES: Final = 16 * 2**20
"""A larger picture is counted without being decoded."""

COLUMNS: Final = ("status", "format", "source", "path", "member", "size", "stamp")


@dataclass(frozen=True)
class ImageFiles:
    """Files of one format, shape and type of voxels.

    Parameters
    ----------
    shape
        (slices, rows, columns), and the number of values a voxel if there are several; empty where headers were not
        read.
    layer_kind
        What several values a voxel are: ``volumes``, ``vector`` or ``colour``; else "".
    spacing_mm
        Between slices, rows and columns; empty for pictures, and where the grid is refused.
    problem
        Why the files cannot be images, or that they were not opened; empty if they can.
    """

    format: str
    shape: tuple[int, ...]
    dtype: str
    spacing_mm: tuple[float, ...]
    layer_kind: str
    problem: str
    files: int
    example: str

    def facts(self) -> dict[str, Any]:
        """Return them as JSON-able data."""
        return {
            "format": self.format, "shape": list(self.shape), "dtype": self.dtype,
            "spacing_mm": list(self.spacing_mm), "layer_kind": self.layer_kind, "problem": self.problem,
            "files": self.files, "example": self.example,
        }  # fmt: skip


DOCUMENT: Final = {"bids": "dataset_description.json", "nnunet": "dataset.json", "msd": "dataset.json"}
"""The document at the root of a dataset, by layout."""

MASK_FOLDERS: Final = frozenset(
    {"annotations", "derivatives", "label", "labels", "labelstr", "labelsts", "mask", "masks", "seg", "segmentation"}
    | {"segmentations"}
)
MASK_NAME: Final = re.compile(r"(?i)[-_.](?:seg|segmentation|mask|labels?|gt|roi)$")


def image_files(inventory: Inventory, sources: Sequence[AnySource]) -> tuple[list[ImageFiles], str, tuple[str, ...]]:
    """Return the groups, the largest first, and the layout that fits the paths, with the folders that it holds for.

    The layout is "" where there are no such files.
    """
    table = inventory.annotations(columns=list(COLUMNS))
    files = [Listed.of(row) for row in table.to_pylist() if row["status"] == "file"]
    images = [file for file in files if file.format in VOLUMES | PICTURES]
    images.sort(key=lambda image: (image.source, image.path, image.member))
    counted: Counter[tuple[Any, ...]] = Counter()
    examples: dict[tuple[Any, ...], str] = {}
    for form in sorted({image.format for image in images}):
        mine = [image for image in images if image.format == form]
        step = -(-len(mine) // MOST_OPENED)
        for number, image in enumerate(mine):
            kind = (
                form,
                *(_kind(image, sources) if number % step == 0 else ((), "", (), "", "not opened: one of many")),
            )
            counted[kind] += 1
            examples.setdefault(kind, image.place)
    groups = []
    for kind, count in counted.items():
        form, shape, dtype, spacing_mm, layer_kind, problem = kind
        groups.append(ImageFiles(form, shape, dtype, spacing_mm, layer_kind, problem, count, examples[kind]))
    groups.sort(key=lambda group: (-group.files, group.format, group.shape, group.example))
    documents = [place_of(file.path, file.member) for file in files if file.format == "json"]
    layout = suggested([place_of(image.path, image.member) for image in images], documents)
    roots = {posixpath.dirname(p) for p in documents if posixpath.basename(p) == DOCUMENT.get(layout)}
    return groups, layout, tuple(sorted(root for root in roots if not _in_masks(f"{root}/x")))


def image_lines(groups: Iterable[ImageFiles], layout: str) -> Iterator[str]:
    """Yield what a terminal shows of them."""
    for group in groups:
        shape = " x ".join(map(str, group.shape[:3]))
        if len(group.shape) > 3:
            shape = f"{group.shape[3]} {LAYERS[group.layer_kind]} {shape}"
        spacing = f", {' x '.join(f'{s:.4g}' for s in group.spacing_mm)} mm" if group.spacing_mm else ""
        what = " ".join(filter(None, (shape, group.dtype))) + spacing
        told = "; ".join(filter(None, (what, group.problem)))
        yield f"  {group.files} {group.format}: {told}, such as {group.example}"
    if layout:
        yield f"  to read them as images, for instance: layout: {layout}"


LAYERS: Final = {
    "volumes": "volumes of",
    "vector": "values a voxel (vector) of",
    "colour": "values a voxel (colour) of",
}
"""How several values a voxel are told."""


def suggested(images: Sequence[str], documents: Sequence[str]) -> str:
    """Return a layout to start from, by the names of files alone; "" without images."""
    if not images:
        return ""
    names = {posixpath.basename(place) for place in documents}
    if "dataset_description.json" in names:
        return "bids"
    trained = any("imagesTr" in place.split("/") for place in images)
    if "dataset.json" in names and trained:
        stems = [place.removesuffix(suffix_of(place)) for place in images if "imagesTr" in place.split("/")]
        return "nnunet" if all(stem[-5:-4] == "_" and stem[-4:].isdigit() for stem in stems) else "msd"
    masks = [place for place in images if _is_mask(place)]
    images = [place for place in images if not _is_mask(place)] or images
    suffix = Counter(suffix_of(place) for place in images).most_common(1)[0][0]
    mine = [place for place in images if place.endswith(suffix)]
    depth = Counter(place.count("/") for place in mine).most_common(1)[0][0]
    if depth == 0:
        return f'{{pattern: "{_numbered(mine)}{suffix}", modality: CODE}}'
    deep = [place for place in mine if place.count("/") == depth]
    lead = "*/" * (depth - 1) if masks else "**/"  # masks in deeper folders must not fit
    if all(posixpath.basename(place).startswith(place.split("/")[-2] + "_") for place in deep):
        rests = [stem_of(place).removeprefix(place.split("/")[-2] + "_") for place in deep]
        visit = "{visit:[0-9-]+}_" if all(re.match(r"[0-9-]+_", rest) for rest in rests) else ""
        return f'{{pattern: "{lead}{{patient}}/{{patient}}_{visit}{{image}}{suffix}", modality: CODE}}'
    if all(stem_of(posixpath.basename(place)) == place.split("/")[-2] for place in deep):
        return f'{{pattern: "{lead}{{patient}}/{{patient}}{suffix}", modality: CODE}}'
    repeated = len({posixpath.basename(place) for place in deep}) < len(deep)
    alone = len({posixpath.dirname(place) for place in deep}) == len(deep)
    if alone and not repeated and len(deep) > 1:  # names that differ for every patient say nothing about the image
        return f'{{pattern: "{lead}{{patient}}/*{suffix}", modality: CODE}}'
    if repeated or alone:
        return f'{{pattern: "{lead}{{patient}}/{{image}}{suffix}", modality: CODE}}'
    return f'{{pattern: "**/{_numbered(deep)}{suffix}", modality: CODE}}'


def _numbered(places: Sequence[str]) -> str:
    """Return who and what files are that lie beside each other: a number that several begin with is a patient's."""
    firsts, _, rests = zip(*(stem_of(place.split("/")[-1]).partition("_") for place in places), strict=True)
    numbered = all(rests) and all(re.search("[0-9]", first) for first in firsts)
    if not numbered or not 1 < len({*firsts}) < len(firsts):
        return "{patient}"
    visit = all(re.fullmatch("[0-9-]+", rest) for rest in rests)
    return "{patient:[^_]+}_" + ("{visit:[0-9-]+}" if visit else "{image}")


def _is_mask(place: str) -> bool:
    """Return whether the name of a file says that it is a mask."""
    return _in_masks(place) or MASK_NAME.search(stem_of(place)) is not None


def _in_masks(place: str) -> bool:
    return not MASK_FOLDERS.isdisjoint(place.lower().split("/")[:-1])


def _kind(image: Listed, sources: Sequence[AnySource]) -> tuple[tuple[int, ...], str, tuple[float, ...], str, str]:
    picture = image.format in PICTURES
    if picture and image.size > PICTURE_BYTES:
        return (), "", (), "", "not opened: too large"
    try:
        length = image.size if picture else min(HEADER_BYTES, image.size)
        facts = read_facts(sources[image.source].read(image.entry, length=length))
    except BuilderError as error:
        return (), "", (), "", str(error)
    shape = (*facts.shape, *([facts.layers] if facts.layers > 1 else []))
    return shape, facts.dtype.lstrip("<>|="), _spacing(facts), facts.layer_kind, facts.fault


def _spacing(facts: FileFacts) -> tuple[float, ...]:
    if facts.affine is None:
        return ()
    return tuple(round(sum(row[axis] ** 2 for row in facts.affine[:3]) ** 0.5, 4) for axis in range(3))
