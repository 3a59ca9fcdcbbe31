"""Pictures and volumes with tables and masks beside them, as challenges publish them, through whole builds."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import builder
from builder.run.pipeline import build, plan
from tests.endtoend.test_real_layouts import SPECS
from tests.endtoend.trees import KEY
from tests.files.writers import nifti, values

Built = Callable[[str], Any]


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """Build a spec from ``archive`` and open it."""
    monkeypatch.setenv("BUILDER_KEY", KEY)

    def run(text: str) -> Any:
        spec = tmp_path / "spec.yaml"
        spec.write_text(re.sub(r"chunk: \[1, 64, 64\]", "chunk: [1, 16, 16]", text))
        build(spec, to=tmp_path / "out", parameters={"archive": str(tmp_path / "archive")})
        return builder.open_dataset(tmp_path / "out")

    return run


def picture(pixels: NDArray[Any], form: str, *, palette: bool = False) -> bytes:
    sink = io.BytesIO()
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P")
        image.frombytes(pixels.tobytes())
        image.putpalette([n * 7 % 256 for n in range(768)])
    image.save(sink, form)
    return sink.getvalue()


def grey(seed: int, shape: tuple[int, int] = (24, 16)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_jpeg_in_a_zip_with_a_table_of_chexperts_kind(tmp_path: Path, built: Built) -> None:
    """Blank, 1, 0 and -1 stay four different answers; an image of which nothing is answered has no label."""
    home = tmp_path / "archive"
    home.mkdir()
    lines = ["Path,Sex,Age,Pleural Effusion,Edema"]
    expected = {}
    with zipfile.ZipFile(home / "images.zip", "w") as archive:
        for n, (effusion, oedema) in enumerate([("1.0", "0.0"), ("-1.0", ""), ("0.0", "-1.0"), ("", "")]):
            path = f"CheXpert-v1.0-small/train/patient0000{n}/study{n + 1}/view1_frontal.jpg"
            content = picture(grey(n), "JPEG")
            archive.writestr(path, content)
            archive.writestr(path.replace("frontal", "lateral"), picture(grey(90 + n), "JPEG"))
            lines.append(f"{path},Female,6{n},{effusion},{oedema}")
            said = {"1.0": "positive", "0.0": "negative", "-1.0": "uncertain", "": None}
            if effusion or oedema:
                expected[np.asarray(Image.open(io.BytesIO(content))).tobytes()] = (said[effusion], said[oedema])
    (home / "train.csv").write_text("\n".join(lines) + "\n")
    dataset = built(SPECS["chexpert"])
    assert len(dataset) == 3
    cohort = plan(tmp_path / "spec.yaml", to=tmp_path / "out", parameters={"archive": str(home)}).plan.cohort
    assert cohort["reason"].to_pylist().count("label_missing") == 1
    for sample, row in zip(dataset, dataset.table.to_pylist(), strict=True):
        found = dict(zip(row["class_names"], row["class_values"], strict=True))
        answers = (found.get("findings/effusion"), found.get("findings/oedema"))
        assert answers == expected.pop(np.ascontiguousarray(sample["image"][0, 0]).tobytes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("train.csv", "*.csv"), "label findings: 0 files fit its match '*.csv'; it is compared with"),
        (("{Path: path}", "{Path: file}"), "label findings: 1 file fits its match 'data/train.csv', but none has an"),
    ],
)
def test_a_plan_says_why_a_table_labels_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: str
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    place = tmp_path / "archive" / "data" / "patient1" / "study1" / "frontal.jpg"
    place.parent.mkdir(parents=True)
    place.write_bytes(picture(grey(1), "JPEG"))
    (tmp_path / "archive" / "data" / "train.csv").write_text("Path,Edema,Pleural Effusion\nx/frontal.jpg,1.0,0.0\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPECS["chexpert"].replace(*change).replace('"train.csv"', '"data/train.csv"'))
    outcome = plan(spec, to=tmp_path / "out", parameters={"archive": str(tmp_path / "archive")})
    assert any(line.startswith(said) for line in outcome.hints()), outcome.hints()


def test_run_lengths_of_a_challenge(tmp_path: Path, built: Built) -> None:
    home = tmp_path / "archive"
    (home / "train_images").mkdir(parents=True)
    lines = ["ImageId,ClassId,EncodedPixels"]
    expected = {}
    for n, name in enumerate(("a01", "b02", "c03", "d04")):
        pixels = grey(n)
        (home / "train_images" / f"{name}.png").write_bytes(picture(pixels, "PNG"))
        masks = np.zeros((2, *pixels.shape), bool)
        if name == "a01":
            masks[0, 2:5, 1] = masks[1, 20:, 3] = masks[1, :2, 4] = True  # the last run turns into the next column
            lines += [f"{name}.png,1,{1 + 24 + 2} 3", f"{name}.png,2,{1 + 3 * 24 + 20} 6"]
        elif name == "b02":
            lines.append(f"{name}.png,1,-1")
        elif name == "c03":
            lines.append(f"{name}.png,2,")
        if name != "d04":  # nobody looked at d04
            expected[pixels.tobytes()] = masks
    (home / "train.csv").write_text("\n".join(lines) + "\n")
    dataset = built(SPECS["challenge"])
    assert len(dataset) == 3
    for sample in dataset:
        mask = expected.pop(np.ascontiguousarray(sample["image"][0, 0]).tobytes())
        assert np.array_equal(sample["defects"][:, 0] > 0, mask)


def test_masks_as_png_palettes_hold_the_indices_and_not_the_colours(tmp_path: Path, built: Built) -> None:
    home = tmp_path / "archive"
    for folder in ("img", "ann"):
        (home / folder).mkdir(parents=True)
    for n in range(2):
        (home / "img" / f"case {n}.png").write_bytes(picture(grey(n), "PNG"))
        (home / "ann" / f"case {n}.png").write_bytes(picture(grey(n) % 3, "PNG", palette=True))
    dataset = built(
        SPECS["challenge"].partition("labels:")[0].replace("train_images", "img")
        + 'labels: {m: {kind: mask, match: "ann/{stem}.png", values: {1: organ, 2: tumour}}}\n'
        + "deid:"
        + SPECS["challenge"].partition("deid:")[2]
    )
    assert len(dataset) == 2
    for sample in dataset:
        image = sample["image"][0]
        assert np.array_equal(sample["m"], np.stack([image % 3 == 1, image % 3 == 2]))


def test_nifti_images_with_a_csv_of_labels(tmp_path: Path, built: Built) -> None:
    home = tmp_path / "archive"
    for n, case in enumerate(("ÄÖ-1", "Case 2", "case_3")):
        nifti(home / "scans" / f"{case}.nii.gz", values((6, 5, 4), seed=n))
    (home / "labels.csv").write_text("id;grade;outcome\nÄÖ-1;2;alive\nCase 2;3;dead\ncase_3;;alive\n", "utf-8")
    dataset = built(
        """
name: graded
license: CC0-1.0
sources: [{kind: folder, url: "${archive}", layout: {pattern: "scans/{patient}.nii.gz", modality: MR}}]
labels:
  read:
    kind: classes
    table: {match: labels.csv, by: {id: patient}}
    findings: {grade: {column: grade}, outcome: {column: outcome, values: {alive: alive, dead: dead}}}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [4, 8, 8]}
splits: {ratios: {train: 1.0}}
"""
    )
    answers = {
        values((6, 5, 4), seed=n).T.tobytes(): a for n, a in enumerate([("2", "alive"), ("3", "dead"), (None, "alive")])
    }
    for sample, row in zip(dataset, dataset.table.to_pylist(), strict=True):
        found = dict(zip(row["class_names"], row["class_values"], strict=True))
        mine = answers.pop(np.ascontiguousarray(sample["image"][0]).tobytes())
        assert (found.get("read/grade"), found.get("read/outcome")) == mine
    assert not answers
