"""How fast a CT series becomes a volume, by encoding, beside other readers and the floor.

    python benchmarks/decode.py [--slices 200] [--repeats 3] [--sample DIR] [--processes 2] [--peer-python PYTHON]

Warm page cache, files on local disk, one thread a process. With one process times are CPU time, which a busy machine
disturbs less than wall time; with several every process reads the whole series and the slowest one's wall time counts.
``--peer-python`` has the extra ``peers``: its decoders get the same frames.

``indexed`` is ``assemble_indexed``: positions and pixel offsets come from the index, as in a build; ``parsed`` is
``assemble`` with headers parsed by pydicom; ``decoded`` is the same without the parsing, and ``frames`` decodes and
does no more, like the peers' decoders. The floor reads the bytes of the files and copies the volume once. All readers'
values are compared with the truth before their time counts.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from archive import sample_slices  # benchmarks/archive.py, beside this file
from figures import figure
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from builder.decode.format import pixel_format
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.stored import stored_values
from builder.imaging.rows import instances_of
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble, assemble_indexed

ROOT = Path(__file__).resolve().parent.parent
SYNTAXES = {
    "raw": None,
    "rle": gdcm.TransferSyntax.RLELossless,
    "jpeg lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg 2000": gdcm.TransferSyntax.JPEG2000Lossless,
}


def main() -> None:
    """Print one table: seconds a reader and encoding, and ratios to the floor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=Path, help="folder of CT slices; default: the corpus' slab, or noise")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--only", choices=list(SYNTAXES), action="append")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    several = f"{options.processes} processes" if options.processes > 1 else "1 process"
    print(f"{options.slices} slices of 512 x 512 int16, {several}, best of {options.repeats}, ms (x floor)")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        truth = write_series(raw, slices=options.slices, sample=options.sample)
        floor = best(lambda: read_once(raw, truth), options.repeats, options.processes)
        figure("floor: read and copy", floor * 1000, "ms")
        print(f"{'floor: read and copy':24s} {floor * 1000:8.0f}")
        for name, syntax in SYNTAXES.items():
            if options.only and name not in options.only:
                continue
            place = raw if syntax is None else encoded(raw, Path(folder) / name, syntax)
            for reader, read in READERS.items():
                if reader in (ENCODED_ALONE if syntax is None else RAW_ALONE):
                    continue
                run = prepared(read, place)
                if not np.array_equal(np.asarray(run()).astype(np.int64), truth):
                    print(f"{name:14s} {reader:9s} wrong values")
                    continue
                took = best(run, options.repeats, options.processes)
                figure(f"{name}, {reader}", took * 1000, "ms")
                figure(f"{name}, {reader}, beside the floor", took / floor, "x")
                print(f"{name:14s} {reader:9s} {took * 1000:8.0f} ({took / floor:.1f})", flush=True)
            if syntax is not None and options.peer_python is not None:
                ask_peers(options.peer_python, place, name, repeats=options.repeats, floor=floor)


