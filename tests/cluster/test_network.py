"""The network between a worker and the scheduler is cut for a while (name spaces; root): the same bytes in the end."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endtoend.trees import ROOT, command, environment, run, tree

SPACE, LINK, PORT = "builder-far", "builder-v0", 18798
PROFILE = """
kind: address
url: tls://10.79.0.1:{port}
tls: {{ca_file: {0}/ca.pem, cert_file: {0}/cert.pem, key_file: {0}/key.pem}}
"""


@pytest.fixture
def far() -> Iterator[None]:
    """A name space at the other end of a link, 10.79.0.2."""
    ip("netns", "add", SPACE)
    try:
        ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", SPACE)
        ip("addr", "add", "10.79.0.1/24", "dev", LINK)
        ip("link", "set", LINK, "up")
        for name in ("eth0", "lo"):
            ip("-n", SPACE, "link", "set", name, "up")
        ip("-n", SPACE, "addr", "add", "10.79.0.2/24", "dev", "eth0")
        yield
    finally:
        ip("netns", "del", SPACE)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def certs(far: None, tmp_path: Path) -> Iterator[Path]:
    """TLS files, while a scheduler and a worker are near and another worker is far."""
    folder = tmp_path / "certs"
    run("certs", "--to", folder)
    tls = ["--tls-ca-file", folder / "ca.pem", "--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem"]
    worker = ["dask_worker", f"tls://10.79.0.1:{PORT}", "--nthreads", "1", "--memory-limit", "1.5GiB"]
    roles = [
        ([], ["dask_scheduler", "--host", "tls://10.79.0.1", "--port", str(PORT)]),
        ([], [*worker, "--host", "10.79.0.1"]),
        (["ip", "netns", "exec", SPACE], [*worker, "--host", "10.79.0.2"]),
    ]
    short = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8 s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12 s"}
    nothing = subprocess.DEVNULL
    processes = [
        subprocess.Popen(
            [*inside, sys.executable, "-m", f"distributed.cli.{module}", *rest, "--no-dashboard", *map(str, tls)],
            env={**environment(), **short}, cwd=ROOT, stdout=nothing, stderr=nothing,
        )
        for inside, (module, *rest) in roles
    ]  # fmt: skip
    time.sleep(5)
    yield folder
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        process.wait(60)


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_a_link_is_cut(certs: Path, arguments, serial, tmp_path: Path, seconds: int) -> None:
    profile, target = tmp_path / "profile.yaml", tmp_path / "dataset"
    profile.write_text(PROFILE.format(certs, port=PORT))
    with (tmp_path / "log").open("w") as log:
        line = command("build", *arguments, "--to", target, "--cluster", profile)
        build = subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=log, stderr=log)
    while not (target / "data").exists():
        assert build.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    ip("link", "set", LINK, "down")
    time.sleep(seconds)
    ip("link", "set", LINK, "up")
    assert build.wait(300) == 0, (tmp_path / "log").read_text()
    assert tree(target) == serial
