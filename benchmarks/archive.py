"""CT archives for benchmarks: series of 512 x 512 slices, real ones repeated back and forth, or noise.

    python benchmarks/archive.py FOLDER [--series 48] [--slices 150] [--sample FOLDER] [--syntax jpeg2000]

What ``builder bench build benchmarks/build.yaml --param archive=FOLDER`` can be asked to build.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

SPACING_MM = 2.5
SYNTAXES = {"explicit": ExplicitVRLittleEndian, "jpeg2000": JPEG2000Lossless}


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--series", type=int, default=48)
    parser.add_argument("--slices", type=int, default=150)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--syntax", choices=SYNTAXES, default="explicit")
    options = parser.parse_args()
    write_archive(
        options.folder,
        series=options.series,
        slices=options.slices,
        sample=options.sample,
        syntax=SYNTAXES[options.syntax],
    )


def write_archive(
    folder: Path, *, series: int, slices: int, sample: Path | None = None, syntax: UID = ExplicitVRLittleEndian
) -> None:
    """One folder a series, one person each, in the transfer syntax ``syntax``: explicit little endian or an encoder's.

    Parameters
    ----------
    sample
        A folder with CT slices of one series; None: the slab of the corpus (``BUILDER_CORPUS`` or ``../shared/corpus``
        beside the checkout), or noise where there is no corpus.
    """
    found = sample_slices(sample)
    for dataset in found:
        _encode(dataset, syntax)
    for number in range(series):
        place = folder / f"s{number:03d}"
        place.mkdir(parents=True)
        for z in range(slices):
            back = z % (2 * len(found) - 2)
            dataset = found[min(back, 2 * len(found) - 2 - back)]
            _name(dataset, number, z)
            dataset.save_as(place / f"{z:04d}.dcm", enforce_file_format=True)


def sample_slices(sample: Path | None) -> list[Dataset]:
    """Slices of one series, in order; ``sample`` as for ``write_archive``."""
    if sample is None:
        home = Path(os.environ.get("BUILDER_CORPUS", Path(__file__).resolve().parents[2] / "shared" / "corpus"))
        if not (home / "unpack.py").is_file():
            return [_noise(z) for z in range(8)]
        with tempfile.TemporaryDirectory(prefix="bench-corpus-") as folder:
            command = [sys.executable, home / "unpack.py", "segmentation", "--to", folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return _read(Path(folder) / "lidc_0314_slab" / "ct")
    return _read(sample)


def _encode(dataset: Dataset, syntax: UID) -> None:
    """Put the pixels of a slice into a transfer syntax, whatever they come in."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress()
    if syntax.is_compressed:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax


def _read(folder: Path) -> list[Dataset]:
    found = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    return sorted(found, key=lambda d: float(d.ImagePositionPatient[2]))


def _noise(seed: int) -> Dataset:
    """A disc of 40 HU with noise of 20 HU in air."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[-1:1:512j, -1:1:512j]
    plane = np.where(x**2 + y**2 < 0.6, 40, -1000) + rng.normal(0, 20, (512, 512))
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [0.78125, 0.78125], [1, 0, 0, 0, 1, 0]
    dataset.Rows = dataset.Columns = 512
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = np.clip(np.rint(plane + 1024), 0, 4095).astype("<u2").tobytes()
    return dataset


def _name(dataset: Dataset, number: int, z: int) -> None:
    """Give a slice its series and its place."""
    base = f"2.25.{1000 + number}"
    dataset.PatientID, dataset.PatientName = f"P{number:03d}", f"Series{number:03d}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{base}.1", f"{base}.2"
    dataset.FrameOfReferenceUID = f"{base}.3"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{base}.4.{z + 1}"
    dataset.InstanceNumber, dataset.SliceThickness = z + 1, SPACING_MM
    dataset.ImagePositionPatient = [-200.0, -200.0, SPACING_MM * z]


if __name__ == "__main__":
    main()