def ask_peers(python: Path, place: Path, syntax: str, *, repeats: int, floor: float) -> None:
    """Decoders of the other Python on the same files: decoding alone, no sorting, rescaling or stacking."""
    script = Path(__file__).parent / "peers" / "decoders.py"
    command = [python, script, place, syntax, "--repeats", str(repeats)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    for name, took in json.loads(answer).items():
        figure(f"{syntax}, {name}", took * 1000, "ms")
        print(f"{syntax:14s} {name:28s} {took * 1000:8.0f} ({took / floor:.1f})", flush=True)


def best(run: Callable[[], Any], repeats: int, processes: int) -> float:
    """Shortest time of several runs, in seconds: CPU time alone, wall time of the slowest beside others."""
    if processes == 1:
        return min(timed(run, time.process_time) for _ in range(repeats))
    context = multiprocessing.get_context("fork")
    times = []
    for _ in range(repeats):
        barrier, answers = context.Barrier(processes), context.Queue()

        def one(barrier: Any = barrier, answers: Any = answers) -> None:
            barrier.wait()
            answers.put(timed(run, time.perf_counter))

        started = [context.Process(target=one) for _ in range(processes)]
        for process in started:
            process.start()
        times.append(max(answers.get() for _ in started))
        for process in started:
            process.join()
    return min(times)


def timed(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of one run."""
    start = clock()
    run()
    return clock() - start


def write_series(folder: Path, *, slices: int, sample: Path | None) -> NDArray[np.int64]:
    """A series made of the sample's slices repeated along z, explicit little endian; returns its true HU."""
    folder.mkdir(parents=True)
    found = sample_slices(sample)
    planes = []
    for index in range(slices):
        dataset = found[index % len(found)]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{index + 1}"
        dataset.FrameOfReferenceUID = "2.25.999"
        dataset.ImagePositionPatient = [-200.0, -200.0, float(index)]
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)
        stored = np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
        planes.append(stored.astype(np.int64) + int(dataset.RescaleIntercept))
    return np.stack(planes)


def encoded(source: Path, target: Path, syntax: int) -> Path:
    """The series in another transfer syntax, by gdcm."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target / path.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    return target


def read_once(folder: Path, truth: NDArray[np.int64]) -> None:
    """Read every byte, write a volume's worth."""
    volume = np.empty(truth.shape, dtype=np.int16)
    for plane, path in zip(volume, sorted(folder.iterdir()), strict=True):
        content = path.read_bytes()
        plane[...] = np.frombuffer(content, dtype=np.int16, count=plane.size, offset=2).reshape(plane.shape)


def prepared(read: Callable[[Path], Iterator[Any]], folder: Path) -> Callable[[], Any]:
    """A reader after its untimed preparation: the first ``next`` prepares, every further one reads."""
    steps = read(folder)
    next(steps)
    return lambda: next(steps)


def indexed(folder: Path) -> Iterator[Any]:
    """What a build does: rows and offsets are known."""
    datasets, places = [], {}
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        places[str(dataset.SOPInstanceUID)] = (str(path), path.stat().st_size - len(dataset.PixelData))
        datasets.append(dataset)
    rows = instances_of(datasets)
    (stack,) = split_stacks(rows)

    def fill(uid: str, target: memoryview) -> None:
        path, offset = places[uid]
        handle = os.open(path, os.O_RDONLY)
        try:
            assert os.preadv(handle, [target], offset) == len(target)
        finally:
            os.close(handle)

    yield None
    while True:
        yield assemble_indexed(stack, rows, fill=fill).voxels[0]


def parsed(folder: Path) -> Iterator[Any]:
    """Headers parsed here, stacks split here."""
    yield None
    while True:
        datasets: list[Dataset] = [parse_instance(path.read_bytes()) for path in folder.iterdir()]
        (stack,) = split_stacks(instances_of(datasets))
        yield assemble(stack, datasets).voxels[0]


def decoded(folder: Path) -> Iterator[Any]:
    """Assembly of parsed data sets whose bytes are in memory: decoding without parsing."""
    datasets: list[Dataset] = [parse_instance(path.read_bytes()) for path in folder.iterdir()]
    (stack,) = split_stacks(instances_of(datasets))
    yield None
    while True:
        yield assemble(stack, datasets).voxels[0]


def frames(folder: Path) -> Iterator[Any]:
    """Stored values of every instance whose format is known: no rescaling, no stacking, in the order of the files."""
    datasets = [parse_instance(path.read_bytes()) for path in sorted(folder.iterdir())]
    forms = [pixel_format(dataset) for dataset in datasets]
    yield None
    while True:
        found = [stored_values(dataset, form) for dataset, form in zip(datasets, forms, strict=True)]
        yield Stored(found, [int(dataset.RescaleIntercept) for dataset in datasets])


@dataclass(frozen=True)
class Stored:
    """Decoded frames, made HU only where somebody looks at them."""

    frames: list[NDArray[Any]]
    intercepts: list[int]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pairs = zip(self.frames, self.intercepts, strict=True)
        return np.stack([frame[0].astype(np.int64) + intercept for frame, intercept in pairs])


def by_pydicom(folder: Path) -> Iterator[Any]:
    """The usual loop: read, decode, sort, rescale, stack."""
    yield None
    while True:
        found = []
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            values = pixel_array(dataset) * np.int16(dataset.RescaleSlope) + np.int16(dataset.RescaleIntercept)
            found.append((float(dataset.ImagePositionPatient[2]), values))
        yield np.stack([values for _, values in sorted(found, key=lambda pair: pair[0])])


def by_simpleitk(folder: Path) -> Iterator[Any]:
    """The series reader with its file names known."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    yield None
    while True:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        image = reader.Execute()
        yield sitk.GetArrayViewFromImage(image)


READERS = {"indexed": indexed, "parsed": parsed, "decoded": decoded, "frames": frames}
READERS |= {"pydicom": by_pydicom, "SimpleITK": by_simpleitk}
RAW_ALONE, ENCODED_ALONE = frozenset({"indexed"}), frozenset({"frames"})

if __name__ == "__main__":
    main()
