"""Three sites train one model with Flower, each in a process of its own that knows its own dataset alone."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.federation.coordinating import merge_receipts
from builder.federation.signing import read_public
from tests.endtoend.trees import ROOT
from tests.federation.conftest import SITES, Three

PYTHON = os.environ.get("BUILDER_FLOWER_PYTHON", "")
if not PYTHON:
    pytest.skip("make flower trains over three sites, which takes minutes", allow_module_level=True)

EXAMPLE = ROOT / "examples" / "federated"


@contextlib.contextmanager
def running(three: Three, home: Path) -> Iterator[int]:
    """Start a coordinator's server and the three sites; gives the port."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    with contextlib.ExitStack() as stack:

        def start(name: str, *command: str) -> None:
            folder = home / name
            folder.mkdir()
            log = stack.enter_context((folder / "log").open("wb"))
            process = subprocess.Popen(_at(*command), cwd=folder, env=_environment(folder), stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start("coordinator", "flower-superlink", "--insecure", "--port", str(port))
        for number, site in enumerate(SITES):
            config = f'site="{site}" dataset="{three.at(site, "dataset")}"'
            link = ("--superlink", f"127.0.0.1:{port}", "--port", str(port + 1 + number))
            start(site, "flower-supernode", "--insecure", *link, "--node-config", config)
        _until_it_listens(port)
        yield port


def test_three_sites_train_where_their_images_are(built: Three, tmp_path: Path) -> None:
    receipts = [built.at(site, "out", "receipt.json") for site in SITES]
    joined = merge_receipts(
        built.signed, built.plan, receipts, read_public(f"{built.home}/coordinator.key.pub", where="")
    )
    report = tmp_path / "report.json"
    report.write_bytes(joined.files()["report.json"])
    other = json.loads(report.read_text())
    other["sites"]["north"]["version"] = "0" * 32
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(other))
    with running(built, tmp_path) as port:
        told = _trained(tmp_path, port, report)
        refused = _trained(tmp_path, port, wrong)
    (line,) = re.findall(r"area under the ROC curve on validation, all sites: ([\d. ]+)", told)
    scores = [float(score) for score in line.split()]
    assert len(scores) == 5
    assert scores[-1] > 0.8  # a model that knows nothing has 0.5
    assert "under the ROC curve" not in refused
    assert "1 of 3 sites did not train" in refused
    assert "expected 000" in (tmp_path / "north" / "log").read_text()
    for site in SITES:  # nobody was told where another's dataset is
        log = (tmp_path / site / "log").read_text()
        assert not [other for other in SITES if other != site and str(built.at(other)) in log]


def _trained(home: Path, port: int, report: Path) -> str:
    """Run the example once and return what it printed."""
    folder = home / "coordinator"
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    command = _at("flwr", "run", str(EXAMPLE), "here", "--stream", "--run-config", f'report="{report}"')
    done = subprocess.run(command, env=_environment(folder), cwd=folder, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


def _at(name: str, *options: str) -> list[str]:
    return [str(Path(PYTHON).parent / name), *options]


def _environment(home: Path) -> dict[str, str]:
    """Return an environment in which Flower finds its programs, and builder, and keeps its files in a folder."""
    path = f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUILDER_")}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"}


def _until_it_listens(port: int) -> None:
    for _ in range(3000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError("the server of Flower did not start")
