"""One case of a shard: fetch its objects, decode its images with their labels, and transform them together."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from builder.copies import Print, take_print
from builder.deid.gate import Gate
from builder.deid.profile import Option, Profile
from builder.deid.uids import UidMap
from builder.errors import CaseError
from builder.model.case import Case, Slabs, Volume
from builder.model.keyed import Key
from builder.plan import CasePlan, ShardPlan, image_role
from builder.spec import DatasetSpec
from builder.stages.annotate import Reads
from builder.stages.fetch import fetch, pixels_of
from builder.stages.image_sets import Reference, join_images, masks_to_keep, with_apart
from builder.stages.late import grows, late_images, late_resample, transformed_late
from builder.stages.prepare import Recipe, known_of, load, transformed
from builder.transforms import Resample

NOBODY: Mapping[str, CaseError] = {}


def recipe_of(spec: DatasetSpec, key: Key) -> Recipe:
    """Return what a spec asks for in each case."""
    return Recipe(
        deid=spec.deid,
        profile=Profile(frozenset(Option(name) for name in spec.deid.options)),
        uids=UidMap(key),
        volumes=spec.volumes,
        reads=Reads(spec.labels, spec.consensus, spec.cohort.labels, UidMap(key)),
        transforms=spec.transforms,
    )


def load_case(
    plan: ShardPlan,
    number: int,
    spec: DatasetSpec,
    recipe: Recipe,
    gate: Gate,
    convicted: Mapping[str, CaseError] = NOBODY,
    *,
    keep: Callable[[Print], None] | None = None,
) -> Case:
    """Fetch and decode a case. This may run while the previous case is transformed and written.

    The gate learns what identifies the person of the case.
    """
    case = plan.cases[number]
    if case.case_key in convicted:
        raise convicted[case.case_key]
    return load_image(plan, number, spec, recipe, gate, keep, case)


def load_image(
    plan: ShardPlan,
    number: int,
    spec: DatasetSpec,
    recipe: Recipe,
    gate: Gate,
    keep: Callable[[Print], None] | None,
    image: CasePlan,
) -> Case:
    """Fetch and decode one image of a case with the labels that are drawn on it."""
    own = recipe.of(image)
    objects = fetch(rows_of_image(plan, number, image, own), spec.sources, own.volumes)
    gate.meet(known_of(objects))

    def witness(volume: Volume) -> None:
        if keep is not None:
            keep(print_of(volume, image, objects.rows))

    fill = pixels_of(objects.rows, spec.sources, own.uids)
    return load(image, objects, own, gate=gate, fill=fill, witness=witness, faces=plan.faces)


def transformed_set(
    take: Callable[[], Case], plan: CasePlan, spec: DatasetSpec, recipe: Recipe, other: Callable[[CasePlan], Case]
) -> Case:
    """Return a case after all transforms, with all its images.

    ``take`` hands over the decoded case, of which nothing else holds a reference; ``other`` loads another image.
    """
    if not plan.partners:
        return transformed(take(), recipe)
    other = partial(_named, other)
    case, _ = _on_one_grid(take, plan, spec, recipe, other)
    return with_apart(case, plan, spec, lambda own: _on_one_grid(partial(other, own), own, spec, recipe, other)[0])


def _named(other: Callable[[CasePlan], Case], own: CasePlan) -> Case:
    """Load one of the other images; a fault says which."""
    try:
        return other(own)
    except CaseError as error:
        error.detail = f"image {own.image}: {error.detail}"
        raise


def _on_one_grid(
    take: Callable[[], Case],
    plan: CasePlan,
    spec: DatasetSpec,
    recipe: Recipe,
    other: Callable[[CasePlan], Case],
    last: Resample | None = None,
) -> tuple[Case, Slabs | None]:
    """Return an image after all transforms with the other images of its grid, and the image if it is still to be made.

    ``last`` is the resampling that may be done while the image is written.
    """
    home = plan.image if plan.stack_key else ""
    own, steps = replace(plan, partners=tuple(p for p in plan.partners if p.grid == home)), recipe.of(plan)

    def reference() -> Reference:
        case = take()
        native, masks = case.volume.geometry, masks_to_keep(case, spec)
        if last is not None and grows(last, native.shape, native.spacing_mm):
            case, image = transformed_late(case, steps, last)
            return Reference(case, native, image, masks, late_images(spec.cohort, spec.transforms))
        return Reference(transformed(case, steps), native, masks=masks)

    return join_images(reference, own, spec, lambda partner: other(plan.of(partner)))


def image_field(spec: DatasetSpec) -> str:
    """Return the name of the field that holds the reference."""
    return next(iter(spec.image_fields))


def finished_case(
    take: Callable[[], Case], plan: CasePlan, spec: DatasetSpec, recipe: Recipe, other: Callable[[CasePlan], Case]
) -> tuple[Case, Slabs | None]:
    """Return a case after all transforms, and its image if that is still to be made; arguments as above."""
    last = late_resample(spec.transforms, spec.samples, spec.shards.fields.get("image"))
    if last is not None and not spec.cohort.images:
        return transformed_late(take(), recipe, last)
    if last is not None and late_images(spec.cohort, spec.transforms):
        return _on_one_grid(take, plan, spec, recipe, partial(_named, other), last)
    return transformed_set(take, plan, spec, recipe, other), None


def print_of(volume: Volume, plan: CasePlan, rows: pa.Table) -> Print:
    """Take the print of a volume, by which copies of it are found."""
    modality = rows.column("modality")[0].as_py() or ""
    return take_print(volume.voxels, key=plan.stack_key or plan.case_key, person_key=plan.person_key, modality=modality)


def rows_of_case(plan: ShardPlan, number: int) -> pa.Table:
    """Return the rows of a case's objects."""
    return plan.objects.filter(pc.equal(plan.objects.column("case"), number))


def rows_of_image(plan: ShardPlan, number: int, image: CasePlan, recipe: Recipe) -> pa.Table:
    """Return the rows of one image of a case and of the labels that are drawn on it."""
    rows = rows_of_case(plan, number)
    roles = {image_role(image.image), *recipe.reads.labels}
    return rows.filter(pc.is_in(rows.column("role"), pa.array(sorted(roles), pa.string())))
