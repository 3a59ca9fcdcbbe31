"""Exports: each form is read by a library we did not write, continues after an interruption, and parts no person."""

import gzip
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from builder.cli import main
from builder.errors import SpecError
from builder.library.export import FORMS, Options, Wanted, _label, export
from builder.model.layout import EXPORTS, stored_object
from builder.reader import open_dataset
from builder.reader.export import export_bids, export_huggingface, export_nnunet, export_omezarr, mds, omezarr, tar
from builder.reader.export.folder import ExportFolder, silently
from builder.reader.export.nnunet import own_folds
from tests.reader.conftest import publish


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_USES", "off")


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def options(form: str, workers: int = 1) -> dict[str, Any]:
    return {
        "form": form,
        "options": Options(label="tumor" if "label" in FORMS[form].options else None, workers=workers),
    }


def stopping_after(count: int) -> Any:
    def track(numbers: Iterable[int]) -> Iterator[int]:
        for done, number in enumerate(numbers):
            if done == count:
                raise KeyboardInterrupt
            yield number

    return track


PATCHES = [form for form, described in FORMS.items() if not described.volumes and "archive" not in described.options]


@pytest.mark.parametrize("form", PATCHES)
def test_an_export_that_was_stopped_continues(
    form: str, labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(labelled.root)
    monkeypatch.setattr(tar, "PER_FILE", 3)
    monkeypatch.setattr(mds, "SIZE_LIMIT", 1)
    export(url, str(tmp_path / "whole"), **options(form))
    with pytest.raises(KeyboardInterrupt):
        export(url, str(tmp_path / "halves"), **options(form), track=stopping_after(1))
    whole = (".nii.gz", ".tar", ".parquet", "zarr.json", ".mds")
    kept = {p: p.stat().st_ino for p in (tmp_path / "halves").rglob("*") if p.name.endswith(whole)}
    everything = [p for p in (tmp_path / "whole").rglob("*") if p.name.endswith(whole)]
    assert 0 < len(kept) < len(everything)
    outcome = export(url, str(tmp_path / "halves"), **options(form, workers=3))
    assert outcome.samples == 8
    assert files(tmp_path / "whole") == files(tmp_path / "halves")
    assert all(p.stat().st_ino == inode for p, inode in kept.items()), "finished files were not written again"
    assert not [name for name in files(tmp_path / "halves") if ".part-" in name]


@pytest.mark.parametrize("form", [form for form, described in FORMS.items() if described.volumes])
def test_whole_volumes_continue_and_are_the_same_with_any_number_of_workers(
    form: str, volumes: Any, tmp_path: Path
) -> None:
    described = {"image": ("HU", {}), "tumor": ("", {"core": (0, 1)})}
    made = publish(tmp_path / "set", [volumes.samples], chunk=(4, 5, 6), described=described)
    dataset = open_dataset(made.root)
    persons = pa.array(["k1", "k2", "k1", "k3", "k2"])
    dataset = replace(dataset, _table=dataset._table.append_column("person_key", persons))
    told = {"number": 3, "label": "tumor"} if "number" in FORMS[form].options else {}

    def write(name: str, workers: int, track: Any = silently) -> None:
        folder = ExportFolder(tmp_path / name, continues=True, workers=workers)
        FORMS[form].write(dataset, folder, **told, track=track)

    write("one", 1)
    write("three", 3)
    with pytest.raises(KeyboardInterrupt):
        write("halves", 1, stopping_after(1))
    kept = {p: p.stat().st_ino for p in (tmp_path / "halves").rglob("*.*z*") if p.is_file()}
    assert 0 < len(kept) < len(list((tmp_path / "one").rglob("*.*z*")))
    write("halves", 2)
    assert files(tmp_path / "one") == files(tmp_path / "three") == files(tmp_path / "halves")
    assert all(p.stat().st_ino == inode for p, inode in kept.items()), "finished files were not written again"


def test_a_folder_of_something_else_is_left_alone(labelled: Any, tmp_path: Path) -> None:
    url, taken = str(labelled.root), tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(SpecError, match=r"--to: found files of something else in .*taken, expected an empty folder"):
        export(url, str(taken), form="nifti")
    export(url, str(tmp_path / "nifti"), form="nifti", wanted=Wanted(where="sex == 'F'"))
    for other in ({"form": "nifti"}, {"form": "webdataset", "wanted": Wanted(where="sex == 'F'")}):
        with pytest.raises(SpecError, match="an export of other samples or in another form"):
            export(url, str(tmp_path / "nifti"), **other)
    assert files(taken) == {"mine.txt": b"mine"}


WRONG = [
    ({"form": "nifty"}, "--form: found 'nifty', expected one of nifti, monai, nnunet"),
    ({"form": "monai", "options": Options(label="liver")}, "--label: found 'liver', expected one of tumor"),
    ({"form": "nnunet"}, "--form: found nnunet for a dataset of patches, expected whole volumes"),
    ({"form": "nnunet_preprocessed"}, "--form: found nnunet_preprocessed for a dataset of patches"),
    ({"form": "bids"}, "--form: found bids for a dataset of patches, expected whole volumes"),
    ({"form": "nifti", "wanted": Wanted(where="sex == 'X'")}, "--where: found no sample that it matches"),
    ({"form": "nifti", "wanted": Wanted(where="sexx == 'F'")}, "did you mean 'sex'"),
    (
        {"form": "nifti", "wanted": Wanted(split="training")},
        "split: found 'training', expected one of test, train, validation",
    ),
]


@pytest.mark.parametrize(("asked", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_what_cannot_be_exported_is_said_before_anything_is_written(
    asked: dict[str, Any], words: str, labelled: Any, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as caught:
        export(str(labelled.root), str(tmp_path / "out"), **asked)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_parquet_for_hugging_face_holds_the_images_and_says_so(labelled: Any, tmp_path: Path) -> None:
    dataset = open_dataset(labelled.root)
    paths = export_huggingface(dataset, tmp_path)
    assert paths[0].name == "train-00000-of-00001.parquet"
    read = 0
    for split in dict.fromkeys(labelled.splits):
        table = pq.read_table(next(p for p in paths if p.name.startswith(f"{split}-")))
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert features["image"] == features["tumor"] == {"_type": "Nifti"}
        assert features["age_years"] == {"dtype": "float64", "_type": "Value"}
        assert set(features) == set(table.column_names)
        for row, item in zip(table.to_pylist(), dataset.split(split), strict=True):
            image = nibabel.Nifti1Image.from_bytes(gzip.decompress(row["image"]["bytes"]))
            np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), item["image"][0])
            assert row["sample_key"] == item.row["sample_key"]
            read += 1
    assert read == 8
    card = (tmp_path / "README.md").read_text()
    assert "license:" not in card, "this dataset states none"
    for stated, lines in (("CC-BY-4.0", "license: cc-by-4.0\n"), ("TCIA", 'license: other\nlicense_name: "tcia"\n')):
        object.__setattr__(dataset.manifest, "spec", {"license": stated})
        export_huggingface(dataset[:1], tmp_path / stated)
        assert f"\n{lines}" in (tmp_path / stated / "README.md").read_text()
    assert "No person is in two splits" in card
    assert 'path: "data/validation-*"' in card
    described = shutil.copytree(labelled.root, tmp_path / "described")
    sheet = described / "versions" / dataset.manifest.version / "catalog" / "datasheet.md"
    sheet.parent.mkdir()
    sheet.write_text("# Datasheet: lesions\n\n## Motivation\n\nTo learn.\n")
    export_huggingface(open_dataset(described)[:1], tmp_path / "stated")
    assert "\n## Datasheet: lesions\n\n### Motivation\n\nTo learn.\n" in (tmp_path / "stated" / "README.md").read_text()


def test_labels_are_asked_for_where_a_form_needs_them(labelled: Any) -> None:
    with pytest.raises(SpecError, match="--form: found a dataset without labels, expected one with masks"):
        _label(open_dataset(labelled.root, fields=["image"]), None)
    assert _label(open_dataset(labelled.root), None) == "tumor"


def test_bids_names_persons_images_and_classes(volumes: Any, tmp_path: Path) -> None:
    dataset = open_dataset(volumes.root)
    persons = pa.array(["k1", "k2", "k1", "k3", "k2"])
    dataset = replace(dataset, _table=dataset._table.append_column("person_key", persons))
    paths = export_bids(dataset, tmp_path)
    assert len(paths) == 5
    for path, item in zip(paths, dataset, strict=True):
        image = nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), item["image"][0])
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert (sidecar["SampleKey"], sidecar["Split"]) == (item.row["sample_key"], item.row["split"])
    people = (tmp_path / "participants.tsv").read_text().splitlines()
    assert people[0].startswith("participant_id\tsplit")
    assert {p.parts[-3] for p in paths} == {line.split("\t")[0] for line in people[1:]}
    described = json.loads((tmp_path / "dataset_description.json").read_text())
    assert (described["DatasetType"], described["BIDSVersion"]) == ("derivative", "1.10.0")


