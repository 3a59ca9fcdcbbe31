"""Spec, cohort and links -> shard plans with fingerprints: what each task will build, before any pixel is read."""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from itertools import accumulate
from typing import Any

import pyarrow as pa

from builder.defacers.found import FoundFaces
from builder.deid import Deid
from builder.deid.anonymity import Assessment
from builder.deid.dates import Withheld
from builder.model.canonical import Fingerprint, Keyless
from builder.model.keyed import Key
from builder.model.layout import FORMAT_VERSION
from builder.model.options import without_locations
from builder.model.tables import HEADER_COLUMNS, INSTANCES
from builder.persons import Persons
from builder.plugins import distribution_of
from builder.protocols import LabelReader, Registrar, Transform
from builder.spec import DatasetSpec
from builder.split import Registry
from builder.split.withdrawn import Withdrawn

ENGINE_VERSION = 7
"""Increased when the same plan would give other bytes for a reason that no plug-in's VERSION covers."""

MOST_AHEAD_BYTES = 512 << 20
"""A case that needs more than this to be decoded is not loaded while the one before it is worked on."""

IMAGE_ROLE = "image"


def image_role(name: str) -> str:
    """Return the role of the objects of an image: ``image``, or ``image:NAME`` where cases have several images."""
    return f"{IMAGE_ROLE}:{name}" if name else IMAGE_ROLE


def is_image_role(role: str) -> bool:
    """Return whether a role is that of an image; every other role is the name of a label."""
    return role == IMAGE_ROLE or role.startswith(f"{IMAGE_ROLE}:")


PLANNED = pa.schema([pa.field("case", pa.int32()), pa.field("role", pa.string()), *INSTANCES])
"""Objects of a shard: INSTANCES rows with the case (position in the plan) and the role, which is ``image``,
``image:NAME`` or a label."""

