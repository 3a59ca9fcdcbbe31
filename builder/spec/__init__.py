"""DatasetSpec: every option that a user can configure in a spec."""

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from builder.catalog.statement import Governance, Statement, UseCase
from builder.clinical import ClinicalTable, check_known, check_shared_columns
from builder.cohort import Cohort, bare_image
from builder.deid import Deid
from builder.deid.columns import TECHNICAL
from builder.imaging.stacks.options import VolumeOptions
from builder.labels import LABELS, AnyLabel, class_fields
from builder.labels.fusion import Consensus
from builder.model.classes import PREFIX as CLASSES
from builder.model.cleared import policy_of
from builder.model.secrets import places_of_secrets
from builder.patches import PICTURE_KINDS, AnySamples
from builder.sources import AnySource
from builder.sources.recordings import CURRENT
from builder.spec.blocks import LeakOptions, MostLost, PersonOptions, ReleaseOptions, ReportOptions, ShardOptions
from builder.spec.columns import columns_of, columns_of_images, named_columns
from builder.spec.names import centre_faults, field_faults, retain_faults
from builder.spec.stated import stated_faults
from builder.split import Splits
from builder.transforms import BUILT_IN, AnyTransform, Crop, Intensity

LabelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]

LICENSE_PLACEHOLDER = "CHOOSE-A-LICENSE"
"""Stands for the licence in a spec that ``builder init`` wrote: a plan accepts it, a build does not."""
KEY_PLACEHOLDER = "${env:BUILDER_KEY_PLACEHOLDER}"
"""Stands for ``deid.patient_key`` in such a spec: a plan then makes up a key that nothing else will ever use."""


