"""A folder that is elsewhere gives what the same folder on a disk gives: over S3, a web server's pages, and SSH."""

import asyncio
import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from builder.errors import CaseError, SourceError
from builder.protocols import Source
from builder.run.pipeline import build
from builder.sources import Folder, RemoteFolder, contents, far, politeness, recordings
from builder.sources.http import Answer
from builder.spec import DatasetSpec
from builder.stages.index import index_partition
from builder.storage.buckets import forget_clients
from tests.endtoend.trees import KEY, tree
from tests.faults.bucket import FAULTS, serve
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import Reply, http_server

PLACE = {"stamp"}
SPEC = """\
name: elsewhere
license: CC0-1.0
sources: [{{kind: folder, url: "{url}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
splits: {{ratios: {{train: 1.0}}}}
samples: {{kind: volumes}}
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, names that need care, archives of two kinds and a damaged one."""
    folder = tmp_path_factory.mktemp("archive")
    make_archive(folder)
    held = sorted((folder / "ct").iterdir())
    (folder / "a b").mkdir()
    shutil.move(held[0], folder / "a b" / "ü #1%20.dcm")
    with zipfile.ZipFile(folder / "some.zip", "w") as packed:
        packed.write(held[1], "in/one.dcm")
    with tarfile.open(folder / "some.tar.gz", "w:gz") as tar:
        tar.add(held[2], "two.dcm")
    held[1].unlink()
    held[2].unlink()
    (folder / "broken.zip").write_bytes(b"PK\3\4 and no more")
    (folder / "notes.csv").write_text("patient,age\nP1,50\n")
    return folder


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    no_pauses(monkeypatch)
    monkeypatch.setenv("BUILDER_KEY", KEY)
    contents._opened.cache_clear()
    politeness._queue.cache_clear()
    forget_clients()
    yield
    for queue in politeness.queues():
        queue.close()
    forget_clients()