_BUCKET_BITS = 64


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One of the other images of a case. Its fields mean what those of the same name mean in ``CasePlan``.

    Parameters
    ----------
    name
        Name of the image in the spec.
    stack_key
        Keyed name of the stack; "" for an optional image that the case lacks.
    channels
        Number of its channels.
    is_ct
        Whether an image that the case lacks is CT in other cases, so that air fills its channel.
    grid
        Name of the image whose grid it is sampled onto, itself if it keeps its own; "" for the reference's.
    matrix
        16 numbers, row by row: from LPS mm of its frame of reference to LPS mm of the reference's. Empty where no
        registration places the image.
    face
        What is said about its face: the digest of what goes, "" if nothing does, or why it does not leave
        (``builder.defacers.found``).
    """

    name: str
    stack_key: str = ""
    series_key: str = ""
    stack: int = 0
    frames: tuple[tuple[int, ...], ...] = ()
    number_type: str = ""
    channels: int = 1
    is_ct: bool = False
    grid: str = ""
    matrix: tuple[float, ...] = ()
    face: str = ""


@dataclass(frozen=True, slots=True)
class CasePlan:
    """One case to build.

    Parameters
    ----------
    case_key, person_key, series_key
        Keyed names.
    stack
        Which pure stack of the series.
    input_bytes
        Stored bytes of its objects.
    sample_bytes
        Projected uncompressed bytes of its samples.
    peak_bytes
        Projected peak memory while it is built, from the first byte read to the last sample written.
    load_bytes
        Projected peak memory until it is decoded: this may be beside the work on the case before it.
    frames
        Where a multi-frame object holds several stacks, the frames (from 0) of this one: a tuple for each of its image
        objects, in their order. Empty when the case is made of its objects whole.
    number_type
        Of the image's voxels before transforms: the same for every case of a dataset. "" where a transform or a rule of
        ``shards.fields`` makes the types alike, or where they are alike already.
    image
        Name of the image; "" where cases have one image. The case's own fields are those of its reference.
    stack_key
        Keyed name of the stack of an image that is not the reference, as ``of`` gives it; "" otherwise.
    partners
        The other images of the case.
    labels_on
        Pairs of a label that has objects and the image that it is drawn on, where cases have several images.
    face
        Of the image, as of ``ImagePlan``.
    """

    case_key: str
    person_key: str
    series_key: str
    stack: int
    input_bytes: int
    sample_bytes: int
    peak_bytes: int
    load_bytes: int = 0
    frames: tuple[tuple[int, ...], ...] = ()
    number_type: str = ""
    image: str = ""
    stack_key: str = ""
    partners: tuple[ImagePlan, ...] = ()
    labels_on: tuple[tuple[str, str], ...] = ()
    face: str = ""

    @property
    def faces(self) -> tuple[str, ...]:
        """What is said about the faces of its images, the reference first."""
        return (self.face, *(partner.face for partner in self.partners))

    def of(self, partner: ImagePlan) -> "CasePlan":
        """Return the plan of one of the other images, with the images that are put onto its grid as partners."""
        others = tuple(p for p in self.partners if p.grid == partner.name != p.name)
        return replace(
            self, series_key=partner.series_key, stack=partner.stack, frames=partner.frames,
            number_type=partner.number_type, image=partner.name, stack_key=partner.stack_key, partners=others,
            face=partner.face,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ShardPlan:
    """One shard to build: its cases in order, their objects by schema PLANNED, and by digest what goes out of heads."""

    fingerprint: str
    cases: tuple[CasePlan, ...]
    objects: pa.Table
    faces: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """A shard of the plan, without its objects.

    Parameters
    ----------
    encoded
        Whether any of its pixels are compressed, so that decoders run on them that are not this project's.
    """

    fingerprint: str
    bucket: str
    cases: tuple[CasePlan, ...]
    encoded: bool = False

    @property
    def peak_bytes(self) -> int:
        """Projected peak memory of its task: the largest sum of a case and the next one, which is loaded meanwhile."""
        beside = [c.load_bytes if c.load_bytes <= MOST_AHEAD_BYTES else 0 for c in self.cases[1:]] + [0]
        return max((c.peak_bytes + more for c, more in zip(self.cases, beside, strict=False)), default=0)


LINKS = pa.schema([("annotation", pa.int64()), ("case_key", pa.string()), ("label", pa.string()), ("how", pa.string())])
"""Which annotation (row of the annotations table) labels which case, and by which kind of reference."""


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """Everything decided before the first pixel is read.

    Parameters
    ----------
    url
        Folder of the plan in the private workspace, with the resolved spec and one file per shard.
    spec
        Resolved, with locations filled in.
    published_spec
        As it goes into the manifest, with locations withheld.
    cohort
        SERIES with clinical and decision columns, and the private ``series_uid``, ``chunk`` and ``case_key``.
    splits
        As ``builder.split.assign`` gives it, with ``members``.
    links
        By schema LINKS.
    annotations
        INSTANCES rows of annotation objects and files.
    clinical
        A match report for each clinical table.
    reviews
        Maps each label to the findings that a person judged.
    anonymity
        How many persons share each combination of the released quasi-identifiers.
    shared_dates
        Dates of labels and tables that are nobody's own, and why; private.
    registry
        Everybody who was dealt before this version.
    withdrawn
        Everybody who withdrew; nothing of them is in the other tables.
    faces
        The heads that were searched, and what people decided about them; private.
    origins
        Where everything used came from, by schema ORIGINS of ``builder.planning.origins``.
    procedures
        Studies by RadLex Playbook procedure; None without a playbook.
    structures
        By label, how many names of ROIs and segments its expressions take and leave; see ``builder.planning.coverage``.
    """

    url: str
    spec: DatasetSpec
    published_spec: Mapping[str, Any]
    key: Key
    persons: Persons
    cohort: pa.Table
    splits: pa.Table
    links: pa.Table
    annotations: pa.Table
    clinical: tuple[Mapping[str, Any], ...]
    shards: tuple[ShardSummary, ...]
    lock: Mapping[str, Any]
    origins: pa.Table
    procedures: Mapping[str, Any] | None = None
    structures: Mapping[str, Any] = field(default_factory=dict)
    reviews: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    anonymity: Assessment | None = None
    shared_dates: Mapping[date, Withheld] = field(default_factory=dict, repr=False)
    registry: Registry = field(default_factory=Registry.empty)
    withdrawn: Withdrawn = field(default_factory=Withdrawn)
    faces: FoundFaces = field(default_factory=FoundFaces, repr=False)

    @property
    def cases(self) -> list[CasePlan]:
        """All cases, in the order of the shards."""
        return [case for shard in self.shards for case in shard.cases]


def assign_buckets(
    cases: Sequence[CasePlan], *, key: Key, most_cases: int, most_bytes: int
) -> dict[str, list[CasePlan]]:
    """Deal cases to shards by their person's keyed hash: order of arrival cannot matter, growth touches few shards.

    A bucket is a prefix of the person's 64 hash bits. Starting from one bucket, whatever holds more than
    ``most_cases`` cases or ``most_bytes`` of samples is halved by the next bit (extendible hashing, Fagin et al.
    1979), so adding a case changes its own shard, or splits it, and no other. A person is never divided.

    Returns
    -------
    dict
        Bucket (a string of 0 and 1) to its cases, sorted by case_key; no bucket is empty.
    """
    persons = {c.person_key for c in cases}
    numbers = dict(zip(persons, key.numbers("bucket", persons), strict=True))
    ordered = sorted(cases, key=lambda c: numbers[c.person_key])
    hashes = [numbers[c.person_key] for c in ordered]
    sizes = [0, *accumulate(c.sample_bytes for c in ordered)]
    finished: dict[str, list[CasePlan]] = {}
    pending = [("", 0, len(ordered))]
    while pending:
        bucket, start, stop = pending.pop()
        if start == stop:
            continue
        fits = stop - start <= most_cases and sizes[stop] - sizes[start] <= most_bytes
        if fits or len(bucket) == _BUCKET_BITS or hashes[start] == hashes[stop - 1]:
            finished[bucket] = sorted(ordered[start:stop], key=lambda c: c.case_key)
            continue
        # the first hash whose next bit is 1
        middle = bisect_left(hashes, int(f"{bucket}1".ljust(_BUCKET_BITS, "0"), 2), start, stop)
        pending += [(f"{bucket}0", start, middle), (f"{bucket}1", middle, stop)]
    return dict(sorted(finished.items()))


def recipe(spec: DatasetSpec, *, key: Key) -> dict[str, Any]:
    """Return every option and plug-in version that can change the bytes of a shard.

    Locations, cohort rules, clinical columns, splits and the report are left out, because they do not affect voxels.
    """
    document = without_locations(spec)
    names = ("seed", "volumes", "deid", "transforms", "samples")
    blocks: dict[str, Any] = {name: document[name] for name in names if name in document}
    # anonymity changes tables, no voxels, and decisions about faces are in the plans of their cases
    apart = ("anonymity", "face_review", "face_decisions")
    blocks["deid"] = {n: v for n, v in blocks["deid"].items() if n not in apart}
    # as text, because canonical JSON sorts keys, and the order of labels and structures is that of channels and decides
    # which structure wins where two overlap
    blocks |= {name: json.dumps(document[name]) for name in ("labels", "consensus") if name in document}
    blocks |= {f"shards.{n}": v for n, v in document.get("shards", {}).items() if n in ("codec", "fields")}
    blocks |= {f"cohort.{n}": v for n, v in document.get("cohort", {}).items() if n == "labels"}
    if spec.cohort.images:  # as text, because the order of images is that of channels
        images = [[name, image.aligned, image.required] for name, image in spec.cohort.members.items()]
        blocks["cohort.images"] = json.dumps(images)
    registrars = {name: image.registrar for name, image in spec.cohort.members.items() if image.registrar is not None}
    if registrars:
        stated = {name: block.model_dump(exclude_defaults=True) for name, block in registrars.items()}
        blocks["cohort.registrars"] = {name: {"kind": registrars[name].kind, **own} for name, own in stated.items()}
    plugins: list[LabelReader | Transform | Registrar] = [*spec.labels.values(), *spec.transforms, *registrars.values()]
    steps: list[Registrar | Transform] = [*registrars.values(), *spec.transforms]
    fused = [[block.method, block.VERSION] for block in spec.consensus.values()]
    blocks_with_versions = (("volumes", spec.volumes), ("deid", spec.deid), (spec.samples.kind, spec.samples))
    return {
        "format": FORMAT_VERSION,
        "engine": ENGINE_VERSION,
        "key": key_check(key),
        "blocks": blocks,
        "versions": [
            *([plugin.kind, plugin.VERSION, *distribution_of(plugin)] for plugin in plugins),
            *_defacer(spec.deid),
            *[[*block.libraries] for block in steps if block.libraries],
            *fused,
            *([name, block.VERSION] for name, block in blocks_with_versions),
        ],
    }


def _defacer(deid: Deid) -> list[list[object]]:
    """Return kind and version of what takes faces out; nothing where faces stay."""
    plugin = deid.defacer
    return [[plugin.kind, plugin.VERSION, *distribution_of(plugin)]] if deid.faces == "remove" else []


def key_check(key: Key) -> str:
    """Return a value that distinguishes two keys without revealing anything about either."""
    return key.name("check")


NAMED = ("role", "content_sha256", "header_sha256", "size", "sop_instance_uid", "layout")
"""Columns of PLANNED of which ``Namer`` takes the values, beside the case."""

STATED = ("layout", *(column.name for column in HEADER_COLUMNS))
"""Columns that ``Namer`` takes of objects with a layout."""


class Namer:
    """Fingerprints everything that a shard is made from: recipe, cases, and the content of their objects.

    It hashes the recipe once, as ``fingerprint(recipe, cases, rows)`` would for every shard.
    """

    def __init__(self, recipe_document: Mapping[str, Any]) -> None:
        self._recipe = Fingerprint(recipe_document)

    def name(self, cases: Sequence[CasePlan], objects: Mapping[str, Sequence[Any]]) -> str:
        """Return the name of a shard; ``objects`` maps columns of PLANNED, those of NAMED and STATED, to their values.

        The objects may come in any order.
        """
        case, role, content, header, size, uid, layout = (objects[name] for name in ("case", *NAMED))
        digests = [of_all or of_header or "" for of_all, of_header in zip(content, header, strict=True)]
        rows: list[tuple[Any, ...]] = list(zip(case, role, digests, size, [name or "" for name in uid], strict=True))
        if any(layout):
            # tables and sidecars beside an image file say what it is; the hash of the file does not cover them
            stated = map(json.dumps, zip(*(objects[name] for name in STATED), strict=True))
            rows = [(*row, facts) if laid else row for row, facts, laid in zip(rows, stated, layout, strict=True)]
        partners = {case.case_key: [asdict(image) for image in case.partners] for case in cases}
        for image in (image for images in partners.values() for image in images):
            del image["face"]  # named with the face of the reference
        named = [
            [case.case_key, case.person_key, *([case.frames] if case.frames else [])]
            + ([case.number_type] if case.number_type else [])
            + ([partners[case.case_key], case.labels_on] if case.partners else [])
            + ([list(case.faces)] if any(case.faces) else [])
            for case in cases
        ]
        return self._recipe.also(named, Keyless(sorted(rows)))


def shard_fingerprint(recipe_document: Mapping[str, Any], cases: Sequence[CasePlan], objects: pa.Table) -> str:
    """Fingerprint one shard, whose ``objects`` are by schema PLANNED, as ``Namer`` does for many."""
    columns = {name: objects[name].to_pylist() for name in ("case", *NAMED, *STATED)}
    return Namer(recipe_document).name(cases, columns)
