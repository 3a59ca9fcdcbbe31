"""Class labels as columns: typed, read in the plan, used by splits and rules, and the same after the build."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import builder
from builder.errors import SpecError
from builder.run.pipeline import build
from tests.endtoend.trees import KEY

PERSONS = 8
GRADES = ("low", "middle", "high")
SPEC = """
name: classes
license: CC0-1.0
sources: [{{kind: folder, url: "{tree}", layout: {{pattern: "{{class}}/{{patient}}_{{visit}}.png", modality: DX}}}}]
volumes: {{projection: keep}}
labels:
  ill: {{kind: place, field: class, values: {{healthy: false, sick: true}}}}
  found:
    kind: classes
    table: {{match: "table.csv", by: {{file: file}}}}
    findings:
      grade: {{column: grade, levels: [low, middle, high]}}
      size: {{column: size}}
      said: {{column: said, values: {{"1": positive, "0": negative, "-1": uncertain}}}}
    listed: {{column: all, separator: ";", none: [nothing], findings: {{mass: Mass, nodule: Nodule}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}", reviewed: [DX]}}
leaks: {{pixels: "off"}}
samples: {{kind: volumes, chunk: [1, 16, 16]}}
splits: {{ratios: {{train: 0.5, test: 0.5}}, stratify: [label.found.grade]{splits}}}
report: {{outcomes: [label.ill], thumbnails: 0}}
"""


def archive(folder: Path) -> list[dict[str, str]]:
    """Write two pictures of each person, and a table of them; return its rows. The last picture has no row."""
    rows = []
    for person in range(PERSONS):
        for visit in range(2):
            name = f"P{person:03d}_{visit}.png"
            place = folder / "tree" / ("sick" if person % 2 else "healthy") / name
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(person * 10 + visit).integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(place)
            listed = ("nothing", "Mass", "Mass;Nodule", "")[(person + visit) % 4]
            rows.append({
                "file": name, "grade": GRADES[(person + visit) % 3], "size": str(person + visit / 2),
                "said": ("1", "0", "-1", "")[person % 4], "all": listed,
            })  # fmt: skip
    with (folder / "tree" / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BUILDER_KEY", KEY)

    def write(splits: str = "", more: str = "") -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(SPEC.format(tree=tmp_path / "tree", splits=splits) + more)
        return path

    return write


def test_classes_are_typed_columns_equal_to_the_table(tmp_path: Path, spec: Any) -> None:
    rows = archive(tmp_path)
    build(spec(), to=tmp_path / "out")
    dataset = builder.open_dataset(tmp_path / "out")
    table = dataset.table
    assert dataset.classes == {
        "label.ill": ("false", "true"), "label.found.grade": GRADES, "label.found.size": (),
        "label.found.said": ("positive", "negative", "uncertain"),
        "label.found.mass": ("false", "true"), "label.found.nodule": ("false", "true"),
    }  # fmt: skip
    assert table.schema.field("label.found.size").type == pa.float64()
    said = {"1": "positive", "0": "negative", "-1": "uncertain", "": None}
    expected = [
        (int(row["file"][3]) % 2 == 1, row["grade"], float(row["size"]), said[row["said"]],
         None if not row["all"] else "Mass" in row["all"], None if not row["all"] else "Nodule" in row["all"])
        for row in rows
    ]  # fmt: skip
    found = list(zip(*(table[name].to_pylist() for name in dataset.classes), strict=True))
    assert sorted(found, key=str) == sorted(expected, key=str)
    cells = [dict(zip(r["class_names"], r["class_values"], strict=True)) for r in table.to_pylist()]
    assert [c["found/grade"] for c in cells] == table["label.found.grade"].to_pylist()  # the plan says what is built
    # numbers of a tensor are those of the stated levels
    assert dataset.targets("label.found.grade").tolist() == [GRADES.index(r[1]) for r in found]
    several = dataset.targets(["label.ill", "label.found.mass"])
    assert several.dtype == np.float32
    assert np.isnan(several[:, 1]).tolist() == [r[4] is None for r in found]
    assert dataset.where("label.found.grade == 'high' and label.ill == true").table.num_rows == sum(
        r[1] == "high" and r[0] for r in found
    )
    assert set(table["evidence.found.tier"].to_pylist()) == {"unstated"}


def test_a_person_is_dealt_by_the_highest_grade(tmp_path: Path, spec: Any) -> None:
    rows = archive(tmp_path)
    build(spec(), to=tmp_path / "out")
    version = (tmp_path / "out" / "CURRENT").read_text().strip()
    dealt = pq.read_table(tmp_path / "out" / "versions" / version / "splits.parquet")["stratum"].to_pylist()
    worst = [max(GRADES.index(r["grade"]) for r in rows if r["file"].startswith(f"P{p:03d}")) for p in range(PERSONS)]
    assert sorted(s.partition("=")[2] for s in dealt if "pooled" not in s) == sorted(
        GRADES[n] for n in worst if worst.count(n) > 1
    )


def test_sequestered_samples_have_no_class(tmp_path: Path, spec: Any) -> None:
    archive(tmp_path)
    build(spec(f", sequester: {{url: '{tmp_path / 'sealed'}', splits: [test]}}"), to=tmp_path / "out")
    for row in builder.open_dataset(tmp_path / "out").table.to_pylist():
        there = [row[name] is not None for name in ("label.ill", "label.found.grade", "label.found.size")]
        assert there == [row["split"] == "train"] * 3
    sealed = builder.open_dataset(tmp_path / "out", labels=tmp_path / "sealed")
    assert None not in sealed.table["label.found.grade"].to_pylist()


def test_rules_read_classes_and_hold_outs_of_sequestered_ones_are_refused(tmp_path: Path, spec: Any) -> None:
    archive(tmp_path)
    rule = "cohort: {rules: [{name: graded, keep: \"label.found.grade in ['middle', 'high']\"}]}\n"
    build(spec(more=rule), to=tmp_path / "out")
    assert set(builder.open_dataset(tmp_path / "out").table["label.found.grade"].to_pylist()) == {"middle", "high"}
    held = ", hold_out: [{split: test, column: label.ill, values: ['true']}], sequester: {url: /x, splits: [test]}"
    with pytest.raises(SpecError, match=r"label\.ill.*tells the labels of sequestered samples"):
        build(spec(held), to=tmp_path / "other")
    path = spec()
    path.write_text(path.read_text().replace("[label.found.grade]", "[label.found.grades]"))
    with pytest.raises(SpecError, match=r"label\.found\.grades.*did you mean 'label\.found\.grade'"):
        build(path, to=tmp_path / "other")


def test_weights_are_those_of_the_training_persons(tmp_path: Path, spec: Any) -> None:
    archive(tmp_path)
    build(spec(), to=tmp_path / "out")
    dataset = builder.open_dataset(tmp_path / "out")
    train = dataset.split("train").table
    fitted = dataset.split("test").class_weights("label.ill")
    assert fitted.fitted_on == "train"
    counts = {str(v).lower(): train["label.ill"].to_pylist().count(v) for v in (True, False)}
    assert dict(fitted.samples) == counts
    assert fitted.weights["true"] == pytest.approx(train.num_rows / (2 * counts["true"]))
    drawn = [
        row for epoch in range(60)
        for batch in dataset.batches(4, order="balanced", weights="label.ill", by_person=True, epoch=epoch)
        for row in batch.table.select(["label.ill", "person_key"]).to_pylist()
    ]  # fmt: skip
    share = np.mean([row["label.ill"] for row in drawn])
    assert abs(share - 0.5) < 0.03
    persons = [row["person_key"] for row in drawn]
    each = [persons.count(p) / len(persons) for p in set(persons)]
    assert max(each) - min(each) < 0.03
    with pytest.raises(ValueError, match="by_person"):
        dataset.batches(4, order="balanced", weights=np.ones(len(dataset)), by_person=True)


def test_what_no_row_says_is_refused_by_its_place(tmp_path: Path, spec: Any) -> None:
    rows = archive(tmp_path)
    table = tmp_path / "tree" / "table.csv"
    table.write_text(table.read_text().replace(f"{rows[0]['file']},{rows[0]['grade']}", f"{rows[0]['file']},worse"))
    build(spec(), to=tmp_path / "out")
    version = (tmp_path / "out" / "CURRENT").read_text().strip()
    left = pq.read_table(tmp_path / "out" / "versions" / version / "exclusions.parquet").to_pylist()
    (refused,) = [row for row in left if row["reason"] == "label_unreadable"]
    assert refused["detail"] == "found a cell of grade that levels does not list"
    report = json.loads((tmp_path / "out" / "versions" / version / "report" / "report.json").read_text())
    assert "label.found.grade" in {entry["label"] for entry in report["labels"]}
