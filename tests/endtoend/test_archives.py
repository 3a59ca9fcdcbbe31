"""The sarcoma cohort out of Orthanc with sign-in, dcmqrscp, S3, TCIA's and the IDC's servers equals the folder's.

Only the source, places, hashes and sizes of received files, and names of shards may differ. ``make test`` builds some
persons; ``make test-archives`` builds all (``BUILDER_ARCHIVE_PERSONS``), and has the server for S3.
"""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from ruamel.yaml import YAML

import builder
from builder.run.pipeline import build
from builder.storage import open_store
from tests.catalog.records import check_records
from tests.endtoend.trees import KEY, SARCOMA
from tests.sources.servers import ORTHANC_MISSING, free_port, http_server, orthanc
from tests.sources.test_dimse import DCMTK_MISSING, dcmqrscp
from tests.sources.test_tcia_and_idc import Bucket, nbia, write_index

PERSONS = int(os.environ.get("BUILDER_ARCHIVE_PERSONS", "1"))
NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
APART = {"shard", "row"}
"""Columns that name a shard and a place in it."""


@pytest.fixture(scope="module", autouse=True)
def _key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        yield


@pytest.fixture(scope="module")
def cohort(corpus: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DICOM files of some persons of the cohort, and its clinical table."""
    home, folder = corpus("sts"), tmp_path_factory.mktemp("cohort")
    persons = sorted(path for path in (home / "sts_cohort").iterdir() if path.is_dir())[:PERSONS]
    for person in persons:
        for path in sorted(person.rglob("*")):
            if path.is_file() and path.read_bytes()[128:132] == b"DICM":
                place = folder / "sts_cohort" / path.relative_to(home / "sts_cohort")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(path.read_bytes())
    (folder / "sts_clinical").symlink_to(home / "sts_clinical")
    return folder


@pytest.fixture(scope="module")
def files(cohort: Path) -> dict[str, bytes]:
    """SOP Instance UID to the bytes of its file."""
    found = {}
    for path in sorted((cohort / "sts_cohort").rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found[str(pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID)] = data
    return found


@pytest.fixture(scope="module")
def local(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that the folder gives."""
    target = tmp_path_factory.mktemp("local") / "dataset"
    build(spec_with({}, target.parent / "spec.yaml"), to=target, parameters={"corpus": str(cohort)})
    return target


def spec_with(source: dict[str, Any], path: Path) -> Path:
    """The spec of the cohort, with another source in the place of its folder."""
    document = YAML(typ="safe", pure=True).load(SARCOMA.read_text())
    if source:
        kept = {name: document["sources"][0][name] for name in ("site", "origin")}
        document["sources"] = [kept | source]
    document["splits"]["may_be_empty"] = ["validation", "test"]
    if PERSONS == 1:
        del document["report"]  # tests of differences between groups take long, and there are none
    with path.open("w") as stream:
        YAML(typ="safe", pure=True).dump(document, stream)
    return path


def check(
    source: dict[str, Any], cohort: Path, local: Path, tmp_path: Path, *, sent_in: frozenset[str] = frozenset()
) -> None:
    """Build from a source, and compare with the dataset of the folder.

    A PACS may send what it holds in one of the syntaxes ``sent_in`` in another one of them, which are then equal.
    """
    target = tmp_path / "dataset"
    build(spec_with(source, tmp_path / "spec.yaml"), to=target, parameters={"corpus": str(cohort)})
    assert_equal(target, local, sent_in)


def assert_equal(one: Path, other: Path, sent_in: frozenset[str]) -> None:
    """Every field of every sample, and every column of every published table."""
    ours, theirs = (builder.open_dataset(dataset) for dataset in (one, other))
    assert len(ours) == len(theirs) > 0
    for mine, its in zip(_samples(ours, sent_in), _samples(theirs, sent_in), strict=True):
        assert mine.keys() == its.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], its[name], err_msg=name)
    tables = sorted(path.name for path in _version(other).glob("*.parquet"))
    assert tables == sorted(path.name for path in _version(one).glob("*.parquet"))
    for name in tables:
        rows, expected = (_rows(_version(dataset) / name, sent_in) for dataset in (one, other))
        assert rows == expected, name


