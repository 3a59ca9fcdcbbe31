"""A commented spec to start from, written from what a scan found: ``builder init``."""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Any, Final, Literal, get_args

from ruamel.yaml import YAML

from builder.library.scan import MASK_NAME, Scan
from builder.library.scan.beside import Table
from builder.library.scan.groups import Grid, Group
from builder.library.scan.masks import Masks
from builder.spec import KEY_PLACEHOLDER, LICENSE_PLACEHOLDER

Task = Literal["segmentation", "classification", "detection", "multimodal", "pretraining"]
TASKS: Final = get_args(Task)

UNKNOWN: Final = "unknown"
NO_IMAGES: Final = ("localizer", "screenshot", "MIP", "rendering", "bolus_tracking")
"""Types of series that are no image to train on."""

MOST_NAMES: Final = 12
"""Names of images that a comment lists."""

FEW_PERSONS: Final = 20
"""With fewer persons than this, the spec puts everybody into one split."""

_PAGE = """\
# yaml-language-server: $schema=schema.json
# A dataset for {task}, to start from. It was written from a scan of the archive; change whatever you like.
#   builder plan THIS_FILE --to DATASET      says what a build would do, and needs no licence yet
#   builder build THIS_FILE --to DATASET     builds it, once the two placeholders below are replaced
#   builder schema > schema.json             lets editors complete and explain every option: they read the first line
name: my-dataset
license: {license}  # PLACEHOLDER: the licence of your dataset, an SPDX identifier such as CC-BY-4.0
sources:
{source}cohort:
{cohort}{labels}deid:
  # PLACEHOLDER: where the secret behind all pseudonyms is, such as BUILDER_KEY in place of BUILDER_KEY_PLACEHOLDER.
  # Make one, keep it, and never write the secret itself into this file: openssl rand -hex 32
  patient_key: "{key}"
{reviewed}  retain: [series_type, plane]  # what may enter the tables beside what describes the grid: docs/privacy.md
transforms:
{transforms}samples: {samples}
splits: {splits}
"""

UNSTATED: Final = "OT"
"""Modality of pictures whose layout states none."""

FLAT: Final = ("projection", "still")
"""Verdicts of pictures, which no volume is made of."""


@dataclass(frozen=True)
class _Kind:
    """The images that the spec takes: all of one modality, and of one name where a layout gives names.

    Parameters
    ----------
    modality, image
        "" where nobody states one.
    flat
        Whether they are pictures and no volumes.
    names
        The names of all images of the modality, the most frequent first.
    grid
        The median grid of these images; None where none is known.
    """

    modality: str
    image: str
    flat: bool
    names: tuple[str, ...]
    grid: Grid | None = None


def starter_spec(
    found: Scan, url: str, task: Task, *, layout: Mapping[str, Any] | None = None, folders: Sequence[str] = ("",)
) -> str:
    """Return the text of a spec that plans without a change.

    Parameters
    ----------
    url
        The folder that was scanned.
    layout
        The layout with which it was scanned, if any (``starting_layout``).
    folders
        The folders below ``url`` that are datasets of this layout, each a source of its own.
    """
    label = _label(found, layout) if task in ("segmentation", "detection") else ""
    label = _classes(found.tables) if task == "classification" else label
    beside = found.masks if found.masks is not None and json.dumps(found.masks.match) in label else None
    kind = _most(found, beside.kinds if beside else None)
    if layout is not None and kind.modality == UNSTATED:
        kind = replace(kind, modality="")  # a condition on it would keep nothing once the layout states a modality
    labelled = label.startswith("labels:")
    images = _images(found) if task == "multimodal" else {}
    return _PAGE.format(
        task=task,
        license=LICENSE_PLACEHOLDER,
        source="".join(_source(url, folder, layout, kind) for folder in folders),
        key=KEY_PLACEHOLDER,
        cohort=_several(images) if images else _cohort(task, kind, _modalities(found), labelled=labelled),
        labels=label,
        reviewed=_REVIEWED.format(modality=kind.modality or UNSTATED) if found.text_risks or kind.flat else "",
        transforms=_transforms_of(images, _grid_of(found.groups, *next(iter(images.values()))))
        if images
        else _transforms(kind),
        samples=_samples(task, kind, labelled=labelled),
        splits="{ratios: {train: 1.0}}  # few persons; with more: {train: 0.7, validation: 0.15, test: 0.15}"
        if found.persons < FEW_PERSONS
        else "{ratios: {train: 0.7, validation: 0.15, test: 0.15}}",
    )


