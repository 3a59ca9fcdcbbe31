"""Memory of a case: what the plan projects from headers, beside what is measured.

    python benchmarks/memory.py [--slices 60] [--corpus FOLDER_WITH_sts_cohort]

Each case is prepared and written alone; numpy and Python report every allocation to tracemalloc, whose peak is taken.
``input + output`` are the decoded volume and the samples; aims: at most 3 times that, and projected within 25 %
(cases of a few MB: within 2 MB).
"""

import argparse
import gc
import os
import secrets
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gdcm
import pyarrow as pa
from archive import write_archive  # benchmarks/archive.py, beside this file
from decode import encoded
from figures import figure

from builder.deid import resolve_key
from builder.plan import CasePlan, ShardPlan
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from builder.specfile import load_spec
from builder.stages.planned import SPEC, load_plan
from builder.stages.shard import write
from builder.storage import open_store

ROOT = Path(__file__).resolve().parent.parent
MOST_CASES = 12
"""Measured of a spec: tracing allocations is slow."""

BASE = {
    "name": "memory",
    "license": "CC-BY-3.0",
    "seed": 1,
    "sources": [{"kind": "folder", "url": "${archive}", "site": "benchmark"}],
    "deid": {"patient_key": "${env:BUILDER_KEY}"},
    "samples": {"kind": "volumes"},
}
ONE_MM = {"kind": "resample", "spacing_mm": [1.0, 1.0, 1.0]}
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "linear": {"transforms": [{**ONE_MM, "image": "linear"}]},
    "cubic": {"transforms": [{**ONE_MM, "image": "cubic"}]},
    "turned, linear": {"transforms": [{"kind": "orient", "to": "RAS"}, {**ONE_MM, "image": "linear"}]},
    "linear, float32": {
        "transforms": [{**ONE_MM, "image": "linear"}, {"kind": "intensity", "clip": [-1000, 1000], "scale": [0, 1]}]
    },
    "patches": {
        "transforms": [{**ONE_MM, "image": "linear"}],
        "samples": {"kind": "grid", "shape": [64, 64, 64]},
    },
}


@dataclass(frozen=True)
class Measured:
    """One case: bytes."""

    projected: int
    peak: int
    both: int


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("BUILDER_KEY", secrets.token_hex(32))
    print(f"{'':34s} projected  measured   ratio  x (input + output)")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        native, packed = Path(folder) / "native", Path(folder) / "encoded"
        write_archive(native, series=1, slices=options.slices)
        packed.mkdir()
        encoded(native / "s000", packed / "s000", gdcm.TransferSyntax.JPEGLosslessProcess14_1)
        for name, change in WAYS.items():
            spec = DatasetSpec.model_validate({**BASE, **change})
            show(name, measure_all(spec, archive=str(native)))
        show("JPEG lossless, linear", measure_all(spec_of("linear"), archive=str(packed)))
    for name in ("soft-tissue-sarcoma", "soft-tissue-sarcoma-ct-mr") if options.corpus else ():
        found = measure_all(load_spec(ROOT / "specs" / f"{name}.yaml"), corpus=str(options.corpus))
        show(name, islice(found, MOST_CASES))


def spec_of(way: str) -> DatasetSpec:
    """A spec of ``WAYS``."""
    return DatasetSpec.model_validate({**BASE, **WAYS[way]})


def measure_all(spec: DatasetSpec, **parameters: str) -> Iterator[Measured]:
    """Every case of a spec that gives a sample, alone; the first is run twice, and counts the second time."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        planned = plan(spec, to=f"{folder}/data", parameters=parameters).plan
        store = open_store(planned.url)
        resolved = DatasetSpec.model_validate_json(store.read(SPEC))
        key = resolve_key(resolved.deid.patient_key, os.environ, read=lambda path: Path(path).read_bytes())
        warm = False
        for shard in planned.shards:
            whole = load_plan(store, shard.fingerprint)
            for number, case in enumerate(whole.cases):
                rows = whole.objects.filter([n == number for n in whole.objects.column("case").to_pylist()])
                place = rows.schema.get_field_index("case")
                rows = rows.set_column(place, rows.schema.field(place), pa.array([0] * rows.num_rows, pa.int32()))
                one = ShardPlan(whole.fingerprint, (case,), rows)
                if not warm:
                    measure(one, resolved, key)
                    warm = True
                found = measure(one, resolved, key)
                if found is not None:
                    yield found


def measure(one: ShardPlan, spec: DatasetSpec, key: Any) -> Measured | None:
    """Peak of allocations while a shard of one case is written; None when the case was excluded."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        gc.collect()
        tracemalloc.start()
        receipt = write(one, spec, open_store(folder), key=key)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if not receipt.rows:
        return None
    return Measured(one.cases[0].peak_bytes, peak, both_ends(one.cases[0], one))


def both_ends(case: CasePlan, one: ShardPlan) -> int:
    """Bytes of the decoded images and of the samples."""
    rows = one.objects.filter([role == "image" for role in one.objects.column("role").to_pylist()]).to_pylist()
    pixels = sum(r["rows"] * r["columns"] * (r["number_of_frames"] or 1) * (r["bits_allocated"] // 8) for r in rows)
    return int(pixels) + case.sample_bytes // 2  # the plan counts four bytes a voxel, for it does not know better


def show(name: str, found: Iterator[Measured]) -> None:
    """The largest case of a spec, and how the projections of all lie."""
    cases = list(found)
    largest = max(cases, key=lambda case: case.peak)
    figure(f"{name}, peak", largest.peak / 1e6, "MB")
    near = sum(abs(c.projected - c.peak) <= max(0.25 * c.peak, 2 << 20) for c in cases)
    print(
        f"{name:34s} {largest.projected / 1e6:6.1f} MB {largest.peak / 1e6:6.1f} MB "
        f"{largest.projected / largest.peak:7.2f} {largest.peak / largest.both:8.2f}     "
        f"{near} of {len(cases)} cases within the aim",
        flush=True,
    )


if __name__ == "__main__":
    main()
