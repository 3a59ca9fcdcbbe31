"""A token planted in every identifying attribute of an archive is nowhere in what leaves: data, names, logs, tasks."""

import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.phantom import write_archive
from builder.run.pipeline import build
from builder.run.progress import PlainProgress
from builder.run.serial import SerialRunner
from tests.endtoend.trees import KEY, ROOT, command, environment
from tests.synthetic import ct_series, store

CANARY = "QZXCANARY7"
SPEC = ROOT / "specs" / "phantom.yaml"


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("canary")
    write_archive(folder, patients=12, seed=5, canary=CANARY)
    return folder


def test_the_token_is_planted(archive: Path):
    names = [p for p in archive.rglob("*") if CANARY in p.name.upper()]
    contents = [p for p in archive.rglob("*.dcm") if CANARY.encode() in p.read_bytes()]
    assert names
    assert len(contents) > 100


def test_nothing_that_leaves_holds_the_token(archive: Path, tmp_path: Path):
    target = tmp_path / "dataset"
    done = subprocess.run(
        command("build", SPEC, "--to", target, "--param", f"phantom={archive}", "--json"),
        env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert CANARY not in (done.stdout + done.stderr).upper().replace(str(archive).upper(), "")
    for path in sorted(target.rglob("*")):
        assert CANARY not in path.relative_to(target).as_posix().upper()
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes().upper(), path
            if path.suffix == ".parquet":
                assert CANARY not in _everything(pq.ParquetFile(path)).upper(), path
    private = target.with_name(target.name + ".private")
    assert private.stat().st_mode & 0o077 == 0


def _everything(file: pq.ParquetFile) -> str:
    table: pa.Table = file.read()
    return f"{file.metadata} {file.schema_arrow.metadata} {table.to_pydict()}"


def test_task_keys_and_messages_hold_no_token(archive: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    keys: list[str] = []
    run_serially = SerialRunner.run

    def recorded(self, tasks):
        def seen(tasks):
            for task in tasks:
                keys.append(task.key)
                yield task

        return run_serially(self, seen(tasks))

    monkeypatch.setattr(SerialRunner, "run", recorded)
    build(SPEC, to=tmp_path / "dataset", parameters={"phantom": str(archive)}, progress=PlainProgress())
    captured = capsys.readouterr()
    assert len(keys) > 3
    assert not [k for k in keys if CANARY in k.upper()]
    assert CANARY not in (captured.out + captured.err).upper()


RULED = """
name: ruled
license: CC0-1.0
sources: [{{kind: folder, url: "{archive}"}}]
cohort:
  image: "modality == 'CT' and institution_name != 'St. Elsewhere'"
  rules:
    - {{name: not_them, keep: "patient_id not in ['70002', 'P-ABC-17'] and vendor == 'GE'"}}
    - {{name: nor_that, keep: "accession_number != '9981'"}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
"""


def test_what_a_rule_compares_with_an_identifier_is_not_published(tmp_path: Path, monkeypatch, capsys):
    """Short numbers pass every search, as they would match counts: what a rule says must be withheld by itself."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    for name, number in (("70001", "9980"), ("70002", "9982"), ("P-ABC-17", "9983"), ("70003", "9981")):
        attributes = {"AccessionNumber": number, "InstitutionName": "Harbour", "Manufacturer": "GE MEDICAL SYSTEMS"}
        store(ct_series(patient_id=name, attributes=attributes), tmp_path / "archive" / name)
    (tmp_path / "spec.yaml").write_text(RULED.format(archive=tmp_path / "archive"))
    build(tmp_path / "spec.yaml", to=tmp_path / "dataset", progress=PlainProgress())
    assert not re.search("70002|P-ABC-17|9981|Elsewhere", "".join(capsys.readouterr()))
    manifest = next((tmp_path / "dataset" / "versions").glob("*/dataset.json"))
    assert "patient_id not in ['(withheld)', '(withheld)']" in manifest.read_text()
    assert "vendor == 'GE'" in manifest.read_text()
    assert json.loads(manifest.read_text())["totals"]["cases"] == 1
    for path in sorted((tmp_path / "dataset").rglob("*")):
        if path.is_file():
            said = path.read_bytes() if path.suffix != ".parquet" else _everything(pq.ParquetFile(path)).encode()
            for told in (b"70002", b"P-ABC-17", b"9981", b"Elsewhere"):
                alone = re.search(rb"(?<![0-9a-zA-Z.])" + told + rb"(?![0-9a-zA-Z.])", said)
                assert path.suffix == "" or alone is None, (path, told)


def test_a_build_without_its_key_stops_before_anything_is_read(archive: Path, tmp_path: Path):
    bare = {name: value for name, value in os.environ.items() if name != "BUILDER_KEY"}
    done = subprocess.run(
        command("build", SPEC, "--to", tmp_path / "dataset", "--param", f"phantom={archive}"),
        env=bare, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "BUILDER_KEY is not set" in done.stderr
    assert not (tmp_path / "dataset").exists()
