"""Workers started over SSH, with keys and host keys checked."""

import sys
from pathlib import Path

from tests.endtoend.trees import run, tree

PROFILE = """
kind: ssh
hosts: [127.0.0.1, 127.0.0.1]
user: root
port: 12322
key_file: {folder}/id
known_hosts: {folder}/known_hosts
python: {python}
memory_gib: 1.5
scratch: {folder}/scratch
environment: [BUILDER_KEY, PYTHONPATH]
"""


def test_same_bytes(sshd: Path, arguments, serial, tmp_path: Path) -> None:
    profile = sshd / "profile.yaml"
    profile.write_text(PROFILE.format(folder=sshd, python=sys.executable))
    target = tmp_path / "dataset"
    run("build", *arguments, "--to", target, "--cluster", profile)
    assert tree(target) == serial


def test_an_unknown_host_is_refused(sshd: Path, arguments, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    (tmp_path / "empty").touch()
    text = PROFILE.format(folder=sshd, python=sys.executable)
    profile.write_text(text.replace(f"{sshd}/known_hosts", f"{tmp_path}/empty"))
    done = run("build", *arguments, "--to", tmp_path / "dataset", "--cluster", profile, expect=1)
    assert "SSH" in done.stderr
