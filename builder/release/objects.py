"""Which objects leave: the images of the cohort, and the objects that annotate or plan on them, person by person."""

import base64
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa

from builder.defacers.found import KEEP, LEFT_OUT, FoundFaces
from builder.deid import Deid
from builder.deid.values import shift_of
from builder.model.canonical import canonical_json, fingerprint
from builder.model.keyed import Key
from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import INSTANCES, used_rows
from builder.persons import Persons
from builder.plan import key_check
from builder.planning.inventory import Inventory, Survey
from builder.planning.members import members
from builder.planning.offsets import STUDY_DAY, Lives, study_days
from builder.planning.rows import Placed, rows_of
from builder.release.decisions import Box, Decisions
from builder.spec.blocks import ReleaseOptions
from builder.split import TRUE_DATE

VERSION = 2
"""Increased when the same objects would leave with other bytes."""

IMAGE, LABEL = "image", "label"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
CLASSES: Mapping[str, tuple[str, ...]] = {
    "SEG": (_STORAGE + "66.4", _STORAGE + "66.7"),
    "RTSTRUCT": (_STORAGE + "481.3",),
    "RTDOSE": (_STORAGE + "481.2",),
    "RTPLAN": (_STORAGE + "481.5", _STORAGE + "481.8"),
    "REG": (_STORAGE + "66.1", _STORAGE + "66.3"),
    "KO": (_STORAGE + "88.59",),
    "SR": (_STORAGE + "88.",),
    "PR": (_STORAGE + "11.",),
}
"""SOP classes, or beginnings of them, of each kind of object that goes with images; the first that fits counts."""
_PLANNED = ("RTDOSE", "RTPLAN")
"""Kinds that the index does not read the references of: they go with the images of their study."""

UNIT = pa.schema(
    [
        pa.field("role", pa.string()),
        pa.field("stack", pa.string()),
        pa.field("shift_days", pa.int32()),
        pa.field("boxes", pa.list_(pa.list_(pa.int32()))),
        pa.field("found", pa.list_(pa.list_(pa.int32()))),
        pa.field("face", pa.string()),
        *INSTANCES,
    ]
)
"""Objects of a person: INSTANCES rows with the role, the keyed stack of an image, the days by which dates move, and the
rectangles that somebody decided to blank (null where nobody decided about an image) and in which text was found (null
where an image was not searched). ``face`` is what is said about an image's face, as in ``builder.plan``."""
_FACTS = b"release_unit"


@dataclass(frozen=True, eq=False)
class Unit:
    """The objects of one person, which are released together, so that what they refer to is known."""

    name: str
    person: str
    objects: pa.Table
    faces: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What goes out of images that show a face, by digest."""

    def to_parquet(self) -> bytes:
        """Return one file; ``parse_unit`` is the inverse."""
        faces = {digest: base64.b64encode(data).decode() for digest, data in self.faces.items()}
        facts = canonical_json({"name": self.name, "person": self.person, "faces": faces})
        return parquet_bytes(self.objects.replace_schema_metadata({_FACTS: facts}), compression="lz4")


def parse_unit(data: bytes) -> Unit:
    """Read a unit that ``Unit.to_parquet`` wrote."""
    table = read_parquet(data)
    facts = json.loads(table.schema.metadata[_FACTS])
    faces = {digest: base64.b64decode(data) for digest, data in facts["faces"].items()}
    return Unit(facts["name"], facts["person"], table.replace_schema_metadata(None), faces)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What decides about objects: the cohort with its persons and key, and two blocks of the spec."""

    cohort: pa.Table
    persons: Persons
    key: Key
    deid: Deid
    release: ReleaseOptions
    words: tuple[str, ...]
    """Words of the spec, which labels may hold."""
    devices: str = ""
    """Digest of the rules of devices; "" without ``release.text``."""
    found: Mapping[str, tuple[Box, ...]] = field(default_factory=dict, repr=False)
    """Rectangles with text by SOP Instance UID, none where an image was searched in vain."""
    faces: FoundFaces = field(default_factory=FoundFaces, repr=False)
    """What goes out of images that show a face."""


