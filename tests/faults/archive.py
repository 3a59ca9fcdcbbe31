"""A small archive and its spec: every stage has work, and one build takes a second or two."""

import json
from pathlib import Path

from tests.synthetic import box_contours, ct_series, pattern, rtstruct

SPEC = """
name: faults
license: CC0-1.0
seed: 11
sources:
  - {{kind: folder, url: "{url}", site: north}}
cohort:
  image: "modality == 'CT'"
labels:
  tumor: {{kind: rtstruct, roi: {{tumor: GTV}}}}
deid: {{patient_key: "${{env:BUILDER_KEY}}", retain: [site]}}
transforms:
  - {{kind: orient, to: LPS}}
  - {{kind: intensity, clip: [-1000, 1000], dtype: int16}}
samples: {{kind: patches, shape: [8, 16, 16], centred_on: tumor, per_case: 2, background: 0.5}}
splits: {{ratios: {{train: 0.5, validation: 0.25, test: 0.25}}, seed: 3}}
leaks: {{pixels: exact}}
report: {{groups: [site], thumbnails: 1}}
shards: {{target_mib: 8, cases: {cases}}}
"""


def write_archive(folder: Path, *, persons: int = 10) -> Path:
    """Persons with a CT of 8 slices and a structure set each, a file that is no DICOM and one that is cut off."""
    for number in range(persons):
        home = folder / f"p{number:03d}"
        voxels = pattern((8, 32, 32))
        voxels[:, 0, number % 32] += 5 + number // 32  # no two persons have one plane in common
        made = ct_series(home / "ct", patient_id=f"W{number:03d}", study=str(number), voxels=voxels)
        rtstruct(made, {"GTV": box_contours(made.geometry, (2, 8, 8), (6, 20, 20))}, directory=home / "rt")
    (folder / "README.txt").write_text("an export\n")
    whole = next((folder / "p000" / "ct").iterdir()).read_bytes()
    (folder / "broken.dcm").write_bytes(whole[:300])
    return folder


def write_spec(path: Path, archive: Path, *, cases: int = 3) -> Path:
    """The spec of the archive, ``cases`` a shard."""
    path.write_text(SPEC.format(url=json.dumps(str(archive))[1:-1], cases=cases))
    return path
