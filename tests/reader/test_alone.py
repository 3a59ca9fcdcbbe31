"""Reading needs numpy, pyarrow, numcodecs, google-crc32c and obstore, and no other package.

``make test-reader`` sets BUILDER_READER_PYTHON to a Python that has only these five installed. Without it the same
script runs in this Python with every other package hidden from it.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from builder.reader import open_dataset

ROOT = Path(__file__).resolve().parents[2]


def test_a_dataset_is_read_with_five_packages(patches: Any) -> None:
    dataset = open_dataset(patches.root)
    digest = hashlib.sha256(b"".join(batch["image"].tobytes() for batch in dataset.batches(3)))
    expected = [str(len(dataset)), str(len(dataset.where("age_years > 10"))), digest.hexdigest()]
    python = os.environ.get("BUILDER_READER_PYTHON", sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, ROOT / "tests" / "reader" / "alone.py", patches.root],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == expected
    assert done.stdout.endswith("pip install duckdb\n")
