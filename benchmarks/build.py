"""Building a dataset beside the ways people do it now: CT series to 1 mm isotropic int16, stored, from a cold start.

    python benchmarks/build.py --peer-python PEERS/bin/python [--series 12] [--slow-series 4] [--slices 150]
        [--only NAME ...] [--repeats 1] [--workers 2]

One run, one archive: ``--series`` CT series of 512 x 512 x ``--slices``, made of real slices (``--sample``, a folder of
CT files; by default the corpus' LIDC slab) or of noise where there are none. Every line is a fresh process that reads
the DICOM files and leaves 1 mm volumes on disk. ``builder`` is the command line from start to end: index,
verdicts, plan, de-identification, checksums, fsync, accounting, report and publication. The peers do none of
that. The slow ones get ``--slow-series`` series and are compared with builder on as many.

What each way stored is held against builder's: the script's volumes must be the same but for rounding.

CPU seconds are of the process and all its children: on a busy machine they are what to compare. Memory is the
largest process. Peers get one thread in a process. ``--workers`` adds lines with several processes.
``peers`` is the optional extra that installs MONAI, TorchIO, nnU-Net and med-imagetools; ``--peer-python`` is the
Python that has them.

Aims: at least 10 x med-imagetools and nnU-Net, 8 x MONAI, 3 x TorchIO, 2 x the expert's script storing npy, 3 x
storing Zarr; memory below the expert's.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from archive import write_archive  # benchmarks/archive.py, beside this file
from figures import figure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SPEC = HERE / "build.yaml"
ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ),
    "1",
)
AIMS = {"expert npy": 2, "expert zarr": 3, "TorchIO": 3, "MONAI": 8, "nnU-Net": 10, "med-imagetools": 10}


@dataclass(frozen=True)
class Run:
    """One measured process."""

    name: str
    series: int
    workers: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    stored_mb: float
    output: str
    """What its volumes are beside builder's."""


