"""The DICOMweb source: against Orthanc where there is one, and against a server that does what real ones do wrong."""

import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import CaseError, Reason, SourceError, SpecError
from builder.model.tables import INSTANCES
from builder.planning.duplicates import find_duplicates
from builder.protocols import Describing, Source
from builder.sources import Folder, http
from builder.sources.dicomweb import DicomWeb
from builder.sources.http import Server, SignIn
from builder.sources.multipart import parts
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.servers import ORTHANC_MISSING, FakePacs, free_port, http_server, orthanc

LEDGER = {"path", "size", "stamp", "header_sha256", "pixel_offset", "pixel_length", "transfer_syntax_uid"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def folder_rows(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the folder source says of the same files."""
    folder = tmp_path_factory.mktemp("files")
    for number, data in enumerate(files.values()):
        (folder / str(number)).write_bytes(data)
    source = Folder(url=str(folder))
    return {r["sop_instance_uid"]: r for r in index_partition(source, 0, list(source.list())).to_pylist()}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda seconds: None))


def check(source: DicomWeb, files: dict[str, bytes], folder_rows: dict[str, dict[str, Any]]) -> None:
    """A source lists all files, describes them as the folder does, and reads them."""
    entries = list(source.list())
    assert [e.path for e in entries] == sorted(e.path for e in entries)
    assert {e.path.rpartition("/")[2] for e in entries} == set(files)
    table = index_partition(source, 0, entries)
    assert table.schema.equals(INSTANCES)
    for row in table.to_pylist():
        expected = folder_rows[row["sop_instance_uid"]]
        for name in set(row) - LEDGER:
            assert row[name] == expected[name], name
    for entry in entries:
        assert source.read(entry) == files[entry.path.rpartition("/")[2]]
    assert source.read(entries[0], start=128, length=4) == b"DICM"


def test_fake_server(files: dict[str, bytes], folder_rows: dict[str, dict[str, Any]]) -> None:
    with http_server(FakePacs(files)) as url:
        source = DicomWeb(url=url, page=2)
        assert isinstance(source, Source)
        assert isinstance(source, Describing)
        assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 - our own bytes
        check(source, files, folder_rows)


@pytest.mark.skipif(ORTHANC_MISSING, reason="Orthanc with its DICOMweb plug-in is not installed")
def test_orthanc(files: dict[str, bytes], folder_rows: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc", files, move_to=free_port()) as server:
        check(DicomWeb(url=server.url, page=3), files, folder_rows)
        mr = DicomWeb(url=server.url, modalities=("RTSTRUCT",), query={"PatientID": "P1"})
        assert len(list(mr.list())) == 1
        assert list(DicomWeb(url=server.url, query={"PatientID": "NOBODY"}).list()) == []
        with pytest.raises(SourceError, match="percent-encoded"):
            list(DicomWeb(url=server.url, query={"PatientName": "A B"}).list())


@pytest.mark.parametrize("fault", ["busy", "no paging"])
def test_faults_that_are_survived(files: dict[str, bytes], folder_rows: dict[str, dict[str, Any]], fault: str) -> None:
    with http_server(FakePacs(files, {fault})) as url:
        check(DicomWeb(url=url, page=2), files, folder_rows)


def test_a_server_that_repeats_pages_is_refused(files: dict[str, bytes]) -> None:
    with http_server(FakePacs(files, {"no offset"})) as url, pytest.raises(SourceError, match="offset"):
        list(DicomWeb(url=url, page=2).list())


@pytest.mark.parametrize(("fault", "reason"), [("swap", Reason.SOURCE_CHANGED), ("cut", Reason.UNREADABLE)])
def test_wrong_objects_are_refused(files: dict[str, bytes], fault: str, reason: Reason) -> None:
    pacs = FakePacs(files)
    with http_server(pacs) as url:
        source = DicomWeb(url=url)
        entry = next(iter(source.list()))
        pacs.faults.add(fault)
        with pytest.raises(CaseError) as caught:
            source.read(entry)
    assert caught.value.reason is reason


def test_what_went_away_is_quarantined_alone(files: dict[str, bytes]) -> None:
    pacs = FakePacs(dict(files))
    with http_server(pacs) as url:
        source = DicomWeb(url=url)
        entries = list(source.list())
        gone = entries[1].path.rpartition("/")[2]
        del pacs.files[gone]
        statuses = index_partition(source, 0, entries)["status"].to_pylist()
        assert statuses.count("quarantined") == 1
        assert statuses[1] == "quarantined"
        with pytest.raises(CaseError) as caught:
            source.read(entries[1])
    assert caught.value.reason is Reason.SOURCE_MISSING


def test_a_server_that_is_down_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=pauses.append))
    source = DicomWeb(url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SourceError, match="no answer after 4 attempts"):
        list(source.list())
    assert pauses == [0.5, 1.0, 2.0]


def test_sign_in_by_environment(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(FakePacs(files, {"auth"})) as url:
        with pytest.raises(SourceError, match="refuses access"):
            list(DicomWeb(url=url).list())
        source = DicomWeb.model_validate({"url": url, "sign_in": {"kind": "bearer", "token": "BUILDER_PACS_TOKEN"}})
        with pytest.raises(SpecError, match="BUILDER_PACS_TOKEN"):
            list(source.list())
        monkeypatch.setenv("BUILDER_PACS_TOKEN", "secret-token")
        assert len(list(source.list())) == len(files)
    assert "secret-token" not in source.model_dump_json()


def test_the_same_instance_in_two_servers_is_compared(files: dict[str, bytes]) -> None:
    with http_server(FakePacs(files)) as one, http_server(FakePacs(files)) as two:
        sources = [DicomWeb(url=one), DicomWeb(url=two)]
        tables = [index_partition(s, n, list(s.list())) for n, s in enumerate(sources)]
        verdicts = find_duplicates(tables, sources)
    assert verdicts["reason"].to_pylist() == ["duplicate_same_bytes"] * len(files)
    assert set(verdicts["source"].to_pylist()) == {1}


def test_the_same_instance_in_a_folder_and_a_server_is_compared(files: dict[str, bytes], tmp_path: Path) -> None:
    for number, data in enumerate(files.values()):
        (tmp_path / str(number)).write_bytes(data if number else data[:-2] + b"\0\1")  # one differs in its pixels
    with http_server(FakePacs(files)) as url:
        sources = [Folder(url=str(tmp_path)), DicomWeb(url=url)]
        tables = [index_partition(s, n, list(s.list())) for n, s in enumerate(sources)]
        reasons = find_duplicates(tables, sources)["reason"].to_pylist()
    assert reasons.count("duplicate_same_bytes") == len(files) - 1
    assert reasons.count("duplicate_conflicting") == 2


def test_messages_hold_no_uid(files: dict[str, bytes]) -> None:
    pacs = FakePacs(files, {"swap"})
    with http_server(pacs) as url:
        source = DicomWeb(url=url)
        for entry in source.list():
            with pytest.raises(CaseError) as caught:
                source.read(entry)
            assert not any(uid in str(caught.value) for uid in files)


def made(contents: list[bytes], *, lengths: bool) -> bytes:
    body = b"preamble\r\n"
    for content in contents:
        head = b"Content-Type: x/y\r\n" + (f"Content-Length: {len(content)}\r\n".encode() if lengths else b"")
        body += b"--cut\r\n" + head + b"\r\n" + content + b"\r\n"
    return body + b"--cut--\r\n"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_multipart_gives_back_what_was_sent(contents: list[bytes]) -> None:
    found = [content for _, content in parts(made(contents, lengths=True), 'multipart/related; boundary="cut"')]
    assert found == contents


def test_multipart_content_may_hold_its_boundary() -> None:
    tricky = [b"a\r\n--cut\r\nb", b"\r\n--cut--"]
    assert [c for _, c in parts(made(tricky, lengths=True), "multipart/related; boundary=cut")] == tricky


@given(st.binary(max_size=200))
def test_multipart_never_hangs_on_any_bytes(body: bytes) -> None:
    try:
        list(parts(b"--c\r\n" + body, "multipart/related; boundary=c"))
    except CaseError as error:
        assert error.reason is Reason.UNREADABLE  # noqa: PT017 - any other error fails the test


def test_metadata_with_odd_values_lose_one_instance(files: dict[str, bytes]) -> None:
    from builder.sources.dicomweb import _header_file

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        broken = _header_file({"00080018": {"vr": "UI", "Value": ["1.2"]}, "00280010": {"vr": "US", "Value": ["many"]}})
    assert isinstance(broken, CaseError)


@pytest.mark.parametrize("url", ["http://pacs.example/dicom-web", "http://192.0.2.1:8042", "ftp://pacs.example"])
def test_a_secret_is_not_sent_where_all_can_read_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_PACS_TOKEN", "secret-token")
    with pytest.raises(SpecError, match="expected https://") as caught:
        Server(url, SignIn(kind="bearer", token="BUILDER_PACS_TOKEN"))
    assert "secret-token" not in str(caught.value)


def test_a_secret_stays_with_the_server_that_the_spec_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_PACS_TOKEN", "secret-token")
    pacs = Server("https://pacs.example/dicom-web", SignIn(kind="bearer", token="BUILDER_PACS_TOKEN"))
    for address in ("https://elsewhere.example/x", "//elsewhere.example/x", "http://pacs.example/x"):
        with pytest.raises(SourceError, match="does not name"):
            pacs.get(address)
