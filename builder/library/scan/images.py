"""Image files that no layout makes images, grouped by format and shape, with the layout that would read them."""

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder.errors import BuilderError
from builder.files import PICTURES, VOLUMES, FileFacts, read_facts
from builder.library.scan.layouts import in_masks, is_mask, suggested
from builder.model.places import place_of
from builder.planning.inventory import Inventory
from builder.sources import AnySource
from builder.stages.index_files import voxels_missing
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
    images: int
    """Files that are no masks by their names."""

    def facts(self) -> dict[str, Any]:
        """Return them as JSON-able data."""
        return {
            "format": self.format, "shape": list(self.shape), "dtype": self.dtype,
            "spacing_mm": list(self.spacing_mm), "layer_kind": self.layer_kind, "problem": self.problem,
            "files": self.files, "example": self.example,
        }  # fmt: skip


DOCUMENT: Final = {"bids": "dataset_description.json", "nnunet": "dataset.json", "msd": "dataset.json"}
"""The document at the root of a dataset, by layout."""


def image_files(inventory: Inventory, sources: Sequence[AnySource]) -> tuple[list[ImageFiles], str, tuple[str, ...]]:
    """Return the groups, the largest first, and the layout that fits the paths, with the folders that it holds for.

    The layout is "" where there are no such files.
    """
    table = inventory.annotations(columns=list(COLUMNS))
    files = [Listed.of(row) for row in table.to_pylist() if row["status"] == "file"]
    images = [file for file in files if file.format in VOLUMES | PICTURES]
    images.sort(key=lambda image: (image.source, image.path, image.member))
    counted: Counter[tuple[Any, ...]] = Counter()
    named: Counter[tuple[Any, ...]] = Counter()
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
            named[kind] += not is_mask(image.place)
            examples.setdefault(kind, image.place)
    groups = []
    for kind, count in counted.items():
        form, shape, dtype, spacing_mm, layer_kind, problem = kind
        groups.append(
            ImageFiles(form, shape, dtype, spacing_mm, layer_kind, problem, count, examples[kind], named[kind])
        )
    groups.sort(key=lambda group: (-group.files, group.format, group.shape, group.example))
    documents = [place_of(file.path, file.member) for file in files if file.format == "json"]
    layout = suggested([place_of(image.path, image.member) for image in images], documents)
    roots = {posixpath.dirname(p) for p in documents if posixpath.basename(p) == DOCUMENT.get(layout)}
    return groups, layout, tuple(sorted(root for root in roots if not in_masks(f"{root}/x")))


def image_lines(groups: Sequence[ImageFiles], layout: str) -> Iterator[str]:
    """Yield what a terminal shows of them: a line for each group, or one for groups that differ only in their grid."""
    alike: dict[tuple[str, str, str, str, int], list[ImageFiles]] = {}
    for group in groups:
        key = (group.format, group.dtype, group.layer_kind, group.problem, len(group.shape))
        alike.setdefault(key, []).append(group)
    for mine in alike.values():
        for some in [mine] if len(mine) > MOST_SHAPES else [[group] for group in mine]:
            yield _image_line(some)
    if layout:
        yield f"  to read them as images, for instance: layout: {layout}"


MOST_SHAPES: Final = 6
"""Grids of one format and type of voxels that a terminal shows, each in its line; --json has all."""


def _image_line(groups: Sequence[ImageFiles]) -> str:
    first = groups[0]
    shape = " x ".join(_span([group.shape[axis] for group in groups]) for axis in range(min(len(first.shape), 3)))
    if len(first.shape) > 3:
        shape = f"{_span([group.shape[3] for group in groups])} {LAYERS[first.layer_kind]} {shape}"
    distances = [group.spacing_mm for group in groups if group.spacing_mm]
    spacing = f", {' x '.join(map(_span, zip(*distances, strict=True)))} mm" if distances else ""
    told = "; ".join(filter(None, (" ".join(filter(None, (shape, first.dtype))) + spacing, first.problem)))
    several = f" ({len(groups)} different grids)" if len(groups) > 1 else ""
    return f"  {sum(group.files for group in groups)} {first.format}: {told}{several}, such as {first.example}"


def _span(values: Sequence[float]) -> str:
    least, most = f"{min(values):.4g}", f"{max(values):.4g}"
    return least if least == most else f"{least}-{most}"


LAYERS: Final = {
    "volumes": "volumes of",
    "vector": "values a voxel (vector) of",
    "colour": "values a voxel (colour) of",
}
"""How several values a voxel are told."""


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
    problem = facts.fault or ("" if picture else voxels_missing(facts, image.size))
    return shape, facts.dtype.lstrip("<>|="), _spacing(facts), facts.layer_kind, problem


def _spacing(facts: FileFacts) -> tuple[float, ...]:
    if facts.affine is None:
        return ()
    return tuple(round(sum(row[axis] ** 2 for row in facts.affine[:3]) ** 0.5, 4) for axis in range(3))
