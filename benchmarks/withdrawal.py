"""One person out of many: the time of a withdrawal, with its report, records and search.

    python benchmarks/withdrawal.py --persons 100000 --to FOLDER

Writes a folder of pictures of 16 x 16 noise, one a person, builds a dataset of them, and takes one person out. The
build is the usual one, but for its shards: the project's own writer makes them of the pictures, of which only the first
of each shard goes through the loading of a case. ``--check`` also builds everything in the usual way, which takes long,
and compares. Each part is left in FOLDER, so that a second run only withdraws the next person. Prints the seconds of
each part and the peak of memory, and with ``--profile`` how the withdrawal's divide among its functions.
"""

import argparse
import cProfile
import hashlib
import json
import os
import pstats
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pydicom.dataset import Dataset

from builder.copies import prints_table, take_print
from builder.deid import resolve_key
from builder.imaging.lint import lint
from builder.model.keyed import Key
from builder.model.parquet import parquet_bytes
from builder.patches import cut, describe_fields
from builder.plan import ShardPlan
from builder.run.clusters import Profile, load_cluster
from builder.run.pipeline import build
from builder.run.withdraw import withdraw
from builder.run.withdrawals import Policy
from builder.sources import Folder
from builder.spec import DatasetSpec
from builder.stages.gating import cleared, gate_of
from builder.stages.graph import Outcome, Runner, Task
from builder.stages.loading import load_case, recipe_of
from builder.stages.planned import load_plan
from builder.stages.shard import (
    ShardArgument,
    ShardOutcome,
    build_shard,
    planned_spec,
    prints_path,
    read_file,
    read_receipt,
    shard_writer,
)
from builder.storage import Store, open_store

SPEC = """
name: many
license: CC0-1.0
sources: [{{kind: folder, url: "{url}", site: north, layout: {{pattern: "*/{{patient}}.png", modality: DX}}}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}", reviewed: [DX], retain: [site]}}
volumes: {{projection: keep}}
samples: {{kind: grid, shape: [1, 16, 16]}}
splits: {{ratios: {{train: 0.7, validation: 0.15, test: 0.15}}}}
leaks: {{pixels: exact}}
shards: {{cases: {cases}}}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--cases", type=int, default=256, help="cases a shard")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--check", action="store_true", help="build the shards again in the usual way and compare")
    options = parser.parse_args()
    os.environ.setdefault("BUILDER_KEY", "5a" * 32)
    start = time.perf_counter()
    write_pictures(options.to / "archive", options.persons)
    written = time.perf_counter()
    spec = options.to / "spec.yaml"
    spec.write_text(SPEC.format(url=options.to / "archive", cases=options.cases))
    dataset = options.to / "dataset"
    if not (dataset / "CURRENT").exists():
        build(spec, to=dataset, cluster=Drawing(load_cluster("local")), workers=options.workers)
    built = time.perf_counter()
    print(f"pictures {written - start:.0f} s, build {built - written:.0f} s", flush=True)
    if options.check:
        check(spec, dataset, options.to / "usual", options.workers)
    withdraw_one(dataset, profile=options.profile)


def withdraw_one(dataset: Path, *, profile: bool) -> None:
    """Take out the person in the middle of the list."""
    version = (dataset / "CURRENT").read_text().strip()
    people = pq.read_table(dataset / "versions" / version / "splits.parquet", columns=["person_key"])["person_key"]
    shown, watch = Steps(), cProfile.Profile()
    begun = time.perf_counter()
    if profile:
        watch.enable()
    gone = withdraw(str(dataset), people=[people[len(people) // 2].as_py()], policy=Policy("consent"), progress=shown)
    watch.disable()
    took = time.perf_counter() - begun
    assert gone.certificate is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{len(people)} persons: withdrawal {took:.1f} s, peak {peak:.2f} GB, "
        f"{gone.certificate['objects_searched']} objects of {gone.certificate['bytes_searched']:,} bytes searched, "
        f"absent: {gone.certificate['absent']}",
        flush=True,
    )
    if profile:
        pstats.Stats(watch).sort_stats("cumulative").print_stats(110)


class Steps:
    """Prints when each stage of a withdrawal begins, in seconds since the start."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def say(self, line: str) -> None:
        """Print a line."""
        print(f"  {time.perf_counter() - self._start:7.1f} s  {line}", flush=True)

    def track(self, items: Iterable[Any], *, stage: str, total: int | None) -> Iterator[Any]:
        """Yield the items."""
        self.say(stage)
        yield from items


