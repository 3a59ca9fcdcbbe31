"""Send requests to web servers with the same retries, sign-in, checks and limits for every HTTP source."""

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from builder.errors import CaseError, MissingExtra, Reason, SourceError
from builder.sources.patience import Fault, persist
from builder.sources.politeness import Gate, Politeness, Turn
from builder.sources.recordings import Recording
from builder.sources.signin import Credentials, SignIn, require_privacy

Result = TypeVar("Result")

TIMEOUT_S: Final = 120.0
"""Longest silence of a server, in the middle of an answer too."""

BODY_LIMIT: Final = 4 * 2**30
"""Most bytes of one object; the largest whole-slide instances are about 2 GiB."""

SLOWEST: Final = (60.0, 4096)
"""After so many seconds, an answer must have come at so many bytes a second on average."""

_BUSY = frozenset({408, 425, 429, 502, 503, 504})
_GONE = frozenset({404, 410})
_LOCAL = threading.local()
_SHARING = threading.Lock()


class Answer:
    """The answer to a request: status, headers (names in lower case), and a body that arrives in pieces."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: Iterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks

    def body(self, limit: int = BODY_LIMIT) -> bytes:
        """Return the whole body. Raises CaseError TOO_LARGE when it is longer than ``limit`` bytes."""
        body = bytearray()
        for chunk in self.chunks:
            body += chunk
            if len(body) > limit:
                raise CaseError(Reason.TOO_LARGE, f"the server's answer is longer than {limit:,} bytes")
        return bytes(body)


class Server:
    """A web server, for use by one thread.

    Parameters
    ----------
    source
        The kind of source, for messages.
    gate
        Where each request waits for its turn; its slots hold the open connections. Without it, up to 4 requests of this
        process run at once.
    credentials
        Those that other threads use, too.
    """

    def __init__(
        self,
        url: str,
        sign_in: SignIn | None = None,
        *,
        source: str = "server",
        gate: Gate | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.host = host_of(url)
        self._url = url.rstrip("/") + "/"
        self._gate = gate or Gate(self.host, Politeness(connections=4))
        self._source = source
        if sign_in is not None:
            require_privacy(url, where="sign_in")
        self._origin = urlsplit(url)[:2]
        self._credentials = credentials or Credentials(sign_in, self._post)

    def get(
        self,
        path: str,
        read: Callable[[Answer], Result],
        *,
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
    ) -> Result:
        """Return what ``read`` makes of the answer to a GET, after as many tries as the budget allows.

        Parameters
        ----------
        path
            Relative to the server's URL, encoded, with its query.
        read
            Reads and checks the body of a successful answer. It raises ``Fault`` when the body is not what was asked
            for, and the server is asked again.

        Raises
        ------
        CaseError
            SOURCE_CHANGED for status 412, TOO_LARGE for a body over the limit.
        IncompleteError
            When the server answers, and every answer is bad: a body cut off, another type, status 404 or 500.
        SourceError
            When the server does not answer, refuses access, or sends elsewhere. Messages contain no path.
        """
        return persist(
            lambda: self.once(path, read, accept=accept, headers=headers), source=self._source, host=self.host
        )

    def once(
        self,
        path: str,
        read: Callable[[Answer], Result],
        *,
        accept: str = "*/*",
        headers: Mapping[str, str] | None = None,
    ) -> Result:
        """Do as ``get``, with a single try. Raises Fault instead of IncompleteError."""
        if urlsplit(path)[:2] not in (("", ""), self._origin):
            raise SourceError(
                f"{self._source} at {self.host}: was asked for an address on a server that the spec does not name",
                host=self.host,
            )
        recording, request = self._gate.recording, ("http", self._url, path, (headers or {}).get("Range", ""))
        if recording is not None and recording.replays:
            facts, body = recording.find(request, source=self._source, host=self.host)
            return read(Answer(int(facts["status"]), facts, body))
        sent = {"Accept": accept, **(headers or {}), **self._credentials.headers()}
        with self._gate.turn() as turn:
            if recording is None:
                return self._ask(turn, path, read, sent)
            return self._ask(turn, path, lambda answer: read(_recorded(answer, recording, request)), sent)

    def within(
        self, turn: Turn, path: str, read: Callable[[Answer], Result], *, headers: Mapping[str, str] | None = None
    ) -> Result:
        """Do as ``once`` in a turn that the caller holds."""
        return self._ask(turn, path, read, {"Accept": "*/*", **(headers or {}), **self._credentials.headers()})

    def _ask(self, turn: Turn, path: str, read: Callable[[Answer], Result], headers: Mapping[str, str]) -> Result:
        client = turn.connection(self._url, self._client)
        with self._transport(), client.stream("GET", path, headers=headers) as response:
            if response.status_code == 401 and self._credentials.renew(headers):
                raise Fault("the server wants a new sign-in", answered=False, retry_after="0")
            found = dict(response.headers)
            self._check_status(response.status_code, found)
            self._credentials.accept(headers)
            return read(Answer(response.status_code, found, self._pieces(response, turn)))

    def _client(self) -> Any:
        with _SHARING:  # threads that begin together would each read the certificates
            trusted = _trusted(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))
        return _httpx().Client(
            base_url=self._url,
            timeout=TIMEOUT_S,
            verify=trusted,
            limits=_httpx().Limits(max_connections=1),
            follow_redirects=False,  # a redirect would send the names in the request to another host
        )

    def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a form to the address of a sign-in server and return status and body."""

        def call() -> tuple[int, bytes]:
            with self._transport():
                answer = _httpx().post(url, data=dict(form), headers={"Accept": "application/json"}, timeout=TIMEOUT_S)
            if answer.status_code in _BUSY or answer.status_code >= 500:
                raise Fault(
                    f"the sign-in server answered with status {answer.status_code}",
                    answered=False,
                    retry_after=answer.headers.get("retry-after"),
                )
            return answer.status_code, answer.content

        return persist(call, source=f"{self._source}: sign-in", host=urlsplit(url).netloc)

    def _transport(self) -> "_Transport":
        return _Transport(self._source, self.host)

    def _pieces(self, response: Any, turn: Turn) -> Iterator[bytes]:
        """Yield the body piece by piece. Raises Fault when it is cut off or comes too slowly."""
        began, got, httpx = time.monotonic(), 0, _httpx()
        grace, slowest = SLOWEST
        try:
            for chunk in response.iter_bytes():
                got += len(chunk)
                turn.received += len(chunk)
                lasted = time.monotonic() - began
                if lasted > grace and got < slowest * lasted:
                    raise Fault(f"found an answer that comes at {got / lasted:.0f} bytes a second")
                yield chunk
        except httpx.TransportError as error:
            raise Fault(f"the answer was cut off after {got:,} bytes ({type(error).__name__})") from None
        except httpx.DecodingError:
            raise Fault("found an answer whose compression is damaged") from None

    def _check_status(self, status: int, headers: Mapping[str, str]) -> None:
        if 200 <= status < 300:
            return
        if status == 412:
            raise CaseError(Reason.SOURCE_CHANGED, "the object is not the one that was listed; build again")
        if status in (401, 403):
            raise SourceError(
                f"{self._source} at {self.host}: the server refuses access (status {status}); check sign_in and its "
                "environment variables, and what this account may read",
                host=self.host,
            )
        if 300 <= status < 400:
            to = _host_of(headers.get("location", ""))
            raise SourceError(
                f"{self._source} at {self.host}: the server sends the request elsewhere (status {status}"
                f"{', to ' + to if to else ''}), which is not followed; give the final address as url",
                host=self.host,
            )
        found = f"the server answered with status {status}"
        if status in _GONE:
            found = f"the server says that it does not hold what it lists (status {status})"
        raise Fault(found, answered=status not in _BUSY, retry_after=headers.get("retry-after"), status=status)


