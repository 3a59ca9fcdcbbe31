"""The doctor finds what works and what does not, and leaves nothing behind."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builder.cli import app
from builder.run import doctor
from builder.run.doctor import examine
from tests.endtoend.trees import KEY


def test_a_healthy_machine(tmp_path: Path) -> None:
    place = str(tmp_path / "new")
    found = examine(environment={"BUILDER_KEY": KEY}, key="${env:BUILDER_KEY}", to=place, cluster="serial")
    assert found.healthy, found.text()
    states = {finding.what: finding.state for finding in found.findings}
    assert states["decoders"] == states["key"] == states["cluster"] == "ok"
    assert list(tmp_path.iterdir()) == []
    assert KEY not in found.text()


def test_each_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    monkeypatch.setattr(doctor, "_is_decoded", lambda syntax: False)
    found = examine(environment={"BUILDER_KEY": "weak"}, key="${env:BUILDER_KEY}", to=str(tmp_path / "file"))
    faults = {finding.what: finding.detail for finding in found.findings if finding.state == "fault"}
    assert sorted(faults) == ["decoders", "key", "place"]
    assert "weak" not in faults["key"].replace("weaker", "")
    assert not found.healthy


def test_missing_extras_are_listed_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "pynetdicom")
    details = [finding.detail for finding in examine(environment={}).findings if finding.what == "extras"]
    assert "not installed: dimse; for those you need: pip install 'medical-dataset-builder[dimse]'" in details


def test_the_command_exits_with_1_at_a_fault(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "--key", "${env:BUILDER_ABSENT}"], env={})
    assert done.exit_code == 1
    faults = [finding for finding in json.loads(done.stdout)["findings"] if finding["state"] == "fault"]
    assert [finding["what"] for finding in faults] == ["key"]
    assert "BUILDER_ABSENT" in faults[0]["detail"]