@dataclass(frozen=True)
class Drawing:
    """A cluster on which shards are drawn from the pictures instead of being built of them."""

    cluster: Profile

    @property
    def kind(self) -> str:
        """As of the cluster."""
        return self.cluster.kind

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open its runner."""
        with self.cluster.open(workers) as runner:
            yield _DrawingRunner(runner)


@dataclass(frozen=True)
class _DrawingRunner:
    runner: Runner

    @property
    def width(self) -> int:
        return self.runner.width

    def dismiss(self) -> None:
        self.runner.dismiss()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        return self.runner.run([replace(t, function=draw_shard) if t.function is build_shard else t for t in tasks])


def draw_shard(argument: ShardArgument) -> ShardOutcome:
    """Write a shard from the pictures, and let the usual function find it finished."""
    dataset, store = open_store(argument.dataset), open_store(argument.plan, directory_mode=0o700)
    if read_receipt(dataset, argument.shard) is None:
        spec = planned_spec(store, argument)
        key = resolve_key(spec.deid.patient_key, os.environ, read=read_file)
        places = [open_store(url, directory_mode=0o700) for url in (argument.prints, argument.cases)]
        _write(load_plan(store, argument.shard), spec, key, dataset, *places)
    return build_shard(argument)


def _write(plan: ShardPlan, spec: DatasetSpec, key: Key, dataset: Store, prints: Store, cases: Store) -> None:
    gate, source = gate_of(spec), spec.sources[0]
    assert isinstance(source, Folder)
    like = load_case(plan, 0, spec, recipe_of(spec, key), gate)
    taken, notes = [], {}
    with shard_writer(plan, spec, dataset) as writer:
        for held, path in zip(plan.cases, plan.objects["path"].to_pylist(), strict=True):
            voxels = np.asarray(Image.open(Path(source.url) / path))[None, None]
            volume = replace(like.volume, voxels=voxels)
            findings = tuple(str(finding) for finding in lint(volume, [Dataset()]))
            case = replace(like, case_key=held.case_key, volume=replace(volume, findings=findings))
            taken.append(take_print(voxels, key=held.case_key, person_key=held.person_key, modality="DX"))
            described = describe_fields(case, image="image")
            samples = cut(case, spec.samples, key=key, seed=spec.seed, image="image")
            writer.add_case(cleared(samples, case, gate), described=described)
            notes[held.case_key] = {"fields": {n: asdict(facts) for n, facts in described.items()}, "withheld": []}
        prints.put(prints_path(plan.fingerprint), parquet_bytes(prints_table(taken)))
        cases.put(f"{plan.fingerprint}.json", json.dumps(notes, sort_keys=True).encode())
        writer.finish()


def check(spec: Path, drawn: Path, usual: Path, workers: int) -> None:
    """Compare everything published, and the private prints and notes, with what the usual build leaves."""
    build(spec, to=usual, cluster="local", workers=workers)
    for name in ("", ".private/prints", ".private/cases"):
        found = [_digests(Path(f"{folder}{name}")) for folder in (drawn, usual)]
        assert found[0] == found[1], f"{name or 'dataset'}: found other bytes than those of a usual build"
    print("equal to a usual build, byte for byte", flush=True)


def _digests(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def write_pictures(folder: Path, persons: int) -> None:
    """A PNG of noise for each person, a thousand a folder, of which no two are alike."""
    draw = np.random.default_rng(7)
    for number in range(persons):
        path = folder / f"{number // 1000:03d}" / f"N{number:06d}.png"
        voxels = draw.integers(0, 256, (16, 16), dtype=np.uint8)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(voxels).save(path, compress_level=1)


if __name__ == "__main__":
    main()
