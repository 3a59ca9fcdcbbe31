"""Turn one case's fetched objects into a de-identified, labelled and transformed case, without any input or output."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from pydicom.dataset import Dataset

from builder.defacers.defacing import without_face
from builder.defacers.found import check_face
from builder.defacers.removal import parse_removal
from builder.deid import Deid
from builder.deid.gate import Gate
from builder.deid.headers import deidentify
from builder.deid.identifiers import Identifiers, identifiers_in, identifiers_of
from builder.deid.pixels import FACE_RISK, PixelVerdict, blank, blank_outside, judge_pixels
from builder.deid.profile import Profile
from builder.deid.uids import UidMap
from builder.errors import CaseError, Reason
from builder.imaging.filed import assemble_filed, filed_parts, filed_rows, filed_stack
from builder.imaging.lint import lint
from builder.imaging.multiframe import settle
from builder.imaging.pixels.values import PixelFill
from builder.imaging.quantities.philips import scales_of
from builder.imaging.quantities.suv import Calibration, calibrate
from builder.imaging.rows import dataset_of
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.stacks.stack import Stack
from builder.imaging.volume import Archived, assemble, assemble_indexed
from builder.labels import AnyLabel
from builder.labels.linking import image_row
from builder.model.case import NO_SPACING, Annotation, Case, Volume
from builder.model.keyed import Key
from builder.plan import CasePlan
from builder.protocols import ImageFacts, LabelObject
from builder.stages.annotate import Reads, annotate
from builder.stages.fetch import Objects
from builder.transforms import AnyTransform, Radiomics, steps_for
from builder.transforms.resample import Resample

KIND_COLUMNS = (
    *("sop_class_uid", "modality", "image_type", "conversion_type", "burned_in_annotation", "body_part_examined"),
    *("rows", "columns"),
)


@dataclass(frozen=True)
class Recipe:
    """The settings that turn objects into a case; the same for every case of a dataset."""

    deid: Deid
    profile: Profile
    uids: UidMap
    volumes: VolumeOptions
    reads: Reads
    transforms: Sequence[AnyTransform]

    def of(self, plan: CasePlan) -> "Recipe":
        """Return the settings for the image of a plan. Raises CaseError as ``Reads.of`` does."""
        if not plan.image:
            return self
        return replace(
            self,
            volumes=self.volumes.for_image(plan.image),
            reads=self.reads.of(plan),
            transforms=steps_for(self.transforms, plan.image),
        )


def known_of(objects: Objects) -> Identifiers:
    """Return what identifies the person and the staff of a case, from its objects and its images' index rows."""
    return identifiers_in((objects.first, *objects.images, *_datasets(objects.labels))) | identifiers_of(objects.rows)


def load(
    plan: CasePlan,
    objects: Objects,
    recipe: Recipe,
    *,
    gate: Gate,
    fill: PixelFill,
    witness: Callable[[Volume], None],
    faces: Mapping[str, bytes],
) -> Case:
    """Turn one image's fetched objects into a de-identified case with the labels on it, on the grid of the image.

    Parameters
    ----------
    gate
        Knows what identifies the person of the case.
    fill
        Reads the native pixels of an instance, given its mapped SOPInstanceUID, when no data sets are held.
    witness
        Called with the volume as the archive holds it, before anything is blanked or transformed.
    faces
        What goes out of images that show one, by the digest that the plan names.

    Raises
    ------
    CaseError
        With its one reason, when the case cannot be used.
    """
    check_face(plan.face)
    pixels = _judge((objects.first, *(objects.images or kinds_of(objects.rows))), recipe.deid)
    known = gate.known
    stack = _stack(plan, objects, recipe)
    volume = _assemble(stack, plan, objects, recipe, known, fill)
    witness(volume)
    findings = tuple(str(finding) for finding in lint(volume, objects.images or (objects.first,)))
    volume = _with_verdict(replace(volume, findings=findings), pixels)
    if plan.image:
        volume = replace(volume, channels=channel_names(plan.image, volume.channels))
    image = ImageFacts(volume.geometry, stack.series_uid, stack.uid_to_slice, stack.modality)
    labelled = annotate(
        objects.labels,
        volume,
        image,
        recipe.reads,
        gate=gate,
        clean=lambda label, reader: _clean_label(label, reader, objects.rows, plan, recipe, known),
    )
    if plan.face:
        volume = _faceless(volume, faces[plan.face], labelled.annotations)
    return Case(plan.case_key, volume, labelled.annotations, readings=labelled.readings)


