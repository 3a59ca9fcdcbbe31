"""Cases without a label, and labels of unlike strength: first-class in a dataset, and kept out of the test split."""

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import builder
from builder.errors import SpecError
from builder.publishing.consensus import check_evidence
from builder.run.pipeline import build, plan
from builder.split import Splits
from tests.endtoend.trees import KEY

SPEC = """
name: partly
license: CC-BY-3.0
sources:
  - {{kind: folder, url: "${{tree}}"}}
cohort: {{image: "modality == 'CT'", labels: optional}}
labels:
  drawn: {{kind: rtstruct, roi: {{tumor: "(?i)gtv|mass"}}, evidence: {{tier: {tier}}}}}
  biopsy:
    kind: classes
    table: {{match: "*.csv", by: {{PatientID: patient}}}}
    findings: {{grade: {{column: grade, values: {{"1": high, "0": low}}}}}}
    evidence: {{tier: pathology, readers: [two pathologists]}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
transforms: [{{kind: resample, spacing_mm: [4, 4, 4], image: linear, mask: nearest}}]
samples: {{kind: patches, shape: [8, 8, 8], centred_on: drawn, per_case: 2}}
splits: {{ratios: {{train: 0.4, validation: 0.2, test: 0.4}}, seed: 1, tested: {tested}}}
"""

UNDRAWN = ("STS_002", "STS_003")
WITH_BIOPSY = ("STS_003", "STS_008", "STS_019", "STS_024")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, corpus: Any) -> Path:
    """Seven persons: one unlabelled, one with a biopsy only, three with both labels, two with a drawing only."""
    home = tmp_path_factory.mktemp("partly")
    for folder in sorted((corpus("sts") / "sts_cohort").iterdir()):
        if (folder / "CT").is_dir():
            keep = shutil.ignore_patterns("*.nii.gz", *(["mask"] if folder.name in UNDRAWN else []))
            shutil.copytree(folder / "CT", home / "tree" / folder.name / "CT", ignore=keep)
    with (home / "tree" / "biopsies.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["PatientID", "grade"], *([name, 1] for name in WITH_BIOPSY)])
    return home / "tree"


def _spec(folder: Path, *, tier: str = "single_reader", tested: str = "{}") -> Path:
    (folder / "spec.yaml").write_text(SPEC.format(tier=tier, tested=tested))
    return folder / "spec.yaml"


def _split_of(tree: Path, folder: Path, tested: str) -> Mapping[str, set[str]]:
    """Label status of the persons of each split, by a plan."""
    planned = plan(_spec(folder, tested=tested), to=folder / "out", parameters={"tree": str(tree)}).plan
    home = dict(zip(*(planned.splits.column(c).to_pylist() for c in ("person_key", "split")), strict=True))
    found: dict[str, set[str]] = {}
    for row in planned.cohort.filter(planned.cohort["included"]).to_pylist():
        found.setdefault(home[row["person_key"]], set()).add(f"{row['label_status']} {row['label_tier']}")
    return found


def test_incomplete_cases_train_and_are_not_tested(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    build(_spec(tmp_path), to=tmp_path / "out", parameters={"tree": str(tree)})
    data = builder.open_dataset(tmp_path / "out")
    status = {s.row["case_key"]: s.row["label_status"] for s in data}
    assert sorted(status.values()) == ["labelled"] * 3 + ["partly_labelled"] * 3 + ["unlabelled"]
    assert {s.row["label_status"] for s in data if s.row["split"] == "test"} == {"labelled"}
    for sample in data:
        # a mask nobody drew is there, empty, and says so: no structure, no volume, no evidence
        drawn = "drawn" in sample.row["annotations"]
        assert sample["drawn"].shape == (1, 8, 8, 8)
        assert sample.row["segment_names"] == (["drawn/tumor"] if drawn else [])
        assert (sample.row["label.drawn.tumor.volume_mm3"] is not None) == drawn
        assert sample.row["evidence.drawn.tier"] == ("single_reader" if drawn else None)
        assert sample.row["evidence.biopsy.readers"] in (None, ["two pathologists"])
        if not drawn:
            assert not np.asarray(sample["drawn"]).any()
            assert sample.row["centred_on"] == "background"


def test_the_spec_may_allow_them_and_may_demand_strong_evidence(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    allowed = _split_of(tree, tmp_path, "{labels: any}")
    assert any(not status.startswith("labelled") for status in allowed["test"])
    strong = _split_of(tree, tmp_path, "{labels: any, evidence: as_strong}")
    assert all(status.endswith("pathology") for status in strong["test"])
    assert not all(status.endswith("pathology") for status in strong["train"] | strong["validation"])
    spec = _spec(tmp_path)
    spec.write_text(spec.read_text().replace("train: 0.4, validation: 0.2, test: 0.4", "test: 1.0"))
    with pytest.raises(SpecError, match="no split but"):
        plan(spec, to=tmp_path / "out", parameters={"tree": str(tree)})


def test_evidence_is_held_against_what_the_objects_say() -> None:
    spec: Any = SimpleNamespace(splits=Splits.model_validate({"tested": {"evidence": "as_strong"}}))
    tiers = {"train": "single_reader", "test": "machine"}
    index = pa.table({"split": list(tiers), "evidence.drawn.tier": list(tiers.values())})
    with pytest.raises(SpecError, match="tier machine"):
        check_evidence(index, spec)
    check_evidence(index.set_column(1, "evidence.drawn.tier", pa.array(["machine", "machine"])), spec)
    check_evidence(index, SimpleNamespace(splits=Splits()))  # type: ignore[arg-type]
