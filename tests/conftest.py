"""Shared fixtures: the corpus of real files, and a cache of its archives unpacked."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.cluster.daemons import S3, WORKER, daemon

# timing a property on a shared machine proves nothing; the same examples are drawn every time, so that a failure is a
# change's fault; BUILDER_TRUTH=1 (make truth) draws others
settings.register_profile("builder", deadline=None, derandomize=not os.environ.get("BUILDER_TRUTH"))
settings.load_profile("builder")

# an exception that nobody foresaw stops a build in tests; what tests the opposite asks for it
os.environ.setdefault("BUILDER_STRICT", "1")

ROOT = Path(__file__).resolve().parent.parent


def corpus_home() -> Path | None:
    """The folder with the corpus archives: ``BUILDER_CORPUS`` or ``../shared/corpus`` beside the checkout."""
    candidates = [os.environ.get("BUILDER_CORPUS"), ROOT.parent / "shared" / "corpus"]
    return next((Path(c) for c in candidates if c and (Path(c) / "unpack.py").is_file()), None)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Flush nothing: a small build flushes some hundred files, which takes longer than all else it does.

    Only a power failure shows whether a file was flushed; ``tests/faults/power.py`` makes such failures.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def corpus() -> Callable[[str], Path]:
    """A function from an archive name (``sts``, ``geometry``, ``segmentation``, ``odd``, ``tables``) to its folder."""
    home = corpus_home()

    def unpacked(archive: str) -> Path:
        if home is None:
            if os.environ.get("CI"):
                pytest.fail("the corpus is missing: set BUILDER_CORPUS or put shared/corpus beside the checkout")
            pytest.skip("the corpus is not on this machine (set BUILDER_CORPUS)")
        stamp = int((home / f"{archive}.tar.xz").stat().st_mtime)
        target = Path(tempfile.gettempdir()) / "builder-corpus" / f"{archive}-{stamp}"
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=target.parent))
            command = [sys.executable, str(home / "unpack.py"), archive, "--to", str(scratch)]
            subprocess.run(command, check=True, capture_output=True)
            try:
                scratch.rename(target)
            except OSError:  # another test process was first
                assert target.is_dir()
        return target

    return unpacked


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server of buckets."""
    yield from daemon("s3", tmp_path_factory, str(Path(sys.executable).with_name("weed")), f"{WORKER}")


@pytest.fixture
def bucket(s3: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, which the environment gives access to."""
    for name, value in S3.items():
        monkeypatch.setenv(name, value)
    created = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-X",
        "PUT",
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
        "-u",
        "testaccess:testsecret1",
    ]
    subprocess.run([*created, f"{S3['AWS_ENDPOINT']}/datasets"], check=True)
    return "s3://datasets"
