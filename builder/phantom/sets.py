"""Write studies of several images whose truth is known: brains in four MR contrasts, and mammograms in four views."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from builder.errors import SpecError
from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.phantom.headers import (
    IMPLEMENTATION_UID,
    Scanner,
    Series,
    Stored,
    Subject,
    Visit,
    describe_patient,
    describe_study,
    image_header,
    place_image,
)
from builder.phantom.scans import oblique_grid
from builder.phantom.segmentations import segmentation

MISALIGNED_MM: Final = (14.0, 0.0, 0.0)
"""How far (LPS mm) the head lies from where it was in the last person's T2, under the same frame of reference."""

VISIT_DAYS: Final = 182
"""Days from the first visit of a brain to the second."""

GROWTH: Final = 1.25
"""Linear growth of the tumour from the first visit to the second."""

TISSUES: Final = ("air", "scalp", "white matter", "ventricle", "oedema", "core")
MAMMOGRAPHY: Final = "1.2.840.10008.5.1.4.1.1.1.2"
VIEWS: Final = (("R", "CC"), ("R", "MLO"), ("L", "CC"), ("L", "MLO"))


@dataclass(frozen=True)
class Contrast:
    """One MR sequence: its words and times in the header, its grid, and the value of each of ``TISSUES``."""

    name: str
    description: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    tilts_degrees: tuple[float, float]
    times_ms: tuple[float, float, float]
    values: tuple[int, ...]
    agent: str = ""


_T1_GRID: Final = ((30, 56, 48), (5.0, 3.5, 3.5), (4.0, 0.0), (500.0, 12.0, 0.0))
_T2_GRID: Final = ((36, 60, 52), (4.0, 3.2, 3.2), (-3.0, 2.0), (4500.0, 100.0, 0.0))
_FLAIR_GRID: Final = ((28, 52, 46), (5.5, 3.6, 3.6), (0.0, 0.0), (9000.0, 120.0, 2500.0))
CONTRASTS: Final = (
    Contrast("t1", "T1 SE AX", *_T1_GRID, (0, 300, 620, 180, 400, 420)),
    Contrast("t1c", "T1 SE AX POST GD", *_T1_GRID, (0, 320, 640, 180, 400, 950), "GADOBUTROL"),
    Contrast("t2", "T2 TSE AX", *_T2_GRID, (0, 260, 380, 980, 760, 640)),
    Contrast("flair", "FLAIR AX", *_FLAIR_GRID, (0, 240, 420, 90, 860, 700)),
)


@dataclass(frozen=True)
class SetsSummary:
    """What was written: the folder, and how many persons of each kind and files."""

    directory: Path
    brains: int
    breasts: int
    files: int

    @property
    def text(self) -> str:
        """Return a line for a person to read."""
        return f"{self.files} files of {self.brains} brains and {self.breasts} pairs of breasts in {self.directory}"

    def facts(self) -> dict[str, Any]:
        """Return the summary for machines."""
        return {"directory": str(self.directory), "brains": self.brains, "breasts": self.breasts, "files": self.files}


def write_sets(
    directory: Path, *, patients: int = 4, visits: int = 1, seed: int = 20261128, fineness: int = 1
) -> SetsSummary:
    """Write studies of several images. The same arguments give the same bytes.

    ``brain/`` gets T1, T1 with contrast, T2 and FLAIR of each person, on several grids in one frame of reference, and a
    SEG of the tumour on the T1 with contrast. The head of the last person moved before the T2 (``MISALIGNED_MM``). On a
    second visit the tumour has grown (``GROWTH``). ``mammo/`` gets both views of both breasts; the last person lacks
    one. ``truth.json`` says all of this with the volumes of tumours.

    Parameters
    ----------
    fineness
        How many voxels of a brain along each axis take the place of one, for benchmarks.

    Raises
    ------
    SpecError
        When the directory is not empty, or a number is out of range.
    """
    if patients < 1 or visits not in (1, 2) or fineness < 1:
        raise SpecError(f"phantom: found {patients} persons and {visits} visits, expected 1 or more, and 1 or 2")
    if directory.exists() and any(directory.iterdir()):
        raise SpecError(f"phantom: found files in {directory}, expected an empty or new folder")
    key = Key(sha256(f"phantom sets {seed}".encode()).digest())
    truth: dict[str, Any] = {"format": 1, "seed": seed, "brain": [], "mammo": []}
    files = 0
    for number in range(1, patients + 1):
        subject = Subject(f"PHB-{number:03d}", name=f"Phantom^Brain^{number}", sex="FM"[number % 2])
        for visit in range(1, visits + 1):
            made = _Brain(key, subject, number, visit, moved=number == patients, fineness=fineness)
            truth["brain"].append(made.truth())
            files += _write(directory / "brain" / subject.patient_id / f"{visit}", made.files())
        breasts = Subject(f"PHM-{number:03d}", name=f"Phantom^Breasts^{number}", sex="F")
        views = VIEWS[:-1] if number == patients and patients > 1 else VIEWS
        truth["mammo"].append({"patient_id": breasts.patient_id, "views": [" ".join(view) for view in views]})
        files += _write(directory / "mammo" / breasts.patient_id, _mammograms(key, breasts, views))
    (directory / "truth.json").write_text(json.dumps(truth, indent=1, sort_keys=True) + "\n")
    return SetsSummary(directory, patients, patients, files)