def starting_layout(found: Scan) -> dict[str, Any] | None:
    """Return the layout that a spec needs: none if there are DICOM images to use, or no other image files."""
    if any(group.usable or any(group.verdicts[verdict] for verdict in FLAT) for group in found.groups):
        return None
    if not found.layout.startswith("{"):
        return {"kind": found.layout} if found.layout else None
    return {name: value for name, value in YAML(typ="safe").load(found.layout).items() if name != "modality"}


def starting_folders(found: Scan, url: str) -> tuple[str, ...]:
    """Return the folders below ``url`` that are datasets of the layout, if there are several; else ``url`` itself."""
    several = len(found.layout_roots) > 1 and all(Path(url, root).is_dir() for root in found.layout_roots)
    return found.layout_roots if several else ("",)


def written(layout: Mapping[str, Any]) -> str:
    """Return a layout as a spec writes it."""
    if "kind" in layout:
        return str(layout["kind"])
    return f"{{{', '.join(f'{name}: {json.dumps(value, ensure_ascii=False)}' for name, value in layout.items())}}}"


_REVIEWED: Final = """\
  # reviewed: [{modality}]  # pictures may show names: a build leaves them out until somebody has looked and says so
"""


def _source(url: str, folder: str, layout: Mapping[str, Any] | None, kind: _Kind) -> str:
    if layout is None:
        return f"  - {{kind: folder, url: {json.dumps(url)}}}\n"
    lines = [
        f"  - kind: folder\n    url: {json.dumps(posixpath.join(url, folder) if folder else url)}",
        *(
            [f"    site: {json.dumps(posixpath.basename(folder))}  # a case of that name elsewhere is another person"]
            if folder
            else []
        ),
        f"    layout: {written(layout)}  # who and what each file is: docs/files.md",
    ]
    if "kind" not in layout:
        stated = "`modality: DX` (or MG, XC, ...)" if kind.flat else "`modality: CT` and `values: HU`"
        lines.append(f"    # add to the layout what its files do not say, such as {stated}")
        if "pattern" in layout and not re.search(r"\{(?:image|visit|patient\}/)", layout["pattern"]):
            lines.append(
                "    # each file counts as a person: if several are of one, say what part of the name is {patient}"
            )
        elif layout.get("pattern", "").count("{patient}") == 1 and "{patient}/" in layout["pattern"]:
            lines.append("    # each folder in the place of {patient} counts as a person: is none a visit or an image?")
    return "\n".join(lines) + "\n"


def _most(found: Scan, among: Collection[tuple[str, str]] | None) -> _Kind:
    """Return the kind of image of which there is most, among those with masks if any; volumes go before pictures."""
    volumes: Counter[tuple[str, str]] = Counter()
    flat: Counter[tuple[str, str]] = Counter()
    persons: dict[tuple[str, str], set[int]] = {}
    for group in found.groups:
        name = (group.kind.get("modality", ""), group.kind.get("image", ""))
        persons.setdefault(name, set()).update(group.persons)
        if MASK_NAME.search(f"_{name[1]}"):
            continue  # a pattern takes masks beside the images for images, too
        if among is not None and name not in among:
            continue
        volumes[name] += group.usable
        flat[name] += sum(group.verdicts[verdict] for verdict in FLAT)
    counted = +volumes or +flat
    if not counted:
        return _Kind("CT", "", False, ())
    modalities: Counter[str] = Counter()
    for (modality, _), count in counted.items():
        modalities[modality] += count
    modality = modalities.most_common(1)[0][0]
    own = [name for name, _ in counted.most_common() if name[0] == modality and name[1]]
    alone = len(set().union(*persons.values())) == 1
    # A name that only one of several persons has may be that person's.
    names = tuple(name[1] for name in own if alone or len(persons[name]) > 1)
    image = names[0] if names and len(own) > 1 else ""
    mine = [
        g for g in found.groups if g.kind.get("modality", "") == modality and image in ("", g.kind.get("image", ""))
    ]
    return _Kind(modality, image, not +volumes, names, _median_grid(mine))


def _modalities(found: Scan) -> list[str]:
    usable: Counter[str] = Counter()
    for group in found.groups:
        usable[group.kind.get("modality", "")] += group.usable
    return [name for name, count in usable.most_common() if count and name] or ["CT"]


