"""The log of use: one entry a session, nothing of who, never in the way of reading."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.library.export import Wanted, export
from builder.model.layout import CURRENT
from builder.reader import open_dataset, uses
from builder.storage import open_store
from tests.reader.test_remote import FarStore


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(uses, "_seen", set())
    monkeypatch.delenv("BUILDER_USES", raising=False)


@pytest.fixture
def own(patches, tmp_path) -> Path:
    """The dataset under another name, for each test its own log."""
    place = tmp_path / "dataset"
    place.symlink_to(patches.root)
    return place


def entries(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]


def test_one_entry_a_session(own):
    for _ in range(3):
        open_dataset(own, split="train")
    whole = open_dataset(own, fields=["image"])
    found = sorted(entries(Path(f"{own}.uses")), key=lambda e: e["split"] or "")
    assert [(e["split"], e["fields"], e["samples"]) for e in found] == [
        (None, ["image"], len(whole)),
        ("train", ["image", "tumor"], len(whole.split("train"))),
    ]
    assert {e["version"] for e in found} == {whole.manifest.version}


def test_an_entry_holds_nothing_of_who_and_where(own):
    open_dataset(own)
    (entry,) = entries(Path(f"{own}.uses"))
    assert set(entry) == {"dataset", "version", "opened", "split", "fields", "samples"}
    text = json.dumps(entry)
    for word in (os.uname().nodename, str(own), str(own.parent), str(os.getpid())):
        assert word not in text or word in (entry["version"], entry["opened"])


def test_an_export_is_an_entry_with_its_form(own, tmp_path):
    export(str(own), str(tmp_path / "files"), form="webdataset", wanted=Wanted(split="train"))
    (entry,) = entries(Path(f"{own}.uses"))
    assert (entry["form"], entry["split"]) == ("webdataset", "train")


def test_it_is_turned_off_three_ways(own, tmp_path, monkeypatch):
    open_dataset(own, uses="off")
    monkeypatch.setenv("BUILDER_USES", "off")
    open_dataset(own)
    monkeypatch.delenv("BUILDER_USES")
    manifest = open_dataset(own, uses="off").manifest
    said = {**manifest.spec, "catalog": {"log_of_use": False}}
    silent = type(manifest)(**{**manifest.__dict__, "spec": said})
    uses.log_use(open_store(own), silent, where="beside", split=None, fields=(), samples=1)
    assert not Path(f"{own}.uses").exists()


def test_it_goes_where_it_is_sent(own, tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_USES", str(tmp_path / "logs"))
    name = open_dataset(own).manifest.name
    assert len(entries(tmp_path / "logs" / name)) == 1
    open_dataset(own, split="test", uses=str(tmp_path / "other"))
    assert len(entries(tmp_path / "other" / name)) == 1
    assert not Path(f"{own}.uses").exists()


def test_what_cannot_be_written_is_left_out(own):
    Path(f"{own}.uses").write_text("a file where the folder would be")
    assert len(open_dataset(own)) > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the next test covers the refusal")
def test_a_read_only_folder(own):
    own.parent.chmod(0o500)
    try:
        assert len(open_dataset(own)) > 0
    finally:
        own.parent.chmod(0o700)


def test_a_store_that_refuses_writes(own, monkeypatch):
    def refuse(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("builder.storage.LocalStore.put", refuse)
    assert len(open_dataset(own)) > 0


def test_beside_an_object_store_nothing_is_written(patches, monkeypatch):
    inner = open_store(patches.root)
    far = FarStore(inner, 0)  # type: ignore[arg-type]
    before = set(patches.root.parent.iterdir())
    assert len(open_dataset(far)) > 0  # type: ignore[arg-type]
    assert set(patches.root.parent.iterdir()) == before


def test_a_forked_worker_is_the_same_session(own):
    code = (
        "import os, sys, builder\n"
        "whole = builder.open_dataset(sys.argv[1])\n"
        "child = os.fork()\n"
        "builder.open_dataset(sys.argv[1])\n"
        "os._exit(0) if child == 0 else os.waitpid(child, 0)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "BUILDER_USES"}
    subprocess.run([sys.executable, "-c", code, str(own)], check=True, env=environment)
    assert len(entries(Path(f"{own}.uses"))) == 1


def test_the_dataset_itself_is_not_touched(own, patches):
    before = sorted(patches.root.rglob("*"))
    open_dataset(own)
    assert sorted(patches.root.rglob("*")) == before
    assert (patches.root / CURRENT).exists()
