"""Make one visit of one person: its series, their labels, and the truth about them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.phantom.bodies import Body, contours, make_body, place_lesions, voxelise
from builder.phantom.canary import planter
from builder.phantom.headers import MR_IMAGE, STORAGE, Series, Stored, Subject, Visit
from builder.phantom.people import Person
from builder.phantom.scans import (
    Desk,
    Item,
    Scan,
    Size,
    axial_grid,
    coronal_grid,
    file_bytes,
    oblique_grid,
    sagittal_grid,
    scan_ct,
    scan_files,
    scan_headers,
    scan_localizer,
    scan_mr,
    scan_pet,
)
from builder.phantom.segmentations import segmentation
from builder.phantom.structures import Contour, Roi, Target, structure_set
from builder.phantom.vendors import VENDORS, Vendor

CT_FIELD_MM, PET_FIELD_MM, MR_FIELD_MM = 440.0, 500.0, 420.0
LESION_GROWTH = 1.2
"""Linear growth of lesions between the first two visits when the disease recurs; otherwise they shrink by it."""


@dataclass(frozen=True)
class VisitPlan:
    """What happens on a visit.

    Parameters
    ----------
    modalities
        Of CT, PT, MR. CT and PT share a frame of reference, MR has one of its own.
    patient_id, pet_patient_id
        The PatientIDs in the headers; the PET scanner may know the person under another one.
    labels
        Of ``CT RTSTRUCT``, ``CT SEG``, ``PT SEG``, ``MR RTSTRUCT``, ``MR SEG``.
    oddities
        Of ``gap`` (one more series, a slice missing), ``duplicate``, ``truncated``.
    """

    person: Person
    number: int
    patient_id: str
    pet_patient_id: str
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    oddities: tuple[str, ...] = ()
    compression: str = ""
    folder: str = ""
    past_midnight: bool = False


@dataclass(frozen=True, eq=False)
class Room:
    """A visit made concrete: who, when, where, the body on the table in either frame, and one desk for its files."""

    plan: VisitPlan
    vendor: Vendor
    size: Size
    key: Key
    desk: Desk
    visit: Visit
    token: str | None
    bodies: dict[str, Body]
    frames: dict[str, str]

    def series_uid(self, name: str) -> str:
        """Return the UID of the visit's series called ``name``."""
        return self.key.uid(f"series/{self.visit.uid}/{name}")

    def rng(self, name: str) -> np.random.Generator:
        """Return random numbers for one purpose, independent of the order in which series are made."""
        return np.random.Generator(np.random.PCG64(self.key.number("noise", self.visit.uid, name)))

    def subject(self, modality: str) -> Subject:
        """Return the person as this modality's header knows them."""
        person = self.plan.person
        return Subject(
            patient_id=self.plan.pet_patient_id if modality == "PT" else self.plan.patient_id,
            name=person.name if self.token is None else f"{self.token}^{person.name.partition('^')[2]}",
            sex=person.sex,
            birth_date=person.birth_date,
            age_years=int(self.visit.date[:4]) - int(person.birth_date[:4]),
            weight_kg=person.weight_kg,
            size_m=person.height_m,
        )


def open_room(plan: VisitPlan, key: Key, *, size: Size, token: str | None) -> Room:
    """Draw the lesions and positions of a visit."""
    person = plan.person
    vendor = VENDORS[person.vendor]
    uid = key.uid(f"study/{person.number}/{plan.number}")
    rng = np.random.Generator(np.random.PCG64(key.number("body", str(person.number))))
    body = make_body(sex=person.sex, height_m=person.height_m, weight_kg=person.weight_kg)
    body = place_lesions(body, rng, hosts=("right lung", "left lung", "liver"), radii_mm=person.radii_mm, reach_mm=25.0)
    if plan.number > 1:
        body = _grown(body, LESION_GROWTH if person.recurrence else 1 / LESION_GROWTH)
    offsets = np.random.Generator(np.random.PCG64(key.number("table", uid))).integers(-400, 400, size=(2, 3)) / 8.0
    bodies = {}
    for kind, offset in zip(("CT", "MR"), offsets.tolist(), strict=True):
        bodies[kind] = body.moved((offset[0], offset[1], 4 * offset[2]))
    day = date(person.year, 1, 1) + timedelta(days=person.day + 180 * (plan.number - 1))
    visit = Visit(
        uid,
        day.strftime("%Y%m%d"),
        "001500" if plan.past_midnight else f"{8 + person.number % 9:02d}{person.number * 7 % 60:02d}00",
        token or f"A{person.number:05d}{plan.number}",
        token or str(100 + person.number),
        "PET/CT" if "PT" in plan.modalities else "/".join(plan.modalities),
    )
    desk = Desk(
        key=key,
        folder=plan.folder,
        file_name=vendor.file_name,
        transfer_syntax=vendor.transfer_syntax,
        compression=plan.compression,
        plant=planter(token),
        prefix="" if token is None else f"{token}_",
    )
    frames = {kind: key.uid(f"frame/{uid}/{kind}") for kind in ("CT", "MR")}
    return Room(plan, vendor, size, key, desk, visit, token, bodies, frames)