def _images(found: Scan) -> dict[str, tuple[str, str]]:
    """Return two kinds of image that most studies have both of: name to (modality, type); none if no study has two."""
    studies: dict[tuple[str, str], set[int]] = {}
    for group in found.groups:
        kind = (group.kind.get("modality", ""), group.kind.get("series_type", UNKNOWN))
        if group.usable and kind[0] and kind[1] not in (UNKNOWN, *NO_IMAGES):
            studies.setdefault(kind, set()).update(group.studies)
    pairs = [
        (len(studies[one] & studies[two]), one[0] != two[0], one, two)
        for one in studies for two in studies if one < two and studies[one] & studies[two]
    ]  # fmt: skip
    if not pairs:
        return {}
    *_, one, two = max(pairs, key=lambda pair: (pair[0], pair[1], [-ord(c) for c in "".join(pair[2] + pair[3])]))
    return {kind[1].lower(): kind for kind in (one, two)}


def _several(images: dict[str, tuple[str, str]]) -> str:
    first, second = images
    lines = [
        "  case: study  # both images of a study are one case; docs/images.md says more",
        f"  images:  # the grid is that of {first}; docs/choosing-series.md has the columns to narrow them",
        *(
            f"    {name}: {{select: \"modality == '{modality}' and series_type == '{kind}'\""
            + (", required: false}" if name == second else "}")
            for name, (modality, kind) in images.items()
        ),
        f"    # without `required: false`, studies whose {second} is missing or not aligned are left out",
    ]
    return "\n".join(lines) + "\n"


def _transforms_of(images: dict[str, tuple[str, str]], grid: Grid | None) -> str:
    lines = ["  - {kind: orient, to: LPS}", _resample(grid)]
    for name, (modality, _) in images.items():
        clip = "clip: [-1000, 1000], " if modality == "CT" else ""
        lines.append(f"  - {{kind: intensity, of: [{name}], {clip}dtype: float32}}")
    return "\n".join(lines) + "\n"


def _resample(grid: Grid | None) -> str:
    """Return the line that brings all images to one distance between voxels: the median of those that were found."""
    if grid is None:
        return "  # - {kind: resample, spacing_mm: [3.0, 1.0, 1.0]}  # millimetres between slices, rows and columns"
    spacing = ", ".join(f"{value:.3g}" for value in grid[0])
    return f"  - {{kind: resample, spacing_mm: [{spacing}]}}  # the median here between slices, rows and columns, in mm"


def _median_grid(groups: Sequence[Group]) -> Grid | None:
    """Return the medians of all distances and sizes, each by itself; None where no usable stack has a grid."""
    grids = sum((group.grids for group in groups), Counter[Grid]())
    if not grids:
        return None
    spacings, sizes = zip(*grids.elements(), strict=True)
    z_mm, y_mm, x_mm = (median_low(values) for values in zip(*spacings, strict=True))
    z, y, x = (median_low(values) for values in zip(*sizes, strict=True))
    return (z_mm, y_mm, x_mm), (z, y, x)


def _grid_of(groups: Sequence[Group], modality: str, series_type: str) -> Grid | None:
    mine = (g for g in groups if g.kind.get("modality") == modality and g.kind.get("series_type") == series_type)
    return _median_grid(list(mine))


def _cohort(task: Task, kind: _Kind, modalities: list[str], *, labelled: bool) -> str:
    if task == "multimodal" and not kind.flat:
        named = ", ".join(f"'{name}'" for name in modalities[:2])
        return (
            f'  image: "modality in [{named}]"  # no study has two known types of image: docs/images.md joins others\n'
            "  one_per: series\n"
        )  # fmt: skip
    asked = [f"modality == '{kind.modality}'"] if kind.modality else []
    asked += [f"image == '{kind.image}'"] if kind.image else []
    lines = []
    if asked:
        lines.append(f'  image: "{" and ".join(asked)}"  # narrow it: docs/choosing-series.md has the columns')
    if kind.image:
        lines.append(
            f"  # images here: {', '.join(kind.names[:MOST_NAMES])}{' ...' if len(kind.names) > MOST_NAMES else ''}"
        )
    if task == "classification":
        lines.append("  one_per: study  # one image for each study; join its class from a table with `clinical`")
    elif not lines:
        lines.append("  one_per: series")
    if labelled:
        lines.append("  labels: required  # images without a label are left out; `optional` keeps them")
    return "\n".join(lines) + "\n"


