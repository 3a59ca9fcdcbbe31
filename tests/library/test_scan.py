"""``builder scan``: counts of real sets as their catalogue states them, and what it says of a made archive."""

import csv
import json
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from PIL import Image

from builder.cli import main
from builder.clinical import read_sheet
from builder.errors import ResourceError, SourceError, SpecError
from builder.library.scan import Scan, beside, pictures, text_of_scan
from builder.library.scan.groups import Group, pattern
from builder.library.scan.layouts import is_mask, suggested
from builder.run.pipeline import plan
from builder.run.scan import scan
from builder.sources.layout import fits_of
from builder.stages.graph import Outcome, Task
from tests.endtoend.trees import KEY
from tests.files.writers import nifti, values
from tests.synthetic import ct_series

COUNTS = list(csv.DictReader(Path(__file__).with_name("scan_counts.csv").read_text("utf-8").splitlines()))
ARCHIVES = sorted({row["archive"] for row in COUNTS})


def counts_of(text: str) -> dict[str, int]:
    return {name: int(n) for name, n in (part.rsplit(" ", 1) for part in text.split("; ") if part)}


def series_by_modality(found: Scan) -> Counter[str]:
    series: dict[str, set[int]] = defaultdict(set)  # a series with stacks of several kinds is in several groups
    for group in found.groups:
        series[group.kind.get("modality", "none")] |= group.series
    return Counter({modality: len(names) for modality, names in series.items()})


