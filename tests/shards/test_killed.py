"""A writer killed at any durable step leaves no shard; writing again gives the bytes of an undisturbed run."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builder.model.layout import RECEIPT, parse_receipt
from builder.storage import CRASH_VARIABLE, SCRATCH_PREFIX

ROOT = Path(__file__).resolve().parents[2]
FINGERPRINT = "c0ffeeab" * 4
PROGRAM = """
import sys
import numpy as np
from builder.model.case import Sample
from builder.model.geometry import Geometry
from builder.shards import write_shard
from builder.storage import open_store
def sample(i):
    image = np.random.default_rng(i).integers(0, 9, (1, 4, 5, 6)).astype(np.int16)
    arrays = {"image": image, "tumor": (image > 4).astype(np.uint8)}
    return Sample(arrays, Geometry((4, 5, 6), np.eye(4)), {"sample_key": str(i)})
write_shard(open_store(sys.argv[1]), sys.argv[2], cases=[[sample(0), sample(1)], [sample(2)]])
"""
STEPS = ["shard.finish", "commit.renamed", "write.fsynced:3", "write.renamed:4", "shard.receipt", "write.fsynced:5"]


def write(root: Path, step: str = "") -> int:
    command = [sys.executable, "-c", PROGRAM, str(root), FINGERPRINT]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, CRASH_VARIABLE: step}, check=False).returncode


def digests(root: Path) -> dict[str, str]:
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and not any(SCRATCH_PREFIX in q for q in p.parts)]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("undisturbed")
    assert write(root) == 0
    return digests(root)


@pytest.mark.parametrize("step", STEPS)
def test_no_receipt_before_all_is_there(tmp_path: Path, undisturbed: dict[str, str], step: str) -> None:
    assert write(tmp_path, step) == -signal.SIGKILL
    assert not (tmp_path / "data" / FINGERPRINT / RECEIPT).exists()
    assert write(tmp_path) == 0
    assert digests(tmp_path) == undisturbed


def test_killed_after_the_receipt_the_shard_is_whole(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    assert write(tmp_path, "write.renamed:5") == -signal.SIGKILL
    assert digests(tmp_path) == undisturbed
    receipt = parse_receipt((tmp_path / "data" / FINGERPRINT / RECEIPT).read_bytes())
    assert (receipt.rows, receipt.cases) == (3, 2)