@dataclass(frozen=True)
class _Brain:
    """One visit of one person's head."""

    key: Key
    subject: Subject
    number: int
    visit: int
    moved: bool
    fineness: int = 1

    def truth(self) -> dict[str, Any]:
        """Return what is known of the visit: when it was, the volumes of the tumour, and which image is misaligned."""
        core, oedema = self._radii()
        volume = 4 / 3 * np.pi
        return {
            "patient_id": self.subject.patient_id,
            "visit": self.visit,
            "date": self._study().date,
            "core_mm3": round(float(volume * core**3), 3),
            "oedema_mm3": round(float(volume * (oedema**3 - core**3)), 3),
            "misaligned": "t2" if self.moved else None,
        }

    def files(self) -> Iterator[tuple[str, Dataset]]:
        """Yield name and data set of every file."""
        for order, contrast in enumerate(CONTRASTS, start=1):
            (s, r, c), (height, down, across), n = contrast.shape, contrast.spacing_mm, self.fineness
            grid = oblique_grid(
                (s * n, r * n, c * n), (height / n, down / n, across / n), (0.0, 0.0, 0.0), self._uid("frame"),
                tilts_degrees=contrast.tilts_degrees,
            )  # fmt: skip
            tissue = self._tissues(grid, MISALIGNED_MM if self.moved and contrast.name == "t2" else (0.0, 0.0, 0.0))
            images = list(self._images(contrast, order, grid, tissue))
            yield from ((f"{contrast.name}-{k:03d}.dcm", image) for k, image in enumerate(images, start=1))
            if contrast.name == "t1c":
                masks = {"core": tissue == 5, "oedema": tissue == 4}
                yield "seg.dcm", segmentation(
                    images, masks, uid=self._uid("seg"), series_uid=self._uid("seg series"),
                    rename=lambda ordinal: self._uid(f"seg {ordinal}"),
                )  # fmt: skip

    def _images(self, contrast: Contrast, order: int, grid: Geometry, tissue: NDArray[Any]) -> Iterator[Dataset]:
        series = Series(
            self._uid(contrast.name), "MR", order, contrast.description, "BRAIN", ("ORIGINAL", "PRIMARY", "M")
        )
        random = np.random.default_rng([self.number, self.visit, order])
        values = np.asarray(contrast.values)[tissue] + random.integers(0, 25, tissue.shape)
        for k in range(grid.shape[0]):
            image = image_header(
                self._study(), self.subject, scanner=Scanner(field_strength_t=3.0), series=series, geometry=grid,
                stored=Stored(12, signed=False),
            )  # fmt: skip
            image.BodyPartExamined = "HEAD"
            image.RepetitionTime, image.EchoTime, inversion = (f"{t:g}" for t in contrast.times_ms)
            if contrast.times_ms[2]:
                image.InversionTime = inversion
            if contrast.agent:
                image.ContrastBolusAgent = contrast.agent
            place_image(
                image, self._uid(f"{contrast.name} {k}"), index=k, number=k + 1, geometry=grid, pixels=values[k]
            )
            yield image

    def _tissues(self, grid: Geometry, moved_mm: tuple[float, ...]) -> NDArray[np.int64]:
        """Return the tissue at every voxel centre, as positions in ``TISSUES``."""
        places = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1).reshape(-1, 3)
        x, y, z = (grid.to_world(places) - moved_mm).T
        tissue = np.zeros(len(x), np.int64)
        for name, (a, b, c) in {1: (72.0, 88.0, 68.0), 2: (66.0, 82.0, 62.0), 3: (16.0, 28.0, 12.0)}.items():
            tissue[(x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1] = name
        core, oedema = self._radii()
        distance = np.sqrt((x - 32) ** 2 + (y + 20) ** 2 + (z - 14) ** 2)
        tissue[distance < oedema] = 4
        tissue[distance < core] = 5
        return tissue.reshape(grid.shape)

    def _radii(self) -> tuple[float, float]:
        grown = GROWTH ** (self.visit - 1)
        core = (10.0 + 1.5 * (self.number % 4)) * grown
        return core, core * 1.6

    def _study(self) -> Visit:
        day = np.datetime64("2021-03-05") + 9 * self.number + VISIT_DAYS * (self.visit - 1)
        return Visit(self._uid("study"), str(day).replace("-", ""), description="MR brain")

    def _uid(self, *parts: str) -> str:
        return self.key.uid(f"brain/{self.number}/{self.visit}/{'/'.join(parts)}")


def _mammograms(key: Key, subject: Subject, views: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, Dataset]]:
    """Yield one picture of each view: a half disc of tissue on the side of the chest wall, with a mass in it."""
    visit = Visit(key.uid(f"mammo/{subject.patient_id}"), "20210611", description="Mammography")
    random = np.random.default_rng(sum(subject.patient_id.encode()))
    for number, (side, view) in enumerate(views, start=1):
        rows, columns = (96, 72) if view == "CC" else (104, 72)
        r, c = np.mgrid[:rows, :columns]
        reach = c if side == "L" else columns - 1 - c
        tissue = ((r - rows / 2) / (rows * 0.45)) ** 2 + (reach / (columns * 0.9)) ** 2 < 1
        mass = (r - rows * 0.4) ** 2 + (reach - 20) ** 2 < 40
        values = np.where(mass, 3000, np.where(tissue, 1800, 60)) + random.integers(0, 60, (rows, columns))
        uid = key.uid(f"mammo/{subject.patient_id}/{side}{view}")
        image = _mammogram(visit, subject, uid, {"side": side, "view": view}, number)
        image.Rows, image.Columns = rows, columns
        image.PixelData = np.ascontiguousarray(values, dtype="<u2").tobytes()
        yield f"{side}{view}.dcm", image


