"""Count what an archive and its clinical sheet hold, with pydicom and openpyxl alone."""

import re
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pydicom
from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Originals:
    """Facts of the original files, under their original names.

    Parameters
    ----------
    patients
        PatientIDs of image series.
    accessions
        SeriesInstanceUID of every image series to its patient and accession number.
    outlined
        SeriesInstanceUID of an image to the names of the ROIs drawn on it.
    sheet
        What stands in the column of the clinical sheet that names patients, one entry a filled row.
    """

    patients: frozenset[str]
    accessions: dict[str, tuple[str, str, str]]
    outlined: dict[str, frozenset[str]]
    sheet: tuple[str, ...]

    def persons_in_sheet(self, pattern: str) -> frozenset[str]:
        """Rows whose name is a patient's."""
        return frozenset(name for name in self.sheet if re.fullmatch(pattern, name))


def originals(archive: Path, sheet: Path) -> Originals:
    """Read one header of each series, every RTSTRUCT in full, and the first column of the sheet's active page."""
    accessions: dict[str, tuple[str, str, str]] = {}
    outlined: dict[str, set[str]] = {}
    for folder in sorted({p.parent for p in archive.rglob("*") if p.is_file()}):
        for path in sorted(p for p in folder.iterdir() if p.is_file()):
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
            except pydicom.errors.InvalidDicomError:
                continue
            if header.Modality != "RTSTRUCT":
                accession = str(header.get("AccessionNumber") or "")
                accessions[header.SeriesInstanceUID] = (header.PatientID, header.Modality, accession)
                break  # one series a folder
            for uid in _drawn_on(header):
                outlined.setdefault(uid, set()).update(str(r.ROIName) for r in header.StructureSetROISequence)
    book = openpyxl.load_workbook(sheet)
    rows = list(book.active.iter_rows(min_row=2, max_col=1, values_only=True))
    book.close()
    return Originals(
        patients=frozenset(patient for patient, _, _ in accessions.values()),
        accessions=accessions,
        outlined={uid: frozenset(names) for uid, names in outlined.items()},
        sheet=tuple(str(row[0]).strip() for row in rows if row[0] is not None),
    )


def _drawn_on(structures: Dataset) -> set[str]:
    """Series an RTSTRUCT refers to (PS3.3 C.8.8.5)."""
    return {
        str(series.SeriesInstanceUID)
        for frame in structures.get("ReferencedFrameOfReferenceSequence", ())
        for study in frame.get("RTReferencedStudySequence", ())
        for series in study.get("RTReferencedSeriesSequence", ())
    }