def _host_of(location: str) -> str:
    """Return the host that a redirect names, without a user's name or password; empty where that is no host."""
    try:
        host = urlsplit(location).hostname or ""
    except ValueError:
        return ""
    return host if re.fullmatch(r"[a-z0-9.:_-]{1,253}", host) else ""


class _Transport:
    """Turns what the HTTP client raises into a fault of one try, or into an error that another try cannot mend."""

    def __init__(self, source: str, host: str) -> None:
        self._source = source
        self._host = host

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if not isinstance(error, _httpx().TransportError):
            return
        if certificate := _certificate_error(error):
            raise SourceError(
                f"{self._source} at {self._host}: the server's certificate cannot be trusted ({certificate}); check "
                "the address, or name your organisation's certificates in the environment variable SSL_CERT_FILE",
                host=self._host,
            ) from None
        raise Fault(f"no answer ({type(error).__name__})", answered=False) from None


def _certificate_error(error: BaseException) -> str:
    """Return why a certificate was refused; empty when something else went wrong."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        seen = seen.__cause__ or seen.__context__
    return "verification failed" if "CERTIFICATE_VERIFY_FAILED" in str(error) else ""


def _recorded(answer: Answer, recording: Recording, request: Sequence[str]) -> Answer:
    """Return an answer whose body is recorded while it is read."""
    facts = {"status": str(answer.status), **answer.headers}
    for name in ("set-cookie", "www-authenticate", "content-encoding", "transfer-encoding"):
        facts.pop(name, None)
    # all of it is read now, because who reads it may stop before its end
    chunks = list(recording.keep(request, facts, answer.chunks))
    return Answer(answer.status, answer.headers, iter(chunks))


def server(url: str, sign_in: SignIn | None = None, *, source: str = "server", gate: Gate | None = None) -> Server:
    """Return this thread's sign-in at a server. It cannot be shared by forks or threads."""
    held: dict[tuple[Any, ...], Server] = _LOCAL.__dict__.setdefault("servers", {})
    name = (os.getpid(), url, sign_in, gate)
    if name not in held:
        shared = None
        if sign_in is not None and sign_in.kind == "oauth2":
            with _SHARING:
                shared = _credentials(os.getpid(), url, sign_in, source, gate)
        held[name] = Server(url, sign_in, source=source, gate=gate, credentials=shared)
    return held[name]


@cache
def _credentials(process: int, url: str, sign_in: SignIn | None, source: str, gate: Gate | None) -> Credentials:
    """Return what the threads of a process share, so that they need one token."""
    return Server(url, sign_in, source=source)._credentials


@cache
def _trusted(file: str, folder: str) -> ssl.SSLContext:
    """Return the certificates to trust, which take long to read, for the values of two environment variables."""
    context: ssl.SSLContext = _httpx().create_ssl_context()
    return context


def host_of(url: str) -> str:
    """Return the host of a URL, with the port if the URL names one."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise MissingExtra("httpx", "dicomweb") from error
    return httpx
