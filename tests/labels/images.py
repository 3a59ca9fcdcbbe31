"""Image geometry straight from DICOM headers, for tests of label readers."""

from pathlib import Path

import numpy as np
import pydicom

from builder.model.geometry import Geometry
from builder.protocols import ImageFacts


def image_facts(folder: Path, pattern: str = "*") -> ImageFacts:
    """The regular axial or oblique stack of single-frame images in ``folder``."""
    headers = [
        pydicom.dcmread(p, stop_before_pixels=True, force=True) for p in sorted(folder.glob(pattern)) if p.is_file()
    ]
    return facts_of([h for h in headers if "ImagePositionPatient" in h])


def facts_of(headers: list[pydicom.Dataset]) -> ImageFacts:
    first = headers[0]
    x, y = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(x, y)
    ordered = sorted(headers, key=lambda h: float(np.dot(normal, np.array(h.ImagePositionPatient, dtype=float))))
    positions = np.array([[float(v) for v in h.ImagePositionPatient] for h in ordered])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1) if len(ordered) > 1 else normal
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, y * row_mm, x * column_mm], axis=1)
    affine[:3, 3] = positions[0]
    shape = (len(ordered), int(first.Rows), int(first.Columns))
    geometry = Geometry(shape, affine, str(first.get("FrameOfReferenceUID") or "") or None)
    uids = {str(h.SOPInstanceUID): i for i, h in enumerate(ordered)}
    return ImageFacts(geometry, str(first.get("SeriesInstanceUID", "")), uids, str(first.get("Modality", "")))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b)))