def choose_objects(
    wanted: Wanted, inventory: Inventory, survey: Survey, *, lives: Lives, decisions: Decisions
) -> list[Unit]:
    """Return one unit for each person of the cohort with DICOM images, sorted by name."""
    images = released_images(wanted.cohort, inventory, survey)
    kinds = wanted.release.objects
    held = _series_of(inventory)
    near = {person: Near.of(rows, held) for person, rows in images.items()}
    others = [*_others(wanted.persons, _of_classes(inventory.annotations(), kinds), near)]
    planned = [kind for kind in kinds if kind in _PLANNED]
    for number in range(len(inventory.chunks) if planned else 0):
        others += _others(wanted.persons, _of_classes(inventory.chunk(number), planned), near)
    for person, rows in others:
        images[person].extend(rows)
    shifts = _Shifts.of(wanted, lives)
    used = used_rows(wanted.cohort)
    pairs = zip(used["stack_key"].to_pylist(), used["frame_lists"].to_pylist(), strict=True)
    divided = {key for key, frames in pairs if frames}
    for rows in images.values():
        for row in rows:
            row["boxes"] = decisions.of(row) if row["role"] == IMAGE else None
            row["found"] = wanted.found.get(row["sop_instance_uid"]) if row["role"] == IMAGE else None
            row["face"] = _face(wanted.faces, row["stack"], divided) if row["role"] == IMAGE else ""
    return sorted(
        (_unit(wanted, who, rows, shifts) for who, rows in images.items() if rows), key=lambda unit: unit.name
    )


def _face(faces: FoundFaces, stack: str, divided: Collection[str]) -> str:
    """Return what is said about the face of an image.

    An object of several stacks does not leave: cases may use one of them, and the others were not searched.
    """
    said, seen = faces.of(stack), faces.seen.get(stack)
    if seen is None or stack not in divided or said in LEFT_OUT or faces.decision(seen) == KEEP:
        return said
    return "divided"


Rows = list[dict[str, Any]]


def released_images(cohort: pa.Table, inventory: Inventory, survey: Survey) -> dict[str, Rows]:
    """Return the DICOM instances of every stack that a case uses, by person; a shared instance once."""
    used = used_rows(cohort)
    places, keys = rows_of(used, Placed), used["stack_key"].to_pylist()
    people = used["person_key"].to_pylist()
    wanted: dict[int, list[tuple[int, Placed]]] = {}
    for number, place in enumerate(places):
        wanted.setdefault(place.chunk, []).append((number, place))
    found: dict[str, Rows] = {}
    seen: set[object] = set()
    for chunk, stacks in sorted(wanted.items()):
        for number, table in members(inventory, survey, chunk=chunk, wanted=stacks):
            rows = found.setdefault(people[number], [])
            for row in table.select(INSTANCES.names).to_pylist():
                if row["format"] == "dicom" and row["sop_instance_uid"] not in seen:
                    seen.add(row["sop_instance_uid"])
                    rows.append({"role": IMAGE, "stack": keys[number], **row})
    return found


def _series_of(inventory: Inventory) -> frozenset[object]:
    """Return the UIDs of every image series of the archive."""
    chunks = range(len(inventory.chunks))
    return frozenset(u for n in chunks for u in inventory.chunk(n, columns=["series_uid"])["series_uid"].to_pylist())


def _others(persons: Persons, table: pa.Table, near: Mapping[str, "Near"]) -> Iterator[tuple[str, Rows]]:
    """Yield, by person, the objects that refer to a released image, or plan on one."""
    for person, row in zip(persons.keys_of(table), table.select(INSTANCES.names).to_pylist(), strict=True):
        if person is not None and person in near and row["status"] == "instance" and near[person].holds(row):
            yield person, [{"role": LABEL, "stack": "", **row}]


@dataclass(frozen=True)
class Near:
    """The released images of a person, as other objects may refer to them."""

    instances: frozenset[object]
    series: frozenset[object]
    frames: frozenset[object]
    studies: frozenset[object]
    held: frozenset[object]
    """Image series that are known, released or not."""

    @classmethod
    def of(cls, rows: Rows, held: frozenset[object]) -> "Near":
        names = ("sop_instance_uid", "series_uid", "frame_of_reference_uid", "study_uid")
        instances, series, frames, studies = (frozenset(row[name] for row in rows) - {None} for name in names)
        return cls(instances, series, frames, studies, held)

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Return whether an object names a released instance or series, or only a frame of reference of one.

        Plans and doses of a study belong to its images. An object that names another series of the archive is of that
        one, whatever frame of reference they share.
        """
        if kind_of(row["sop_class_uid"]) in _PLANNED:
            return row["study_uid"] in self.studies
        series = row["referenced_series_uids"] or ()
        if not (self.instances.isdisjoint(row["referenced_sop_uids"] or ()) and self.series.isdisjoint(series)):
            return True
        return self.held.isdisjoint(series) and not self.frames.isdisjoint(
            row["referenced_frame_of_reference_uids"] or ()
        )


def kind_of(sop_class: str) -> str:
    """Return the kind of a SOP class, such as SEG; "" for any other, such as an image's."""
    for kind, names in CLASSES.items():
        if any(sop_class.startswith(name) if name.endswith(".") else sop_class == name for name in names):
            return kind
    return ""


