"""The network between a worker and the scheduler is cut for a while (name spaces; root): the same bytes in the end."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.run.certs import write_certificates
from tests.faults.builds import Case, Server, count
from tests.faults.roles import ALONE, Roles, free_port, role

CUTS = count("NETWORK_CUTS", ci=2, long=30)
PROFILE = "kind: address\nurl: {url}\ntls: {{ca_file: {0}/ca.pem, cert_file: {0}/cert.pem, key_file: {0}/key.pem}}\n"
SHORT = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8 s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12 s"}


@dataclass(frozen=True)
class Link:
    """A name space at the other end of a link."""

    space: str
    near: str
    subnet: str


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def link() -> Iterator[Link]:
    """A link of our own: several may be open at once."""
    number = os.getpid() % 250
    made = Link(f"builder-far-{number}", f"builder-v{number}", f"10.79.{number}")
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("cuts a link between network name spaces: needs root and iproute2")
    ip("netns", "add", made.space)
    try:
        ip("link", "add", made.near, "type", "veth", "peer", "name", "eth0", "netns", made.space)
        ip("addr", "add", f"{made.subnet}.1/24", "dev", made.near)
        ip("link", "set", made.near, "up")
        for name in ("eth0", "lo"):
            ip("-n", made.space, "link", "set", name, "up")
        ip("-n", made.space, "addr", "add", f"{made.subnet}.2/24", "dev", "eth0")
        yield made
    finally:
        # its end here first: the far one lives on in its name space as long as a process does
        subprocess.run(["ip", "link", "del", made.near], check=False, capture_output=True)
        ip("netns", "del", made.space)


@pytest.fixture
def place(server: Server, link: Link, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """A scheduler and a worker here and a worker at the far end; what a build is told to use them."""
    write_certificates(tmp_path / "certs")
    files = [f"{tmp_path}/certs/{name}.pem" for name in ("ca", "cert", "key")]
    tls = ("--tls-ca-file", files[0], "--tls-cert", files[1], "--tls-key", files[2])
    port, folder = free_port(), tmp_path / "roles"
    folder.mkdir()
    listen = ("--host", f"tls://{link.subnet}.1", "--port", str(port), "--no-dashboard")
    scheduler = role(server, folder, "scheduler", *listen, *tls, env=SHORT)
    roles = Roles(server, folder, f"tls://{link.subnet}.1:{port}", scheduler, (*ALONE, *tls), env=SHORT)
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE.format(tmp_path / "certs", url=roles.url))
    try:
        roles.add("--host", f"{link.subnet}.1")
        roles.add("--host", f"{link.subnet}.2", fault={"space": link.space})
        yield "--cluster", str(profile)
    finally:
        roles.end()


@pytest.mark.fault("network cut between a worker and the scheduler, for 1, 10 or 60 s")
@pytest.mark.parametrize("number", range(CUTS))
def test_a_link_is_cut(
    place: tuple[str, ...], link: Link, disturb_crowd: Callable[..., Case], dice: random.Random, number: int
) -> None:
    case = disturb_crowd(*place)
    build = case.start()
    for _ in range(dice.randrange(3, 20)):
        assert build.at_work_after(case, dice), build.said()
    ip("link", "set", link.near, "down")
    time.sleep((1, 10, 60)[number % 3])
    ip("link", "set", link.near, "up")
    assert build.wait() == 0, build.said()
    case.more = ()
