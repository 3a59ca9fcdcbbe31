"""What was recorded of each kind of source gives the same lists, index and bytes when the server is gone."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from builder.errors import SourceError
from builder.sources import DicomWeb, Dimse, Idc, RemoteFolder, Tcia, Xnat, contents, politeness
from builder.sources.recordings import Recording
from builder.stages.index import index_partition
from tests.faults.pacs import Pacs, served
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import FakePacs, http_server
from tests.sources.test_remote_folder import ssh, web
from tests.sources.test_tcia_and_idc import Bucket, nbia, write_index
from tests.sources.test_xnat import PROJECT
from tests.sources.test_xnat import xnat as answering

Files = dict[str, bytes]
Making = Callable[[Files, Path, pytest.MonkeyPatch], contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    no_pauses(monkeypatch)
    contents._opened.cache_clear()
    yield
    for queue in politeness.queues():
        queue.close()


@contextlib.contextmanager
def dicomweb(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    with http_server(FakePacs(files)) as url:
        yield DicomWeb(url=url, page=3)


@contextlib.contextmanager
def tcia(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    with http_server(nbia(files, set(), [])) as url:
        yield Tcia(url=url, collection="My Collection")


@contextlib.contextmanager
def idc(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    with http_server(Bucket(write_index(files, folder / "index.parquet"))) as url:
        yield Idc(index=str(folder / "index.parquet"), collections=("mine",), endpoint=url)


@contextlib.contextmanager
def xnat(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    with http_server(answering(files, set(), [])) as url:
        yield Xnat(url=url, project=PROJECT)


@contextlib.contextmanager
def dimse(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("pynetdicom")
    items = {uid: pydicom.dcmread(io.BytesIO(data)) for uid, data in files.items()}
    plain = [u for u, i in items.items() if i.Modality == "CT" and not i.file_meta.TransferSyntaxUID.is_compressed]
    images = {uid: files[uid] for uid in plain}
    with served(Pacs(images)) as port:  # it sends uncompressed CT alone
        yield Dimse(host="127.0.0.1", port=port, called_ae="PACS")


@contextlib.contextmanager
def pages(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    with web(_filled(files, folder)) as url:
        yield RemoteFolder(url=url)


@contextlib.contextmanager
def sftp(files: Files, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    with ssh(_filled(files, folder), folder, patch) as url:
        yield RemoteFolder(url=url)


def _filled(files: Files, folder: Path) -> Path:
    archive = folder / "archive"
    archive.mkdir()
    for number, data in enumerate(files.values()):
        (archive / f"{number}.dcm").write_bytes(data)
    return archive


def everything(source: Any) -> tuple[Any, list[dict[str, Any]], list[bytes]]:
    entries = list(source.list())
    rows = index_partition(source, 0, entries).to_pylist()
    source.bring(entries)
    return entries, rows, [source.read(entry) for entry in entries]


@pytest.mark.parametrize("make", [dicomweb, tcia, idc, xnat, dimse, pages, sftp])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of sockets that a server closes
def test_a_recording_stands_for_the_server(
    make: Making, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = str(tmp_path / "recording")
    with make(files, tmp_path, monkeypatch) as source:
        making = source.kept_in(str(tmp_path / "one")).recorded_in(Recording(recorded, "record"))
        given = everything(making)
        for queue in politeness.queues():
            queue.close()
    assert len(given[2]) == len(files) - 4 * (make is dimse)
    replaying = source.kept_in(str(tmp_path / "two")).recorded_in(Recording(recorded, "replay"))
    assert everything(replaying) == given
    other = source.kept_in(str(tmp_path / "three")).recorded_in(Recording(str(tmp_path / "other"), "replay"))
    with pytest.raises(SourceError, match="no answer to a request"):
        list(other.list())
