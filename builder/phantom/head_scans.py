"""Write head CT, PET and MR of invented persons, with masks of their faces and brains as the answer key."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset

from builder.errors import SpecError, counted
from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.phantom.headers import Series, Stored, Subject, Visit
from builder.phantom.heads import Answer, Head, answer, draw_grid, draw_pose, make_head
from builder.phantom.scans import Desk, Item, Scan, scan_ct, scan_files, scan_mr, scan_pet
from builder.phantom.vendors import EXPLICIT, VENDORS, Vendor

TRUTH: Final = "truth"
"""Folder of the answer key: for each series a file with two masks, ``face`` and ``brain``, packed to bits."""
MODALITIES: Final = ("CT", "PT", "MR")
"""What each person gets: CT and PET in one frame of reference, MR in one of its own."""


@dataclass(frozen=True, eq=False)
class HeadScan:
    """A scan of a head and what is known about it."""

    scan: Scan
    answer: Answer


@dataclass(frozen=True)
class HeadsSummary:
    """What was written: the folder, and how many persons, series and files."""

    directory: Path
    patients: int
    series: int
    files: int

    @property
    def text(self) -> str:
        """Return a line for a person to read."""
        return f"{self.files} files, {self.series} series of {counted(self.patients, 'head')} in {self.directory}"

    def facts(self) -> dict[str, Any]:
        """Return the summary for machines."""
        return {
            "directory": str(self.directory), "patients": self.patients, "series": self.series, "files": self.files,
        }  # fmt: skip


def draw_scans(key: Key, number: int) -> Iterator[HeadScan]:
    """Yield the scans of one person, as a pure function of the key and the number (from 1)."""
    rng = np.random.Generator(np.random.PCG64(key.number("head", str(number))))
    lying = draw_pose(rng, rest=True)
    for modality in MODALITIES:
        pose = replace(draw_pose(rng, rest=False), size=lying.size) if modality == "MR" else lying
        frame = key.uid(f"frame/{number}/{'MR' if modality == 'MR' else 'CT'}")
        head = make_head(pose)
        grid = draw_grid(rng, modality, pose.moved_mm, frame)
        yield scan_head(key, number, modality, head, grid)


def write_heads(directory: Path, *, patients: int = 4, seed: int = 20251121) -> HeadsSummary:
    """Write heads. The same arguments give the same bytes.

    ``archive/`` gets CT, PET and MR of each person, ``truth/`` a file ``<SeriesInstanceUID>.npz`` for each series, and
    ``truth.json`` says which series belong to whom.

    Raises
    ------
    SpecError
        When the directory is not empty, or there are no persons.
    """
    if patients < 1:
        raise SpecError(f"patients: found {patients}, expected at least 1")
    if directory.exists() and any(directory.iterdir()):
        raise SpecError("to: the folder holds something already; name a new or an empty folder")
    key = Key(sha256(f"phantom heads {seed}".encode()).digest())
    truth: dict[str, Any] = {"format": 1, "seed": seed, "series": []}
    (directory / TRUTH).mkdir(parents=True)
    files = 0
    for number in range(1, patients + 1):
        for made in draw_scans(key, number):
            series = made.scan.series
            for item in head_files(key, made.scan):
                path = directory / "archive" / item.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(item.data)
                files += 1
            (directory / TRUTH / f"{series.uid}.npz").write_bytes(packed(made.answer))
            facts = {"patient_id": made.scan.subject.patient_id, "modality": series.modality, "series_uid": series.uid}
            truth["series"].append({**facts, "shape": list(made.scan.geometry.shape)})
    (directory / "truth.json").write_text(json.dumps(truth, indent=1, sort_keys=True) + "\n")
    return HeadsSummary(directory, patients, len(truth["series"]), files)


def packed(known: Answer) -> bytes:
    """Return both masks as a file of numpy: packed to bits (``numpy.unpackbits``), in C order."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, face=np.packbits(known.face), brain=np.packbits(known.brain))
    return buffer.getvalue()


def scan_head(key: Key, number: int, modality: str, head: Head, grid: Geometry) -> HeadScan:
    """Return one scan of a person's head on a grid, with the noise of a vendor or more."""
    vendor = list(VENDORS.values())[number % len(VENDORS)]
    rng = np.random.Generator(np.random.PCG64(key.number("head noise", str(number), modality)))
    made = _scan(key, number, modality, vendor, head, grid, rng)
    return HeadScan(made, answer(head, grid))


def head_files(key: Key, scan: Scan) -> Iterator[Item]:
    """Yield the files of a scan of a head."""
    yield from scan_files(scan, _desk(key, scan))


def _scan(
    key: Key, number: int, modality: str, vendor: Vendor, head: Head, grid: Geometry, rng: np.random.Generator
) -> Scan:
    """Return a scan of a head, with the noise of its vendor or more."""
    visit = Visit(key.uid(f"study/{number}/{modality == 'MR'}"), "20240311", accession=f"H{number:04d}")
    kinds = {"CT": ("AXIAL",), "PT": (), "MR": ("M", "SE")}
    series = Series(
        key.uid(f"series/{number}/{modality}"), modality, MODALITIES.index(modality) + 1, f"Head {modality}",
        image_type=("ORIGINAL", "PRIMARY", *kinds[modality]),
    )  # fmt: skip
    blank = Scan(
        visit, Subject(f"PHH-{number:04d}", name=f"Phantom^Head^{number}"), vendor.scanners[modality], series, grid,
        Stored(), np.zeros(0, np.int16),
    )  # fmt: skip
    if modality == "CT":
        noisy = replace(vendor, noise_hu=vendor.noise_hu * float(rng.uniform(0.7, 2.0)))
        return scan_ct(head.body, noisy, rng, blank=blank)
    return {"MR": scan_mr, "PT": scan_pet}[modality](head.body, rng, blank=blank)


def _desk(key: Key, scan: Scan) -> Desk:
    def plant(header: Dataset) -> None:
        header.BodyPartExamined = "HEAD"

    name = "{series:03d}-{modality}/{number:04d}.dcm"
    return Desk(key, scan.subject.patient_id, name, EXPLICIT, "", plant)