@contextlib.contextmanager
def s3(archive: Path, monkeypatch: pytest.MonkeyPatch, *, fault: str = "") -> Iterator[tuple[Any, str]]:
    """The archive in a bucket; gives the bucket and the folder's URL."""
    with serve(fault or "none", every=1 << 30) as (bucket, url):
        for path in archive.rglob("*"):
            if path.is_file():
                bucket.objects[f"in/{path.relative_to(archive).as_posix()}"] = path.read_bytes()
        bucket.objects["in-another/x.dcm"] = b"x"
        variables = {"ACCESS_KEY_ID": "name", "SECRET_ACCESS_KEY": "a-very-secret-word", "ENDPOINT": url}
        for name, value in {**variables, "REGION": "here", "ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield bucket, "s3://things/in"


@contextlib.contextmanager
def web(archive: Path) -> Iterator[str]:
    """The archive behind the pages that Python's own server makes."""
    handler = functools.partial(_Quiet, directory=str(archive.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def ssh(archive: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The archive behind an SSH server that takes one key."""
    asyncssh = pytest.importorskip("asyncssh")
    host, own = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    own.write_private_key(folder / "id")
    own.write_public_key(folder / "id.pub")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> Any:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host], authorized_client_keys=str(folder / "id.pub"), sftp_factory=True
        )

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    port = server.sockets[0].getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host.export_public_key().decode()}")
    monkeypatch.setenv("BUILDER_SSH_KEY", str(folder / "id"))
    monkeypatch.setenv("BUILDER_SSH_KNOWN_HOSTS", str(folder / "known"))
    try:
        yield f"ssh://somebody@127.0.0.1:{port}{archive}"
    finally:

        async def end() -> None:
            server.close()
            await server.wait_closed()
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def rows_of(source: Any) -> list[dict[str, Any]]:
    rows = index_partition(source, 0, list(source.list())).to_pylist()
    return [{k: v for k, v in row.items() if k not in PLACE} for row in rows]


def everything(source: Any) -> dict[tuple[str, str], bytes]:
    return {(entry.path, entry.member): source.read(entry) for entry in source.list()}


def check(url: str, archive: Path, kept: Path) -> None:
    """The source gives what the folder gives."""
    source = RemoteFolder(url=url).kept_in(str(kept))
    assert isinstance(source, Source)
    local = Folder(url=str(archive))
    assert rows_of(source) == rows_of(local)
    assert everything(source) == everything(local)
    some = RemoteFolder(url=url, include=("*.dcm",), exclude=("a b/*",)).kept_in(str(kept))
    expected = Folder(url=str(archive), include=("*.dcm",), exclude=("a b/*",))
    assert everything(some) == everything(expected)


def test_s3(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3(archive, monkeypatch) as (_, url):
        check(url, archive, tmp_path / "kept")


def test_google_cloud(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's XML interface lists and sends as S3's does; the account file names another address, as an emulator's."""
    with s3(archive, monkeypatch) as (_, url):
        account = {"gcs_base_url": os.environ["AWS_ENDPOINT"], "disable_oauth": True}
        account |= {"client_email": "", "private_key": "", "private_key_id": ""}
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
        check(url.replace("s3://", "gs://"), archive, tmp_path / "kept")


def test_azure(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = {f"in/{p.relative_to(archive).as_posix()}": p.read_bytes() for p in archive.rglob("*") if p.is_file()}
    blobs["in-another/x.dcm"] = b"x"
    with http_server(functools.partial(azure, blobs)) as url:
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        check("az://things/in", archive, tmp_path / "kept")


def test_azure_says_that_a_secret_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = b"<Error><Code>AuthenticationFailed</Code><Message>Server failed.</Message></Error>"
    with http_server(lambda target, headers: (403, {"Content-Type": "application/xml"}, refusal)) as url:
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        with pytest.raises(SourceError, match=r"az://things: the store refuses these credentials.*AZURE_STORAGE"):
            list(RemoteFolder(url="az://things/in").list())


def azure(blobs: dict[str, bytes], target: str, headers: dict[str, str]) -> Reply:
    """List Blobs and Get Blob of Azure's REST interface, over one container."""
    split = urlsplit(target)
    query = dict(parse_qsl(split.query))
    common = {"ETag": '"0x8D"', "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}
    if query.get("comp") == "list":
        items = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{common['Last-Modified']}</Last-Modified>"
            f"<Etag>0x8D</Etag><Content-Length>{len(data)}</Content-Length><Content-Type>a/b</Content-Type></Properties></Blob>"
            for name, data in sorted(blobs.items())
            if name.startswith(query.get("prefix", ""))
        )
        body = f"<EnumerationResults><Blobs>{items}</Blobs><NextMarker /></EnumerationResults>"
        return 200, {"Content-Type": "application/xml"}, body.encode()
    data = blobs[unquote(split.path).split("/things/")[1]]
    bounds = (headers.get("x-ms-range") or headers.get("range", "")).removeprefix("bytes=")
    if not bounds:
        return 200, common, data
    first, last = bounds.split("-")
    stop = int(last) + 1 if last else len(data)
    more = {"Content-Range": f"bytes {first}-{min(stop, len(data)) - 1}/{len(data)}"}
    return 206, common | more, data[int(first) : stop]


def test_web(archive: Path, tmp_path: Path) -> None:
    with web(archive) as url:
        check(url, archive, tmp_path / "kept")


def test_ssh(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ssh(archive, tmp_path, monkeypatch) as url:
        check(url, archive, tmp_path / "kept")
        (tmp_path / "known").write_text("")
        for queue in politeness.queues():
            queue.close()
        with pytest.raises(SourceError, match="the host's key is not known"):
            list(RemoteFolder(url=url).list())


def test_links_that_lead_out_are_told_over_ssh_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, keys = tmp_path / "held", tmp_path / "keys"
    for path in (folder / "in", keys, tmp_path / "out"):
        path.mkdir(parents=True)
    (folder / "in" / "a.dcm").write_bytes(b"a")
    (tmp_path / "out" / "b.dcm").write_bytes(b"b")
    (folder / "same.dcm").symlink_to(folder / "in" / "a.dcm")
    for name, target in (("gone", "nowhere"), ("b.dcm", "../out/b.dcm"), ("c.zip", "../out/c.zip"), ("d", "../out")):
        (folder / name).symlink_to(target)
    with ssh(folder, keys, monkeypatch) as url:
        far, near = RemoteFolder(url=url).kept_in(str(tmp_path / "kept")), Folder(url=str(folder))
        assert [entry.path for entry in far.list()] == [entry.path for entry in near.list()]
        for source in (near, far):
            for entry in source.list():
                if entry.path != "in/a.dcm":
                    with pytest.raises(CaseError, match="source_missing"):
                        source.read(entry)
        for queue in politeness.queues():
            queue.close()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("hash", "lost", "timeout")])
def test_faults_that_pass(fault: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = everything(Folder(url=str(archive)))
    with s3(archive, monkeypatch, fault=fault) as (bucket, url):
        bucket.every = 3
        found = everything(RemoteFolder(url=url).kept_in(str(tmp_path)))
        assert bucket.faults
    assert found == expected


def test_a_wrong_secret_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
    with http_server(lambda target, headers: (403, {}, body)) as url:
        for name, value in {"ACCESS_KEY_ID": "n", "SECRET_ACCESS_KEY": "hidden-word", "ENDPOINT": url}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        with pytest.raises(
            SourceError, match=r"s3://things: the store refuses these credentials.*AWS_SECRET"
        ) as caught:
            list(RemoteFolder(url="s3://things/in").list())
    assert "hidden-word" not in str(caught.value)


def test_a_build_is_that_of_the_folder(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards but for the names, and again from a recording without the server; no secret is written anywhere."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(url=archive))
    build(spec, to=tmp_path / "local")
    with s3(archive, monkeypatch) as (_, url):
        spec.write_text(SPEC.format(url=url))
        with recordings.recording(record=str(tmp_path / "recording")):
            build(spec, to=tmp_path / "far")
    assert voxels(tmp_path / "far") == voxels(tmp_path / "local")
    with recordings.recording(replay=str(tmp_path / "recording")):
        build(spec, to=tmp_path / "replayed")
    assert tree(tmp_path / "replayed") == tree(tmp_path / "far")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"a-very-secret-word" not in path.read_bytes()


def voxels(dataset: Path) -> list[bytes]:
    """The bytes of all arrays, whatever their shards are called."""
    found = sorted(path.read_bytes() for path in dataset.glob("data/*/**/c/**/*") if path.is_file())
    assert found
    return found


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://name:secret@bucket/x", "credentials in the environment"),
        ("https://host/x?token=secret", "credentials in the environment"),
        ("ftp://host/x", "or one of s3://"),
        ("s3://", "that of a bucket or a host"),
    ],
)
def test_addresses_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RemoteFolder(url=url)


def test_a_folder_block_may_be_elsewhere() -> None:
    text = io.StringIO(SPEC.format(url="gs://bucket/x")).read()
    from ruamel.yaml import YAML

    spec = DatasetSpec.model_validate(YAML(typ="safe", pure=True).load(text))
    assert isinstance(spec.sources[0], RemoteFolder)


def test_links_that_lead_elsewhere_are_no_part_of_the_folder() -> None:
    links = [
        "one.dcm",
        "sub/",
        "../up.dcm",
        "?C=M;O=A",
        "/root.dcm",
        "http://other/x.dcm",
        "%2e%2e/up.dcm",
        "sub/two.dcm",
    ]
    page = "<title>Index of /a</title>" + "".join(f'<a href="{link}">x</a>' for link in links)
    answer = Answer(200, {"content-type": "text/html"}, iter([page.encode()]))
    assert far._links("http://host/a/", "", answer) == ["one.dcm", "sub/"]
