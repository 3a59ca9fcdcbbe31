"""Servers that are started and stopped by the scripts beside this file."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

HERE = Path(__file__).resolve().parent

WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Number of this process among those that run tests side by side: each has servers of its own."""

S3: Final = {
    "AWS_ACCESS_KEY_ID": "testaccess",
    "AWS_SECRET_ACCESS_KEY": "testsecret1",
    "AWS_ENDPOINT": f"http://127.0.0.1:{18433 + WORKER}",
    "AWS_ALLOW_HTTP": "true",
    "AWS_REGION": "us-east-1",
}
"""What the environment says of the server of the fixture ``s3``."""


def daemon(name: str, factory: pytest.TempPathFactory, *more: str) -> Iterator[Path]:
    """Start and stop by a script; munged wants parents that nobody else can write, hence /var/tmp."""
    folder = Path("/var/tmp") / f"builder-{name}-{os.getpid()}"
    with (factory.mktemp(name) / "log").open("w") as log:
        subprocess.run([HERE / f"{name}.sh", "start", folder, *more], check=True, stdout=log, stderr=log, timeout=120)
    yield folder
    subprocess.run([HERE / f"{name}.sh", "stop", folder, *more], check=True, timeout=60)