def _samples(dataset: Any, sent_in: frozenset[str]) -> Iterator[dict[str, Any]]:
    """The fields of each sample, in an order that does not depend on shards."""
    found = []
    for sample in dataset:
        row = {name: _plain(value) for name, value in sample.row.items() if name not in APART and not _of_a_file(name)}
        _unite(row, sent_in)
        found.append((repr(sorted(row.items())), sample))
    for key, sample in sorted(found, key=lambda pair: pair[0]):
        yield {"row": np.array(key), **sample.arrays}


def _unite(row: dict[str, Any], syntaxes: frozenset[str]) -> None:
    """Give all of some syntaxes one name."""
    if row.get("transfer_syntax_uid") in syntaxes:
        row["transfer_syntax_uid"] = "uncompressed"


def _version(dataset: Path) -> Path:
    return dataset / "versions" / (dataset / "CURRENT").read_text().strip()


def _rows(path: Path, sent_in: frozenset[str]) -> list[str]:
    """Rows without what says where a file came from, sorted."""
    table = pq.read_table(path)
    kept = [name for name in table.column_names if name not in APART and not _of_a_file(name)]
    rows = table.select(kept).to_pylist()
    for row in rows:
        if row.get("level") == "file":
            del row["key"]  # the keyed path
        _unite(row, sent_in)
    return sorted(repr(_plain(row)) for row in rows)


def _plain(value: Any) -> Any:
    """The value with zeros that have no sign, which DICOM JSON does not carry."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _of_a_file(column: str) -> bool:
    return any(word in column for word in ("source", "path", "sha256", "size", "bytes", "shard", "stamp"))


@pytest.mark.skipif(ORTHANC_MISSING, reason="Orthanc with its DICOMweb plug-in is not installed")
def test_orthanc_with_sign_in(
    cohort: Path, files: dict[str, bytes], local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_PACS_USER", "reader")
    monkeypatch.setenv("BUILDER_PACS_PASSWORD", "a word")
    with orthanc(tmp_path / "orthanc", files, move_to=free_port(), user=("reader", "a word")) as server:
        sign_in = {"kind": "basic", "user": "BUILDER_PACS_USER", "password": "BUILDER_PACS_PASSWORD"}
        check({"kind": "dicomweb", "url": server.url, "sign_in": sign_in}, cohort, local, tmp_path)


@pytest.mark.skipif(DCMTK_MISSING, reason="dcmtk is not installed")
@pytest.mark.parametrize(
    "retrieve", ["get", pytest.param("move", marks=pytest.mark.skipif(PERSONS == 1, reason="long: make test-archives"))]
)
def test_dcmqrscp(retrieve: str, cohort: Path, files: dict[str, bytes], local: Path, tmp_path: Path) -> None:
    store_port = free_port()
    with dcmqrscp(tmp_path / "pacs", files, move_to=store_port) as port:
        source = {"kind": "dimse", "host": "127.0.0.1", "port": port, "called_ae": "PACS", "retrieve": retrieve}
        source |= {"store_port": store_port} if retrieve == "move" else {}
        check(source, cohort, local, tmp_path, sent_in=NATIVE)


def test_tcia(cohort: Path, files: dict[str, bytes], local: Path, tmp_path: Path) -> None:
    with http_server(nbia(files, set(), [])) as url:
        check({"kind": "tcia", "url": url, "collection": "My Collection"}, cohort, local, tmp_path)


def test_idc(cohort: Path, files: dict[str, bytes], local: Path, tmp_path: Path) -> None:
    held = Bucket(write_index(files, tmp_path / "index.parquet", license="CC BY 3.0"))
    with http_server(held) as url:
        source = {"kind": "idc", "index": str(tmp_path / "index.parquet"), "collections": ["mine"], "endpoint": url}
        check(source, cohort, local, tmp_path)
    check_records(tmp_path / "dataset")


@pytest.mark.skipif(not Path(sys.executable).with_name("weed").exists(), reason="needs a server: make test-archives")
def test_s3(cohort: Path, local: Path, bucket: str, tmp_path: Path) -> None:
    store = open_store(f"{bucket}/sarcoma")
    for path in sorted((cohort / "sts_cohort").rglob("*")):
        if path.is_file():
            store.put(path.relative_to(cohort / "sts_cohort").as_posix(), path.read_bytes())
    check({"kind": "folder", "url": f"{bucket}/sarcoma"}, cohort, local, tmp_path)
