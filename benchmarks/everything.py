"""Run the benchmarks that need nothing but this checkout, and keep their figures in .bench/COMMIT.json.

    python benchmarks/everything.py [--peer-python PYTHON] [--only NAME ...] [--rounds 1] [--to FILE]

Each script runs in a process of its own, one after the other. Its figures stand beside the facts of the machine, the
versions of all packages, and the load when it began, because a figure means little without them. With ``--rounds`` all
of it is done again; ``difference.py`` then knows how far figures of one commit lie apart. A script that fails is named,
the others still run, and the exit status is 1. Each script takes minutes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from figures import VARIABLE

HERE: Final = Path(__file__).resolve().parent

RUNS: Final[Mapping[str, Sequence[str]]] = {
    "index": ["index.py"],
    "index, 2 processes": ["index.py", "--processes", "2"],
    "memory": ["memory.py"],
    "split": ["split.py"],
    "read": ["read.py"],
    "read, S3": ["read_store.py", "--weed", str(Path(sys.executable).with_name("weed"))],
    "crops": ["crops.py"],
    "crop batches": ["crop_batches.py"],
    "codecs": ["codecs.py"],
    "resample": ["resample.py"],
    "resample, 2 threads": ["resample.py", "--threads", "2"],
    "decode": ["decode.py"],
    "decode, 2 processes": ["decode.py", "--processes", "2"],
    "sets": ["sets.py"],
    "build": ["build.py", "--workers", "2"],
    "sources": ["sources.py"],
    "leaks": ["leaks.py", "--volumes", "400", "--grown", "66", "--cluster", "local"],
    "scale": ["scale.py", "--tasks", "10000", "--shards", "2000"],
    "million": ["million.py"],
    "plans": ["plans.py", "--series", "1000", "--grow", "1"],
}
"""Arguments of each run. Those of a script that compares with peers grow by the Python that holds them."""

WITH_PEERS: Final = ("read.py", "resample.py", "decode.py", "build.py")


def main() -> int:
    """Run all, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python")
    parser.add_argument("--only", nargs="+", choices=sorted(RUNS), metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    commit = revision()
    to = given.to or HERE.parent / ".bench" / f"{commit}.json"
    figures: dict[str, dict[str, Any]] = {}
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(given.rounds):
        for name in given.only or RUNS:
            script, *options = RUNS[name]
            peers = ["--peer-python", given.peer_python] if given.peer_python and script in WITH_PEERS else []
            print(f"\n== {name}", flush=True)
            runs[name].append(run([str(HERE / script), *options, *peers], name, figures))
    found = {"commit": commit, "taken": datetime.now(UTC).isoformat(timespec="seconds")}
    to.parent.mkdir(parents=True, exist_ok=True)
    told = found | {"machine": machine(), "packages": packages(), "runs": runs, "figures": figures}
    to.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    failed = [name for name, tries in runs.items() if any(one["status"] for one in tries)]
    print(f"\n{len(figures)} figures in {to}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(command: Sequence[str], name: str, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Run a script and add its figures to those of earlier rounds. Returns how it went."""
    load, began = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="builder-bench-") as folder:
        kept = Path(folder) / "figures.jsonl"
        kept.touch()
        status = subprocess.run([sys.executable, *command], env={**os.environ, VARIABLE: str(kept)}).returncode
        for line in kept.read_text().splitlines():
            each = json.loads(line)
            held = figures.setdefault(f"{name}: {each['name']}", {"unit": each["unit"], "better": each["better"]})
            held.setdefault("values", []).append(each["value"])
    return {"load": round(load, 2), "seconds": round(time.perf_counter() - began, 1), "status": status}


def revision() -> str:
    """Return the commit of this checkout, marked where it holds changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", HERE, *words], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=10", "HEAD") + ("-changed" if changed else "")


def machine() -> dict[str, Any]:
    """Return what figures depend on and no commit states."""
    facts = {}
    if Path("/proc/cpuinfo").exists():
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        facts = {name.strip(): value.strip() for name, _, value in lines}
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def packages() -> dict[str, str]:
    """Return the version of each installed package."""
    return {found.metadata["Name"]: found.version for found in distributions()}


if __name__ == "__main__":
    raise SystemExit(main())
