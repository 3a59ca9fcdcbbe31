"""Certificates, secrets, and answers made to do harm: each is refused, and costs at most its own study."""

import contextlib
import datetime
import ipaddress
import ssl
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from builder.errors import BuilderError, IncompleteError, SourceError, SpecError
from builder.run.pipeline import build
from builder.sources import DicomWeb, Dimse, Tcia, contents, politeness
from builder.sources.http import Server, _host_of
from builder.sources.manifests import read_manifest
from builder.sources.tls import Tls
from tests.endtoend.trees import KEY
from tests.sources.quick import no_pauses
from tests.sources.servers import FakePacs, Reply, http_server
from tests.synthetic import ct_series

SECRET = "never-to-be-seen-again"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setenv("BUILDER_KEY", KEY)
    contents._opened.cache_clear()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that signs itself, with its key in one file."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    forms = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(made.public_bytes(forms[0]) + key.private_bytes(*forms))
    return path


@contextlib.contextmanager
def encrypted(certificate: Path) -> Iterator[str]:
    """A web server with this certificate."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1")
            self.end_headers()
            self.wfile.write(b"x")

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_certificate_that_nobody_vouches_for(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with encrypted(certificate) as url:
        with pytest.raises(SourceError, match=r"certificate cannot be trusted \(self.signed.*SSL_CERT_FILE"):
            Server(url).get("x", lambda answer: answer.body())
        for queue in politeness.queues():
            queue.close()  # the connection that is open was made without the certificate
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert Server(url).get("x", lambda answer: answer.body()) == b"x"


def test_a_pacs_with_tls(certificate: Path, tmp_path: Path) -> None:
    """C-FIND and C-GET are encrypted both ways; a certificate that nobody vouches for stops the run."""
    pytest.importorskip("pynetdicom")
    from tests.faults.pacs import Pacs, served

    made = ct_series(tmp_path / "ct", slices=2, shape=(16, 16))
    files = {str(i.SOPInstanceUID): path.read_bytes() for i, path in zip(made.images, made.paths, strict=True)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with served(Pacs(files), tls=context) as port:
        both = Tls(ca=str(certificate), cert=str(certificate))
        source = Dimse(host="127.0.0.1", port=port, called_ae="PACS", tls=both).kept_in(str(tmp_path / "kept"))
        entries = list(source.list())
        assert len(entries) == 2
        assert all(source.read(entry)[128:132] == b"DICM" for entry in entries)
        with pytest.raises(SourceError, match=r"no encrypted connection can be made \(self.signed"):
            list(Dimse(host="127.0.0.1", port=port, called_ae="PACS", tls=Tls()).list())
    with pytest.raises(SpecError, match=r"sources.tls: found no certificate.*builder certs"):
        list(Dimse(host="127.0.0.1", port=port, called_ae="PACS", tls=Tls(ca=str(tmp_path / "none"))).list())


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of the UID
def test_uids_that_climb_out_of_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("pynetdicom")
    from tests.faults.pacs import Pacs, served

    made = ct_series(tmp_path / "ct", slices=1, shape=(16, 16))
    pacs = Pacs({str(made.images[0].SOPInstanceUID): made.paths[0].read_bytes()})
    evil = Dataset()
    evil.update(next(iter(pacs.held.values())))
    evil.add_new("StudyInstanceUID", "LO", "1.2/../../etc")
    pacs.held = {"x": evil}
    with served(pacs) as port, pytest.raises(IncompleteError, match="other characters than digits and dots"):
        list(Dimse(host="127.0.0.1", port=port, called_ae="PACS").list())

    def answer(target: str, headers: dict[str, str]) -> Reply:
        return 200, {}, b'[{"SeriesInstanceUID": "../../x", "StudyInstanceUID": "1.2"}]'

    with http_server(answer) as url, pytest.raises(IncompleteError, match="without a UID"):
        list(Tcia(url=url, collection="c").list())


def test_secrets_are_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither after a build nor after one that is refused does any file or message hold the token."""
    made = ct_series(tmp_path / "ct", slices=3, shape=(16, 16))
    files = {str(i.SOPInstanceUID): path.read_bytes() for i, path in zip(made.images, made.paths, strict=True)}
    pacs, told = FakePacs(files), []
    sent: list[str] = []

    def answer(target: str, headers: dict[str, str]) -> Reply:
        sent.append(headers.get("authorization", ""))
        return pacs(target, headers) if sent[-1] == f"Bearer {SECRET}" else (401, {}, b"")

    with http_server(answer) as url:
        spec = tmp_path / "spec.yaml"
        spec.write_text(
            "name: s\nlicense: CC0-1.0\n"
            f"sources: [{{kind: dicomweb, url: '{url}', sign_in: {{kind: bearer, token: BUILDER_TOKEN}}}}]\n"
            'deid: {patient_key: "${env:BUILDER_KEY}"}\nsplits: {ratios: {train: 1.0}}\nsamples: {kind: volumes}\n'
        )
        monkeypatch.setenv("BUILDER_TOKEN", SECRET + "-wrong")
        with pytest.raises(BuilderError, match="refuses access") as caught:
            build(spec, to=tmp_path / "out")
        told.append(str(caught.value))
        from builder.sources import http

        monkeypatch.setattr(http._LOCAL, "servers", {}, raising=False)
        monkeypatch.setenv("BUILDER_TOKEN", SECRET)
        build(spec, to=tmp_path / "out")
    assert f"Bearer {SECRET}" in sent
    told += [*capfd.readouterr(), caplog.text]
    assert SECRET not in "".join(told)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("out.private" in str(path) for path in found)
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]


