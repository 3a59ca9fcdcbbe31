"""Headers a second: the index against pydicom and the floor, in one run.

    python benchmarks/index.py [--corpus FOLDER] [--files 4000] [--processes 2]

Files are real ones where a folder of DICOM is given (each is used once), else a phantom archive. They are copied to a
temporary folder and read once before anything is timed: the page cache is warm for everyone. The floor opens every
file and reads its first 8 KiB. Peers read 17 attributes and stop; the index fills all columns of INSTANCES, hashes the
header, and says what became of every file. With one process times are CPU time; with several each does its share of
the files and wall time counts, for the index and for all others. Aim: at least 10 x pydicom.
"""

import argparse
import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pydicom
from figures import figure

from builder.errors import CaseError, Reason
from builder.headers.boundary import parsing
from builder.headers.walker import walk
from builder.sources import Folder
from builder.stages.index import index_partition

Work: TypeAlias = Callable[[slice], object]
"""What is done with a share of the files."""

_shared: dict[str, Work] = {}

SEVENTEEN = [
    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "ImageType", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "FrameOfReferenceUID", "StudyDate", "Manufacturer", "BodyPartExamined",
]  # fmt: skip


def main() -> None:
    """Print files a second and ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--corpus", type=Path)
    options.add_argument("--files", type=int, default=4000)
    options.add_argument("--processes", type=int, default=1)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("files are copied ...", flush=True)
        paths = collect(arguments.corpus, Path(folder), arguments.files)
        source = Folder(url=folder)
        entries = list(source.list())
        print(f"{len(paths)} files, {sum(p.stat().st_size for p in paths) / 2**20:.0f} MiB\n")
        heads = [path.read_bytes()[:16384] for path in paths]
        sizes = [path.stat().st_size for path in paths]
        plain = len(walk(heads, sizes).done)
        count = len(paths)
        measured = partial(measure, files=count, processes=arguments.processes)
        ours = measured(
            "index (all columns, header hash, ledger)", lambda share: index_partition(source, 0, entries[share])
        )
        scan = measured("fast path alone, heads in memory", lambda share: walk(heads[share], sizes[share]))
        peer = measured("pydicom, 17 specific_tags", lambda share: ask_pydicom(paths[share]))
        floor = measured("floor: open, read 8 KiB", lambda share: touch(paths[share]))
    print(f"\n{plain} of {count} files are plain and fit 16 KiB")
    figure("index beside pydicom", ours / peer, "x", better="more")
    figure("index beside the floor", ours / floor, "x", better="more")
    print(f"index {ours / peer:.1f} x pydicom, {floor / ours:.1f} x the floor's time")
    print(f"fast path {scan / peer:.0f} x pydicom")


def collect(corpus: Path | None, folder: Path, most: int) -> list[Path]:
    """Copies of the first ``most`` images of a folder, or of a phantom archive."""
    if corpus is None:
        from builder.phantom.archive import write_archive

        write_archive(folder / "phantom", patients=12)
        corpus = folder / "phantom" / "archive"
    found = (path for path in sorted(corpus.rglob("*")) if path.is_file() and is_image(path))
    copies = []
    for number, path in enumerate(itertools.islice(found, most)):
        copies.append(folder / f"{number:06d}.dcm")
        shutil.copyfile(path, copies[-1])
    shutil.rmtree(folder / "phantom", ignore_errors=True)
    return copies


def is_image(path: Path) -> bool:
    """Whether pydicom finds an image in a file."""
    with path.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with parsing(Reason.UNREADABLE, "pydicom cannot read the file"):
                return "Rows" in pydicom.dcmread(path, specific_tags=["Rows"], stop_before_pixels=True)
        except CaseError:
            return False


def measure(name: str, work: Work, *, files: int, processes: int) -> float:
    """Files a second of the best of three runs after one that is not timed."""
    if processes == 1:
        work(slice(None))
        best = min(timed(lambda: work(slice(None)), time.process_time) for _ in range(3))
    else:
        _shared["work"] = work
        shares = [slice(number, None, processes) for number in range(processes)]
        with multiprocessing.get_context("fork").Pool(processes) as pool:  # forked now, so it has the work
            best = min([timed(lambda: pool.map(_share, shares, 1), time.perf_counter) for _ in range(4)][1:])
    figure(name, files / best, "files/s", better="more")
    print(f"{name:44s} {files / best:10,.0f} files/s   {best / files * 1e6:8.1f} us a file")
    return files / best


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds by a clock."""
    start = clock()
    work()
    return clock() - start


def _share(share: slice) -> None:
    _shared["work"](share)


def ask_pydicom(paths: list[Path]) -> None:
    """Read 17 attributes and use their values, as an index must."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in paths:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=SEVENTEEN)
            [dataset.get(name) for name in SEVENTEEN]


def touch(paths: list[Path]) -> None:
    """Open every file and read 8 KiB."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.read(handle, 8192)
        os.close(handle)


if __name__ == "__main__":
    main()