class DatasetSpec(BaseModel):
    """One dataset, as its author writes it down."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """Name of the dataset: lower-case letters, digits and hyphens, e.g. ``soft-tissue-sarcoma``."""
    description: str = ""
    """What the dataset is, in a sentence or two; the catalog and the report show it."""
    license: Annotated[str, Field(min_length=1)]
    """SPDX identifier or name of the licence the dataset is under."""
    usage: Literal["commercial"] | None = None
    """Use that must be proven: the build stops where the licence of anything it would use does not allow it."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of everything that is drawn besides the splits, such as the places of patches."""
    sources: Annotated[tuple[AnySource, ...], Field(min_length=1)]
    """Where the objects come from; at least one source."""
    persons: PersonOptions = PersonOptions()
    """How PatientIDs become persons."""
    clinical: tuple[ClinicalTable, ...] = ()
    """Tables that are joined to the images."""
    cohort: Cohort = Cohort()
    """Which series the dataset is made of."""
    volumes: VolumeOptions = VolumeOptions()
    """What happens to each kind of stack when its slices become a volume, and the limits of size."""
    labels: Mapping[LabelName, AnyLabel] = Field(default_factory=dict)
    """The labels of a sample: a name for each, and the reader that makes it."""
    consensus: Mapping[LabelName, Consensus] = Field(default_factory=dict)
    """Labels that are made of the labels of several readers."""
    deid: Deid
    """Where the key of the pseudonyms is, and what may leave."""
    transforms: tuple[AnyTransform, ...] = ()
    """Steps that change image and labels together, in this order."""
    samples: AnySamples
    """How a case is cut into samples."""
    splits: Splits = Splits()
    """How persons are dealt to training, validation and test."""
    leaks: LeakOptions = LeakOptions()
    """How copies of images under two names are looked for."""
    max_lost: MostLost = MostLost()
    """How much of the plan may be lost in the build before nothing is published."""
    report: ReportOptions = ReportOptions()
    """What the report breaks down, and what it compares with."""
    shards: ShardOptions = ShardOptions()
    """How large the shards are, and how they are compressed."""
    release: ReleaseOptions = ReleaseOptions()
    """What a release of de-identified DICOM holds beside the cohort's images."""
    governance: Governance = Governance()
    """Who owns the dataset and on which terms it may be had."""
    use_case: UseCase = UseCase()
    """What the dataset is for, and what it is not for."""
    catalog: Statement = Statement()
    """How the dataset is cited and who annotated it, for the catalog page and its records."""

    @model_validator(mode="before")
    @classmethod
    def _names_secrets_and_holds_none(cls, given: Any) -> Any:
        """Refuse addresses with a secret in them: specs are shared, and nobody would know where the secret may go."""
        for place in places_of_secrets(given):
            raise ValueError(
                f"{place}: found an address with a password, key or signature in it (not shown), expected none: name "
                "the environment variables that hold it under sign_in, or let the environment sign in"
            )
        return given

    @model_validator(mode="before")
    @classmethod
    def _pictures_are_let_in(cls, given: Any) -> Any:
        """Admit pictures if samples are images, so that users need not know the names of verdicts."""
        samples = given.get("samples") if isinstance(given, Mapping) else None
        kind = samples.get("kind") if isinstance(samples, Mapping) else getattr(samples, "kind", None)
        volumes = given.get("volumes") or {} if isinstance(given, Mapping) else None
        if kind != "images" or not isinstance(volumes, Mapping):
            return given
        return {**given, "volumes": {**dict.fromkeys(PICTURE_KINDS, "keep"), **volumes}}

    @property
    def clinical_columns(self) -> tuple[str, ...]:
        """The clinical columns that leave: all but those that say when something was and are not retained."""
        kept = {*self.deid.retain}
        return tuple(dict.fromkeys(n for t in self.clinical for n in t.names if n not in t.dated or n in kept))

    @property
    def image_fields(self) -> Mapping[str, tuple[str, ...]]:
        """The images of each field of a sample, in the order of their channels; the field of the reference is first.

        There is one, ``image``, unless images keep grids of their own. Such a field is called as the spec says, or else
        by its visit, or by its image.
        """
        grids = self.cohort.grids
        if len(grids) < 2:
            return {"image": self.samples.fields.get("image", tuple(self.cohort.members))}
        stated = {frozenset(names): (field, names) for field, names in self.samples.fields.items()}
        found = {}
        for lead, names in grids.items():
            visit, _, own = lead.rpartition(".")
            usual = visit if visit and own == next(iter(self.cohort.images)) else lead
            usual = usual if visit or lead != self.cohort.reference else "image"
            field, order = stated.get(frozenset(names), (usual, names))
            found[field] = order
        return found

    @property
    def class_labels(self) -> Mapping[str, AnyLabel]:
        """The labels whose classes become columns: all but those of readers that a consensus drops."""
        dropped = {label for c in self.consensus.values() if c.readers == "drop" for label in c.labels}
        return {name: label for name, label in self.labels.items() if name not in dropped}

    @model_validator(mode="after")
    def _references_resolve(self) -> "DatasetSpec":
        _check_consensus(self.labels, self.consensus)
        centred = getattr(self.samples, "centred_on", None)
        known = sorted({*self.class_labels, *self.consensus})
        dated = [name for table in self.clinical for name in table.dated]
        check_shared_columns(self.clinical)
        check_known(self.clinical, self.report.outcomes, several_visits=self.cohort.visits is not None)
        _refuse(centre_faults(centred, known), field_faults(self.shards.fields, known, [*self.image_fields]))
        _refuse(retain_faults(self.deid.retain, dated))
        _check_text(self)
        _refuse(anonymity_faults(self))
        _refuse(_late_faults(self))
        _check_sequester(self)
        check_images(self)
        return self


def _check_consensus(labels: Mapping[str, AnyLabel], blocks: Mapping[str, Consensus]) -> None:
    for name, block in blocks.items():
        if name in labels:
            raise ValueError(f"consensus.{name}: found a label of this name, expected another one")
        for label in block.labels:
            if label not in labels or block.method not in labels[label].FUSED_BY:
                kind = labels[label].kind if label in labels else "no label"
                kinds = [name for name, reader in LABELS.items() if block.method in reader.FUSED_BY]
                expected = f"labels of kind {', '.join(kinds)} for {block.method}"
                raise ValueError(f"consensus.{name}.of: found {label!r} ({kind}), expected {expected}")
        if len({labels[label].FUSED_BY for label in block.labels}) > 1:
            raise ValueError(f"consensus.{name}.of: found masks and classes, expected one of them")


def anonymity_faults(spec: DatasetSpec) -> Iterator[str]:
    """Yield what ``deid.anonymity`` names although nothing of it would be counted or made coarser."""
    options = spec.deid.anonymity
    numbers = {c for table in spec.clinical for c, column in table.columns.items() if column.type in ("number", "date")}
    released = sorted({*spec.deid.retain, *spec.clinical_columns, *TECHNICAL})
    coarse = sorted({*released} - numbers - {"age_years"})
    named = (("columns", options.columns, released), ("sensitive", options.sensitive, released))
    for key, names, known in (*named, ("groups", tuple(options.groups), coarse)):
        for name in names:
            label = name.split(".")[1] if name.startswith(CLASSES) else None
            if name.rpartition(".")[2] not in known and label not in {*spec.class_labels, *spec.consensus}:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                yield (
                    f"deid.anonymity.{key}: found {name!r}, which is no released column"
                    f"{' of text' if key == 'groups' else ''}, expected a name in retain or a clinical column{hint}"
                )
    if not options.sensitive and (options.least_values is not None or options.most_distance is not None):
        yield "deid.anonymity: found least_values or most_distance without sensitive, expected the columns they are of"


