"""The DICOMweb source: against Orthanc where there is one, and against a server that does what real ones do wrong."""

import contextlib
import json
import pickle
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import CaseError, IncompleteError, Reason, SourceError, SpecError
from builder.model.tables import INSTANCES
from builder.planning.duplicates import find_duplicates
from builder.protocols import Describing, Source
from builder.sources import Folder, contents, patience
from builder.sources.dicomweb import DicomWeb
from builder.sources.http import Server
from builder.sources.multipart import parts
from builder.sources.patience import Fault
from builder.sources.signin import SignIn
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import ORTHANC_MISSING, FakePacs, Reply, free_port, http_server, orthanc

LEDGER = {"path", "size", "stamp", "header_sha256", "pixel_offset", "pixel_length"}


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
    no_pauses(monkeypatch)
    contents._opened.cache_clear()


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


@pytest.mark.parametrize("fault", ["busy", "no paging", "no counts", "no series"])
def test_faults_that_are_survived(files: dict[str, bytes], folder_rows: dict[str, dict[str, Any]], fault: str) -> None:
    with http_server(FakePacs(files, {fault})) as url:
        check(DicomWeb(url=url, page=2), files, folder_rows)


def test_a_server_that_repeats_pages_is_refused(files: dict[str, bytes]) -> None:
    with http_server(FakePacs(files, {"no offset"})) as url, pytest.raises(SourceError, match="offset"):
        list(DicomWeb(url=url, page=2).list())


@pytest.mark.parametrize(("fault", "found"), [("swap", "another object"), ("cut", "cut off")])
def test_wrong_objects_are_faults_of_the_transport(files: dict[str, bytes], fault: str, found: str) -> None:
    pacs = FakePacs(files, {"no series"})
    with http_server(pacs) as url:
        source = DicomWeb(url=url)
        entry = next(iter(source.list()))
        pacs.faults.add(fault)
        with pytest.raises(IncompleteError, match=found):
            source.read(entry)
        left_out = source.model_copy(update={"missing": "exclude"})
        with pytest.raises(CaseError) as caught:
            left_out.read(entry)
        assert caught.value.reason is Reason.SOURCE_INCOMPLETE
        pacs.faults.remove(fault)
        assert source.read(entry) == files[entry.path.rpartition("/")[2]]


def test_what_went_away_after_the_listing_stops_the_run_or_is_left_out(files: dict[str, bytes]) -> None:
    pacs = FakePacs(dict(files))
    with http_server(pacs) as url:
        source = DicomWeb(url=url)
        entries = list(source.list())
        del pacs.files[entries[1].path.rpartition("/")[2]]
        with pytest.raises(IncompleteError, match="metadata"):
            index_partition(source, 0, entries)
        with pytest.raises(IncompleteError, match="does not hold what it lists"):
            source.read(entries[1])
        reasons = index_partition(DicomWeb(url=url, missing="exclude"), 0, entries)["reason"].to_pylist()
    series = entries[1].path.rpartition("/")[0]
    assert reasons == ["source_incomplete" if e.path.startswith(series) else None for e in entries]


def test_a_server_that_is_down_is_asked_until_the_budget_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = no_pauses(monkeypatch)
    source = DicomWeb(url=f"http://127.0.0.1:{free_port()}", missing="exclude")
    with pytest.raises(
        SourceError, match=r"dicomweb at 127.0.0.1:\d+: no answer .* check that the server runs"
    ) as caught:
        list(source.list())
    assert not isinstance(caught.value, IncompleteError)  # nothing may be left out because the server is away
    assert 30 < sum(clock.pauses) <= patience.PATIENCE_S
    assert all(later > before / 2 for before, later in pairwise(clock.pauses))


@pytest.mark.parametrize("missing", [1, 2, 5])
@pytest.mark.parametrize("level", ["studies", "series", "instances"])
def test_a_list_that_is_short_once_is_asked_for_again(files: dict[str, bytes], level: str, missing: int) -> None:
    pacs = FakePacs(files)
    short: list[str] = []

    def answer(target: str, headers: dict[str, str]) -> Reply:
        status, sent, body = pacs(target, headers)
        if target.partition("?")[0].endswith(level) and body and not short:
            short.append(target)
            body = json.dumps(json.loads(body)[missing:]).encode()
        return status, sent, body

    with http_server(answer) as url:
        assert {e.path.rpartition("/")[2] for e in DicomWeb(url=url).list()} == set(files)
    assert short


def test_a_list_that_stays_short_of_the_servers_count_stops_or_is_left_out(files: dict[str, bytes]) -> None:
    pacs = FakePacs(files)

    def answer(target: str, headers: dict[str, str]) -> Reply:
        status, sent, body = pacs(target, headers)
        if target.partition("?")[0].endswith("instances") and body:
            body = json.dumps(json.loads(body)[1:]).encode()
        return status, sent, body

    with http_server(answer) as url:
        with pytest.raises(IncompleteError, match="as the server counts"):
            list(DicomWeb(url=url).list())
        source = DicomWeb(url=url, missing="exclude")
        entries = list(source.list())
        reasons = index_partition(source, 0, entries)["reason"].to_pylist()
    assert set(reasons) == {"source_incomplete"}
    assert {entry.path for entry in entries} == {source.study_of(entry.path) for entry in entries}


