"""Each example learns what is in the pictures, reports back, and learns nothing from the labels of other pictures.

tests/endtoend/test_detection.py trains the one for detection.
"""

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder.run.pipeline import build
from tests.conftest import ROOT
from tests.endtoend.trees import KEY

torch = pytest.importorskip("torch")

SPEC = """
name: shapes
license: CC0-1.0
sources: [{kind: folder, url: "${tree}", layout: {pattern: "images/{patient}.png", modality: DX}}]
labels:
  shape: {kind: mask, match: "masks/{stem}.png", values: {1: shape}}
  form:
    kind: classes
    table: {match: "table.csv", by: {image: file}}
    findings: {form: {column: form, values: {square: square, cross: cross}}}
  report:
    kind: text_table
    table: {match: "reports.jsonl", by: {image: file}}
    sections: [text]
deid: {patient_key: "${env:BUILDER_KEY}", reviewed: [DX]}
leaks: {pixels: "off"}
samples: {kind: images, chunk: [1, 32, 32]}
splits: {ratios: {train: 0.7, validation: 0.3}}
report: {thumbnails: 0}
"""

SCORES = {
    "segment": (["--label", "shape", "--epochs", "4"], 0.9, 0.3),
    "classify": (["--column", "label.form", "--epochs", "10"], 0.9, 0.7),
    "image_text": (["--epochs", "15"], 0.9, 0.7),
}
"""The options of examples, the score that each reaches at least, and the one that labels of others reach at most."""


def write_pictures(tree: Path, count: int = 60) -> None:
    """Write noise with a square or a cross, a mask of each, a table of forms, and a sentence about each."""
    rng, rows, said = np.random.default_rng(0), ["image,form"], []
    for place in ("images", "masks"):
        (tree / place).mkdir(parents=True)
    for number in range(count):
        form, name = ("square", "cross")[number % 2], f"p{number:02d}.png"
        x, y = (int(n) for n in rng.integers(0, 24, 2))
        mask = np.zeros((32, 32), np.uint8)
        mask[y : y + 8, x : x + 8] = 1
        if form == "cross":
            for corner in np.ndindex(2, 2):
                top, left = (begin + 5 * end for begin, end in zip((y, x), corner, strict=True))
                mask[top : top + 3, left : left + 3] = 0
        pixels = rng.integers(0, 60, mask.shape, np.uint8) + 150 * mask
        Image.fromarray(pixels).save(tree / "images" / name)
        Image.fromarray(mask).save(tree / "masks" / name)
        rows.append(f"{name},{form}")
        said.append(json.dumps({"image": name, "text": f"There is a bright {form} on a dark ground."}))
    (tree / "table.csv").write_text("\n".join(rows))
    (tree / "reports.jsonl").write_text("\n".join(said))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of small networks wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the pictures."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "tree")
    (root / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(root / "spec.yaml", to=root / "data", parameters={"tree": str(root / "tree")})
    return root / "data"


def score_of(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> tuple[float, str]:
    script = ROOT / "examples" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [script.name, *arguments])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    return float(re.findall(r"\d\.\d{3}$", printed, re.MULTILINE)[0]), printed


@pytest.mark.parametrize("name", SCORES)
def test_an_example_learns_from_its_labels_only(
    name: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, least, most = SCORES[name]
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 80
    learned, printed = score_of(name, str(pictures), *options, monkeypatch=monkeypatch, capsys=capsys)
    assert "recorded as" in printed
    shuffled, printed = score_of(name, str(pictures), *options, "--shuffled", monkeypatch=monkeypatch, capsys=capsys)
    assert "recorded as" not in printed
    assert learned >= least
    assert shuffled <= most


def test_segmentation_goes_on_where_it_stopped(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> float:
        options = ("--label", "shape", *arguments)
        return score_of("segment", str(pictures), *options, monkeypatch=monkeypatch, capsys=capsys)[0]

    whole = run("--epochs", "2")
    kept = str(tmp_path / "kept.pt")
    run("--epochs", "1", "--checkpoint", kept)
    assert run("--epochs", "2", "--checkpoint", kept) == whole