def _late_faults(spec: DatasetSpec) -> Iterator[str]:
    rule = spec.shards.fields.get("image")
    return stated_faults(
        spec.sources,
        labels=spec.labels,
        several_images=bool(spec.cohort.images),
        clinical=spec.clinical,
        transforms=spec.transforms,
        image_type=None if rule is None else rule.dtype,
        faces=spec.deid.faces,
    )


def _refuse(*faults: Iterable[str]) -> None:
    """Raise ValueError with the first fault; the check of the file (``specfile``) names all of them."""
    for fault in itertools.chain(*faults):
        raise ValueError(fault)


def _check_text(spec: DatasetSpec) -> None:
    """Check that ``deid.text`` names columns of text that are published."""
    clinical = {name for table in spec.clinical for name in table.names}
    for name in spec.deid.text:
        if policy_of(name, clinical) is None:
            raise ValueError(f"deid.text: found {name!r}, expected a column of text, such as box_classes")


def _check_sequester(spec: DatasetSpec) -> None:
    """Check that neither the positions nor the voxels of samples reveal sequestered labels."""
    options = spec.splits.sequester
    if options is None:
        return
    splits = sorted({*spec.splits.ratios, *(rule.split for rule in spec.splits.hold_out)})
    unknown = sorted({*options.splits} - {*splits})
    if unknown:
        raise ValueError(f"splits.sequester.splits: found {unknown}, expected some of {splits}")
    clinical = {name for table in spec.clinical for name in table.names} - {*spec.report.outcomes}
    wrong = sorted({*options.keep} - clinical)
    if wrong:
        expected = f"clinical columns that are no report.outcomes: {sorted(clinical)}"
        raise ValueError(f"splits.sequester.keep: found {wrong}, expected {expected}")
    closed = clinical - {*options.keep} | {*spec.report.outcomes} | {f.name for f in class_fields(spec.class_labels)}
    held = sorted({rule.column for rule in spec.splits.hold_out if rule.split in options.splits} & closed)
    if held:
        raise ValueError(f"splits.hold_out: found {held}, which tells the labels of sequestered samples")
    if options.what == "samples":
        return
    telling = [name for name in ("centred_on", "foreground_at_least") if getattr(spec.samples, name, None)]
    telling += [f"{t.kind} {name}" for t in spec.transforms for name in t.label_options]
    if telling:
        raise ValueError(
            f"splits.sequester: found {', '.join(telling)}, which places or scales images by their labels; expected "
            "samples and transforms that do not depend on labels"
        )


def check_images(spec: DatasetSpec) -> None:
    """Check what a spec says about single images of a case. Raises ValueError."""
    names = list(spec.cohort.members)
    short = list(dict.fromkeys((*names, *spec.cohort.images)))  # t1 means it in all visits
    said = [(f"labels.{label}.on", [block.on], names) for label, block in spec.labels.items() if block.on is not None]
    said += [(f"transforms.{i}.of", [*t.of], short) for i, t in enumerate(spec.transforms) if isinstance(t, Intensity)]
    said += [("volumes.of", [*spec.volumes.of], short)]
    said += [("samples.fields", [*images], names) for images in spec.samples.fields.values()]
    for place, images, known in said:
        wrong = [name for name in images if name not in known]
        if wrong:
            expected = f"some of {known}" if known else "nothing, for cohort.images names no image"
            raise ValueError(f"{place}: found {wrong[0]!r}, expected {expected}")
    if not names:
        if spec.samples.fields:
            raise ValueError("samples.fields: found it without cohort.images, whose order it gives")
        return
    _check_fields(spec)
    _check_steps(spec)
    _check_visits(spec)
    for name, block in spec.consensus.items():
        if len({spec.labels[label].on for label in block.labels}) > 1:
            raise ValueError(f"consensus.{name}.of: found labels of several images, expected one labels.*.on for all")


