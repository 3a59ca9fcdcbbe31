"""Following docs/extending.md to the letter: three plug-ins added to a copy of the package, and a dataset built."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.synthetic import ct_series

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "extending.md").read_text()
    return [body for found, body in BLOCK.findall(text) if found == language]


def apply(change: str, root: Path) -> None:
    """Replace each run of removed lines by the added lines that follow it, as the page shows them."""
    first, *lines = change.strip().splitlines()
    path = root / first.removeprefix("# ")
    text = path.read_text()
    hunks: list[tuple[list[str], list[str]]] = []
    for line in lines:
        if line.startswith("-"):
            if not hunks or hunks[-1][1]:
                hunks.append(([], []))
            hunks[-1][0].append(line[1:])
        else:
            hunks[-1][1].append(line[1:])
    for removed, added in hunks:
        old, new = "\n".join(removed), "\n".join(added)
        assert text.count(old) == 1, f"{path.name}: {old!r} stands there {text.count(old)} times"
        text = text.replace(old, new)
    path.write_text(text)


def test_the_page_works(tmp_path: Path):
    package = tmp_path / "copy" / "builder"
    shutil.copytree(ROOT / "builder", package, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks("python"):
        (package.parent / block.splitlines()[0].removeprefix("# ")).write_text(block)
    for change in blocks("diff"):
        apply(change, package.parent)
    archive = tmp_path / "archive"
    centres = []
    for number in range(3):
        folder = archive / f"case{number}"
        series = ct_series(folder, slices=12, shape=(24, 24), patient_id=f"P{number}", spacing=(2.0, 1.0, 1.0))
        centres.append(series.geometry.to_world([[6, 12, 12]])[0].tolist())
        (folder / "sphere.json").write_text(json.dumps({"centre_mm": centres[-1], "radius_mm": 4.0}))
    listing = archive / "list.txt"
    listing.write_text("\n".join(p.relative_to(archive).as_posix() for p in archive.rglob("*") if p.is_file()))
    spec = tmp_path / "spec.yaml"
    spec.write_text(blocks("yaml")[-1])
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "BUILDER_KEY": "0123456789abcdef0123456789abcdef"}
    target = tmp_path / "dataset"
    command = [sys.executable, "-m", "builder", "build", str(spec), "--to", str(target), "--param", f"list={listing}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    from builder.reader import open_dataset

    dataset = open_dataset(target)
    assert len(dataset) == 6
    volume = {round(v, 3) for v in dataset.table["label.ball.ball.volume_mm3"].to_pylist()}
    assert all(abs(v - 4 / 3 * np.pi * 4.0**3) < 40 for v in volume)
    assert dataset[0]["image"].dtype == np.float32
    assert dataset[0]["ball"].any()
