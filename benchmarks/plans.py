"""Plans of many series: seconds and peak memory of each step, and of planning again after the archive grew.

    python benchmarks/plans.py [FOLDER] --series 2000 8000 20000 [--grow 1] [--profile]

Copies real CT headers (``archive.sample_slices``) with slices of 16 x 16 under other UIDs and patients, one folder a
series, and plans them with one case a shard. ``--grow 1`` adds a percent, plans again beside what is there and from
nothing, and compares every file of the two plans. Prints a line of JSON for each number: seconds of processor time of
the whole process by stage, milliseconds a series, and the peak of memory in a process of its own.
"""

import argparse
import cProfile
import gc
import hashlib
import io
import json
import multiprocessing
import os
import pstats
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from archive import sample_slices  # benchmarks/archive.py, beside this file
from figures import figure

from builder.__main__ import YOUNG_OBJECTS
from builder.run.pipeline import plan

SLICES = 4
ROOM = 24
"""Characters of a UID that differs between copies, so that one is put in the place of another."""

SPEC = """
name: plans
license: CC-BY-3.0
sources: [{{kind: folder, url: "{archive}", site: benchmark}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 0.8, test: 0.2}}, seed: 7}}
shards: {{cases: {cases}}}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where archives and plans lie; a temporary one otherwise")
    parser.add_argument("--series", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--cases", type=int, default=1, help="cases a shard")
    parser.add_argument("--grow", type=float, default=0, help="percent of series that come later")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("BUILDER_KEY", "5a" * 32)
    with tempfile.TemporaryDirectory(prefix="builder-plans-") as temporary:
        for count in options.series:
            compare(options.folder or Path(temporary), count, options)


def compare(folder: Path, count: int, options: argparse.Namespace) -> None:
    """Plan an archive and, where it grows, plan again beside what is there and from nothing."""
    archive, to, scratch = (folder / f"{name}-{count}" for name in ("archive", "dataset", "scratch"))
    write_copies(archive, range(count))
    forget(to)
    show(count, "planned", {"series": count}, apart(archive, to, options))
    if not options.grow:
        return
    more = round(count * options.grow / 100)
    write_copies(archive, range(count, count + more))
    grown = apart(archive, to, options)
    show(count, "after it grew", {"grown by": more}, grown)
    forget(scratch)
    anew = apart(archive, scratch, options)
    show(count, "from nothing", {"from nothing": count + more}, anew)
    assert newest_plan(to) == newest_plan(scratch), "the plan of the grown archive differs from the one anew"
    figure(f"{count} series, after it grew beside from nothing", grown["processor"] / anew["processor"], "x")
    shutil.rmtree(archive)


def show(count: int, what: str, told: dict[str, int], found: dict[str, Any]) -> None:
    """Print what a plan took."""
    print(json.dumps({**told, **found}), flush=True)
    figure(f"{count} series, {what}, processor time", found["processor"], "s")
    figure(f"{count} series, {what}, peak", found["peak MB"], "MB")


def forget(dataset: Path) -> None:
    """Remove a dataset and what is private to it."""
    for place in (dataset, Path(f"{dataset}.private")):
        shutil.rmtree(place, ignore_errors=True)


def newest_plan(dataset: Path) -> dict[str, str]:
    """Map the files of the newest plan to the hashes of what they hold."""
    plans = [p for p in Path(f"{dataset}.private", "plan").iterdir() if p.is_dir()]
    newest = max(plans, key=lambda p: p.stat().st_mtime_ns)
    files = [p for p in newest.rglob("*") if p.is_file()]
    return {p.relative_to(newest).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def apart(archive: Path, to: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Plan in a process of its own, so that its peak of memory is its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(archive, to, options.cases, options.profile, theirs))
    process.start()
    theirs.close()
    found: dict[str, Any] = ours.recv()
    process.join()
    return found


def measure(archive: Path, to: Path, cases: int, profile: bool, told: Any) -> None:
    """Plan as the command line does, and send what it took."""
    gc.set_threshold(YOUNG_OBJECTS)
    spec = archive.with_suffix(".yaml")
    spec.write_text(SPEC.format(archive=archive, cases=cases))
    stages, watch = Stages(), cProfile.Profile(time.process_time)
    before = peak_mb()
    if profile:
        watch.enable()
    start = time.perf_counter()
    planned = plan(spec, to=to, progress=stages)
    clock = time.perf_counter() - start
    watch.disable()
    stages.end("end")
    shards, used = len(planned.plan.shards), sum(stages.used.values())
    told.send(
        {
            "shards": shards,
            "seconds": round(clock, 1),
            "processor": round(used, 1),
            "ms a series": round(1e3 * used / shards, 3),
            "by stage": {name: round(seconds, 1) for name, seconds in stages.used.items() if seconds >= 0.05},
            "peak MB before": round(before),
            "peak MB by stage": stages.peaks,
            "peak MB": round(peak_mb()),
        }
    )
    if profile:
        text = io.StringIO()
        pstats.Stats(watch, stream=text).sort_stats("cumulative").print_stats(90)
        print(text.getvalue(), flush=True)


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class Stages:
    """Progress that notes the processor time between the beginnings of stages."""

    def __init__(self) -> None:
        self.used: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self._name, self._since = "begin", time.process_time()

    def say(self, line: str) -> None:
        """Nothing is shown."""

    def track(self, items: Iterable[Any], *, stage: str, total: int | None) -> Iterator[Any]:
        """Count what comes from here on to this stage."""
        self.end(stage)
        yield from items
        self.end(f"after {stage}")

    def end(self, name: str) -> None:
        """End a stage and begin another."""
        now = time.process_time()
        self.used[self._name] = self.used.get(self._name, 0.0) + now - self._since
        self.peaks[self._name] = round(peak_mb())
        self._name, self._since = name, now


def write_copies(folder: Path, numbers: Iterable[int]) -> None:
    """One folder a series, one person each; series that are there stay."""
    slices = [small(dataset, z) for z, dataset in enumerate(sample_slices(None)[:SLICES])]
    for number in numbers:
        place = folder / f"{number // 1000:04d}" / f"s{number:07d}"
        if place.exists():
            continue
        # one digest for a series, as UIDs of an archive lie in no order
        digest = int(hashlib.sha256(str(number).encode()).hexdigest(), 16) % 10**15
        place.mkdir(parents=True)
        for z, data in enumerate(slices):
            (place / f"{z:04d}.dcm").write_bytes(re.sub(rb"#{15}", b"%015d" % digest, data))


def small(dataset: Any, z: int) -> bytes:
    """A slice with few pixels, in which # stand where copies differ."""
    dataset.Rows = dataset.Columns = 16
    dataset.PixelData = bytes([z]) * 512
    mark = "#" * 15
    dataset.PatientID, dataset.PatientName = f"P{mark}", f"Series^{mark}"
    dataset.InstanceNumber, dataset.SliceThickness = z + 1, 2.5
    dataset.ImagePositionPatient = [-200.0, -200.0, 2.5 * z]
    for name, end in (("StudyInstanceUID", 1), ("SeriesInstanceUID", 2), ("FrameOfReferenceUID", 3)):
        setattr(dataset, name, f"2.25.{mark}.{end}")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{mark}.4.{z + 1}"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


if __name__ == "__main__":
    main()
