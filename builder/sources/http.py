"""Send requests to web servers with the same retries, sign-in and limits for every HTTP source."""

import os
import threading
import time
import weakref
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from builder.errors import CaseError, MissingExtra, Reason, SourceError, SpecError
from builder.model.secrets import read_variable

ATTEMPTS: Final = 4
BODY_LIMIT: Final = 4 * 2**30
"""Most bytes of one answer; the largest whole-slide instances are about 2 GiB."""

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE_S = 60.0
_LOCAL = threading.local()


class SignIn(BaseModel):
    """How to sign in. It holds names of environment variables, so that no secret enters a spec, lock or log.

    Parameters
    ----------
    user, password
        Variables that hold the user's name and password (HTTP Basic).
    token
        Variable that holds a bearer token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["basic", "bearer"]
    user: str | None = None
    password: str | None = None
    token: str | None = None


class Server:
    """A web server with its open connections, for use by one thread."""

    def __init__(self, url: str, sign_in: SignIn | None = None, *, timeout_s: float = 120.0) -> None:
        self.host = urlsplit(url).hostname or ""
        if sign_in is not None:
            _require_privacy(url)
        self._origin = urlsplit(url)[:2]
        self._client = _httpx().Client(
            base_url=url.rstrip("/") + "/",
            headers=_sign_in_headers(sign_in),
            timeout=timeout_s,
            follow_redirects=False,  # a redirect would send the names in the request to another host
        )
        self._closing = weakref.finalize(self, self._client.close)

    def get(self, path: str, *, accept: str = "*/*", headers: Mapping[str, str] | None = None) -> "Answer":
        """Return the answer to one GET, after retries.

        Parameters
        ----------
        path
            Relative to the server's URL, encoded, with its query.

        Raises
        ------
        CaseError
            SOURCE_MISSING for 404 and 410, SOURCE_CHANGED for 412, TOO_LARGE for a body over the limit.
        SourceError
            When the server does not answer, refuses, or answers with another error. Messages contain no path.
        """
        if urlsplit(path)[:2] not in (("", ""), self._origin):
            raise SourceError("was asked for an address on a server that the spec does not name", host=self.host)
        sent = {"Accept": accept, **(headers or {})}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._once(path, sent)
            except _httpx().TransportError as error:
                if attempt == ATTEMPTS:
                    raise SourceError(
                        f"no answer after {ATTEMPTS} attempts ({type(error).__name__})", host=self.host, attempt=attempt
                    ) from None
                time.sleep(_pause(attempt, None))
                continue
            if answer.status not in _RETRIED or attempt == ATTEMPTS:
                return self._checked(answer, attempt)
            time.sleep(_pause(attempt, answer.headers.get("retry-after")))
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connections."""
        self._closing()

    def _once(self, path: str, headers: Mapping[str, str]) -> "Answer":
        with self._client.stream("GET", path, headers=headers) as response:
            body = bytearray()
            for chunk in response.iter_bytes(1 << 20):
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise CaseError(Reason.TOO_LARGE, f"the server's answer is longer than {BODY_LIMIT} bytes")
            return Answer(response.status_code, dict(response.headers), bytes(body))

    def _checked(self, answer: "Answer", attempt: int) -> "Answer":
        if answer.status in (404, 410):
            raise CaseError(Reason.SOURCE_MISSING, f"the server does not hold the object (status {answer.status})")
        if answer.status == 412:
            raise CaseError(Reason.SOURCE_CHANGED, "the object is not the one that was listed; build again")
        if answer.status in (401, 403):
            raise SourceError(
                f"the server refuses access (status {answer.status}); check sign_in and its environment variables",
                host=self.host,
                attempt=attempt,
            )
        if not 200 <= answer.status < 300:
            raise SourceError(f"the server answered with status {answer.status}", host=self.host, attempt=attempt)
        return answer


def server(url: str, sign_in: SignIn | None = None) -> Server:
    """Return this thread's connections to a server, opened on first use. They cannot be shared by forks or threads."""
    held: dict[tuple[int, str, SignIn | None], Server] = _LOCAL.__dict__.setdefault("servers", {})
    name = (os.getpid(), url, sign_in)
    if name not in held:
        held[name] = Server(url, sign_in)
    return held[name]


class Answer:
    """Status, headers (names in lower case) and body of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtra("httpx", "dicomweb") from error
    return httpx


def _sign_in_headers(sign_in: SignIn | None) -> dict[str, str]:
    if sign_in is None:
        return {}
    if sign_in.kind == "bearer":
        return {"Authorization": f"Bearer {_secret(sign_in.token, 'token')}"}
    import base64

    pair = f"{_secret(sign_in.user, 'user')}:{_secret(sign_in.password, 'password')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _secret(variable: str | None, field: str) -> str:
    if not variable:
        raise SpecError(f"sign_in: found no {field}, expected the name of an environment variable")
    return read_variable(variable, os.environ, where=f"sign_in.{field}")


def _require_privacy(url: str) -> None:
    """Raise SpecError unless what is sent to ``url`` is encrypted or stays on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        stays = ip_address(host).is_loopback
    except ValueError:
        stays = host == "localhost"
    if parts.scheme != "https" and not stays:
        raise SpecError(
            f"sign_in: found {parts.scheme}://{host}, expected https:// (or a server on this machine): the secret "
            "would cross the network readable by all"
        )


def _pause(attempt: int, retry_after: str | None) -> float:
    """Return the seconds to wait: what the server asks for, else 0.5, 1, 2, ..."""
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_PAUSE_S)
    return float(min(0.5 * 2 ** (attempt - 1), _LONGEST_PAUSE_S))