def _check_fields(spec: DatasetSpec) -> None:
    """Check that each field holds the images of one grid, and that every image is in one field."""
    grids, stated = spec.cohort.grids, spec.samples.fields
    if len(grids) == 1:
        for field in stated:
            if field != "image":
                raise ValueError(f"samples.fields: found {field!r}, expected image, as all images lie on one grid")
        names = [*spec.cohort.members]
        order = stated.get("image", tuple(names))
        if sorted(order) != sorted(names):
            raise ValueError(f"samples.fields.image: found {list(order)}, expected each of {names} once")
        return
    if spec.samples.kind != "volumes":
        raise ValueError(
            f"samples.kind: found {spec.samples.kind} for images on {len(grids)} grids, expected volumes: patches need "
            "one grid, which aligned of the images or the visits gives"
        )
    sets = [sorted(names) for names in grids.values()]
    for field, images in stated.items():
        if sorted(images) not in sets:
            raise ValueError(
                f"samples.fields.{field}: found {list(images)}, expected the images of one grid, such as "
                f"{list(next(iter(grids.values())))}"
            )
    clash = sorted({*spec.image_fields} & {*spec.labels, *spec.consensus})
    if clash or len(spec.image_fields) != len(grids):
        found = clash[0] if clash else next(iter(stated))
        raise ValueError(f"samples.fields: found the name {found!r} twice, expected a name for each field and label")


def _check_visits(spec: DatasetSpec) -> None:
    """Refuse names of clinical columns that would tell at the index visit what was known at a later one."""
    visits = spec.cohort.visits
    if visits is None:
        return
    clinical = {name for table in spec.clinical for name in table.names if name not in table.timeless}
    named = [*spec.splits.stratify, *spec.report.groups, *(held.column for held in spec.splits.hold_out)]
    columns = columns_of(spec.clinical, labelled=bool(spec.labels), classes=class_fields(spec.class_labels))
    known = columns_of_images(columns, spec.cohort.partners)
    for column in (*named, *named_columns((rule.keep for rule in spec.cohort.rules), known)):
        image, _, own = column.rpartition(".")
        if image in spec.cohort.members and image.partition(".")[0] != visits.names[0] and own in clinical:
            raise ValueError(
                f"{column}: found a clinical column as it was at a later visit, expected one of the index visit: {own}"
            )


def _check_steps(spec: DatasetSpec) -> None:
    """Check that every transform can be applied to cases of several images."""
    kinds = [t.kind for t in spec.transforms]
    if "resize" in kinds:
        raise ValueError(
            "transforms: found resize for cases of several images, which lie on one grid in millimetres, expected "
            "resample; pictures of several views are samples of their own: cohort.image in place of images"
        )
    if kinds.count("resample") > 1:
        raise ValueError("transforms: found several resample steps, expected one, so that each image is sampled once")
    for i, step in enumerate(spec.transforms):
        if step.kind not in BUILT_IN:
            known = ", ".join(BUILT_IN)
            raise ValueError(f"transforms.{i}: found {step.kind}, which takes one image, expected {known}")
        label = step.mask if isinstance(step, Crop) else step.inside_mask if isinstance(step, Intensity) else None
        if label is not None and len(spec.cohort.grids) > 1:
            raise ValueError(
                f"transforms.{i}: found the label {label!r} for images on several grids, expected one grid"
            )
        on = spec.labels[label].on if label is not None and label in spec.labels else None
        if on not in (None, spec.cohort.reference):
            raise ValueError(
                f"transforms.{i}: found the label {label!r} of the image {on}, expected one of the reference "
                f"{spec.cohort.reference}"
            )
        if isinstance(step, Intensity) and step.inside_mask is not None and not {*kinds[:i]} & {"crop", "resample"}:
            _check_inside(spec, f"transforms.{i}.inside_mask", step)


def _check_inside(spec: DatasetSpec, place: str, step: Intensity) -> None:
    """Check that images that are still on their own grids are on that of the mask, which is the reference's."""
    cohort = spec.cohort
    for name, image in cohort.partners.items():
        alike = cohort.visits is None and image.aligned == "grid"
        if not alike and (not step.of or {name, bare_image(name)} & {*step.of}):
            raise ValueError(
                f"{place}: found it before {name} is sampled onto the grid of the mask, expected the step after "
                f"resample, of: [{cohort.reference}], or aligned: grid for images of one affine and shape"
            )


def keeping(spec: DatasetSpec, content: str) -> DatasetSpec:
    """Return the spec with sources that keep what comes from servers in the store at ``content``.

    They record it too, or take it from a recording, where that was asked for (``builder.sources.recordings``).
    """
    recording = CURRENT.get()
    kept = tuple(source.kept_in(content).recorded_in(recording) for source in spec.sources)
    return spec.model_copy(update={"sources": kept})