def test_nnunet_gets_the_dataset_s_own_folds(labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(labelled.root)
    target = export_nnunet(dataset, tmp_path, number=7, label="tumor")
    (fold,) = json.loads((target / "splits_final.json").read_text())
    keys = dict(zip(*(dataset.table[c].to_pylist() for c in ("sample_key", "split")), strict=True))
    assert fold == {ours: sorted(k for k, s in keys.items() if s == theirs)
                    for ours, theirs in (("train", "train"), ("val", "validation"))}  # fmt: skip
    stated = [{"train": ["s00000", "s00003"], "val": ["s00001"]}, {"train": ["s00001"], "val": ["s00000", "gone"]}]
    data = json.dumps(stated).encode()
    path = f"{EXPORTS}/splits_final.json"
    dataset.store.put(f"versions/{dataset.manifest.version}/{path}", data)
    object.__setattr__(dataset.manifest, "files", (*dataset.manifest.files, stored_object(path, data)))
    assert own_folds(dataset, ["s00000", "s00001"]) == [
        {"train": ["s00000"], "val": ["s00001"]}, {"train": ["s00001"], "val": ["s00000"]}
    ]  # fmt: skip


def test_shards_of_mds_hold_the_samples_as_the_format_says(volumes: Any, tmp_path: Path) -> None:
    """Read by the lines of the format's own page; make test-peers reads them with streaming."""
    dataset = open_dataset(volumes.root)
    mds.export_mds(dataset, tmp_path)
    read = 0
    for split in dict.fromkeys(volumes.splits):
        index = json.loads((tmp_path / split / "index.json").read_text())
        (shard,) = index["shards"]
        data = (tmp_path / split / shard["raw_data"]["basename"]).read_bytes()
        assert (index["version"], shard["raw_data"]["bytes"]) == (2, len(data))
        count = int(np.frombuffer(data[:4], "<u4")[0])
        places = np.frombuffer(data[4 : 4 * (count + 2)], "<u4")
        about = json.loads(data[4 * (count + 2) : places[0]])
        assert about["column_names"] == ["image", "row", "tumor"]
        assert about["column_encodings"] == ["ndarray:int16", "json", "ndarray:uint8"]
        for begin, end, item in zip(places[:-1], places[1:], dataset.split(split), strict=True):
            sizes = np.frombuffer(data[begin : begin + 12], "<u4")
            ends = begin + 12 + np.cumsum(sizes)
            image, row, _ = (data[stop - size : stop] for stop, size in zip(ends, sizes, strict=True))
            assert (ends[-1], image[0] >> 2, image[0] & 3) == (end, 4, 0)
            voxels = np.frombuffer(image[5:], np.int16).reshape(tuple(image[1:5]))
            np.testing.assert_array_equal(voxels, item["image"])
            assert json.loads(row)["sample_key"] == item.row["sample_key"]
            read += 1
    assert read == 5


def test_the_command_says_what_it_wrote(labelled: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["export", str(labelled.root), "--to", str(tmp_path / "out"), "--form", "monai", "--split", "train"])
    assert left.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'out'}: {labelled.splits.count('train')} samples of made, version v1")
    assert "export: " in printed.err
    again = ["export", str(labelled.root), "--to", str(tmp_path / "out"), "--form", "monai", "--split", "train"]
    for quiet in ([*again, "--quiet"], ["-q", *again]):
        with pytest.raises(SystemExit):
            main(quiet)
        assert capsys.readouterr().err == "", "--quiet shows no progress"
    lists = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert list(lists) == ["training"]
    with pytest.raises(SystemExit) as left:
        main(["export", str(labelled.root), "--to", str(tmp_path / "out"), "--form", "nope"])
    assert left.value.code == 2


