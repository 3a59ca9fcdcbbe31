"""Reading from an S3 server beside local files: the same shards, an empty cache folder, in one run.

    AWS_ENDPOINT=... AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_ALLOW_HTTP=true \\
        python benchmarks/read_store.py --to s3://BUCKET/FOLDER [--images FOLDER] [--shards 12] [--rounds 5]
    python benchmarks/read_store.py --weed weed                       # starts a SeaweedFS of its own instead

Shards of 32 patches of 96^3 int16 (as ``read.py`` cuts them) are written to a folder and to the bucket. Each round
reads an epoch of either, with steps of training of 0 and of 4 ms a sample, and fetches the objects alone by a bare
client with as many requests at once, in memory and into files that are checked, as a cache must. ``wall`` is samples
a second by the clock, ``cpu`` samples a second of this process's processor time, the server's left out: on one machine
the two share the processors. Ratios are medians over rounds of the ratio to local files in the same round. Aim: 0.8.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import figure
from read import cut_patches, find_volumes, make_volume, run_epoch, write_dataset

from builder.model.layout import shard_path
from builder.reader import open_dataset
from builder.storage import LocalStore, Store, open_store

REQUESTS = 8
PATCHES = 32
READY = 60.0
"""Seconds until a server of our own must answer."""


def main() -> None:
    """Print rates and their ratios to local files."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--to", help="folder of a bucket that may be written")
    options.add_argument("--weed", help="SeaweedFS's program")
    options.add_argument("--images", type=Path)
    options.add_argument("--shards", type=int, default=12)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    told = options.parse_args()
    if bool(told.to) == bool(told.weed):
        options.error("name a bucket's folder with --to, or a server to start with --weed")
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        url = told.to or stack.enter_context(serve(told.weed, folder / "server"))
        volumes = list(find_volumes(told.images)) if told.images else [make_volume()]
        patches = cut_patches(volumes, PATCHES)
        root = write_dataset(folder / "local", [patches for _ in range(told.shards)], chunk=None)
        far, near = open_store(url), LocalStore(root)
        for path in near.list():
            far.put(path, near.read(path))
        size = sum(one.bytes for entry in open_dataset(near).manifest.shards for one in entry.objects)
        print(f"{told.shards} shards, {size / 1e6:.0f} MB, {REQUESTS} requests at once, {told.threads} threads")
        compare(Stores(near, far, folder, told.threads), told.rounds)


@dataclass(frozen=True)
class Stores:
    """The same dataset in a folder and in a bucket."""

    near: LocalStore
    far: Store
    folder: Path
    threads: int

    def epoch(self, store: Store, seconds: float = 0.0, cache: Path | None = None) -> int:
        """Read every sample, with steps of so many seconds a sample, through ``cache`` or an empty one."""
        with tempfile.TemporaryDirectory(dir=self.folder) as empty:
            options = {"order": "shard_shuffled", "threads": self.threads, "requests": REQUESTS}
            dataset = open_dataset(store, cache=None if store is self.near else cache or empty)
            run_epoch(dataset, lambda batch: time.sleep(seconds * len(batch)) if seconds else None, options)
            return len(dataset)

    def fetch(self, *, keep: bool) -> int:
        """Fetch the objects of every shard, and check and write them if they are to be kept."""
        dataset = open_dataset(self.near)
        objects = {shard_path(e.fingerprint, one.path): one for e in dataset.manifest.shards for one in e.objects}
        with tempfile.TemporaryDirectory(dir=self.folder) as place, ThreadPoolExecutor(REQUESTS) as pool:

            def fetched(path: str) -> None:
                data = self.far.read(path)
                if keep:
                    assert hashlib.sha256(data).hexdigest() == objects[path].sha256
                    (Path(place) / path.replace("/", "-")).write_bytes(data)

            list(pool.map(fetched, objects))
        return len(dataset)


def compare(stores: Stores, rounds: int) -> None:
    """Print one line for each way to read."""
    kept, near, far = stores.folder / "kept", stores.near, stores.far
    ways: dict[str, Callable[[], int]] = {
        "local files": lambda: stores.epoch(near),
        "S3, empty cache": lambda: stores.epoch(far),
        "S3, full cache": lambda: stores.epoch(far, cache=kept),
        "bare requests": lambda: stores.fetch(keep=False),
        "bare requests, checked, into files": lambda: stores.fetch(keep=True),
        "local files, 4 ms a sample": lambda: stores.epoch(near, 0.004),
        "S3, empty cache, 4 ms a sample": lambda: stores.epoch(far, 0.004),
    }
    rates = np.zeros((2, len(ways), rounds))
    for number in range(-1, rounds):  # the first one warms up
        for place, run in enumerate(ways.values()):
            began, used = time.perf_counter(), time.process_time()
            count = run()
            if number >= 0:
                rates[:, place, number] = count / (time.perf_counter() - began), count / (time.process_time() - used)
    for place, name in enumerate(ways):
        first = 5 if "4 ms" in name else 0
        line = f"  {name:36}"
        for clock, found in zip(("wall", "cpu"), rates, strict=True):
            ratio = float(np.median(found[place] / found[first]))
            figure(f"{name}, {clock}", float(found[place].max()), "/s", better="more")
            figure(f"{name}, {clock}, of local files", ratio, "x", better="more")
            line += f"  {clock} {found[place].max():6.0f}/s {ratio:5.2f}"
        print(line)


@contextlib.contextmanager
def serve(weed: str, folder: Path) -> Iterator[str]:
    """Start a SeaweedFS on this machine, and say where its bucket is."""
    folder.mkdir()
    secret = {"accessKey": "bench", "secretKey": os.urandom(16).hex()}
    rights = {"identities": [{"name": "bench", "credentials": [secret], "actions": ["Admin"]}]}
    (folder / "s3.json").write_text(json.dumps(rights))
    command = [weed, f"-logdir={folder}", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer",
               "-master.port=19533", "-volume.port=18580", "-filer.port=18588", "-s3", "-s3.port=18533",
               f"-s3.config={folder / 's3.json'}", "-master.telemetry=false"]  # fmt: skip
    os.environ |= {
        "AWS_ACCESS_KEY_ID": secret["accessKey"],
        "AWS_SECRET_ACCESS_KEY": secret["secretKey"],
        "AWS_ENDPOINT": "http://127.0.0.1:18533",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
    }
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            made = ["curl", "-sf", "-X", "PUT", "--aws-sigv4", "aws:amz:us-east-1:s3",
                    "--user", f"bench:{secret['secretKey']}", "http://127.0.0.1:18533/bench"]  # fmt: skip
            until = time.monotonic() + READY
            while subprocess.run(made, capture_output=True).returncode:
                if time.monotonic() > until:
                    sys.exit("the server does not answer: " + (folder / "log").read_text()[-500:])
                time.sleep(0.5)
            yield "s3://bench/set"
        finally:
            server.kill()


if __name__ == "__main__":
    main()