def _of_classes(table: pa.Table, kinds: Sequence[str]) -> pa.Table:
    found = {c: kind_of(c or "") for c in set(table["sop_class_uid"].to_pylist())}
    return table.filter(pa.array([found[c] in kinds for c in table["sop_class_uid"].to_pylist()], pa.bool_()))


@dataclass(frozen=True)
class _Shifts:
    """By how many days the dates of a study move.

    Each study moves by a number of its own, so that nobody learns the time between two visits, unless ``deid.retain``
    names ``study_day``. The studies of a person are then as many days apart as the rules of that column let out.
    """

    key: Key
    days: Mapping[str, tuple[date, int]]
    """Maps a keyed study to its true date and the days since the person's first study that may leave."""

    @classmethod
    def of(cls, wanted: Wanted, lives: Lives) -> "_Shifts":
        if STUDY_DAY not in wanted.deid.retain:
            return cls(wanted.key, {})
        cohort = wanted.cohort
        days = study_days(cohort, lives, most_days=wanted.deid.most_days).to_pylist()
        rows = zip(cohort["study_key"].to_pylist(), cohort[TRUE_DATE].to_pylist(), days, strict=True)
        return cls(
            wanted.key, {study: (day, away) for study, day, away in rows if day is not None and away is not None}
        )

    def of_study(self, person: str, study: str) -> int:
        """Return the days for a study; 366 to 3,652 back, or as far as its place among the person's studies asks."""
        study_key = self.key.name("study", study)
        own = self.days.get(study_key)
        if own is None:
            return shift_of(self.key, study_key)
        day, away = own
        # where the first study lies after its move depends on the key alone, so that no true date is needed for it
        start = date(2001, 1, 1).toordinal() + self.key.number("first study", person) % 3652
        return start + away - day.toordinal()


def _unit(wanted: Wanted, person: str, rows: Rows, shifts: _Shifts) -> Unit:
    ordered = sorted(rows, key=lambda row: (row["role"], str(row["series_uid"]), str(row["sop_instance_uid"])))
    for row in ordered:
        row["shift_days"] = shifts.of_study(person, str(row["study_uid"] or ""))
    table = pa.Table.from_pylist(ordered, schema=UNIT)
    names = ("role", "stack", "shift_days", "boxes", "sop_instance_uid", "header_sha256", "content_sha256", "size")
    inputs = [table.column(name).to_pylist() for name in (*names, *(["found"] if wanted.devices else []))]
    said = table.column("face").to_pylist()
    inputs += [said] if any(said) else []
    faces = {face: wanted.faces.removals[face] for face in sorted(set(said)) if face in wanted.faces.removals}
    return Unit(fingerprint(recipe(wanted), person, inputs), person, table, faces)


_APART = {"patient_key", "text", "anonymity", "faces", "defacer", "face_review", "face_decisions"}
"""Options of ``deid`` that the bytes of an object do not follow, or that its row says the outcome of."""


def recipe(wanted: Wanted) -> dict[str, object]:
    """Return every option and version that can change the bytes of a released object."""
    deid, release = wanted.deid, wanted.release
    return {
        "release": VERSION,
        "deid": deid.VERSION,
        "key": key_check(wanted.key),
        "options": deid.model_dump(mode="json", exclude=_APART),
        "age_bands": deid.anonymity.age_bands is not None,
        "block": release.model_dump(mode="json", exclude={"decisions", "undecided", "crosswalk", "text"}),
        "words": list(wanted.words),
        **({"devices": wanted.devices, "text": _policy(release)} if wanted.devices else {}),
        **({"faces": [deid.faces, deid.defacer.kind, deid.defacer.VERSION]} if deid.faces != "keep" else {}),
    }


def _policy(release: ReleaseOptions) -> dict[str, object]:
    return release.text.model_dump(mode="json", exclude={"devices"}) if release.text is not None else {}