def test_ome_zarr_holds_the_voxels_the_labels_and_where_they_lie(labelled: Any, tmp_path: Path) -> None:
    dataset = open_dataset(labelled.root)
    paths = export_omezarr(dataset, tmp_path)
    assert [path.name for path in paths] == [f"{k}.ome.zarr" for k in dataset.table["sample_key"].to_pylist()]
    for path, item in zip(paths, dataset, strict=True):
        group = zarr.open_group(path, mode="r")
        about = group.attrs["ome"]
        (multiscale,) = about["multiscales"]
        assert [axis["name"] for axis in multiscale["axes"]] == list("czyx")
        np.testing.assert_array_equal(np.asarray(group["0"]), item["image"])
        (scaling,) = multiscale["datasets"][0]["coordinateTransformations"]
        np.testing.assert_allclose(scaling["scale"], [1, *item.geometry.spacing_mm])
        np.testing.assert_allclose(group.attrs["builder"]["affine_lps_mm"], item.geometry.affine)
        assert group.attrs["builder"]["row"]["split"] == item.row["split"]
        labels = group["labels"].attrs["ome"]["labels"]
        layout = dataset.layout("tumor")
        stored = {n: np.asarray(group[f"labels/{n}/0"])[0] for n in labels}
        for segment, (channel, value) in layout.segments.items():
            found = stored["tumor"] == value if layout.channels == 1 else stored[f"tumor.{segment}"] == 1
            np.testing.assert_array_equal(found, item["tumor"][channel] == value)


def test_the_levels_of_ome_zarr_are_every_second_voxel(tmp_path: Path) -> None:
    voxels = np.random.default_rng(1).integers(-9, 9, (2, 5, 300, 130)).astype("int16")
    stated = omezarr._pyramid(voxels, (3.0, 0.5, 0.7), name="x", target=ExportFolder(tmp_path), place="x")
    levels = stated["multiscales"][0]["datasets"]
    assert [level["path"] for level in levels] == ["0", "1", "2"]
    for n, level in enumerate(levels):
        step = 2**n
        found = np.asarray(zarr.open_array(tmp_path / "x" / level["path"], mode="r"))
        np.testing.assert_array_equal(found, voxels[:, ::step, ::step, ::step])
        assert level["coordinateTransformations"][0]["scale"] == pytest.approx([1, 3 * step, 0.5 * step, 0.7 * step])
