"""A commented spec to start from, written from what a scan found: ``builder init``."""

import json
from collections import Counter
from typing import Final, Literal, get_args

from builder.library.scan import Scan
from builder.spec import KEY_PLACEHOLDER, LICENSE_PLACEHOLDER

Task = Literal["segmentation", "classification", "detection", "multimodal", "pretraining"]
TASKS: Final = get_args(Task)

UNKNOWN: Final = "unknown"
NO_IMAGES: Final = ("localizer", "screenshot", "MIP", "rendering", "bolus_tracking")
"""Types of series that are no image to train on."""

FEW_PERSONS: Final = 20
"""With fewer persons than this, the spec puts everybody into one split."""

_PAGE = """\
# A dataset for {task}, to start from. It was written from a scan of the archive; change whatever you like.
#   builder plan THIS_FILE --to DATASET      says what a build would do, and needs no licence yet
#   builder build THIS_FILE --to DATASET     builds it, once the two placeholders below are replaced
name: my-dataset
license: {license}  # PLACEHOLDER: the licence of your dataset, an SPDX identifier such as CC-BY-4.0
sources:
  - {{kind: folder, url: {url}}}
cohort:
{cohort}{labels}deid:
  # PLACEHOLDER: where the secret behind all pseudonyms is, such as BUILDER_KEY in place of BUILDER_KEY_PLACEHOLDER.
  # Make one, keep it, and never write the secret itself into this file: openssl rand -hex 32
  patient_key: "{key}"
  retain: [series_type, plane]  # what may enter the tables beside what describes the grid; see docs/privacy.md
transforms:
{transforms}samples: {samples}
splits: {splits}
"""


def starter_spec(found: Scan, url: str, task: Task) -> str:
    """Return the text of a spec that plans without a change. ``url`` is the folder that was scanned."""
    usable: Counter[str] = Counter()
    for group in found.groups:
        usable[group.kind["modality"]] += group.usable
    modalities = [name for name, count in usable.most_common() if count] or ["CT"]
    label = _label(found) if task in ("segmentation", "detection") else ""
    images = _images(found) if task == "multimodal" else {}
    return _PAGE.format(
        task=task,
        license=LICENSE_PLACEHOLDER,
        url=json.dumps(url),
        key=KEY_PLACEHOLDER,
        cohort=_several(images) if images else _cohort(task, modalities),
        labels=label,
        transforms=_transforms_of(images) if images else _transforms(modalities[0]),
        samples=_samples(task, labelled=bool(label.strip()) and not label.startswith("#")),
        splits="{ratios: {train: 1.0}}  # few persons; with more: {train: 0.7, validation: 0.15, test: 0.15}"
        if found.persons < FEW_PERSONS
        else "{ratios: {train: 0.7, validation: 0.15, test: 0.15}}",
    )


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


def _transforms_of(images: dict[str, tuple[str, str]]) -> str:
    lines = ["  - {kind: orient, to: LPS}", "  - {kind: resample, spacing_mm: [3.0, 3.0, 3.0]}"]
    for name, (modality, _) in images.items():
        clip = "clip: [-1000, 1000], " if modality == "CT" else ""
        lines.append(f"  - {{kind: intensity, of: [{name}], {clip}dtype: float32}}")
    return "\n".join(lines) + "\n"


def _cohort(task: Task, modalities: list[str]) -> str:
    if task == "multimodal":
        named = ", ".join(f"'{name}'" for name in modalities[:2])
        return (
            f'  image: "modality in [{named}]"  # no study has two known types of image: docs/images.md joins others\n'
            "  one_per: series\n"
        )  # fmt: skip
    lines = [f"  image: \"modality == '{modalities[0]}'\"  # narrow it: docs/choosing-series.md has the columns"]
    if task == "classification":
        lines.append("  one_per: study  # one image for each study; join its class from a table with `clinical`")
    if task in ("segmentation", "detection"):
        lines.append("  labels: required  # series without a label are left out; `optional` keeps them")
    return "\n".join(lines) + "\n"


def _label(found: Scan) -> str:
    kinds = {"RTSTRUCT": "{kind: rtstruct, roi: {target: ", "SEG": "{kind: seg, segments: {target: "}
    for objects in found.objects:
        if objects.modality in kinds:
            opening = kinds[objects.modality]
            return f'labels:\n  target: {opening}".+"}}}}  # a regular expression; ".+" takes every structure\n'
    return "# no RTSTRUCT and no SEG was found; docs/labels.md has the other kinds of labels\n"


def _transforms(modality: str) -> str:
    lines = ["  - {kind: orient, to: LPS}", "  - {kind: resample, spacing_mm: [3.0, 3.0, 3.0]}"]
    if modality == "CT":
        lines.append("  - {kind: intensity, clip: [-1000, 1000], dtype: float32}")
    return "\n".join(lines) + "\n"


def _samples(task: Task, *, labelled: bool) -> str:
    if task == "detection" and labelled:
        return "{kind: patches, shape: [32, 32, 32], centred_on: target, per_case: 4}"
    if task == "pretraining":
        return "{kind: patches, shape: [32, 32, 32], per_case: 4}"
    return "{kind: volumes}"
