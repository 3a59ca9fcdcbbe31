"""One person out of many: the time of a withdrawal, with its report, records and search.

    python benchmarks/withdrawal.py --persons 100000 --to FOLDER

Writes a folder of pictures of 16 x 16 noise, one a person, builds a dataset of them, and takes one person out. Each
part is left in FOLDER, so that a second run only withdraws the next person. Prints the seconds of each part, and with
``--profile`` how the withdrawal's divide among its functions.
"""

import argparse
import cProfile
import os
import pstats
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from builder.run.pipeline import build
from builder.run.withdraw import withdraw
from builder.run.withdrawals import Policy

SPEC = """
name: many
license: CC0-1.0
sources: [{{kind: folder, url: "{url}", site: north, layout: {{pattern: "*/{{patient}}.png", modality: DX}}}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}", reviewed: [DX], retain: [site]}}
samples: {{kind: images}}
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
    options = parser.parse_args()
    os.environ.setdefault("BUILDER_KEY", "5a" * 32)
    start = time.perf_counter()
    write_pictures(options.to / "archive", options.persons)
    written = time.perf_counter()
    spec = options.to / "spec.yaml"
    spec.write_text(SPEC.format(url=options.to / "archive", cases=options.cases))
    dataset = options.to / "dataset"
    if not (dataset / "CURRENT").exists():
        build(spec, to=dataset, cluster="local", workers=options.workers)
    built = time.perf_counter()
    version = (dataset / "CURRENT").read_text().strip()
    people = pq.read_table(dataset / "versions" / version / "splits.parquet", columns=["person_key"])["person_key"]
    watch = cProfile.Profile()
    begun = time.perf_counter()
    if options.profile:
        watch.enable()
    gone = withdraw(str(dataset), people=[people[len(people) // 2].as_py()], policy=Policy("consent"))
    watch.disable()
    took = time.perf_counter() - begun
    assert gone.certificate is not None
    print(
        f"{len(people)} persons: pictures {written - start:.0f} s, build {built - written:.0f} s, "
        f"withdrawal {took:.1f} s, absent: {gone.certificate['absent']}",
        flush=True,
    )
    if options.profile:
        pstats.Stats(watch).sort_stats("cumulative").print_stats(70)


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
