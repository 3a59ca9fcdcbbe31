"""Following docs/extending.md to the letter: its package is installed, and a dataset is built with its plug-ins."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.endtoend.trees import KEY
from tests.synthetic import ct_series

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "extending.md").read_text()
    return [body for found, body in BLOCK.findall(text) if found == language]


def install(folder: Path) -> None:
    """Put the page's package into a folder as an installer would: its modules, and the metadata with entry points."""
    for block in blocks("python"):
        path = folder / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    project = tomllib.loads(blocks("toml")[0])["project"]
    metadata = folder / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    facts = ("Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}", "")
    (metadata / "METADATA").write_text("\n".join(facts))
    (metadata / "top_level.txt").write_text(project["name"])
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def test_the_page_works(tmp_path: Path):
    site = tmp_path / "site"
    site.mkdir()
    install(site)
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
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "BUILDER_KEY": KEY}
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
    document = json.loads(next(target.glob("versions/*/dataset.json")).read_text())
    assert ["sphere", 1, "gantry==0.3.0"] in document["lock"]["plugins"]
    assert ["gamma", 1, "gantry==0.3.0"] in document["lock"]["plugins"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("mask = gantry.sphere:Sphere", "the labels already have this kind"),
        ("sphere = gantry.nowhere:Sphere", "cannot be loaded"),
    ],
)
def test_a_plug_in_that_cannot_be_is_refused_by_name(tmp_path: Path, entry: str, expected: str):
    install(tmp_path)
    points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
    points.write_text(f"[builder.labels]\n{entry}\n")
    command = [sys.executable, "-m", "builder", "schema"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
