"""How long the plan of NLST takes that stands from the IDC's tables alone, and how much memory.

    python -m benchmarks.idc_plan [--all]

The index is that of the Python package idc-index-data (pip install idc-index-data==25.0.5). The further tables are not
on PyPI: they are made at full size, with drawn values, from the schemas in the wheel. The spec chooses CT thinner than
2.5 mm that is a regular volume, one series a person, or with ``--all`` every series. No server is asked.
"""

import json
import os
import resource
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builder.run.pipeline import plan

SPEC = """
name: nlst-thin
license: CC-BY-4.0
sources:
  - {{kind: idc, index: "{index}", collections: [nlst], modalities: [CT], headers: when_needed,
     select: SliceThickness < 2.5 and regularly_spaced_3d_volume,
     tables: {{ct_index: "{at}/ct.parquet", volume_geometry_index: "{at}/geometry.parquet"}}}}
cohort: {{image: "modality == 'CT' and instances > 50"{one_per}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
transforms: [{{kind: resample, spacing_mm: [2.0, 2.0, 2.0]}}, {{kind: intensity, clip: [-1000, 1000], dtype: int16}}]
samples: {{kind: patches, shape: [64, 64, 64], per_case: 2}}
splits: {{ratios: {{train: 0.8, validation: 0.1, test: 0.1}}, stratify: [manufacturer]}}
"""
TYPES = {"STRING": pa.string(), "FLOAT": pa.float64(), "INTEGER": pa.int64(), "BOOLEAN": pa.bool_()}


class _Lines:
    """Progress that prints when each stage was over."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()

    def track(self, items: Any, *, stage: str, total: int | None) -> Any:
        yield from items
        print(f"{time.perf_counter() - self.begin:7.1f} s  {stage}, {_peak():.1f} GB", flush=True)

    def say(self, message: str) -> None:
        print(f"{time.perf_counter() - self.begin:7.1f} s  {message}", flush=True)


def main() -> None:
    """Make the tables, plan, and print seconds and gigabytes."""
    import idc_index_data

    root = Path(idc_index_data.__file__).parent
    index = root / "idc_index.parquet"
    os.environ.setdefault("BUILDER_KEY", secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="builder-benchmark-") as folder:
        at = Path(folder)
        nlst = _tables(index, root, at)
        print(f"{nlst:,} CT series of NLST, {_peak():.1f} GB before the plan")
        one_per = "" if "--all" in sys.argv else ", one_per: person"
        (at / "spec.yaml").write_text(SPEC.format(index=index, at=at, one_per=one_per))
        begin = time.perf_counter()
        planned = plan(at / "spec.yaml", to=at / "dataset", progress=_Lines())
        took = time.perf_counter() - begin
        made = planned.plan
        print(
            f"plan: {took:.1f} s, peak {_peak():.1f} GB; {made.cohort.num_rows:,} series, {len(made.cases):,} cases, "
            f"{len(made.shards):,} shards"
        )


def _tables(index: Path, root: Path, at: Path) -> int:
    """Write the tables of the CT series of NLST; return how many there are."""
    table = pq.read_table(index, columns=["SeriesInstanceUID", "collection_id", "Modality"])
    table = table.filter(pc.and_(pc.equal(table["collection_id"], "nlst"), pc.equal(table["Modality"], "CT")))
    series, count = table["SeriesInstanceUID"].combine_chunks(), int(table.num_rows)
    draw = np.random.default_rng(7)
    spacing = draw.choice([0.55, 0.7, 0.82], count)
    thickness = draw.choice([1.0, 1.25, 2.0, 2.5, 3.2, 5.0], count)
    size = np.full(count, 512)
    across = pa.array([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * count)
    _write(root, "ct_index", at / "ct.parquet", series, Rows=size, Columns=size, SliceThickness=thickness,
           PixelSpacing_row_mm=spacing, PixelSpacing_col_mm=spacing)  # fmt: skip
    _write(root, "volume_geometry_index", at / "geometry.parquet", series, slice_spacing_mm=thickness,
           regularly_spaced_3d_volume=draw.random(count) > 0.05, ImageOrientationPatient=across)  # fmt: skip
    return count


def _write(root: Path, name: str, path: Path, series: pa.Array, **columns: Any) -> None:
    stated = json.loads((root / f"{name}_schema.json").read_text())
    fields = stated["columns"] if isinstance(stated, dict) else stated
    arrays = {"SeriesInstanceUID": series, **columns}
    absent = {f["name"]: pa.nulls(len(series), TYPES.get(f["type"], pa.string())) for f in fields}
    pq.write_table(pa.table({**absent, **arrays}), path)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
