"""The command line: exit codes, help, JSON for machines, and lazy imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.endtoend.trees import ROOT, SARCOMA, run


def test_python_m_builder_lists_the_commands():
    done = run("--help")
    for name in ["schema", "validate", "plan", "build", "verify", "inspect", "explain", "report", "volumes", "phantom",
                 "catalog", "diff", "records", "uses", "record-training"]:  # fmt: skip
        assert name in done.stdout


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert run("--version").stdout == f"builder {version('medical-dataset-builder')}\n"


def test_schema_is_a_json_schema_of_the_spec():
    document = json.loads(run("schema").stdout)
    assert {"name", "sources", "deid", "samples"} <= set(document["properties"])
    assert document["additionalProperties"] is False


def test_validate(tmp_path: Path):
    assert "valid" in run("validate", SARCOMA).stdout
    assert json.loads(run("validate", SARCOMA, "--json").stdout)["valid"] is True
    bad = tmp_path / "bad.yaml"
    bad.write_text(SARCOMA.read_text().replace("cohort:", "cohrt:"))
    done = run("validate", bad, expect=2)
    assert f"{bad}:" in done.stderr
    assert "did you mean 'cohort'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["build", "absent.yaml", "--to", "x"], 2, "cannot read the spec"),
        (["build", str(SARCOMA), "--to", "x", "--param", "novalue"], 2, "expected NAME=VALUE"),
        (["build", str(SARCOMA), "--to", "x"], 2, "expected --param corpus=VALUE"),
        (["build", str(SARCOMA), "--to", "x", "--cluster", "nowhere"], 2, "--cluster"),
        (["inspect", "absent"], 1, "no published dataset"),
        (["verify", "absent"], 1, "CURRENT: found nothing"),
        (["explain", "absent", "1.2.3"], 1, "no published dataset"),
        (["report", "absent"], 1, "no published report"),
        (["diff", "absent", "absent"], 1, "no published dataset"),
        (["catalog", "absent"], 2, "found no folder"),
        (["uses", "absent"], 1, "no published dataset"),
        (["record-training", "absent"], 2, "architecture: found nothing"),
    ],
)
def test_exit_codes_and_messages(arguments, code, message, tmp_path: Path):
    done = run(*(str(tmp_path / a) if a in ("x", "absent") else a for a in arguments), expect=code)
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_is_not_there_is_the_data_at_fault(tmp_path: Path):
    done = run("plan", SARCOMA, "--to", tmp_path / "d", "--param", f"corpus={tmp_path}/absent", expect=1)
    assert "found no folder" in done.stderr


def test_help_does_not_load_the_engine():
    code = "import sys, builder.cli; print([m for m in ('dask', 'pydicom', 'numba', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