def test_metadata_never_leads_to_another_host(tmp_path: Path) -> None:
    """Bulk data at an address of another server is left out; a redirect is not followed."""
    asked = []

    def elsewhere(target: str, headers: dict[str, str]) -> Reply:
        asked.append(target)
        return 200, {}, b"x"

    made = ct_series(tmp_path / "ct", slices=2, shape=(16, 16))
    files = {str(i.SOPInstanceUID): path.read_bytes() for i, path in zip(made.images, made.paths, strict=True)}
    with http_server(elsewhere) as other:

        class Leading(FakePacs):
            def _metadata(self, words: list[str]) -> Reply:
                status, headers, body = super()._metadata(words)
                return status, headers, body.replace(b"http://elsewhere", other.encode())

        with http_server(Leading(files)) as url:
            source = DicomWeb(url=url).kept_in(str(tmp_path / "kept"))
            assert len(list(source.describe(list(source.list())))) == 2
        with (
            http_server(lambda target, headers: (302, {"Location": f"{other}/x"}, b"")) as url,
            pytest.raises(SourceError, match="sends the request elsewhere"),
        ):
            list(DicomWeb(url=url).list())
    assert asked == []


def test_a_zip_that_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series whose zip inflates beyond the limit is left out; the next one comes."""
    from builder.errors import CaseError
    from builder.protocols import Entry
    from builder.sources import tcia

    monkeypatch.setattr(tcia, "SERIES_LIMIT", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("1.dcm", b"\0" * (2 << 20))
    with http_server(lambda target, headers: (200, {}, (tmp_path / "bomb.zip").read_bytes())) as url:
        found = list(Tcia(url=url, collection="c").describe([Entry("1.2/1.3/1.4", 0, "")]))
    assert isinstance(found[0], CaseError)
    assert found[0].reason == "too_large"


def test_digests_of_the_portal(tmp_path: Path) -> None:
    import openpyxl

    rows = [["Collection", "Series Instance UID", "Modality"], ["C", "1.2.3", "CT"], ["C", "1.2.4", "MR"]]
    (tmp_path / "digest.csv").write_text("\ufeff" + "\n".join(",".join(row) for row in rows))
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(row)
    book.save(tmp_path / "digest.xlsx")
    for name in ("digest.csv", "digest.xlsx"):
        assert read_manifest(str(tmp_path / name)) == ["1.2.3", "1.2.4"]
    (tmp_path / "digest.csv").write_text("Series UID\n1.2.3\n1.2E+10\n")
    with pytest.raises(SpecError, match="1 of 2 rows without"):
        read_manifest(str(tmp_path / "digest.csv"))
    (tmp_path / "digest.csv").write_text("Patient\nP1\n")
    with pytest.raises(SpecError, match="no column Series Instance UID"):
        read_manifest(str(tmp_path / "digest.csv"))
    (tmp_path / "digest.xlsx").write_bytes(b"no workbook")
    with pytest.raises(SpecError, match="no file that can be read"):
        read_manifest(str(tmp_path / "digest.xlsx"))


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://doe:secret@PACS.example:8443/MRN-88776655?name=DOE", "pacs.example"),
        ("//[::1]/x", "::1"),
        ("/DOE^JANE", ""),
        ("https://DOE^JANE/x", ""),
        ("https://[DOE", ""),
        ("https://" + "d" * 300, ""),
    ],
)
def test_a_redirect_tells_its_host_and_nothing_else(location: str, told: str) -> None:
    assert _host_of(location) == told