def main() -> None:
    """Print a line a way, its ratio to builder's, and the aim."""
    options = parse()
    print(f"{options.series} series ({options.slow_series} for the slow) of 512 x 512 x {options.slices}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        many, few = (place / f"archive{n}" for n in (options.series, options.slow_series))
        for archive, count in {many: options.series, few: options.slow_series}.items():
            if not archive.exists():
                write_archive(archive, series=count, slices=options.slices, sample=options.sample)
        runs = measure_all(options, many, few, place)
    show(runs)


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--slow-series", type=int, default=4)
    parser.add_argument("--slices", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    return parser.parse_args()


def measure_all(options: argparse.Namespace, many: Path, few: Path, place: Path) -> list[Run]:
    """Every way on its archive, the fast ones first."""
    runs: list[Run] = []
    reference = place / "reference.npy"
    plans: list[tuple[str, Path, int, Callable[[Path, Path], Sequence[str | Path]]]] = [
        ("builder", many, 1, lambda archive, out: builder(archive, out, workers=1)),
        ("expert npy", many, 1, lambda archive, out: expert(archive, out, store="npy", workers=1)),
        ("expert zarr", many, 1, lambda archive, out: expert(archive, out, store="zarr", workers=1)),
    ]
    if options.workers > 1:
        several = options.workers
        plans += [
            ("builder", many, several, lambda archive, out: builder(archive, out, workers=several)),
            ("expert npy", many, several, lambda archive, out: expert(archive, out, store="npy", workers=several)),
            ("expert zarr", many, several, lambda archive, out: expert(archive, out, store="zarr", workers=several)),
        ]
    if options.peer_python is not None:
        python = options.peer_python
        plans += [
            ("builder", few, 1, lambda archive, out: builder(archive, out, workers=1)),
            ("TorchIO", few, 1, lambda archive, out: [python, HERE / "peers/by_torchio.py", archive, out]),
            ("MONAI", few, 1, lambda archive, out: [python, HERE / "peers/by_monai.py", archive, out]),
            ("nnU-Net", few, 1, lambda archive, out: [python, HERE / "peers/by_nnunet.py", archive, out]),
            ("med-imagetools", few, 1, lambda archive, out: imgtools(python, archive, out)),
        ]
    for name, archive, workers, command in plans:
        if options.only and name not in options.only and name != "builder":
            continue
        count = len(list(archive.iterdir()))
        found = [
            measure(name, archive, place / "out", command, series=count, workers=workers, reference=reference)
            for _ in range(options.repeats)
        ]
        runs.append(min(found, key=lambda run: run.cpu_s))
        print(line(runs[-1]), flush=True)
    return runs


def measure(
    name: str,
    archive: Path,
    out: Path,
    command: Callable[[Path, Path], Sequence[str | Path]],
    *,
    series: int,
    workers: int,
    reference: Path,
) -> Run:
    """Run a command to its end; what it left on disk is counted, compared with what builder made, and removed.

    ``reference`` keeps the volume of builder's first line: all series of the archive have the same voxels.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    environment = {**os.environ, **ONE_THREAD, "BUILDER_KEY": secrets.token_hex(32)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    arguments = [str(a) for a in command(archive, out / "data")]
    if arguments[0] != sys.executable:
        environment.pop("PYTHONPATH", None)
    log = out / "log.txt"
    start = time.perf_counter()
    with log.open("wb") as sink:
        process = subprocess.Popen(arguments, stdout=sink, stderr=sink, env=environment, cwd=out)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{log.read_text()[-3000:]}")
    check(name, out / "data", series=series)
    note = compare(name, out / "data", reference)
    stored = sum(f.stat().st_size for f in (out / "data").rglob("*") if f.is_file())
    shutil.rmtree(out)
    return Run(name, series, workers, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, stored / 1e6, note)


def builder(archive: Path, out: Path, *, workers: int) -> list[str | Path]:
    """The command line on the spec beside this file."""
    cluster = ["--cluster", "local", "--workers", str(workers)] if workers > 1 else []
    return [sys.executable, "-m", "builder", "build", SPEC, "--to", out, "--param", f"archive={archive}", *cluster]


def expert(archive: Path, out: Path, *, store: str, workers: int) -> list[str | Path]:
    """The script of somebody who knows how."""
    return [sys.executable, HERE / "peers/expert.py", archive, out, "--store", store, "--workers", str(workers)]


def imgtools(python: Path, archive: Path, out: Path) -> list[str | Path]:
    """med-imagetools' own command."""
    command = [python.parent / "imgtools", "-q", "autopipeline", archive, out]
    return [*command, "-m", "CT", "--spacing", "1,1,1", "-j", "1", "--crawl-directory", out.parent / "crawl"]


def check(name: str, out: Path, *, series: int) -> None:
    """Every series must be there, whatever made it."""
    patterns = {"builder": "data/*/image/*/c", "expert npy": "*.npy", "expert zarr": "*.zarr", "TorchIO": "*.npy"}
    patterns |= {"MONAI": "*.npy", "nnU-Net": "*_seg.b2nd", "med-imagetools": "**/CT.nii.gz"}
    found = len(list(out.glob(patterns[name])))
    if found != series:
        raise SystemExit(f"{name}: found {found} volumes, expected {series}")
    if name in ("expert npy", "TorchIO", "MONAI"):
        volume = np.load(next(out.glob("*.npy")), mmap_mode="r")
        if volume.dtype != np.int16 or volume.ndim != 3:
            raise SystemExit(f"{name}: found {volume.dtype} {volume.shape}, expected int16 volumes")


def compare(name: str, out: Path, reference: Path) -> str:
    """What ``alike.py`` finds, in a process of its own: what this one holds would count as memory of the next line."""
    found = subprocess.run(
        [sys.executable, HERE / "alike.py", name, out, reference], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise SystemExit(f"{name}: {found.stderr.strip()}")
    return found.stdout.strip()


def line(run: Run) -> str:
    """One run for a person."""
    workers = f"{run.workers} processes" if run.workers > 1 else "1 process"
    return (
        f"{run.name:15s} {run.series:3d} series, {workers:12s} {run.wall_s:7.1f} s wall {run.cpu_s:7.1f} s CPU "
        f"({run.cpu_s / run.series:5.2f} a series)  {run.peak_mb:6.0f} MB peak  {run.stored_mb:7.0f} MB stored  "
        f"{run.output}"
    )


def show(runs: Sequence[Run]) -> None:
    """Ratios to builder on as many series with as many processes, with the aims."""
    ours = {(run.series, run.workers): run for run in runs if run.name == "builder"}
    print(f"\n{'':15s} {'x builder, CPU':>20s} {'wall':>7s} {'aim':>6s} {'memory':>8s}")
    for run in runs:
        own = ours.get((run.series, run.workers))
        label = f"{run.name}, {run.series} series, {run.workers} workers"
        figure(f"{label}, CPU", run.cpu_s, "s")
        figure(f"{label}, memory", run.peak_mb, "MB")
        figure(f"{label}, stored", run.stored_mb, "MB")
        if run.name == "builder" or own is None:
            continue
        figure(f"{label}, CPU beside ours", run.cpu_s / own.cpu_s, "x", better="more")
        figure(f"{label}, wall beside ours", run.wall_s / own.wall_s, "x", better="more")
        label = f"{run.name}, {run.workers}"
        print(
            f"{label:15s} {run.cpu_s / own.cpu_s:20.2f} {run.wall_s / own.wall_s:7.2f} {AIMS[run.name]:6d} "
            f"{run.peak_mb / own.peak_mb:8.2f}"
        )


if __name__ == "__main__":
    main()
