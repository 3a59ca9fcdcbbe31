"""OAuth2 client credentials: a token is fetched once, renewed in time, and replaced after it was revoked."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from builder.errors import SourceError, SpecError
from builder.sources.http import Server, server
from builder.sources.signin import SignIn

VARIABLES = {"BUILDER_CLIENT": "builder", "BUILDER_CLIENT_SECRET": "a secret of the client"}


def test_threads_share_a_token(gate: "_Gate") -> None:
    """Many threads need one token, and one more when the server takes it back from all of them at once."""
    sign_in = SignIn(
        kind="oauth2", token_url=f"{gate.url}/token", client_id="BUILDER_CLIENT", client_secret="BUILDER_CLIENT_SECRET"
    )

    def ask(_: int) -> bytes:
        return server(gate.url, sign_in).get("data", lambda answer: answer.body())

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(32))) == {b"data"}
        assert len(gate.forms) == 1
        gate.forms.append({})  # only the next token is taken from now on
        assert set(pool.map(ask, range(32))) == {b"data"}
    assert len(gate.forms) == 3


class _Gate(ThreadingHTTPServer):
    """Gives out numbered tokens at /token, and answers /data to the newest one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forms: list[dict[str, list[str]]] = []
        self.lifetime = 3600.0
        self.refuses = False
        self.closed = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.forms.append(form)
        if self.server.refuses:
            return self._answer(401, b'{"error": "invalid_client"}')
        token = {"access_token": f"token-{len(self.server.forms)}", "expires_in": self.server.lifetime}
        self._answer(200, json.dumps(token).encode())

    def do_GET(self) -> None:
        newest = f"Bearer token-{len(self.server.forms)}"
        taken = self.headers.get("Authorization") == newest and not self.server.closed
        self._answer(200 if taken else 401, b"data")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Gate]:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    server = _Gate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def signed(gate: _Gate, **more: Any) -> SignIn:
    names = {"client_id": "BUILDER_CLIENT", "client_secret": "BUILDER_CLIENT_SECRET"}
    return SignIn(kind="oauth2", token_url=f"{gate.url}/token", **names, **more)


def fetch(server: Server) -> bytes:
    return server.get("data", lambda answer: answer.body())


def test_a_token_is_fetched_once_and_used_again(gate: _Gate) -> None:
    server = Server(gate.url, signed(gate, scope="read"))
    assert [fetch(server), fetch(server)] == [b"data", b"data"]
    asked = {"client_id": ["builder"], "client_secret": [VARIABLES["BUILDER_CLIENT_SECRET"]], "scope": ["read"]}
    assert gate.forms == [{"grant_type": ["client_credentials"], **asked}]


def test_a_token_is_renewed_before_it_expires(gate: _Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("builder.sources.signin.time.monotonic", lambda: now[0])
    gate.lifetime = 100
    server = Server(gate.url, signed(gate))
    fetch(server)
    now[0] += 60
    fetch(server)
    assert len(gate.forms) == 1
    now[0] += 15  # 25 s are left, less than the 30 s that a request may take
    fetch(server)
    assert len(gate.forms) == 2


def test_a_token_that_was_revoked_is_replaced(gate: _Gate) -> None:
    server = Server(gate.url, signed(gate))
    fetch(server)
    gate.forms.append({})  # the server now takes another token than the one it gave out
    assert fetch(server) == b"data"
    assert len(gate.forms) == 3


def test_a_client_without_rights_is_told_at_once(gate: _Gate) -> None:
    gate.closed = True
    with pytest.raises(SourceError, match="refuses access"):
        fetch(Server(gate.url, signed(gate)))
    assert len(gate.forms) == 1


def test_a_refused_client_is_told_without_its_secret(gate: _Gate) -> None:
    gate.refuses = True
    with pytest.raises(SourceError, match=r"gave no token \(status 401\); check token_url") as caught:
        fetch(Server(gate.url, signed(gate)))
    assert VARIABLES["BUILDER_CLIENT_SECRET"] not in str(caught.value)


def test_a_secret_is_not_sent_in_the_clear() -> None:
    names = {"client_id": "BUILDER_CLIENT", "client_secret": "BUILDER_CLIENT_SECRET"}
    with pytest.raises(SpecError, match="expected https://"):
        Server("https://pacs.example/", SignIn(kind="oauth2", token_url="http://sign-in.example/token", **names))