def visit_files(room: Room) -> Iterator[Item]:
    """Yield every file of the visit, oddities included."""
    scans = {modality: _scan(room, modality) for modality in room.plan.modalities}
    yield from scan_files(_localizer(room, "MR" if "CT" not in scans else "CT"), room.desk)
    for modality, scan in scans.items():
        items = list(scan_files(scan, room.desk))
        yield from items
        if modality == room.plan.modalities[0]:
            yield from _odd_files(room, scan, items)
    for label in room.plan.labels:
        modality, _, kind = label.partition(" ")
        yield _structures(room, scans[modality]) if kind == "RTSTRUCT" else _segments(room, scans[modality])


def visit_truth(room: Room) -> dict[str, Any]:
    """Return the answer key of the visit: the lesions in every frame of reference, in closed form."""
    frames = []
    for kind in ("CT", "MR"):
        if kind in room.plan.modalities:
            lesions = [
                {
                    "name": tissue.name,
                    "roi": room.vendor.roi_name.format(number=number),
                    "segment": f"Lesion {number}",
                    "centre_mm": list(tissue.solid.centre_mm),
                    "semi_axes_mm": list(tissue.solid.semi_axes_mm),
                    "axes": [list(row) for row in tissue.solid.axes],
                    "volume_mm3": tissue.solid.volume_mm3,
                    "hounsfield": tissue.hounsfield,
                    "suv": tissue.suv,
                }
                for number, tissue in enumerate(room.bodies[kind].lesions, start=1)
            ]
            frames.append({"frame_of_reference_uid": room.frames[kind], "lesions": lesions})
    return {
        "study_uid": room.visit.uid,
        "date": room.visit.date,
        "patient_ids": sorted({room.subject(m).patient_id for m in room.plan.modalities}),
        "vendor": room.plan.person.vendor,
        "site": room.vendor.site,
        "series": {m: room.series_uid(m) for m in room.plan.modalities},
        "labels": list(room.plan.labels),
        "oddities": list(room.plan.oddities),
        "frames": frames,
    }


def _scan(room: Room, modality: str) -> Scan:
    frame = "MR" if modality == "MR" else "CT"
    body = room.bodies[frame]
    grid = scan_grid(room, modality)
    image_type = {"CT": ("ORIGINAL", "PRIMARY", "AXIAL"), "MR": ("ORIGINAL", "PRIMARY", "M", "SE")}
    series = Series(
        uid=room.series_uid(modality),
        modality=modality,
        number={"CT": 2, "PT": 4, "MR": 5}[modality],
        description={"CT": "Chest abdomen", "PT": "PET AC", "MR": "T2 TSE oblique"}[modality],
        image_type=image_type.get(modality, ("ORIGINAL", "PRIMARY")),
        activity_bq=round(room.plan.person.weight_kg * 4.0) * 1e6,
        uptake_s=3600 + 60 * (room.plan.person.number % 20),
    )
    blank = Scan(
        visit=room.visit,
        subject=room.subject(modality),
        scanner=room.vendor.scanners[modality],
        series=series,
        geometry=grid,
        stored=Stored(),
        pixels=np.zeros(0, np.int16),
        head_first=room.vendor.head_first,
    )
    if modality == "CT":
        return scan_ct(body, room.vendor, room.rng("CT"), blank=blank)
    return {"MR": scan_mr, "PT": scan_pet}[modality](body, room.rng(modality), blank=blank)


def scan_grid(room: Room, modality: str) -> Geometry:
    """Return a grid around the lesions, across the whole body, shifted by a fraction of a voxel as real tables are."""
    frame_kind = "MR" if modality == "MR" else "CT"
    body, frame = room.bodies[frame_kind], room.frames[frame_kind]
    middle = np.mean([lesion.solid.centre_mm for lesion in body.lesions], axis=0)
    axis = body.organ("muscle").solid.centre_mm
    jitter = np.round(room.rng(f"grid {modality}").uniform(-1.0, 1.0, size=3), 3)
    x, y, z = float(axis[0] + jitter[0]), float(axis[1] + jitter[1]), float(middle[2] + jitter[2])
    size = room.size
    length = size.ct[0] * room.vendor.slice_mm * size.thin
    if modality == "CT":
        pixel = CT_FIELD_MM / size.ct[1]
        return axial_grid((size.ct[0], size.ct[1], size.ct[1]), (length / size.ct[0], pixel, pixel), (x, y, z), frame)
    if modality == "PT":
        count, matrix = size.pet
        pixel = PET_FIELD_MM / matrix
        return axial_grid((count, matrix, matrix), (length / count, pixel, pixel), (x, y, z), frame)
    count, matrix = size.mr
    pixel = MR_FIELD_MM / matrix
    pitch, yaw = (float(v) for v in room.rng("tilt").integers(-25, 26, size=2))
    spacing = (144.0 / count, pixel, pixel)
    centre = np.array([axis[0], axis[1], middle[2]]) + jitter
    normal = oblique_grid((1, 1, 1), spacing, (0, 0, 0), frame, tilts_degrees=(pitch, yaw)).directions[:, 0]
    centre += normal * float((middle - centre) @ normal)  # the slab's middle plane goes through the lesions' middle
    cx, cy, cz = (float(v) for v in np.round(centre, 3))
    return oblique_grid((count, matrix, matrix), spacing, (cx, cy, cz), frame, tilts_degrees=(pitch, yaw))


