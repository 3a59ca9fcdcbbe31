"""Every source keeps the contract of its family."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.sources import DicomWeb, Dimse, Folder, Idc, Tcia, Xnat, archives, contents
from tests.contracts.source import Held, SourceContract
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import ORTHANC_MISSING, FakePacs, free_port, http_server, orthanc
from tests.sources.test_folder import made_tar
from tests.sources.test_tcia_and_idc import Bucket, nbia, write_index
from tests.sources.test_xnat import PROJECT, xnat


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    no_pauses(monkeypatch)
    contents._opened.cache_clear()
    yield
    archives.close_archive()


class TestFolder(SourceContract):
    @pytest.fixture
    def held(self, files: dict[str, bytes], tmp_path: Path) -> Held:
        for number, data in enumerate(files.values()):
            (tmp_path / str(number)).write_bytes(data)
        return Held(Folder(url=str(tmp_path), site="here"), files)


class TestFolderOfArchives(SourceContract):
    @pytest.fixture
    def held(self, files: dict[str, bytes], tmp_path: Path) -> Held:
        (tmp_path / "all").write_bytes(made_tar({f"a/{uid}": data for uid, data in files.items()}, "w:gz"))
        return Held(Folder(url=str(tmp_path)), files)


class TestDicomWeb(SourceContract):
    @pytest.fixture
    def held(self, files: dict[str, bytes]) -> Iterator[Held]:
        with http_server(FakePacs(files)) as url:
            yield Held(DicomWeb(url=url, page=3), files)


class TestTcia(SourceContract):
    @pytest.fixture
    def held(self, files: dict[str, bytes]) -> Iterator[Held]:
        with http_server(nbia(files, set(), [])) as url:
            yield Held(Tcia(url=url, collection="My Collection"), files)


class TestIdc(SourceContract):
    @pytest.fixture
    def held(self, files: dict[str, bytes], tmp_path: Path) -> Iterator[Held]:
        objects = write_index(files, tmp_path / "idc_index.parquet")
        with http_server(Bucket(objects)) as url:
            yield Held(Idc(index=str(tmp_path / "idc_index.parquet"), collections=("mine",), endpoint=url), files)


class TestXnat(SourceContract):
    @pytest.fixture
    def held(self, files: dict[str, bytes]) -> Iterator[Held]:
        with http_server(xnat(files, set(), [])) as url:
            yield Held(Xnat(url=url, project=PROJECT), files)


@pytest.fixture(scope="module")
def port(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", files, move_to=free_port()) as server:
        yield server.port


@pytest.mark.skipif(ORTHANC_MISSING, reason="Orthanc is not installed")
class TestDimse(SourceContract):
    @pytest.fixture
    def held(self, port: int, files: dict[str, bytes]) -> Any:
        pytest.importorskip("pynetdicom")
        source = Dimse(host="127.0.0.1", port=port, called_ae="ORTHANC")
        # the receiver writes the meta group, so the bytes are those it wrote the first time
        return Held(source, {e.path.rpartition("/")[2]: source.read(e) for e in source.list()})
