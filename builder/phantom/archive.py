"""Write the archive: images, clinical table, aliases, and the answer key."""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from builder.errors import SpecError, counted
from builder.model.keyed import Key
from builder.phantom.canary import checked_token
from builder.phantom.clinical import ClinicalTable, clinical_table
from builder.phantom.people import DISTRIBUTIONS, Person, draw_person
from builder.phantom.scans import SIZES, Item
from builder.phantom.vendors import VENDORS
from builder.phantom.visits import VisitPlan, open_room, visit_files, visit_truth
from builder.phantom.warehouse import PHENOTYPE, warehouse

MODALITIES = (("CT", "PT"), ("CT",), ("MR",), ("CT",), ("CT", "PT"), ("CT", "MR"))
"""Modalities of the persons' first visits, in rotation."""
TRUTH_FORMAT = 1


@dataclass(frozen=True)
class ArchiveSummary:
    """What was written: the folder, persons, files and bytes, and how many files of each kind."""

    directory: Path
    patients: int
    files: int
    bytes: int
    kinds: Mapping[str, int]

    @property
    def text(self) -> str:
        """Return lines for a person to read."""
        held = "".join(f"\n  {count:6d} {kind}" for kind, count in sorted(self.kinds.items()))
        of = f"of {counted(self.patients, 'person')} in {self.directory}"
        return f"{self.files} files, {self.bytes / 1e6:.1f} MB, {of}:{held}"

    def facts(self) -> dict[str, Any]:
        """Return the summary for machines."""
        return {
            "directory": str(self.directory),
            "patients": self.patients,
            "files": self.files,
            "bytes": self.bytes,
            "kinds": dict(sorted(self.kinds.items())),
        }


def write_archive(
    directory: Path,
    *,
    patients: int = 24,
    seed: int = 20251121,
    size: str = "small",
    canary: str | None = None,
) -> ArchiveSummary:
    """Write a synthetic archive. The same arguments give the same bytes.

    Parameters
    ----------
    directory
        Created if needed; must be empty. Receives ``archive/`` (images), ``clinical.csv``, ``aliases.csv``,
        ``warehouse/`` (FHIR bundles and OMOP tables of the same persons), ``truth.json``.
    patients
        Number of persons, at least 1. With ten or more, every oddity has its own person.
    seed
        Seed of all random numbers; UIDs are derived from it as well.
    size
        ``small`` (CT 40 x 96 x 96) or ``realistic`` (CT 150 x 512 x 512).
    canary
        A token of 4 to 12 capital letters and digits that is planted in every identifying attribute, name and cell.

    Raises
    ------
    SpecError
        When an argument is out of range or the directory is not empty.
    """
    _check(directory, patients=patients, size=size)
    token = None if canary is None else checked_token(canary)
    key = Key(sha256(f"phantom {seed}".encode()).digest())
    people = [draw_person(key, number) for number in range(1, patients + 1)]
    written: list[_Written] = []
    persons = [
        _write_person(directory / "archive", p, people, key, size=size, token=token, log=written) for p in people
    ]
    readme = f"Exported for research. {token or ''}\n".encode()
    _write(directory / "archive" / VENDORS[people[0].vendor].site / f"{token or ''}README.txt", readme)
    written.append(_Written("not DICOM", len(readme), ""))
    table = clinical_table([(_patient_id(p.number, token), p) for p in people], key, token=token)
    _write(directory / "clinical.csv", table.text.encode())
    _write(directory / "aliases.csv", _aliases(patients, token).encode())
    held = warehouse(persons)
    for path, data in held.files.items():
        _write(directory / path, data)
    truth = {"format": TRUTH_FORMAT, "seed": seed, "size": size, "persons": persons, **_totals(written, table)}
    truth["phenotypes"] = {PHENOTYPE: dict(held.truth)}
    _write(directory / "truth.json", (json.dumps(truth, indent=1, sort_keys=True) + "\n").encode())
    return ArchiveSummary(directory, patients, len(written), sum(w.bytes for w in written), truth["files"])


@dataclass(frozen=True)
class _Written:
    """What is recorded about a file: its kind, length and series."""

    kind: str
    bytes: int
    series_uid: str


def _write_person(
    root: Path,
    person: Person,
    people: Sequence[Person],
    key: Key,
    *,
    size: str,
    token: str | None,
    log: list[_Written],
) -> dict[str, Any]:
    """Write all visits of a person, note every file in the log, and return the person's part of the answer key."""
    visits = []
    for plan in plan_visits(person, patients=len(people), token=token):
        room = open_room(plan, key, size=SIZES[size], token=token)
        for item in _store(root, visit_files(room), packed=_packed(plan, len(people))):
            log.append(_Written(item.kind, len(item.data), item.series_uid))
        visits.append(visit_truth(room))
    return _person_truth(person, visits)