def test_a_server_that_sends_fewer_than_asked_for_is_read_to_the_end(files: dict[str, bytes]) -> None:
    pacs = FakePacs(files)
    with http_server(lambda target, headers: pacs(target.replace("limit=500", "limit=2"), headers)) as url:
        assert {e.path.rpartition("/")[2] for e in DicomWeb(url=url).list()} == set(files)


def test_a_series_comes_in_one_answer_and_each_instance_once(files: dict[str, bytes], tmp_path: Path) -> None:
    pacs = FakePacs(files)
    with http_server(pacs) as url:
        entries = list(DicomWeb(url=url).list())
        pacs.asked.clear()
        for _ in range(2):  # as another process would, with nothing in memory
            contents._opened.cache_clear()
            source = DicomWeb(url=url).kept_in(str(tmp_path / "content"))
            for entry in entries:
                assert source.read(entry) == files[entry.path.rpartition("/")[2]]
    assert len(pacs.asked) == len({entry.path.rpartition("/")[0] for entry in entries})


@pytest.mark.parametrize("stated", [False, True])
def test_the_index_moves_no_contours_twice_and_no_pixels(files: dict[str, bytes], stated: bool, tmp_path: Path) -> None:
    """A structure set comes once, whole; of an image the start comes, unless the metadata state its transfer syntax."""
    pacs, sent = FakePacs(files), dict.fromkeys(["/metadata", "/instances/"], 0)

    def answer(target: str, headers: dict[str, str]) -> Reply:
        status, facts, body = pacs(target, headers)
        if stated and target.endswith("/metadata"):
            syntaxes = {"00083002": {"vr": "UI", "Value": ["1.2.840.10008.1.2.4.80"]}}
            body = json.dumps([item | syntaxes for item in json.loads(body)]).encode()
        for name in sent:
            sent[name] += name in target.partition("?")[0]
        return status, facts, body

    with http_server(answer) as url:
        source = DicomWeb(url=url).kept_in(str(tmp_path / "content"))
        entries = list(source.list())
        rows = index_partition(source, 0, entries).to_pylist()
        structures = next(entry for entry in entries if entry.stamp)
        source.read(structures)
    of_it = [t for t in pacs.asked if structures.path.split("/")[1] in t and "?" not in t]
    assert [target.rpartition("/")[0].rpartition("/")[2] for target in of_it] == ["series"]
    assert sent == {"/metadata": 2, "/instances/": 0 if stated else 2}
    assert stated == all(r["transfer_syntax_uid"].endswith("4.80") for r in rows if r["modality"] == "CT")


def test_after_a_series_broke_off_only_the_rest_is_fetched(files: dict[str, bytes], tmp_path: Path) -> None:
    pacs = FakePacs(files)

    def answer(target: str, headers: dict[str, str]) -> Reply:
        status, sent, body = pacs(target, headers)
        return status, sent, body[: len(body) // 2] if len(target.split("/")) == 5 else body

    with http_server(answer) as url:
        source = DicomWeb(url=url).kept_in(str(tmp_path / "content"))
        entries = list(source.list())
        pacs.asked.clear()
        for entry in entries:
            assert source.read(entry) == files[entry.path.rpartition("/")[2]]
    single = [target for target in pacs.asked if "/instances/" in target]
    assert 0 < len(single) < len(files)
    assert len(set(single)) == len(single)


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
    pacs = FakePacs(files, {"swap", "no series"})
    with http_server(pacs) as url:
        source = DicomWeb(url=url)
        for entry in source.list():
            with pytest.raises(IncompleteError) as caught:
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
    for lengths in (True, False):
        if not lengths and any(b"--cut" in content for content in contents):
            continue
        body = made(contents, lengths=lengths)
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        assert [content for _, content in parts(pieces, 'multipart/related; boundary="cut"')] == contents


def test_multipart_content_may_hold_its_boundary() -> None:
    tricky = [b"a\r\n--cut\r\nb", b"\r\n--cut--"]
    assert [c for _, c in parts([made(tricky, lengths=True)], "multipart/related; boundary=cut")] == tricky


@given(st.binary(max_size=200))
def test_multipart_never_hangs_on_any_bytes(body: bytes) -> None:
    with contextlib.suppress(Fault):  # any other error fails the test
        list(parts([b"--c\r\n" + body], "multipart/related; boundary=c"))


def test_metadata_with_odd_values_lose_one_instance(files: dict[str, bytes]) -> None:
    from builder.sources.header_files import HeaderFiles

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        broken = HeaderFiles().of(
            {"00080018": {"vr": "UI", "Value": ["1.2"]}, "00280010": {"vr": "US", "Value": ["many"]}}, ""
        )
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
            pacs.get(address, lambda answer: answer.body())