@pytest.mark.parametrize("archive", ARCHIVES)
def test_counts_are_those_of_the_catalogue(corpus: Any, archive: str) -> None:
    """Files, image series by modality and label objects, as CATALOG.md states them for the set."""
    top = corpus(archive)
    for row in (row for row in COUNTS if row["archive"] == archive):
        found = scan([str(top / row["set"])])
        assert found.files == int(row["files"]), row["set"]
        if row["series"]:
            assert series_by_modality(found) == counts_of(row["series"]), row["set"]
        if row["objects"]:
            assert {o.modality: o.objects for o in found.objects} == counts_of(row["objects"]), row["set"]
        told = found.facts()
        assert sum(told["formats"].values()) == told["files"], row["set"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four persons with a chest and two with a head, a radiograph, a table, a broken file and a copy."""
    top = tmp_path_factory.mktemp("scan")
    for number in range(4):
        ct_series(
            top / "in" / f"chest{number}", patient_id=f"P{number}", study=f"c{number}", series=f"c{number}", slices=3,
            shape=(8, 8), date=f"20{18 + number}0302",
            attributes={"SeriesDescription": f"Chest  {number + 1}.0 mm", "Manufacturer": "SIEMENS"},
        )  # fmt: skip
    for number in range(2):
        ct_series(
            top / "in" / f"head{number}", patient_id=f"P{number}", study=f"h{number}", series=f"h{number}", slices=5,
            shape=(6, 10), attributes={"SeriesDescription": "HEAD"},
        )  # fmt: skip
    first = sorted((top / "in" / "chest0").glob("*.dcm"))[0]
    (top / "in" / "copy.dcm").write_bytes(first.read_bytes())
    (top / "in" / "cut.dcm").write_bytes(first.read_bytes()[:300])
    (top / "in" / "table.csv").write_text("Patient;Grade\np0;low\nP1;high\nP9;low\n")
    (top / "in" / "image.nii").write_bytes((348).to_bytes(4, "little") + bytes(340) + b"n+1\0" + bytes(8))
    return top


@pytest.fixture(scope="module")
def found(home: Path) -> Scan:
    return scan([str(home / "in")])


def test_like_series_are_one_group(found: Scan) -> None:
    chest, head = found.facts()["groups"]
    assert (chest["description"], chest["persons"], chest["series"], chest["usable_stacks"]) == ("chest # mm", 4, 4, 4)
    assert (chest["vendor"], chest["modality"], chest["years"]) == ("Siemens", "CT", [2018, 2021])
    assert (chest["matrix"], chest["slices"]) == ([{"rows": 8, "columns": 8, "stacks": 4}], [3, 3])
    assert (head["description"], head["persons"], head["studies"]) == ("head", 2, 2)
    assert (found.persons, found.studies, found.series) == (4, 6, 6)


def test_what_lies_beside_them_is_counted(found: Scan) -> None:
    told = found.facts()
    assert told["formats"] == {"dicom": 24, "csv": 1, "nifti": 1}
    assert told["files"] == 26
    assert [(one["reason"], one["example"]) for one in told["damaged"]] == [("missing_uid", "cut.dcm")]
    assert [(one["reason"], one["files"]) for one in told["duplicates"]] == [("duplicate_same_bytes", 1)]
    (table,) = told["tables"]
    assert table["headings"] == ["Patient", "Grade"]
    assert table["shared"] == {"Patient": {"names": "person", "shared": 2, "distinct": 3}}
    assert told["unread"][0].startswith("1 NIfTI file: no source reads it")


def test_what_a_terminal_shows(found: Scan) -> None:
    text = text_of_scan(found)
    first, second = text.splitlines()[:2]
    assert first.startswith("Private: ")
    assert found.facts()["private"] == first
    assert second == "26 files, 4 persons, 6 studies, 6 image series"
    for line in (
        "  table.csv: 3 rows; columns Patient, Grade",
        "    Patient: 2 of 3 values name a person of the images",
        "files by format",
        "  dicom 24, csv 1, nifti 1",
    ):
        assert line in text.splitlines(), line
    assert all(len(line) <= 400 for line in text.splitlines())


def test_every_sheet_of_a_workbook_is_a_table(tmp_path: Path) -> None:
    ct_series(tmp_path / "in", patient_id="P1", slices=2, shape=(8, 8))
    book = openpyxl.Workbook()
    book.active.title = "notes"
    book.active.append(["written by", "hand"])
    people = book.create_sheet("people")
    for line in (["Patient", "Grade"], ["P1", 2], ["P7", 3]):
        people.append(line)
    book.create_sheet("empty")
    book.save(tmp_path / "in" / "book.xlsx")
    told = {table["path"]: table for table in scan([str(tmp_path / "in")]).facts()["tables"]}
    assert [*told] == ["book.xlsx, sheet notes", "book.xlsx, sheet people", "book.xlsx, sheet empty"]
    assert told["book.xlsx, sheet people"]["rows"] == 2
    assert told["book.xlsx, sheet people"]["shared"] == {"Patient": {"names": "person", "shared": 1, "distinct": 2}}
    assert told["book.xlsx, sheet empty"]["problem"]


def test_a_line_of_text_with_commas_is_no_table(tmp_path: Path) -> None:
    ct_series(tmp_path / "in", slices=2, shape=(8, 8))
    (tmp_path / "in" / "README").write_text("Slices of nobody, made by a program.\n")
    (tmp_path / "in" / "people").write_text("Patient,Grade\nP1,2\n")
    (tmp_path / "in" / "nobody.csv").write_text("Patient,Grade\n")
    assert [one["path"] for one in scan([str(tmp_path / "in")]).facts()["tables"]] == ["nobody.csv", "people"]


def test_copies_of_a_table_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b", "c"):
        ct_series(tmp_path / "in" / folder, patient_id="P1", study=folder, series=folder, slices=2, shape=(8, 8))
        (tmp_path / "in" / folder / "table.csv").write_text("Patient,Grade\nP1,2\n" + "P7,3\n" * (folder == "c"))
    opened = []
    monkeypatch.setattr(beside, "read_sheet", lambda data, name: opened.append(data) or read_sheet(data, name))
    told = scan([str(tmp_path / "in")]).facts()["tables"]
    assert [(one["path"], one["rows"]) for one in told] == [("a/table.csv", 1), ("b/table.csv", 1), ("c/table.csv", 2)]
    assert all(one["shared"]["Patient"]["shared"] == 1 for one in told)
    assert len(opened) == 2


def test_image_files_without_a_layout_are_grouped_and_a_layout_is_named(tmp_path: Path) -> None:
    home = tmp_path / "in"
    for case in ("a 1", "b_2", "ç-3"):
        for image in ("t1", "t2"):
            nifti(home / case / f"{image}.nii.gz", values((6, 5, 4), seed=len(image)))
        Image.fromarray(values((8, 9), "uint8")).save(home / case / "photo.png")
    (home / "broken.nii").write_bytes(nifti(tmp_path / "x.nii", values()).read_bytes()[:300])
    found = scan([str(home)])
    told = {(g["format"], tuple(g["shape"]), g["dtype"], g["files"]) for g in found.facts()["image_files"]}
    assert ("nifti", (4, 5, 6), "i2", 6) in told
    assert ("png", (1, 8, 9), "u1", 3) in told
    assert found.facts()["image_files"][0]["spacing_mm"] == [2.5, 0.8, 1.2]
    assert found.layout == '{pattern: "{patient}/{image}.nii.gz", modality: CODE}'
    text = text_of_scan(found)
    assert "  6 nifti: 4 x 5 x 6 i2, 2.5 x 0.8 x 1.2 mm, such as a 1/t1.nii.gz" in text.splitlines()
    assert "for instance: layout: {pattern:" in text


def test_a_header_without_voxels_is_said(tmp_path: Path) -> None:
    whole = nifti(tmp_path / "p1.nii", values((6, 5, 4)))
    (tmp_path / "p2.nii").write_bytes(whole.read_bytes()[:352])
    text = text_of_scan(scan([str(tmp_path)]))
    assert "1 nifti: 4 x 5 x 6 i2, 2.5 x 0.8 x 1.2 mm; found 0 bytes of voxels, expected 240, such as p2.nii" in text


def test_files_of_many_grids_are_one_line(tmp_path: Path) -> None:
    for number in range(8):
        nifti(tmp_path / f"p{number}.nii.gz", values((6, 5, 4 + number)))
    found = scan([str(tmp_path)])
    assert len(found.image_files) == 8
    line = "  8 nifti: 4-11 x 5 x 6 i2, 2.5 x 0.8 x 1.2 mm (8 different grids), such as p0.nii.gz"
    assert line in text_of_scan(found).splitlines()


def test_paths_of_a_table_that_lead_out_are_told(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("patient,image\nP1,../elsewhere/1.nii.gz\nP2,../elsewhere/2.nii.gz\n")
    text = text_of_scan(scan([str(tmp_path)]))
    assert "image: 2 of 2 values are paths that lead out of this folder; scan the folder that holds both" in text


def test_paths_of_a_table_that_begin_above_the_folder_are_told(tmp_path: Path) -> None:
    """As of CheXpert, whose paths begin with the name of the folder that the table lies in."""
    home = tmp_path / "set" / "train"
    home.mkdir(parents=True)
    Image.fromarray(values((8, 9), "uint8")).save(home / "1.png")
    (tmp_path / "set" / "train.csv").write_text("Path,Sex\nset/train/1.png,F\n")
    told = "Path: 1 of 1 values are paths that lead out of this folder"
    assert told in text_of_scan(scan([str(tmp_path / "set")]))
    assert told not in text_of_scan(scan([str(tmp_path)]))


def test_a_table_that_names_image_files_is_told(tmp_path: Path) -> None:
    """As challenges do: a name alone, without its suffix, below another folder, or with the folders above it."""
    home = tmp_path / "in"
    for case in ("p1", "p2"):
        home.joinpath(case).mkdir(parents=True)
        for view in ("front", "side"):
            Image.fromarray(values((8, 9), "uint8")).save(home / case / f"{case}_{view}.png")
    lines = ["Image Index,Id,Path,Inside,Class", "p1_front.png,p1_front,Set-v1/p1/p1_front.png,p1/p1_front.png,0"]
    lines += ["p2_side.png,p2_side,Set-v1/p2/p2_side.png,p2\\p2_side.png,1"]
    lines += ["p3_side.png,p3_side,Set-v1/p1/p2_side.png,p1/p2_side.png,1"]
    (home / "list.csv").write_text("\n".join(lines) + "\n")
    shared = scan([str(home)]).facts()["tables"][0]["shared"]
    assert shared == {
        name: {"names": "file", "shared": 2, "distinct": 3} for name in ("Image Index", "Id", "Path", "Inside")
    }


@pytest.mark.parametrize(
    ("images", "documents", "layout"),
    [
        (["d/sub-1/anat/sub-1_T1w.nii.gz"], ["d/dataset_description.json"], "bids"),
        (["d/imagesTr/c_0000.nii.gz"], ["d/dataset.json"], "nnunet"),
        (["d/imagesTr/c.nii.gz", "d/labelsTr/c.nii.gz"], ["d/dataset.json"], "msd"),
        (["1.mha", "2.mha"], [], '{pattern: "{patient}.mha", modality: CODE}'),
        (["all/1.png", "all/2.png", "all/3.png"], [], '{pattern: "**/{patient}.png", modality: CODE}'),
        (["i/p1/p1_t2.mha", "i/p2/p2_adc.mha"], [], '{pattern: "**/{patient}/{patient}_{image}.mha", modality: CODE}'),
        (["p1/p1_t1.nii", "p1/p1_seg.nii"], [], '{pattern: "{patient}/{patient}_{image:t1}.nii", modality: CODE}'),
        (["s1/ct.nii", "s1/labels/a.nii", "s1/labels/b.nii"], [], '{pattern: "{patient}/{image}.nii", modality: CODE}'),
        (["p/p_2011-07_t2.nii"], [], '{pattern: "{patient}/{patient}_{visit:[0-9-]+}_{image}.nii", modality: CODE}'),
        (
            ["i/01_0.png", "i/01_1.png", "i/02_0.png"],
            [],
            '{pattern: "**/{patient:[^_]+}_{visit:[0-9-]+}.png", modality: CODE}',
        ),
        (["1_L.png", "1_R.png", "2_L.png"], [], '{pattern: "{patient:[^_]+}_{image}.png", modality: CODE}'),
        (["i/p1/p1.jpg", "i/p2/p2.jpg"], [], '{pattern: "**/{patient}/{patient}.jpg", modality: CODE}'),
        (["p1/8a.nii.gz", "p2/7c.nii.gz"], [], '{pattern: "{patient}/*.nii.gz", modality: CODE}'),
        (["a_1.png", "a_2.png", "b_1.png"], [], '{pattern: "{patient}.png", modality: CODE}'),
        ([], ["d/dataset.json"], ""),
        (
            ["all.nii", "s1/ct.nii", "s1/masks/a.nii", "s1/masks/b.nii"],
            [],
            '{pattern: "{patient}/{image}.nii", modality: CODE}',
        ),
        (["c1.nii", "c2.nii", "c1_seg.nii"], [], '{pattern: "{patient:c[0-9]+}.nii", modality: CODE}'),
        (["images/a.png", "masks/a.png"], [], '{pattern: "images/{patient}.png", modality: CODE}'),
        (
            ["train/images/a.png", "val/images/b.png", "val/masks/b.png"],
            [],
            '{pattern: "*/images/{patient}.png", modality: CODE}',
        ),
        (["p-1/p-1-t1.nii", "p-1/p-1-seg.nii"], [], '{pattern: "{patient}/{patient}-{image:t1}.nii", modality: CODE}'),
        (
            ["r/pat1/study1_T1.nii", "r/pat1/study2_T1.nii"],
            [],
            '{pattern: "**/{patient}/{visit:[^_]+}_{image}.nii", modality: CODE}',
        ),
        (
            ["p1/2019-01-01/t1.nii", "p1/2020-01-01/t1.nii"],
            [],
            '{pattern: "{patient}/{visit}/{image}.nii", modality: CODE}',
        ),
        (["d/sub-01/a.nii", "d/sub-01/b.nii"], [], '{pattern: "**/{patient}/{image}.nii", modality: CODE}'),
        (["ill/1.png", "ill/2.png", "well/3.png"], [], '{pattern: "**/{patient}.png", modality: CODE}'),
    ],
)
def test_the_layout_that_is_named_fits_the_paths(images: list[str], documents: list[str], layout: str) -> None:
    assert suggested(images, documents) == layout
    images = [place for place in images if not is_mask(place) and place != "all.nii"]
    if layout.startswith("{"):
        pattern = layout.partition('"')[2].partition('"')[0]
        assert list(fits_of(pattern, images)) == images


def test_a_kind_that_is_left_out_names_the_switch(tmp_path: Path) -> None:
    ct_series(tmp_path / "in", slices=1, shape=(8, 8))
    found = scan([str(tmp_path / "in")])
    (one,) = found.facts()["excluded_by_default"]
    assert (one["stacks"], one["reason"]) == (1, "single_slice")
    assert one["switch"] == "volumes: {single_slice: keep}"
    assert "lets them in" in text_of_scan(found)


def test_the_page_has_a_picture_a_group_and_is_private(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = home / "page.html"
    with pytest.raises(SystemExit) as left:
        main(["scan", str(home / "in"), "--html", str(page), "--json"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out)["persons"] == 4
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_a_picture_that_kills_its_process_costs_only_itself(found: Scan) -> None:
    class Dying:
        """Runs tasks in order, and dies at the first group's."""

        width = 1

        def dismiss(self) -> None:
            return

        def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
            for task in tasks:
                if task.argument.number == 0:
                    raise ResourceError("its process died")
                yield Outcome(task, (task.argument.number, "picture", ""))

    chunk = pa.table({"series_uid": ["a", "b"], **{n: [None, None] for n in ("instance_number",)}, "path": ["1", "2"]})
    groups = tuple(Group({}, example=(0, uid, 0)) for uid in "ab")
    inventory: Any = SimpleNamespace(chunk=lambda number, columns: chunk)
    held = replace(found, groups=groups, inventory=inventory)
    assert pictures(held, (), runner=Dying()) == {0: ("", "crashed"), 1: ("picture", "")}


def test_a_kept_index_is_used_again(home: Path, tmp_path: Path) -> None:
    first = scan([str(home / "in")], keep=tmp_path / "kept")
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept" / "index").rglob("*.parquet")}
    assert parts
    again = scan([str(home / "in")], keep=tmp_path / "kept")
    assert again.facts() == first.facts()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept" / "index").rglob("*.parquet")} == parts


def test_a_scan_and_a_plan_count_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies there: empty, cut, left by macOS, out of the folder, a link to nothing, closed to this process."""
    monkeypatch.setenv("BUILDER_KEY", KEY)
    home = tmp_path / "in"
    ct_series(home / "ct", slices=2, shape=(8, 8))
    for name, data in {
        "empty.dcm": b"", "empty.nii.gz": b"", "header.nii": (348).to_bytes(4, "little") + bytes(340) + b"n+1\0",
        ".DS_Store": b"\0\0\0\1Bud1", "._a.dcm": b"\0\5\x16\7" + bytes(20), "closed.dcm": b"x" * 500,
        "cases.csv": b"p,image\nA,../outside.nii\nB,nowhere.nii\n",
    }.items():  # fmt: skip
        (home / name).write_bytes(data)
    (home / "closed.dcm").chmod(0)
    for name, target in {"dead": "nothing", "out": "/nonexistent/x", "loop": "loop", "same": "ct"}.items():
        (home / name).symlink_to(target)
    layout = {"table": "cases.csv", "path": "image", "patient": "p"}
    text = (
        f"name: m\nlicense: CC0-1.0\nsources: [{{kind: folder, url: '{home}', layout: {layout}}}]\n"
        'deid: {patient_key: "${env:BUILDER_KEY}"}\nsamples: {kind: volumes, chunk: [8, 8, 8]}\n'
        "splits: {ratios: {train: 1.0}}\n"
    )
    for name, spec in (("plain", text.replace(f", layout: {layout}", "")), ("laid", text)):
        (tmp_path / f"{name}.yaml").write_text(spec)
    found = scan([str(home)])
    planned = plan(tmp_path / "plain.yaml", to=tmp_path / "plain").facts()
    assert (found.files, found.named_only, planned["files"]) == (12, 0, 12)
    found = scan([str(home)], layout=layout)
    assert (found.files, found.named_only) == (12, 2)
    assert "12 files and 2 that are named and not there, 1 person" in text_of_scan(found)
    assert plan(tmp_path / "laid.yaml", to=tmp_path / "laid").facts()["files"] == 14


def test_what_cannot_be_scanned_is_said(home: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="found a file, expected a folder"):
        scan([str(home / "in" / "table.csv")])
    with pytest.raises(SpecError, match="which lies in the archive"):
        scan([str(home / "in")], page=home / "in" / "page.html")
    with pytest.raises(SpecError, match="--html: found no folder"):
        scan([str(home / "in")], page=tmp_path / "none" / "page.html")
    with pytest.raises(SpecError, match="found an empty path"):
        scan([" "])
    with pytest.raises(SourceError, match="found no file"):
        scan([str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("T1  AX 3mm", "t1 ax #mm"),
        ("Ax_T2 FSE 1.5", "ax t# fse #"),
        ("", ""),
        (None, ""),
    ],
)
def test_descriptions_are_compared_without_numbers(text: str | None, same: str) -> None:
    assert pattern(text) == same.replace("t1", "t#")