def _mammogram(visit: Visit, subject: Subject, uid: str, where: Mapping[str, str], number: int) -> Dataset:
    """Return the header of a mammogram for presentation (PS3.3 A.27)."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = MAMMOGRAPHY
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = uid
    describe_patient(image, subject)
    describe_study(image, visit)
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "MG", f"{uid[:60]}.1", str(number)
    image.SeriesDescription = f"{where['side']} {where['view']}"
    image.SeriesDate = image.AcquisitionDate = image.ContentDate = visit.date
    image.SeriesTime = image.AcquisitionTime = image.ContentTime = visit.time
    image.Manufacturer, image.ManufacturerModelName = "Phantom", "Phantom"
    image.ImageType = ["ORIGINAL", "PRIMARY"]
    image.BodyPartExamined, image.ImageLaterality, image.ViewPosition = "BREAST", where["side"], where["view"]
    image.PresentationIntentType, image.PixelIntensityRelationship = "FOR PRESENTATION", "LOG"
    image.ImagerPixelSpacing, image.InstanceNumber = ["1.5", "1.5"], "1"
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.BurnedInAnnotation = "NO"
    return image


def _write(folder: Path, files: Iterator[tuple[str, Dataset]]) -> int:
    """Write data sets to a folder and return their number."""
    folder.mkdir(parents=True)
    count = 0
    for name, dataset in files:
        data = io.BytesIO()
        dataset.save_as(data, enforce_file_format=True)
        (folder / name).write_bytes(data.getvalue())
        count += 1
    return count
