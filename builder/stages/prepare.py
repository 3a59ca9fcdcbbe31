"""The pure middle: one case's fetched objects become a de-identified, labelled, transformed case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset

from builder.deid import Deid
from builder.deid.headers import deidentify
from builder.deid.identifiers import identifiers_in
from builder.deid.pixels import PixelVerdict, blank, judge_pixels
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.errors import CaseError, Reason
from builder.imaging.options import VolumeOptions, admit
from builder.imaging.rows import instances_of
from builder.imaging.series import Stack, split_stacks
from builder.imaging.volume import assemble
from builder.labels import AnyLabel
from builder.model.case import Annotation, Case, Volume
from builder.plan import CasePlan
from builder.protocols import ImageFacts, LabelObject
from builder.transforms import AnyTransform


@dataclass(frozen=True)
class Recipe:
    """What turns objects into a case; the same for every case of a dataset."""

    deid: Deid
    profile: Profile
    uids: UidMap
    volumes: VolumeOptions
    labels: Mapping[str, AnyLabel]
    transforms: Sequence[AnyTransform]


@dataclass(frozen=True)
class Objects:
    """What was fetched for a case: image data sets, and each label's objects, as the archive holds them."""

    images: Sequence[Dataset]
    labels: Mapping[str, Sequence[LabelObject]]


def prepare(plan: CasePlan, objects: Objects, recipe: Recipe) -> Case:
    """Turn one case's fetched objects into a case ready to be cut into samples.

    Raises
    ------
    CaseError
        When the case cannot be used, with its one reason.
    """
    pixels = _judge(objects.images, recipe.deid)
    clean = _clean(plan, objects, recipe)
    stack = _stack(clean.images, recipe.volumes)
    volume = _with_verdict(assemble(stack, clean.images, recipe.volumes), pixels)
    image = ImageFacts(volume.geometry, stack.series_uid, stack.uid_to_slice, stack.modality)
    annotations: list[Annotation] = []
    for name, reader in recipe.labels.items():
        if clean.labels.get(name):
            annotations.extend(reader.read(name, clean.labels[name], image))
    case = Case(plan.case_key, volume, tuple(annotations))
    for transform in recipe.transforms:
        case = transform(case)
    return case


def measures_of(case: Case) -> dict[str, float]:
    """Facts of a case's masks: ``<mask>/<segment>/volume_mm3`` on the final grid, and ``<mask>/<measure>``."""
    measures: dict[str, float] = {}
    for mask in case.masks:
        measures.update({f"{mask.name}/{name}": float(value) for name, value in mask.measures.items()})
        for segment in mask.segments:
            voxels = int(np.count_nonzero(mask.inside(segment)))
            measures[f"{mask.name}/{segment.name}/volume_mm3"] = round(voxels * mask.geometry.voxel_volume_mm3, 3)
    return dict(sorted(measures.items()))


def _judge(images: Sequence[Dataset], deid: Deid) -> PixelVerdict:
    """What is to be blanked and noted; one risky image is enough to refuse the case."""
    verdicts = [judge_pixels(image, deid=deid) for image in images]
    regions = {region for verdict in verdicts for region in verdict.blank}
    notes = {note for verdict in verdicts for note in verdict.notes}
    return PixelVerdict(tuple(sorted(regions, key=str)), tuple(sorted(notes)))


def _with_verdict(volume: Volume, verdict: PixelVerdict) -> Volume:
    voxels = blank(volume.voxels, verdict.blank) if verdict.blank else volume.voxels
    return replace(volume, voxels=voxels, notes=tuple(sorted({*volume.notes, *verdict.notes})))


def _clean(plan: CasePlan, objects: Objects, recipe: Recipe) -> Objects:
    """Every object de-identified with one UID map; names that only the images state are searched in the labels too."""
    labels = [o for found in objects.labels.values() for o in found]
    datasets = [*objects.images, *(o.content for o in labels if isinstance(o.content, Dataset))]
    known = identifiers_in(datasets)

    def cleaned(dataset: Dataset) -> Dataset:
        return deidentify(dataset, profile=recipe.profile, uids=recipe.uids, person=plan.person_key, known=known)

    return Objects(
        tuple(cleaned(d) for d in objects.images),
        {
            name: tuple(
                LabelObject(cleaned(o.content), "object.dcm") if isinstance(o.content, Dataset) else o for o in found
            )
            for name, found in objects.labels.items()
        },
    )


def _stack(images: Sequence[Dataset], options: VolumeOptions) -> Stack:
    """The one stack the plan chose: its own instances alone must give it again."""
    stacks = [part for stack in split_stacks(instances_of(images)) for part in admit(stack, options)]
    if len(stacks) != 1:
        raise CaseError(
            Reason.SOURCE_CHANGED,
            f"the case's {len(images)} instances form {len(stacks)} stacks, "
            "expected the 1 that was planned; plan again",
        )
    return stacks[0]