def channel_names(image: str, channels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of an image's channels: its own name, or ``NAME.channel`` where it has several."""
    return (image,) if len(channels) == 1 else tuple(f"{image}.{channel}" for channel in channels)


def transformed(case: Case, recipe: Recipe) -> Case:
    """Return the case after all transforms, ready to be cut. Raises CaseError.

    If the caller keeps no reference to the case, the voxels before each transform are freed as soon as the transform is
    done.
    """
    for transform in steps_of(case.volume, recipe):
        case = transform(case)
    return case


def steps_of(volume: Volume, recipe: Recipe) -> tuple[AnyTransform, ...]:
    """Return all transforms for a case with this volume."""
    return (*_straightening(volume, recipe), *recipe.transforms)


def plain_recipe(volumes: VolumeOptions) -> Recipe:
    """Return settings that read an image and nothing else. Its names, under no secret key, leave no process."""
    uids = UidMap(Key(bytes(32)))
    deid = Deid(patient_key="${env:UNUSED}")
    return Recipe(deid, Profile(frozenset()), uids, volumes, Reads({}, {}, "optional", uids), ())


def read_volume(plan: CasePlan, objects: Objects, recipe: Recipe, *, fill: PixelFill) -> Volume:
    """Read the volume of a case as the archive holds it, before blanking and transforms. Raises as ``load`` does."""
    known = identifiers_in((objects.first, *objects.images))
    return _assemble(_stack(plan, objects, recipe), plan, objects, recipe, known, fill)


def _straightening(volume: Volume, recipe: Recipe) -> tuple[AnyTransform, ...]:
    """Return the step that makes a sheared grid orthogonal, if the spec asks for that and does no resampling."""
    if recipe.volumes.sheared != "resample" or volume.geometry.is_orthogonal:
        return ()
    if any(isinstance(transform, Resample) for transform in recipe.transforms):
        return ()
    return (Resample(kind="resample", spacing_mm=(None, None, None)),)


def _judge(images: Sequence[Dataset], deid: Deid) -> PixelVerdict:
    """Decide what to blank and what to note; one risky image is enough to refuse the case."""
    verdicts = [judge_pixels(image, deid=deid) for image in images]
    regions = {region for verdict in verdicts for region in verdict.blank}
    notes = {note for verdict in verdicts for note in verdict.notes}
    kept = {verdict.regions for verdict in verdicts if verdict.regions}
    if len(kept) > 1:
        raise CaseError(
            Reason.BURNED_IN, "found images of one stack with different ultrasound regions, expected the same in all"
        )
    return PixelVerdict(tuple(sorted(regions, key=str)), tuple(sorted(notes)), *kept)


def _with_verdict(volume: Volume, verdict: PixelVerdict) -> Volume:
    voxels = blank_outside(blank(volume.voxels, verdict.blank), verdict.regions)
    return replace(volume, voxels=voxels, notes=tuple(sorted({*volume.notes, *verdict.notes})))


def _faceless(volume: Volume, removal: bytes, annotations: Sequence[Annotation]) -> Volume:
    """Return the volume without the face that was found before the plan. Raises CaseError FACE_SHOWN."""
    left = tuple(note for note in volume.notes if note != FACE_RISK)
    return without_face(replace(volume, notes=left), parse_removal(removal), annotations)


def _assemble(
    stack: Stack, plan: CasePlan, objects: Objects, recipe: Recipe, known: Identifiers, fill: PixelFill
) -> Volume:
    """Assemble the volume from files, from index rows (technical attributes only) or from de-identified data sets."""
    if objects.files:
        (row,) = (row for row in filed_rows(objects.rows) if row.file_facts is not None)
        part = plan.frames[0][0] if plan.frames else None
        volume = assemble_filed(stack, objects.files, row, recipe.volumes, part=part, number_type=plan.number_type)
        _check_scale(volume, recipe)
        return volume
    if not objects.images:
        mapped = [recipe.uids(uid) for uid in objects.rows.column("sop_instance_uid").to_pylist()]
        place = objects.rows.schema.get_field_index("sop_instance_uid")
        rows = objects.rows.set_column(place, "sop_instance_uid", pa.array(mapped, pa.string()))
        scales = scales_of((objects.first,))
        return assemble_indexed(
            stack, rows, recipe.volumes, fill=fill, calibration=objects.calibration, scales=scales,
            number_type=plan.number_type,
        )  # fmt: skip
    # PET calibration needs the archive's own times and Philips MR needs private elements, which a profile may remove
    calibration = _calibrated(objects.images, recipe) if stack.modality == "PT" else None
    clean = tuple(_clean(image, plan, recipe, known) for image in objects.images)
    scales = scales_of(objects.images).with_uids(_Mapped(recipe.uids))
    archived = Archived(calibration, scales, objects.images)
    return assemble(stack, clean, recipe.volumes, fill=fill, archived=archived, number_type=plan.number_type)


_IN_MM = {"resample": "resample", "radiomics": "measure"}


def _check_scale(volume: Volume, recipe: Recipe) -> None:
    """Refuse to resample or measure a picture whose millimetres nobody states."""
    steps = [step.kind for step in recipe.transforms if isinstance(step, Radiomics | Resample)]
    if NO_SPACING in volume.notes and steps:
        raise CaseError(
            Reason.UNKNOWN_GEOMETRY,
            f"found a picture of unknown pixel spacing, expected one in mm to {_IN_MM[steps[0]]} it: state "
            f"pixel_spacing_mm in the source's layout, or take out the transform {steps[0]}",
        )


def _calibrated(images: Sequence[Dataset], recipe: Recipe) -> Calibration:
    return calibrate(images, weight_kg=recipe.volumes.pet_weight_kg)


def kinds_of(rows: pa.Table) -> tuple[Dataset, ...]:
    """Return one data set per distinct combination of the attributes that tell whether pixels may show text."""
    kinds = {tuple(row[name] for name in KIND_COLUMNS): row for row in rows.to_pylist()}
    return tuple(dataset_of(row) for row in kinds.values())


def _clean(dataset: Dataset, plan: CasePlan, recipe: Recipe, known: Identifiers) -> Dataset:
    return deidentify(dataset, profile=recipe.profile, uids=recipe.uids, person=plan.person_key, known=known)


def _clean_label(
    label: LabelObject, reader: AnyLabel, rows: pa.Table, plan: CasePlan, recipe: Recipe, known: Identifiers
) -> LabelObject:
    """De-identify a label object, searching it also for names that only the images state.

    A reader of tables or XML first cuts the file to this image's rows and maps their UIDs, before other code sees it.
    """
    if isinstance(label.content, Dataset):
        return LabelObject(_clean(label.content, plan, recipe, known), "object.dcm")
    return LabelObject(reader.cut(label.content, image_row(rows), map_uid=recipe.uids), label.name)


def _datasets(labels: Mapping[str, Sequence[LabelObject]]) -> list[Dataset]:
    return [o.content for found in labels.values() for o in found if isinstance(o.content, Dataset)]


def _stack(plan: CasePlan, objects: Objects, recipe: Recipe) -> Stack:
    """Return the one stack that the plan chose, under mapped UIDs. Splitting its instances must give it again.

    A multi-frame object is resolved as the archive holds it, because the de-identified object may lack the private
    header that places the tiles of a mosaic.
    """
    rows = objects.rows
    if objects.files:
        number = plan.frames[0][0] if plan.frames else 0
        return filed_parts(filed_stack(filed_rows(rows)), recipe.volumes)[number][0].with_uids(_Mapped(recipe.uids))
    stacks = [part for stack in stacks_for(rows, recipe.volumes) for part in admit(stack, recipe.volumes)]
    if len(stacks) != 1:
        raise CaseError(
            Reason.SOURCE_CHANGED,
            f"the case's {rows.num_rows} instances form {len(stacks)} stacks, "
            "expected the 1 that was planned; plan again",
        )
    uids = rows.column("sop_instance_uid").to_pylist()
    frames = {uid: frozenset(own) for uid, own in zip(uids, plan.frames, strict=True)} if plan.frames else None
    settled = settle(stacks[0], objects.images, recipe.volumes, frames) if objects.images else stacks[0]
    return settled.with_uids(_Mapped(recipe.uids))


class _Mapped(Mapping[str, str]):
    """The UID map as a mapping that contains every UID."""

    def __init__(self, uids: UidMap) -> None:
        self._uids = uids

    def __getitem__(self, uid: str) -> str:
        return self._uids(uid)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