def _totals(written: Sequence[_Written], table: ClinicalTable) -> dict[str, Any]:
    """Return the answer key's counts: files and series by kind, clinical rows, and the distributions drawn from."""
    series: dict[str, set[str]] = {}
    for item in written:
        if item.kind not in ("duplicate", "truncated", "not DICOM"):
            series.setdefault(item.kind, set()).add(item.series_uid)
    return {
        "files": dict(sorted(Counter(item.kind for item in written).items())),
        "series": {kind: len(uids) for kind, uids in sorted(series.items())},
        "clinical": {"persons": list(table.persons), "rows": len(table.persons) + 1, "missing_cells": table.missing},
        "distributions": {name: dict(weights) for name, weights in DISTRIBUTIONS.items()},
    }


def _check(directory: Path, *, patients: int, size: str) -> None:
    if patients < 1:
        raise SpecError(f"patients: found {patients}, expected at least 1")
    if size not in SIZES:
        raise SpecError(f"size: found {size!r}, expected one of: {', '.join(SIZES)}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SpecError("to: the folder holds something already; name a new or an empty folder")


def plan_visits(person: Person, *, patients: int, token: str | None) -> Iterator[VisitPlan]:
    """Yield the visits of a person. Each oddity goes to a fixed person; numbers wrap around in small archives."""

    def has(role: int) -> bool:
        return person.number - 1 == role % patients

    turn = (person.number - 1) % len(MODALITIES)
    modalities = MODALITIES[turn]
    own_id = _patient_id(person.number, token)
    site = VENDORS[person.vendor].site
    labels = [f"{m} RTSTRUCT" for m in modalities if m == "CT" or turn == 2]
    labels += ["CT SEG"] * (turn in (1, 4)) + ["PT SEG"] * (turn == 0) + ["MR SEG"] * (turn == 5)
    first = VisitPlan(
        person=person,
        number=1,
        patient_id=own_id,
        pet_patient_id=_other_id(person.number, token) if has(4) else own_id,
        modalities=modalities,
        labels=() if has(9) and patients > 9 else tuple(labels),
        oddities=("gap",) * has(3) + ("duplicate",) * has(0) + ("truncated",) * has(5),
        compression="RLE" if has(6) else "JPEG-LS" if has(7) else "",
        folder=f"{site}/{own_id}",
        past_midnight=has(6),
    )
    yield first
    if has(1):
        other = _other_id(person.number, token)
        yield VisitPlan(person, 2, other, other, modalities, tuple(labels), folder=f"{site}/{other}")
    elif person.number % 8 == 0:
        yield VisitPlan(person, 2, own_id, own_id, modalities, tuple(labels), folder=f"{site}/{own_id}")


def _packed(plan: VisitPlan, patients: int) -> bool:
    return plan.person.number - 1 == 2 % patients and plan.number == 1


def _patient_id(number: int, token: str | None) -> str:
    return f"PH-{number:04d}" if token is None else f"{token}-PH-{number:04d}"


def _other_id(number: int, token: str | None) -> str:
    return f"{70000 + number}" if token is None else f"{token}-{70000 + number}"


def _aliases(patients: int, token: str | None) -> str:
    """Return the alias table, the only place that links the two PatientIDs of the person with two visits."""
    number = 1 % patients + 1
    return f"Patient ID,Alias\n{_patient_id(number, token)},{_other_id(number, token)}\n"


def _person_truth(person: Person, visits: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "person": person.number,
        "patient_ids": sorted({value for visit in visits for value in visit["patient_ids"]}),
        "sex": person.sex,
        "age_years": person.age_years,
        "race": person.race,
        "grade": person.grade,
        "recurrence": person.recurrence,
        "follow_up_days": person.follow_up_days,
        "weight_kg": person.weight_kg,
        "height_m": person.height_m,
        "visits": visits,
    }


def _store(root: Path, items: Iterator[Item], *, packed: bool) -> Iterator[Item]:
    """Write items to the folder, or all of them to one zip in its place."""
    if not packed:
        for item in items:
            _write(root / item.path, item.data)
            yield item
        return
    buffer = io.BytesIO()
    target: Path | None = None
    with zipfile.ZipFile(buffer, "w") as archive:
        for item in items:
            site, folder, member = item.path.split("/", 2)
            target = target or root / site / f"{folder}.zip"
            # a fixed date and system, because otherwise the bytes would depend on clock and machine
            info = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            archive.writestr(info, item.data, zipfile.ZIP_DEFLATED, 1)
            yield item
    if target is not None:
        _write(target, buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
