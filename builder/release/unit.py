"""Release the objects of one person in one task: read, clean, check references, write; the receipt comes last."""

import hashlib
import io
import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import environ
from typing import Any

import pyarrow as pa
from pydicom import Dataset, dcmwrite
from pydicom.config import disable_value_validation

from builder.decode.format import NATIVE
from builder.deid import resolve_key
from builder.deid.identifiers import NOTHING_KNOWN, Identifiers, identifiers_in, identifiers_of
from builder.deid.pixels import PixelVerdict
from builder.deid.uids import UidMap
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as
from builder.imaging.parse import parse_instance
from builder.model.canonical import canonical_json
from builder.release.blanking import blank_pixels
from builder.release.cleaning import Rules, Whose, clean_object, state_blanked, state_defaced, texts_in
from builder.release.devices import unpack_devices
from builder.release.faces import DRAWING, Faces, faces_of
from builder.release.labels import keep_labels
from builder.release.objects import IMAGE, Near, Unit, kind_of, parse_unit
from builder.release.references import Released, prune
from builder.release.science import found_in
from builder.release.triage import RULES, Triage
from builder.sources import AnySource
from builder.spec import DatasetSpec, keeping
from builder.stages.boundary import Faults, InternalError, OnInternalError, describe, fault_of_case
from builder.stages.listed import Listed, bring, read_object
from builder.stages.planned import SPEC
from builder.stages.shard import read_file
from builder.storage import Store, checkpoint, open_store

OBJECTS = "dicom"
"""Folder of a release that holds the objects: ``dicom/<person>/<study>/<series>/<instance>.dcm``."""


@dataclass(frozen=True)
class UnitArgument:
    """Which unit to release, where its plan is and where the release goes. The key stays in the environment."""

    plan: str
    release: str
    unit: str
    on_internal_error: OnInternalError = "exclude"
    content: str = ""
    """Store for objects that come from servers."""
    words: tuple[str, ...] = ()
    """Words of the spec, which labels may hold."""


@dataclass(frozen=True)
class ReleasedObject:
    """One object of a release; all UIDs are the new ones."""

    path: str
    bytes: int
    sha256: str
    source_key: str
    """Keyed name of the source object, as in the ledger."""
    sop_class_uid: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    modality: str
    kind: str
    blanked: bool = False
    """Whether pixels were blanked. All others keep their bytes."""
    defaced: bool = False
    """Whether pixels of a face were taken out."""
    references_removed: int = 0
    references_relisted: int = 0
    kept: int = 0
    """Elements that the source had and the object has, at the top level."""
    removed: int = 0
    """Elements that the source had and the object lacks, at the top level."""


@dataclass(frozen=True)
class UnitReceipt:
    """What became of the objects of a unit."""

    unit: str
    person: str
    objects: tuple[ReleasedObject, ...]
    failed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Maps the keyed name of each object that does not leave to reason and detail."""
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Distinct texts of the objects by keyword, for the search of the whole archive's identifiers."""
    science: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """As ``builder.release.science.table_of`` takes it."""
    withheld: tuple[str, ...] = ()
    """Words of typed labels that do not leave; private."""

    def to_json(self) -> bytes:
        """Return the receipt as canonical JSON; ``parse_receipt`` is the inverse."""
        return canonical_json(asdict(self))


def parse_receipt(data: bytes) -> UnitReceipt:
    """Read a receipt that ``UnitReceipt.to_json`` wrote."""
    found = json.loads(data)
    return UnitReceipt(
        found["unit"],
        found["person"],
        tuple(ReleasedObject(**entry) for entry in found["objects"]),
        {name: (reason, detail) for name, (reason, detail) in found["failed"].items()},
        {name: tuple(values) for name, values in found["texts"].items()},
        {place: (stated, kept) for place, (stated, kept) in found["science"].items()},
        tuple(found["withheld"]),
    )


@dataclass(frozen=True)
class UnitOutcome:
    """What a task tells the runner."""

    receipt: UnitReceipt
    resumed: bool
    internal_errors: tuple[InternalError, ...] = ()


def unit_path(unit: str) -> str:
    """Return the path of a unit in the plan's store."""
    return f"units/{unit}.parquet"


def receipt_path(unit: str) -> str:
    """Return the path of a unit's receipt in the plan's store."""
    return f"receipts/{unit}.json"


