"""Specs of ``builder init``: each plans as it is, and none builds before its placeholders are replaced."""

import pytest
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import SpecError
from builder.library.starter import TASKS, starter_spec
from builder.phantom.archive import write_archive
from builder.run.pipeline import build, plan
from builder.run.scan import scan


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("phantom")
    write_archive(folder, patients=2)
    return str(folder / "archive")


@pytest.fixture(scope="module")
def found(archive):
    return scan([archive])


@pytest.mark.parametrize("task", TASKS)
def test_a_starter_plans_unchanged(found, archive, tmp_path, task, monkeypatch):
    monkeypatch.delenv("BUILDER_KEY", raising=False)
    spec = tmp_path / "spec.yaml"
    spec.write_text(starter_spec(found, archive, task))
    outcome = plan(spec, to=tmp_path / "dataset")
    assert not outcome.refused
    assert outcome.plan.cohort.filter(outcome.plan.cohort["included"]).num_rows > 0
    assert bool(outcome.plan.spec.cohort.images) == (task == "multimodal")


def test_a_starter_does_not_build(found, archive, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(starter_spec(found, archive, "pretraining"))
    with pytest.raises(SpecError, match=r"license: found the placeholder.*\n.*deid.patient_key: found the placeholder"):
        build(spec, to=tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_an_unknown_task_is_named(tmp_path):
    outcome = CliRunner().invoke(app, ["init", str(tmp_path), "--task", "dancing"])
    assert isinstance(outcome.exception, SpecError)
    assert "segmentation" in str(outcome.exception)