def _localizer(room: Room, modality: str) -> Scan:
    body = room.bodies[modality]
    x, y, z = body.organ("muscle").solid.centre_mm
    frame = room.frames[modality]
    matrix = room.size.ct[1]
    pixel = 600.0 / matrix
    grids: tuple[Geometry, ...] = (coronal_grid((1, matrix, matrix), pixel, (x, y, z), frame),)
    if modality == "MR":
        grids += (
            sagittal_grid((1, matrix, matrix), pixel, (x, y, z), frame),
            axial_grid((1, matrix, matrix), (pixel, pixel, pixel), (x, y, z), frame),
        )
    series = Series(
        room.series_uid("localizer"),
        modality,
        1,
        "Localizer",
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER") if modality == "CT" else ("ORIGINAL", "PRIMARY", "M", "SE"),
    )
    blank = Scan(
        room.visit,
        room.subject(modality),
        room.vendor.scanners[modality],
        series,
        grids[0],
        Stored(),
        np.zeros(0, np.int16),
    )
    return scan_localizer(body, grids, blank=blank)


def _odd_files(room: Room, scan: Scan, items: list[Item]) -> Iterator[Item]:
    if "gap" in room.plan.oddities:
        facts = replace(scan.series, uid=room.series_uid("gap"), number=3, description="Recon 2")
        yield from scan_files(replace(scan, series=facts, missing=(scan.pixels.shape[0] // 2,)), room.desk)
    if "duplicate" in room.plan.oddities:
        first = items[0]
        yield replace(first, path=first.path + ".copy", kind="duplicate")
    if "truncated" in room.plan.oddities:
        facts = replace(scan.series, uid=room.series_uid("truncated"), number=7, description="Interrupted")
        whole = next(scan_files(replace(scan, series=facts), room.desk))
        yield replace(whole, data=whole.data[: len(whole.data) * 3 // 5], kind="truncated")


def _structures(room: Room, scan: Scan) -> Item:
    modality = scan.series.modality
    uids = tuple(room.desk.image_uid(scan.series.uid, k) for k in range(scan.pixels.shape[0]))
    body = room.bodies[modality]

    def outline(name: str, tissue: Any, kind: str) -> Roi:
        drawn = contours(tissue.solid, scan.geometry)
        return Roi(name, tuple(Contour(points, uids[k]) for k, points in drawn), kind)

    rois = [outline(room.vendor.roi_name.format(number=n), t, "GTV") for n, t in enumerate(body.lesions, start=1)]
    rois.append(outline("Liver", body.organ("liver"), "ORGAN"))
    uid = room.key.uid(f"rtstruct/{scan.series.uid}")
    target = Target(room.frames[modality], scan.series.uid, STORAGE[modality], uids)
    dataset = structure_set(
        room.visit,
        scan.subject,
        scanner=scan.scanner,
        target=target,
        rois=rois,
        uid=uid,
        series=Series(
            room.key.uid(f"series/{uid}"), "RTSTRUCT", 11 if target.sop_class == MR_IMAGE else 10, "Contours"
        ),
    )
    return _label_item(room, dataset, modality="RTSTRUCT")


def _segments(room: Room, scan: Scan) -> Item:
    modality = scan.series.modality
    body = room.bodies["MR" if modality == "MR" else "CT"]
    masks = {f"Lesion {n}": voxelise(t.solid, scan.geometry) for n, t in enumerate(body.lesions, start=1)}
    masks["Liver"] = voxelise(body.organ("liver").solid, scan.geometry)
    uid = room.key.uid(f"seg/{scan.series.uid}")
    dataset = segmentation(
        scan_headers(scan, room.desk),
        {name: mask for name, mask in masks.items() if mask.any()},
        uid=uid,
        series_uid=room.key.uid(f"series/{uid}"),
        number={"CT": 20, "PT": 21, "MR": 22}[modality],
        rename=lambda ordinal: room.key.uid(f"{uid}/{ordinal}"),
    )
    return _label_item(room, dataset, modality="SEG")


def _label_item(room: Room, dataset: Any, *, modality: str) -> Item:
    room.desk.plant(dataset)
    uid = str(dataset.SOPInstanceUID)
    path = room.desk.path(room.visit.date, series=int(dataset.SeriesNumber), number=1, modality=modality, uid=uid)
    return Item(path, file_bytes(dataset), modality, str(dataset.SeriesInstanceUID))


def _grown(body: Body, factor: float) -> Body:
    """Return the body with every lesion enlarged by a linear factor."""
    lesions = []
    for lesion in body.lesions:
        a, b, c = (round(axis * factor, 3) for axis in lesion.solid.semi_axes_mm)
        lesions.append(replace(lesion, solid=replace(lesion.solid, semi_axes_mm=(a, b, c))))
    return replace(body, lesions=tuple(lesions))
