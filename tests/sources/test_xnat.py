"""XNAT against a local server that answers as its documentation says; no real XNAT was asked."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest

from builder.errors import CaseError, IncompleteError, Reason
from builder.sources import Folder, Xnat, contents
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import Reply, http_server

PLACE = {"path", "size", "stamp"}
PROJECT = "My Project"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    contents._opened.cache_clear()


def xnat(files: dict[str, bytes], faults: set[str], asked: list[str]) -> Callable[[str, dict[str, str]], Reply]:
    """Two sessions with a scan each, whose names need care; the second is not given in full under a fault."""
    held = sorted(files.items())
    tree = {
        ("E_1", "1-MR1", "DICOM"): {f"sub/{uid} #1.dcm": data for uid, data in held[:4]},
        ("E_1", "1-MR1", "SNAPSHOTS"): {"a.gif": b"GIF89a"},
        ("E_2", "a b", "secondary"): {f"{uid}.dcm": data for uid, data in held[4:]},
    }

    def listed(rows: list[dict[str, Any]]) -> Reply:
        return 200, {"Content-Type": "application/json"}, json.dumps({"ResultSet": {"Result": rows}}).encode()

    def answer(target: str, headers: dict[str, str]) -> Reply:
        asked.append(target)
        words = [unquote(word) for word in urlsplit(target).path.strip("/").split("/")]
        if "login page" in faults:
            return 200, {"Content-Type": "text/html"}, b"<html>Log in</html>"
        match words:
            case ["data", "projects", name, "experiments"]:
                assert name == PROJECT
                return listed([{"ID": e} for e in dict.fromkeys(e for e, _, _ in tree)])
            case ["data", "experiments", e, "scans"]:
                return listed([{"ID": scan} for scan in dict.fromkeys(s for x, s, _ in tree if x == e)])
            case ["data", "experiments", e, "scans", s, "resources"]:
                found = [(label, members) for (x, y, label), members in tree.items() if (x, y) == (e, s)]
                return listed([{"label": label, "file_count": str(len(members))} for label, members in found])
            case ["data", "experiments", e, "scans", s, "resources", label, "files"]:
                root = f"/data/experiments/{e}/scans/{quote(s)}/resources/{label}/files/"
                rows = [
                    {
                        "URI": "/data/x/files/../up" if "hostile" in faults else root + name,
                        "Size": str(len(data)),
                        "digest": "" if "no hashes" in faults else hashlib.md5(data).hexdigest(),
                    }
                    for name, data in tree[e, s, label].items()
                ]
                return listed(rows[e == "E_2" and "short" in faults :])
            case ["data", "experiments", e, "scans", s, "resources", label, "files", *name]:
                return sent(tree.get((e, s, label), {}).get("/".join(name), b""), faults if e == "E_2" else set())
        raise AssertionError(target)

    return answer


def sent(data: bytes, faults: set[str]) -> Reply:
    if not data:
        return 404, {}, b""
    if "flipped" in faults:
        data = data[:-1] + bytes([data[-1] ^ 1])
    return 200, {}, data[: len(data) // 2] if "half" in faults else data


def made(url: str, **options: Any) -> Xnat:
    return Xnat(url=url, project=PROJECT, **options)


@pytest.mark.parametrize("faults", [set(), {"no hashes"}])
def test_rows_and_bytes_are_those_of_a_folder(files: dict[str, bytes], faults: set[str], tmp_path: Path) -> None:
    for number, data in enumerate(files.values()):
        (tmp_path / str(number)).write_bytes(data)
    asked: list[str] = []
    with http_server(xnat(files, faults, asked)) as url:
        rows = {}
        for source in (Folder(url=str(tmp_path)), made(url)):
            found = index_partition(source, 0, list(source.list())).to_pylist()
            rows[source.kind] = {r["sop_instance_uid"]: {k: r[k] for k in set(r) - PLACE} for r in found}
        entries = list(source.list())
        assert {source.read(entry) for entry in entries} == set(files.values())
        assert {source.study_of(entry.path) for entry in entries} == {"E_1", "E_2"}
    assert rows["xnat"] == rows["folder"]
    fetched = [target for target in asked if "/files/" in target]
    assert len(fetched) == len(set(fetched)) == len(files)  # each file came once, for index and build


@pytest.mark.parametrize("fault", ["short", "half", "flipped"])
def test_what_does_not_come_whole_stops_or_is_left_out(files: dict[str, bytes], fault: str) -> None:
    with http_server(xnat(files, {fault}, [])) as url:
        with pytest.raises(IncompleteError):
            [source.read(entry) for source in [made(url)] for entry in source.list()]
        source = made(url, missing="exclude")
        reasons: dict[str, set[Any]] = {"E_1": set(), "E_2": set()}
        for entry in source.list():
            try:
                source.read(entry)
                reasons[source.study_of(entry.path)].add(None)
            except CaseError as error:
                reasons[source.study_of(entry.path)].add(error.reason)
    assert reasons == {"E_1": {None}, "E_2": {Reason.SOURCE_INCOMPLETE}}


@pytest.mark.parametrize(("fault", "message"), [("login page", "text/html.*check sign_in"), ("hostile", "part of an")])
def test_answers_that_are_no_lists_stop_the_run(files: dict[str, bytes], fault: str, message: str) -> None:
    with http_server(xnat(files, {fault}, [])) as url, pytest.raises(IncompleteError, match=message):
        list(made(url).list())