def release_unit(argument: UnitArgument) -> UnitOutcome:
    """Release one unit unless its receipt exists and its objects are there. It is safe to run this again."""
    store, target = open_store(argument.plan, directory_mode=0o700), open_store(argument.release)
    found = _finished(store, target, argument.unit)
    if found is not None:
        return UnitOutcome(found, True)
    spec = keeping(DatasetSpec.model_validate_json(store.read(SPEC)), argument.content)
    uids = UidMap(resolve_key(spec.deid.patient_key, environ, read=read_file))
    rules = unpack_devices(store.read(RULES)) if spec.release.text is not None else None
    errors: list[InternalError] = []
    writer = _Writer(
        spec, Rules.of(spec.deid, uids, remove=spec.release.remove), target,
        Faults(argument.on_internal_error, errors.append), Triage(spec.deid, rules, spec.release.text),
        frozenset(argument.words),
    )  # fmt: skip
    receipt = writer.write(parse_unit(store.read(unit_path(argument.unit))))
    checkpoint("release.receipt")
    store.put(receipt_path(argument.unit), receipt.to_json())
    return UnitOutcome(receipt, False, tuple(errors))


def _finished(store: Store, target: Store, unit: str) -> UnitReceipt | None:
    try:
        receipt = parse_receipt(store.read(receipt_path(unit)))
    except FileNotFoundError:
        return None
    if any(reason == Reason.INTERNAL_ERROR for reason, _ in receipt.failed.values()):
        return None  # the fault may be mended since
    return receipt if all(target.exists(o.path) for o in receipt.objects) else None


@dataclass(frozen=True)
class _Writer:
    spec: DatasetSpec
    rules: Rules
    target: Store
    faults: Faults
    triage: Triage
    words: frozenset[str] = frozenset()
    """Words of the spec, which labels may hold."""

    @property
    def sources(self) -> tuple[AnySource, ...]:
        return self.spec.sources

    def write(self, unit: Unit) -> UnitReceipt:
        """Write the objects of a unit. An object that cannot leave takes its stack with it, and all references to it.

        The objects are written anew until no further one fails, because an object that was written may refer to one
        that failed after it.
        """
        bring(unit.objects, self.sources)
        known, faces = self._known(unit), self._faces(unit)
        failed: dict[str, tuple[str, str]] = {}
        while True:
            failed |= self._orphans(unit, failed)
            rows = [row for row in unit.objects.to_pylist() if self._name(row) not in failed]
            released = self._released(rows)
            objects, said, fresh = [], _Said(), dict[str, tuple[str, str]]()
            for row in rows:
                try:
                    objects.append(self._object(row, unit.person, known, released, said, faces))
                except Exception as error:  # noqa: BLE001 - the case boundary
                    fault = fault_of_case(error, on_internal_error=self.faults.action)
                    if fault.reason == Reason.INTERNAL_ERROR:
                        self.faults.add([describe(error, self._name(row))])
                    fresh |= self._gone(row, rows, fault)
            if not fresh:
                break
            failed |= fresh
            for row in rows:
                if self._name(row) in fresh:
                    self.target.delete(self._path(row, unit.person))
        texts = {name: tuple(sorted(values)) for name, values in sorted(said.texts.items())}
        science = {str(place): (stated, said.kept[place]) for place, stated in sorted(said.stated.items())}
        ordered = tuple(sorted(objects, key=lambda o: o.path))
        return UnitReceipt(unit.name, unit.person, ordered, failed, texts, science, tuple(sorted(said.withheld)))

    def _gone(self, row: Mapping[str, Any], rows: list[dict[str, Any]], fault: CaseError) -> dict[str, tuple[str, str]]:
        """Return what goes with an object that fails: a stack with a hole in it would be another image."""
        lost = [r for r in rows if r is row or (row["stack"] and r["stack"] == row["stack"])]
        return {self._name(r): (fault.reason.value, fault.detail) for r in lost}

    def _orphans(self, unit: Unit, failed: Mapping[str, object]) -> dict[str, tuple[str, str]]:
        """Return the labels of which every image failed."""
        rows = unit.objects.to_pylist()
        left = [row for row in rows if row["role"] == IMAGE and self._name(row) not in failed]
        near = Near.of(left, frozenset(row["series_uid"] for row in rows if row["role"] == IMAGE))
        detail = "found no image that leaves among those it refers to, expected one"
        lost = (Reason.NOT_SELECTED.value, detail)
        return {self._name(row): lost for row in rows if row["role"] != IMAGE and not near.holds(row)} if failed else {}

    def _known(self, unit: Unit) -> Identifiers:
        """Return what identifies the person: the index rows, the first image of each stack, and every other object."""
        found, seen = identifiers_of(unit.objects), set[str]()
        for row in unit.objects.to_pylist():
            if row["role"] != IMAGE or row["stack"] not in seen:
                seen.add(row["stack"])
                found = found | self._identifiers(row)
        return found

    def _identifiers(self, row: Mapping[str, Any]) -> Identifiers:
        try:
            return identifiers_in((self._read(row),))
        except CaseError:
            return NOTHING_KNOWN  # the object fails again when it is to be written, and is then accounted for

    def _faces(self, unit: Unit) -> Faces:
        """Return what goes out of the person's heads."""
        rows = unit.objects.to_pylist()
        drawing = [row for row in rows if row["role"] != IMAGE and kind_of(row["sop_class_uid"]) in DRAWING]
        return faces_of(unit.faces, drawing, self._read)

    def _read(self, row: Mapping[str, Any]) -> Dataset:
        return parse_instance(read_object(Listed.of(row), self.sources))

    def _object(
        self,
        row: Mapping[str, Any],
        person: str,
        known: Identifiers,
        released: Released,
        said: "_Said",
        faces: Faces,
    ) -> ReleasedObject:
        source = self._read(row)
        with elements_as(Reason.UNREADABLE):
            verdict = self.triage.verdict(row, source) if row["role"] == IMAGE else PixelVerdict()
            clean = clean_object(source, self.rules, Whose(person, row["shift_days"], known))
            said.withheld |= keep_labels(clean, self.words)
            blanked = blank_pixels(clean, verdict)
            if blanked:
                state_blanked(clean)
            defaced = row["role"] == IMAGE and faces.take_out_of(clean, row["face"])
            if defaced:
                state_defaced(clean)
            pruned = prune(clean, released)
            data = file_bytes(clean)
            said.add(source, clean)
            kept = len(set(source.keys()) & set(clean.keys()))
        path = self._path(row, person)
        checkpoint("release.object")
        self.target.put(path, data)
        return ReleasedObject(
            path=path,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            source_key=self._name(row),
            sop_class_uid=row["sop_class_uid"],
            study_uid=self.rules.named(row["study_uid"]),
            series_uid=self.rules.named(row["series_uid"]),
            sop_instance_uid=self.rules.named(row["sop_instance_uid"]),
            modality=row["modality"] or "",
            kind="image" if row["role"] == IMAGE else kind_of(row["sop_class_uid"]),
            blanked=blanked,
            defaced=defaced,
            references_removed=pruned.removed,
            references_relisted=pruned.relisted,
            kept=kept,
            removed=len(source) - kept,
        )

    def _name(self, row: Mapping[str, Any]) -> str:
        return self.rules.uids.key.name("object", row["sop_instance_uid"])

    def _path(self, row: Mapping[str, Any], person: str) -> str:
        study, series, uid = (self.rules.named(row[n]) for n in ("study_uid", "series_uid", "sop_instance_uid"))
        return f"{OBJECTS}/{person}/{study}/{series}/{uid}.dcm"

    def _released(self, rows: list[dict[str, Any]]) -> Released:
        named = self.rules.named
        series: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            pair = (row["sop_class_uid"], named(row["sop_instance_uid"]))
            series.setdefault(named(row["series_uid"]), []).append(pair)
        studies = {named(row["series_uid"]): named(row["study_uid"]) for row in rows}
        return Released({name: sorted(pairs) for name, pairs in series.items()}, studies)


