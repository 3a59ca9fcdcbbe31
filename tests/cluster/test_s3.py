"""A dataset in a bucket of a server that checks signatures: the same bytes, killed and continued, built by two."""

import hashlib
import subprocess

import pytest

from builder.storage import CRASH_VARIABLE, open_store
from tests.cluster.daemons import S3
from tests.endtoend.trees import ROOT, command, environment, run


def objects(url: str) -> dict[str, str]:
    store = open_store(url)
    return {path: hashlib.sha256(store.read(path)).hexdigest() for path in store.list()}


def test_same_bytes_killed_and_continued(bucket: str, arguments, serial) -> None:
    target = f"{bucket}/killed"
    for point in ("shard.receipt:2", "publish.current"):
        died = subprocess.run(
            command("build", *arguments, "--to", target), env={**environment(), **S3, CRASH_VARIABLE: point}, cwd=ROOT,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert died.returncode == -9, died.stderr
    run("build", *arguments, "--to", target, "--cluster", "local", "--workers", "2")
    assert objects(target) == serial
    assert "sound" in run("verify", target).stdout


def test_two_builders(bucket: str, arguments, serial) -> None:
    target = f"{bucket}/twice"
    both = [
        subprocess.Popen(command("build", *arguments, "--to", target), env={**environment(), **S3}, cwd=ROOT)
        for _ in range(2)
    ]
    assert [process.wait(600) for process in both] == [0, 0]
    assert objects(target) == serial


def test_a_wrong_secret_is_refused_by_the_server(bucket: str, arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    done = run("build", *arguments, "--to", f"{bucket}/refused", expect=1)
    assert "Traceback" not in done.stderr
