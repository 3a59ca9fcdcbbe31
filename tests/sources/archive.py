"""A small archive for tests of remote sources: two patients, a CT and an MR series, an RTSTRUCT."""

from pathlib import Path

import pydicom

from tests.synthetic import box_contours, ct_series, rtstruct


def make_archive(folder: Path) -> dict[str, bytes]:
    """SOP Instance UID to the bytes of its file."""
    made = ct_series(folder / "ct", slices=5, encoding="explicit")
    ct_series(folder / "jpegls", slices=3, series="2", encoding="jpegls")
    rtstruct(made, {"GTV": box_contours(made.geometry, (1, 5, 5), (3, 10, 10))}, directory=folder / "rt")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(pydicom.dcmread(path).SOPInstanceUID): path.read_bytes() for path in files}
