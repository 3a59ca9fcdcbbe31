"""Splits that others made, in six layouts: planted leaks are found, and none in a clean one."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import SpecError
from builder.library.audit import Audit, audit
from builder.library.audit.items import read_divided
from tests.clinical.making import parquet, workbook

SENTENCE = (
    "there is a {} opacity in the {} lobe next to the {} fissure with {} borders and {} calcification of the pleura"
)


@dataclass(frozen=True)
class Made:
    """One image to write: whose it is, in which split, its voxels and its report."""

    person: str
    split: str
    voxels: NDArray[np.uint8]
    report: str = ""


def picture(seed: int, *, size: int = 48) -> NDArray[np.uint8]:
    """A smooth picture with some structure, unlike that of any other seed."""
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 255, (7, 7)).astype(np.uint8))
    fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    return (fine * 0.9 + dice.integers(0, 20, (size, size))).astype(np.uint8)


def clean() -> list[Made]:
    splits = ("train", "train", "train", "validation", "test", "test")
    words = [np.random.default_rng(n).choice(list("abcdefghijklmnopqrstuvwxyz"), (5, 7)) for n in range(len(splits))]
    return [
        Made(f"P{n:02d}", split, picture(n), SENTENCE.format(*("".join(w) for w in words[n])))
        for n, split in enumerate(splits)
    ]


def planted() -> dict[str, Made]:
    first = clean()[0]
    grown = Image.fromarray(first.voxels).resize((62, 62), Image.Resampling.BICUBIC)
    return {
        "persons": Made("P00", "test", picture(90)),
        "equal_pixels": Made("X1", "test", first.voxels),
        "flipped": Made("X2", "test", np.ascontiguousarray(first.voxels[:, ::-1])),
        "rescaled": Made("X3", "test", np.asarray(grown)),
        "texts": Made("X4", "test", picture(91), first.report),
    }


def _png(path: Path, voxels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(voxels).save(path)


def _nifti(path: Path, voxels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(np.stack([voxels, voxels // 2, 255 - voxels], axis=-1), np.eye(4)).to_filename(path)


def table(home: Path, made: list[Made]) -> Path:
    rows = []
    for n, one in enumerate(made):
        _png(home / "images" / f"{n}.png", one.voxels)
        rows.append([f"images/{n}.png", one.person, one.split, one.report, "F" if n % 2 else "M"])
    with (home / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "patient_id", "split", "report", "sex"], *rows])
    return home / "split.csv"


def folders(home: Path, made: list[Made]) -> Path:
    names = {"train": "train", "validation": "valid", "test": "test"}
    for n, one in enumerate(made):
        place = home / names[one.split] / "normal" / f"{one.person}_{n:03d}.png"
        _png(place, one.voxels)
        if one.report:
            place.with_suffix(".txt").write_text(one.report)
    return home


def huggingface(home: Path, made: list[Made]) -> Path:
    for n, one in enumerate(made):
        _png(home / one.split / f"{n}.png", one.voxels)
        with (home / one.split / "metadata.jsonl").open("a") as file:
            row = {"file_name": f"{n}.png", "patient_id": one.person, "text": one.report}
            file.write(json.dumps(row) + "\n")
    return home


def datalist(home: Path, made: list[Made]) -> Path:
    keys = {"train": "training", "validation": "validation", "test": "test"}
    document: dict[str, list[dict[str, str]]] = {key: [] for key in keys.values()}
    for n, one in enumerate(made):
        _nifti(home / "images" / f"{n}.nii.gz", one.voxels)
        entry = {"image": f"images/{n}.nii.gz", "patient": one.person, "report": one.report}
        document[keys[one.split]].append(entry)
    (home / "dataset.json").write_text(json.dumps(document))
    return home / "dataset.json"


def nnunet(home: Path, made: list[Made]) -> Path:
    """The case is the person, so that persons cannot be in two splits but by a case in two lists."""
    fold: dict[str, list[str]] = {"train": [], "val": []}
    for one in made:
        top = "imagesTs" if one.split == "test" else "imagesTr"
        _nifti(home / top / f"{one.person}_0000.nii.gz", one.voxels)
        if one.split != "test":
            fold["train" if one.split == "train" else "val"].append(one.person)
    (home / "splits_final.json").write_text(json.dumps([fold]))
    return home


def bids(home: Path, made: list[Made]) -> Path:
    """A subject has one row, so that a leak of persons shows by the images only."""
    rows = ["participant_id\tsplit\treport"]
    for one in made:
        _nifti(home / f"sub-{one.person}" / "anat" / f"sub-{one.person}_T1w.nii.gz", one.voxels)
        rows.append(f"sub-{one.person}\t{one.split}\t{one.report}")
    (home / "participants.tsv").write_text("\n".join(rows) + "\n")
    return home


Writer = Callable[[Path, list[Made]], Path]
ALL: list[Writer] = [table, folders, huggingface, datalist, nnunet, bids]


@pytest.mark.parametrize("write", ALL)
def test_planted_leaks_are_found_and_none_in_a_clean_one(write: Writer, tmp_path: Path) -> None:
    found = audit(write(tmp_path / "clean", clean()))
    assert found.facts(names=True)["clean"], found.text(names=True)
    assert found.compared == 6
    extra = planted()
    if write is bids:
        del extra["persons"]  # a subject has one line in the table, and so one split
    if write is nnunet:
        del extra["texts"]  # the layout has no texts
    leaky = audit(write(tmp_path / "leaky", [*clean(), *extra.values()]))
    across = leaky.facts()["across_splits"]
    assert across["persons"] == ("persons" in extra)
    assert across["equal_pixels"] == 1
    assert across["texts"] == ("texts" in extra)
    assert across["near_copies"] >= 2
    assert _copies(leaky) == {"flipped", "rescaled"}


def _copies(found: Audit) -> set[str]:
    """Which planted near copies were found with the picture that they are copies of."""
    names = {"X2": "flipped", "X3": "rescaled"}
    pairs = [f.persons for f in found.leaks if f.kind == "near_copies"]
    return {names[p] for pair in pairs if "P00" in pair for p in pair if p in names}


def test_an_image_that_is_listed_in_two_splits(tmp_path: Path) -> None:
    made = clean()
    nnunet(tmp_path / "raw", made)
    folds = [{"train": ["P00", "P01", "P02"], "val": ["P02", "P03"]}, {"train": ["P00"], "val": ["P01"]}]
    (tmp_path / "raw" / "splits_final.json").write_text(json.dumps(folds))
    found = audit(tmp_path / "raw", pixels="exact")
    assert [f.persons for f in found.leaks if f.kind == "persons"] == [("P02",)]
    assert {f.splits for f in found.leaks} == {("fold 0 train", "fold 0 validation")}
    place = table(tmp_path / "data", made)
    with place.open("a", newline="") as file:
        csv.writer(file).writerow(["images/0.png", "P00", "test", "", "M"])
    found = audit(place, pixels="exact")
    assert [(f.kind, f.persons) for f in found.leaks] == [("persons", ("P00",)), ("equal_pixels", ("P00",))]


def test_two_chests_that_look_alike_are_no_copy(corpus, tmp_path: Path) -> None:
    """The most alike of 8,256 pairs of thumbnails of two patients, one of them cropped."""
    pictures = corpus("layouts") / "nih_cxr_png"
    found = [min(pictures.rglob(f"{name}_*.png")) for name in ("00000043", "00000195")]
    one, other = (np.asarray(Image.open(path).convert("L")) for path in found)
    made = [Made("P1", "train", one), Made("P2", "test", other[6:58, 6:58]), Made("P3", "test", one[6:58, 6:58])]
    assert [f.persons for f in audit(folders(tmp_path, made)).leaks] == [("P1", "P3")]


def test_the_17_persons_of_a_published_set(corpus) -> None:
    found = audit(corpus("layouts") / "nih_cxr_png", pixels="off")
    assert (found.facts()["items"], found.facts()["persons"]) == (432, 129)
    assert found.facts()["across_splits"]["persons"] == 17
    homes: dict[str, set[str]] = {}
    for path in (corpus("layouts") / "nih_cxr_png").rglob("*.png"):
        homes.setdefault(path.name.split("_")[0], set()).add(path.parent.parent.name)
    assert {f.persons[0] for f in found.leaks} == {name for name, held in homes.items() if len(held) > 1}


def test_the_command(tmp_path: Path) -> None:
    place = table(tmp_path / "data", [*clean()[:4], planted()["persons"]])
    arguments = ["audit", str(place), "--pixels", "exact", "--page", str(tmp_path / "page.html")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 1
    facts = json.loads(done.stdout)
    assert facts["across_splits"]["persons"] == 1
    assert not facts["clean"]
    shares = {(row["column"], row["level"]): row["shares"] for row in facts["balance"]}
    assert shares["sex", "F"] == {"test": 0.0, "train": 0.3333, "validation": 1.0}
    page = (tmp_path / "page.html").read_text()
    assert "Leaks were found" in page
    assert "http" not in page
    assert "P00" not in done.stdout + page
    named = CliRunner().invoke(app, [*arguments, "--names"])
    assert "images/0.png" in named.stdout + (tmp_path / "page.html").read_text()
    assert (
        CliRunner().invoke(app, ["audit", str(table(tmp_path / "ok", clean()[:4])), "--pixels", "off"]).exit_code == 0
    )


@pytest.mark.parametrize("form", ["utf-16", "cp1252", "xlsx", "parquet", "unclosed"])
def test_a_table_is_read_in_every_form_of_clinical_tables(tmp_path: Path, form: str) -> None:
    rows = [["path", "person", "split"], ["a.png", "Jürgen", "train"], ["b.png", "Jürgen", "test"]]
    text = "\n".join(";".join(row) for row in rows) + "\n"
    path = tmp_path / "split"
    if form == "xlsx":
        path.write_bytes(workbook(*rows))
    elif form == "parquet":
        path.write_bytes(parquet(**{name: values for name, *values in zip(*rows, strict=True)}))
    elif form == "unclosed":
        path.write_text(text.replace("a.png", '"a.png'))
        with pytest.raises(SpecError, match="split: found a quote in line 2 of the table that is not closed"):
            read_divided(path)
        return
    else:
        path.write_text(text, form)
    found = read_divided(path)
    assert [(item.name, item.person, item.splits) for item in found.items] == [
        ("a.png", "Jürgen", {"": "train"}), ("b.png", "Jürgen", {"": "test"}),
    ]  # fmt: skip


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a table, a datalist or a folder"):
        audit(tmp_path / "nothing")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SpecError, match="found the columns a, b"):
        audit(tmp_path / "t.csv")
    with pytest.raises(SpecError, match="found no image in any split"):
        audit(tmp_path)
    place = table(tmp_path / "d", clean()[:2])
    with pytest.raises(SpecError, match="without a group"):
        audit(place, person="x")
    (tmp_path / "d" / "images" / "0.png").write_bytes(b"no picture")
    assert audit(place).unread == ("images/0.png",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("datalist.json", "{"),
        ("data/imagesTr/a_0000.png", None),
        ("data/train/metadata.jsonl", '["a.png"]\n'),
    ],
)
def test_what_is_no_json_is_said(tmp_path: Path, name: str, text: str | None) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text or "")
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "splits_final.json").write_text("{}" if text is None else "[]")
    with pytest.raises(SpecError, match="expected"):
        read_divided(place if place.suffix == ".json" else tmp_path / "data")


def test_images_in_no_split_are_counted(tmp_path: Path) -> None:
    table = tmp_path / "split.csv"
    table.write_text("path,person,split\na.png,p,train\nb.png,p,\n,p,test\n")
    assert (len(read_divided(table).items), read_divided(table).without_a_split) == (1, 2)
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"training": ["a.png"], "spare": [{"image": "b.png"}, "c.png"]}))
    assert read_divided(datalist).without_a_split == 2
    for name in ("data/train/a.png", "data/other/b.png", "bids/sub-1/anat/a.nii", "bids/sub-2/anat/b.nii"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    assert read_divided(tmp_path / "data").without_a_split == 1
    (tmp_path / "bids" / "participants.tsv").write_text("participant_id\tsplit\nsub-1\ttrain\n")
    found = read_divided(tmp_path / "bids")
    assert (found.layout, len(found.items), found.without_a_split) == ("BIDS", 1, 1)


def test_headers_that_tell_the_label_are_noticed(tmp_path: Path) -> None:
    """The sizes of the images give one answer away, and say nothing of the other."""
    dice = np.random.default_rng(5)
    rows = [["path", "patient", "split", "sick", "sex"]]
    for n in range(60):
        sick, sex = bool(n % 2), "F" if dice.random() < 0.5 else "M"
        _png(tmp_path / "images" / f"{n}.png", picture(n, size=40 if sick else 36))
        rows.append([f"images/{n}.png", f"P{n:02d}", "train" if n < 40 else "test", "yes" if sick else "no", sex])
    with (tmp_path / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    found = audit(tmp_path / "split.csv", pixels="exact")
    told = {row["outcome"]: row for row in found.facts()["headers_alone"]}
    assert told["sick = yes"]["auc"] == pytest.approx(1.0)
    assert told["sick = yes"]["persons"] == 60
    assert told["sex = M"]["low"] < 0.5 < told["sex = M"]["high"]
    assert {(row["label"], row["group"]) for row in found.facts()["associated"]} == {
        ("sick", "rows"),
        ("sick", "columns"),
    }
    assert "headers alone predict sick = yes: AUC 1.00" in found.text()
    page = found.page(names=False)
    assert page.partition("<h2>Bias</h2>")[2].count("sick = yes") == 1
