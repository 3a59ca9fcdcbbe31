"""A scheduler at a tls:// address: the same bytes; who has no certificate of its authority is not let in."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endtoend.trees import ROOT, environment, run, tree

PROFILE = """
kind: address
url: tls://127.0.0.1:18796
tls: {{ca_file: {0}/ca.pem, cert_file: {0}/cert.pem, key_file: {0}/key.pem}}
"""


@pytest.fixture
def certs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "certs"
    run("certs", "--to", folder)
    files = ["--tls-ca-file", folder / "ca.pem", "--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem"]
    roles = [["scheduler", "--host", "tls://127.0.0.1", "--port", "18796"]]
    worker = ["worker", "tls://127.0.0.1:18796", "--host", "127.0.0.1", "--nthreads", "1", "--memory-limit", "1.5GiB"]
    roles += [worker, worker]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + role, *rest, "--no-dashboard", *map(str, files)],
            env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for role, *rest in roles
    ]  # fmt: skip
    yield folder
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        process.wait(60)


def test_same_bytes_and_strangers_stay_outside(certs: Path, arguments, serial, tmp_path: Path) -> None:
    profile, target = tmp_path / "profile.yaml", tmp_path / "dataset"
    profile.write_text(PROFILE.format(certs))
    run("build", *arguments, "--to", target, "--cluster", profile)
    assert tree(target) == serial
    run("certs", "--to", tmp_path / "others")
    profile.write_text(PROFILE.format(tmp_path / "others"))
    done = run("build", *arguments, "--to", tmp_path / "second", "--cluster", profile, expect=1)
    assert "no scheduler that answers" in done.stderr
