"""Labels out of report text, a sample of them read again by a person, and the error rate in the dataset."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import builder
from builder.cli import app
from builder.errors import SpecError
from builder.run.pipeline import build
from tests import synthetic
from tests.endtoend.trees import KEY

SPEC = """
name: reports
license: CC-BY-4.0
sources: [{kind: folder, url: "${tree}"}]
labels:
  chest: {kind: report, match: "{folder}/report.txt", findings: [effusion, cardiomegaly, edema]%s}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [8, 16, 16]}
"""
REPORTS = 12


@pytest.fixture
def tree(tmp_path: Path, corpus: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve small series, each with a report of Open-I that is not empty."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    with (corpus("tables") / "reports" / "openi_indiana_reports.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["impression"]][:REPORTS]
    for number, row in enumerate(rows):
        folder = tmp_path / "tree" / f"p{number}"
        folder.mkdir(parents=True)
        synthetic.ct_series(folder, slices=3, patient_id=f"PAT-{number:04d}", series=str(number + 1))
        (folder / "report.txt").write_text(f"FINDINGS: {row['findings']}\n\nIMPRESSION: {row['impression']}")
    return tmp_path / "tree"


def _build(tree: Path, options: str = "") -> dict[str, Any]:
    spec = tree.parent / "spec.yaml"
    spec.write_text(SPEC % options)
    build(spec, to=tree.parent / "out", parameters={"tree": str(tree)})
    version = builder.open_dataset(tree.parent / "out").manifest.version
    found: dict[str, Any] = json.loads((tree.parent / "out/versions" / version / "report/report.json").read_text())
    return found


def test_a_reviewed_label_tells_its_error_rate(tree: Path) -> None:
    assert _build(tree)["reviews"] == []
    table = tree.parent / "review.csv"
    arguments = ["review", str(tree.parent / "spec.yaml"), "chest", "--to", str(tree.parent / "out")]
    arguments += ["--out", str(table), "--count", "5", "--param", f"tree={tree}", "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert (table.stat().st_mode & 0o777) == 0o600
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (len(rows), len({row["case_key"] for row in rows})) == (15, 5)
    assert sum("IMPRESSION" in row["text"] for row in rows) == 5
    for number, row in enumerate(rows):
        row["correct"] = "no" if number in (3, 9) else "yes" if number != 14 else ""
    rows[0]["value"] = "as it was before"
    _write(table, rows)
    (entry,) = _build(tree, f', review: "{table}"')["reviews"]
    assert (entry["judged"], entry["wrong"], entry["stale"], entry["cases"]) == (13, 2, 1, 5)
    assert entry["rate"] == pytest.approx(2 / 13)
    assert entry["low"] < entry["rate"] < entry["high"]
    published = b"".join(p.read_bytes() for p in (tree.parent / "out").rglob("*") if p.suffix in (".json", ".html"))
    assert str(table).encode() not in published
    assert b"2 of 13" in published
    # another answer is another version, from the same shards
    rows[3]["correct"] = "yes"
    _write(table, rows)
    assert _build(tree, f', review: "{table}"')["reviews"][0]["wrong"] == 1
    assert len(list((tree.parent / "out/data").iterdir())) == 1
    rows[3]["correct"] = "perhaps"
    _write(table, rows)
    with pytest.raises(SpecError, match="row 5: found 'perhaps'"):
        _build(tree, f', review: "{table}"')


def _write(table: Path, rows: list[dict[str, str]]) -> None:
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
