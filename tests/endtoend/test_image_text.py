"""Radiographs with reports through a whole build: no identifier is left, and sentences and near copies are listed."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import builder
from builder.model.keyed import Key
from builder.phantom.reports import PhantomReport, write_report
from builder.run.pipeline import build
from tests.endtoend.trees import KEY

SPEC = """
name: image-text
license: CC0-1.0
sources: [{{kind: folder, url: "{tree}", layout: {{pattern: "{{patient}}.png", modality: DX}}}}]
labels:
  report:
    kind: text_table
    table: {{match: "reports.jsonl", by: {{image: file}}}}
    sections: [text]
    sentences: chest14
  sides:
    kind: boxes
    table: {{match: "boxes.csv", by: {{image: file}}}}
    space: pixel_corner
    corner: {{x: x, y: y}}
    size: {{x: w, y: h}}
    label: what
deid: {{patient_key: "${{env:BUILDER_KEY}}", reviewed: [DX], text: {{box_classes: {{values: [Effusion]}}}}}}
leaks: {{pixels: "off"}}
transforms: [{{kind: resize, pixels: [16, 16]}}]
samples: {{kind: images, chunk: [1, 16, 16]}}
splits: {{ratios: {{train: 0.5, test: 0.5}}}}
report: {{thumbnails: 0}}
"""
RARE = (
    "An azygos fissure with a calcified granuloma of nine millimetres lies beside the third rib, while the pacemaker "
    "leads end in the coronary sinus."
)


def write_tree(tree: Path) -> list[PhantomReport]:
    """Write six pictures, a table of reports of which two are nearly the same, and boxes of every other picture."""
    tree.mkdir()
    reports = [write_report(Key(b"e" * 32), number) for number in range(1, 7)]
    lines, boxes = [], ["image,x,y,w,h,what"]
    for number, report in enumerate(reports):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 24), np.uint8)
        Image.fromarray(pixels).save(tree / f"p{number}.png")
        text = report.text + (RARE if number < 2 else "") + " There is a pleural effusion."
        lines.append(json.dumps({"image": f"p{number}.png", "text": text}))
        boxes.append(f"p{number}.png,3,3,6,6,Effusion" if number % 2 else f"p{number}.png,,,,,")
    (tree / "reports.jsonl").write_text("\n".join(lines))
    (tree / "boxes.csv").write_text("\n".join(boxes))
    return reports


def test_reports_become_scrubbed_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    tree = tmp_path / "tree"
    reports = write_tree(tree)
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(tree=tree))
    build(spec, to=tmp_path / "out")
    dataset = builder.open_dataset(tmp_path / "out")
    texts = dataset.table["text.report"].to_pylist()
    assert len(texts) == 6
    published = "\n".join(texts).lower()
    assert not [p for report in reports for p in report.planted if p.lower() in published]
    assert all("pleural effusion" in text for text in texts)
    assert dataset[0]["image"].shape == (1, 1, 16, 16)

    version = tmp_path / "out" / "versions" / (tmp_path / "out" / "CURRENT").read_text().strip()
    rows = pq.read_table(version / "sentences.parquet").to_pylist()
    said = [row for row in rows if row["text.sentence"] == "There is a pleural effusion."]
    assert len(said) == 6
    assert all(
        dict(zip(r["class_names"], r["class_values"], strict=True))["report/effusion"] == "positive" for r in said
    )
    counted = dict(zip(dataset.table["sample_key"].to_pylist(), dataset.table["box_names"].to_pylist(), strict=True))
    assert sorted(len(row["box_numbers"]) for row in said) == [0, 0, 0, 1, 1, 1]
    assert all(len(row["box_numbers"]) == len(counted[row["sample_key"]]) for row in said)
    found = json.loads((version / "leaks.json").read_text())["texts"]["text.report"]
    assert found["near_copies"] == 1
    first, second = found["matches"][0]["splits"]
    assert found["in_two_splits"] == int(first != second)

    padded = next(iter(dataset.batches(6))).boxes("sides", names=["Effusion"])
    assert sorted(padded.counts.tolist()) == [0, 0, 0, 1, 1, 1]
    assert padded.known.all()
    assert padded.boxes.shape == (6, 1, 6)
    expected = np.array([3, 3, 9, 9]) * 16 / 24 + np.array([0, 16 / 6, 0, 16 / 6])
    positive = int(np.argmax(padded.counts))
    assert np.abs(padded.corners(positive)[0] - expected).max() < 1e-6


def test_texts_of_sequestered_samples_are_in_their_store_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_tree(tmp_path / "tree")
    spec, sealed = tmp_path / "spec.yaml", tmp_path / "sealed"
    ratios = "ratios: {train: 0.5, test: 0.5}"
    text = SPEC.format(tree=tmp_path / "tree")
    assert ratios in text
    spec.write_text(text.replace(ratios, f'{ratios}, sequester: {{url: "{sealed}"}}'))
    build(spec, to=tmp_path / "open")
    whole, published = builder.open_dataset(sealed).table, builder.open_dataset(tmp_path / "open").table
    said = dict(zip(whole["sample_key"].to_pylist(), whole["text.report"].to_pylist(), strict=True))
    assert all(said.values())
    columns = [name for name in published.column_names if name.startswith(("text.", "label.", "box_"))]
    assert {"text.report", "box_names"} <= {*columns}
    hidden = set()
    for row in published.to_pylist():
        if row["split"] == "test":
            assert [row[name] for name in columns] == [None] * len(columns)
            hidden.add(said[row["sample_key"]])
        else:
            assert row["text.report"] == said[row["sample_key"]]
    assert len(hidden) == 3
    sentences = {sentence for report in hidden for sentence in report.split(". ") if len(sentence) > 20}
    own = {sentence for sentence in sentences if not any(sentence in t for t in {*said.values()} - hidden)}
    assert own
    for path in (tmp_path / "open").rglob("*"):
        if path.suffix == ".parquet":
            data = str(pq.read_table(path).to_pylist())
        else:
            data = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
        assert not [sentence for sentence in own if sentence in data], path
