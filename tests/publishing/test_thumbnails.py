"""Pictures of the report, looked at as a reader of the page would."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from builder.labels.pictures import OUTLINE, PIXELS, draw_slice
from builder.model.case import ClearedSample
from builder.model.geometry import Geometry
from builder.publishing.chosen import choose
from builder.publishing.thumbnails import thumbnails
from builder.reader.opening import open_dataset
from tests.reader.conftest import make_sample, publish


def pictures(root: Path, samples: list[ClearedSample], **options: Any) -> list[Image.Image]:
    publish(root, [samples], **options)
    dataset = open_dataset(root)
    found = thumbnails(dataset.table, dataset.manifest, dataset.store, count=len(samples))
    assert [p["sample_key"] for p in found] == dataset.table.column("sample_key").to_pylist()
    return [Image.open(io.BytesIO(base64.b64decode(p["png"].partition(",")[2]))) for p in found]


def sample(image: np.ndarray, mask: np.ndarray) -> ClearedSample:
    row = make_sample(0, (1, 1, 1)).row
    return ClearedSample({"image": image[None], "tumor": mask[None]}, Geometry(image.shape, np.eye(4)), row)


@pytest.mark.parametrize("chunk", [None, (4, 16, 16)])
def test_shows_the_slice_with_most_foreground(tmp_path: Path, chunk: tuple[int, int, int] | None) -> None:
    image = np.zeros((9, 40, 50), np.int16)
    image[7, :, 25:] = 1000
    mask = np.zeros(image.shape, np.uint8)
    mask[7, 10:20, 5:15], mask[2, 0, 0] = 1, 1
    (picture,) = pictures(tmp_path / "set", [sample(image, mask)], chunk=chunk)
    pixels = np.asarray(picture)
    assert pixels.shape == (120, 150, 3)
    assert (pixels[:, 80:] == 255).all()  # the bright half of slice 7
    drawn = (pixels == OUTLINE).all(axis=-1)
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 59, 15, 44)
    assert not drawn[35:55, 20:40].any()  # an outline, no filled box


def test_a_large_slice_without_a_mask_is_shrunk_and_grey(tmp_path: Path) -> None:
    image = np.zeros((3, 4 * PIXELS, 2 * PIXELS), np.int16)
    image[1, :, :PIXELS] = 500
    (picture,) = pictures(tmp_path / "set", [sample(image, np.zeros(image.shape, np.uint8))], chunk=(2, 64, 64))
    assert (picture.mode, picture.size) == ("L", (PIXELS // 2, PIXELS))
    assert (np.asarray(picture)[:, : PIXELS // 4] == 255).all()
    assert (np.asarray(picture)[:, PIXELS // 4 :] == 0).all()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mapped files are listed by Linux only")
def test_holds_one_sample_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    rows = [make_sample(n, (6, 20, 20)) for n in range(4)]
    publish(root, [[row] for row in rows])
    mapped = []

    def look(*arguments: object) -> bytes:
        mapped.append(sum(str(root) in line for line in Path("/proc/self/maps").read_text().splitlines()))
        return draw_slice(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("builder.publishing.thumbnails.draw_slice", look)
    dataset = open_dataset(root)
    fields = len(dataset.manifest.fields)
    thumbnails(dataset.table, dataset.manifest, dataset.store, count=4)
    assert 4 <= len(mapped) <= 4 * 5, "at most five slices a sample"
    assert 1 <= max(mapped) <= fields


def test_boxes_and_points_are_drawn_and_named_and_slices_lie_around_the_first(tmp_path: Path) -> None:
    plain = make_sample(0, (9, 40, 50))
    image = np.zeros((1, 9, 40, 50), np.int16)
    ragged: dict[str, Any] = {
        "box_names": ["nodes"], "box_classes": ["nodule"], "boxes": [4.0, 10.0, 5.0, 6.0, 19.0, 14.0],
        "landmark_names": ["carina"], "landmark_classes": [None], "landmark_groups": [None],
        "landmarks": [5.0, 30.0, 40.0],
    }  # fmt: skip
    made = ClearedSample({"image": image}, Geometry((9, 40, 50), np.eye(4)), plain.row, ragged)
    publish(tmp_path / "set", [[made]])
    dataset = open_dataset(tmp_path / "set")
    (found,) = thumbnails(dataset.table, dataset.manifest, dataset.store, count=1)
    assert found["classes"] == "nodule, carina"
    assert (len(found["before"]), len(found["after"])) == (1, 1), "slices 4 and 6; 5 has the point as well"

    def drawn(png: str) -> tuple[bool, bool]:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))).convert("RGB"))
        yellow = (pixels == OUTLINE).all(axis=-1)  # three pixels a voxel
        assert not yellow[34:55, 20:40].any(), "the inside of the box is bare"
        return bool(yellow[30, 15:45].all() and yellow[30:60, 15].all()), bool(yellow[80:105, 110:135].any())

    assert [drawn(found[key][0]) for key in ("before", "after")] == [(True, False)] * 2
    assert drawn(found["png"]) == (True, True)


def test_telling_samples_are_chosen() -> None:
    volumes = [50.0, None, 400.0, 0.0, *range(100, 136, 2)]
    spacing = [1.0 + n % 3 / 10 for n in range(22)]
    spacing[9] = 7.0
    index = pa.table(
        {
            "sample_key": [f"s{n}" for n in range(44)],
            "case_key": [f"c{n // 2:02}" for n in range(44)],
            "foreground_voxels": [n % 2 for n in range(44)],
            "label.tumor.gtv.volume_mm3": pa.array([v for v in volumes for _ in (0, 1)], pa.float64()),
            "spacing_row_mm": [v for v in spacing for _ in (0, 1)],
            "modality": ["CT"] * 44,
            "sex": ["F"] * 40 + ["M"] * 4,
        }
    )
    found = choose(index, 10, ["sex", "absent"])
    assert list(found.items())[:4] == [
        (5, "largest tumor / gtv"),
        (1, "smallest tumor / gtv, sex F"),
        (19, "odd spacing row (mm): 7"),
        (41, "sex M"),
    ]
    assert len(found) == 10
    assert all(row % 2 for row in [*found][:4]), "of each case the sample with the label"
    assert len(choose(index, 100)) == 44
    assert choose(index.slice(0, 0), 5) == choose(index, 0) == {}