@dataclass
class _Said:
    """What the objects of a unit say: their texts, and which attributes of ``SCIENCE`` sources and objects state."""

    texts: dict[str, set[str]] = field(default_factory=dict)
    stated: Counter[int] = field(default_factory=Counter)
    kept: Counter[int] = field(default_factory=Counter)
    withheld: set[str] = field(default_factory=set)
    """Words of typed labels that do not leave."""

    def add(self, source: Dataset, clean: Dataset) -> None:
        for keyword, value in texts_in(clean):
            self.texts.setdefault(keyword, set()).add(value)
        stated = found_in(source)
        self.stated.update(stated)
        self.kept.update(stated & found_in(clean))


def file_bytes(clean: Dataset) -> bytes:
    """Return a cleaned object as a DICOM file in the transfer syntax of its source; pixels keep their bytes.

    Values are written as the source has them: what its VR does not allow was the source's fault before.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, clean, enforce_file_format=True)
    return buffer.getvalue()


def encoded(objects: pa.Table) -> bool:
    """Return whether any object has compressed pixels, which decoders read that may kill their process."""
    return any(syntax not in NATIVE for syntax in objects.column("transfer_syntax_uid").to_pylist())


def peak_bytes(objects: pa.Table) -> int:
    """Return the projected memory of a unit: the largest object as read, parsed and written, and all index rows."""
    sizes = objects.column("size").to_pylist()
    return (4 * max(sizes, default=0)) + 4096 * len(sizes)
