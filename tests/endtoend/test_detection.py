"""The recipe of detection: boxes in batches train the example's detector, with negative pictures among the samples."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builder.run.pipeline import build
from tests.conftest import ROOT
from tests.endtoend.trees import KEY
from tests.examples.test_examples import one_thread, score_of

__all__ = ["one_thread"]


def test_the_example_finds_bright_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    rng = np.random.default_rng(0)
    (tmp_path / "tree" / "images").mkdir(parents=True)
    rows = ["image,x,y,width,height"]
    for number in range(40):
        pixels, name = rng.integers(0, 90, (128, 128), np.uint8), f"p{number:02d}_0.png"
        if number % 4:
            x, y = (int(v) for v in rng.integers(4, 90, 2))
            pixels[y : y + 32, x : x + 32] += 140
            rows.append(f"{name},{x},{y},32,32")
        else:
            rows.append(f"{name},,,,")
        Image.fromarray(pixels).save(tmp_path / "tree" / "images" / name)
    (tmp_path / "tree" / "boxes.csv").write_text("\n".join(rows))
    spec = tmp_path / "spec.yaml"
    spec.write_text((ROOT / "specs" / "chest-detection.yaml").read_text() + 'leaks: {pixels: "off"}\n')
    build(spec, to=tmp_path / "out", parameters={"archive": str(tmp_path / "tree")})
    script = ROOT / "examples" / "detect.py"
    assert len(script.read_text().splitlines()) < 80
    learned, printed = score_of(
        "detect", str(tmp_path / "out"), "--epochs", "25", monkeypatch=monkeypatch, capsys=capsys
    )
    assert "recorded as" in printed
    shuffled, _ = score_of(
        "detect", str(tmp_path / "out"), "--epochs", "25", "--shuffled", monkeypatch=monkeypatch, capsys=capsys
    )
    assert learned >= 0.8
    assert shuffled <= 0.4