def _label(found: Scan, layout: Mapping[str, Any] | None) -> str:
    if layout is not None and (layout.get("kind") in ("nnunet", "msd") or "labels" in layout):
        named = sorted((found.label_values or {1: "target"}).items())
        values = ", ".join(f"{value}: {json.dumps(name)}" for value, name in named)
        return f'labels:\n  target: {{kind: mask, match: "{{label}}", values: {{{values}}}}}\n'
    kinds = {"RTSTRUCT": "{kind: rtstruct, roi: {target: ", "SEG": "{kind: seg, segments: {target: "}
    for objects in found.objects:
        if objects.modality in kinds:
            opening = kinds[objects.modality]
            return f'labels:\n  target: {opening}".+"}}}}  # a regular expression; ".+" takes every structure\n'
    if found.masks is not None:
        return _mask(found.masks)
    if layout is None:
        return "# no RTSTRUCT, no SEG and no file of a mask was found; docs/labels.md has the other kinds of labels\n"
    return (
        "# where the masks lie is for you to say, for instance:\n"
        '#   labels: {target: {kind: mask, match: "{folder}/{patient}_seg.nii.gz", values: {1: target}}}\n'
    )


_FACTS: Final = {name: name for name in ("series", "study", "accession", "file")} | {"person": "patient"}
"""What a scan says that a column names, and what a label's table calls it."""


def _classes(tables: Sequence[Table]) -> str:
    """Return, as a comment, how to read classes from the table that names the most images; "" where none does."""
    named = [
        (count, -number, heading, fact)
        for number, table in enumerate(tables) for heading, (fact, count, _) in table.shared.items()
        if fact in _FACTS and len(table.headings) > 1 and ", sheet " not in table.path
    ]  # fmt: skip
    if not named:
        return ""
    count, number, heading, fact = max(named)
    table = tables[-number]
    others = [" ".join(name.split()) for name in table.headings if name != heading]
    shown = ", ".join(others[:MOST_NAMES]) + (" ..." if len(others) > MOST_NAMES else "")
    path, column = (json.dumps(" ".join(text.split()), ensure_ascii=False) for text in (table.path, heading))
    plural = {"study": "studies", "series": "series"}.get(fact, f"{fact}s")
    return (
        f"# {path} names {count} {plural if count > 1 else fact} of these images, in its column {column}. To read\n"
        "# classes from it, say which column is a finding and what its cells mean:\n"
        "#   labels:\n#     findings:\n#       kind: classes\n"
        f"#       table: {{match: {path}, by: {{{column}: {'path' if heading in table.whole else _FACTS[fact]}}}}}\n"
        '#       findings: {FINDING: {column: COLUMN, values: {"1": positive, "0": negative}}}\n'
        f"#   its other columns: {shown}\n"
    )


MOST_STRUCTURES: Final = 6
"""Structures that a spec takes at first, where each has a file; somebody will want others."""


def _mask(masks: Masks) -> str:
    match = json.dumps(masks.match)
    here = f"  # {masks.images} of {masks.of} images have such a file"
    if not masks.structures:
        return (
            f"labels:{here}; name the values that are in it\n"
            f"  target: {{kind: mask, match: {match}, values: {{1: target}}}}\n"
        )
    taken = masks.structures[:MOST_STRUCTURES]
    return (
        f"labels:{here}\n  target:\n    kind: mask\n    match: {match}\n"
        f"    structures: {json.dumps(taken)}  # {len(taken)} of the {len(masks.structures)} that have a file\n"
        "    empty_file: not_annotated  # what a file without a voxel means: this, or `absent`\n"
    )


def _transforms(kind: _Kind) -> str:
    if kind.flat:
        return "  - {kind: resize, pixels: [256, 256]}\n"
    lines = ["  - {kind: orient, to: LPS}", _resample(kind.grid)]
    if kind.modality == "CT":
        lines.append("  - {kind: intensity, clip: [-1000, 1000], dtype: float32}")
    return "\n".join(lines) + "\n"


def _patch(grid: Grid | None) -> str:
    """Return the size of a patch: 32 voxels, or fewer where the images have fewer."""
    sizes = grid[1] if grid else (32, 32, 32)
    return ", ".join(str(max(least for least in (1, 4, 8, 16, 32) if least <= max(size, 1))) for size in sizes)


def _samples(task: Task, kind: _Kind, *, labelled: bool) -> str:
    if kind.flat:
        return "{kind: images}"
    if task == "detection" and labelled:
        return f"{{kind: patches, shape: [{_patch(kind.grid)}], centred_on: target, per_case: 4}}"
    if task == "pretraining":
        return f"{{kind: patches, shape: [{_patch(kind.grid)}], per_case: 4}}"
    return "{kind: volumes}"
