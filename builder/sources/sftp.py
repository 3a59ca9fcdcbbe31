"""List and read the files of a folder on another machine by SFTP."""

import asyncio
import os
import stat
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from builder.errors import CaseError, MissingExtra, Reason, SourceError
from builder.sources.patience import Fault
from builder.sources.place import Object
from builder.sources.politeness import Gate, Turn
from builder.sources.walking import LINK_STAMP

KEY_VARIABLE: Final = "BUILDER_SSH_KEY"
"""Environment variable: the file of the private key, if it is not one of those that ssh uses by itself."""

HOSTS_VARIABLE: Final = "BUILDER_SSH_KNOWN_HOSTS"
"""Environment variable: the file with the keys of the hosts, if it is not ``~/.ssh/known_hosts``."""

TIMEOUT_S: Final = 60.0
_CHUNK = 4 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sftp:
    """A folder of a machine that runs an SSH server."""

    url: str

    @property
    def host(self) -> str:
        """Host, and port if the URL names one."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def _root(self) -> str:
        return unquote(urlsplit(self.url).path).rstrip("/") or "/"

    def list(self, gate: Gate) -> Iterator[Object]:
        """List folder by folder. Links are not followed; one that leads out or to nothing is listed as unreadable."""
        with gate.turn() as turn:
            connection = turn.connection(self.url, lambda: _Connection(self.url))
            root = connection.run(_real(connection.client, self._root))
            waiting = [""]
            while waiting:
                folder = waiting.pop()
                for name, facts in connection.run(_scan(connection.client, f"{self._root}/{folder}")):
                    path = f"{folder}{name}"
                    mode = stat.S_IFREG if facts.permissions is None else facts.permissions
                    if stat.S_ISDIR(mode):
                        waiting.append(path + "/")
                    elif stat.S_ISLNK(mode):
                        place = f"{self._root}/{path}"
                        target = connection.run(_real(connection.client, place))
                        inside = f"{target}/".startswith(f"{root.rstrip('/')}/")
                        if not inside or not connection.run(connection.client.exists(place)):
                            yield Object(path, 0, LINK_STAMP)
                    elif stat.S_ISREG(mode):
                        yield Object(path, int(facts.size or 0), _stamp(facts))

    def get(self, turn: Turn, item: Object, start: int, stop: int | None) -> Iterator[bytes]:
        """Read a file, or a range of it, provided that its time of change is the one listed."""
        connection = turn.connection(self.url, lambda: _Connection(self.url))
        handle, facts = connection.run(_open(connection.client, f"{self._root}/{item.path}"))
        try:
            if _stamp(facts) != item.stamp:
                raise CaseError(Reason.SOURCE_CHANGED, "the file is not the one that was listed; build again")
            end = int(facts.size or 0) if stop is None else stop
            while start < end:
                data = connection.run(handle.read(min(_CHUNK, end - start), start))
                if not data:
                    return
                turn.received += len(data)
                start += len(data)
                yield data
        finally:
            connection.run(handle.close())


def _stamp(facts: Any) -> str:
    return f"{int(facts.mtime or 0)}.{int(getattr(facts, 'mtime_ns', 0) or 0):09d}"


async def _scan(client: Any, folder: str) -> list[tuple[str, Any]]:
    found = await client.readdir(folder)
    named = [(entry.filename, entry.attrs) for entry in found]
    texts = [(n.decode("utf-8", "surrogateescape") if isinstance(n, bytes) else n, facts) for n, facts in named]
    return sorted((name, facts) for name, facts in texts if name not in (".", "..") and "/" not in name)


async def _real(client: Any, path: str) -> str:
    """Return the path without links; what a dangling or looping link names cannot be told, and counts as outside."""
    try:
        found = await client.realpath(path)
    except _asyncssh().SFTPError:
        return ""
    return str(found.decode("utf-8", "surrogateescape") if isinstance(found, bytes) else found)


async def _open(client: Any, path: str) -> tuple[Any, Any]:
    handle = await client.open(path, "rb")
    return handle, await handle.stat()


class _Connection:
    """An SSH connection with its SFTP session, used from ordinary code."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self.client: Any = None
        self._ssh, self.client = self.run(_connect(url))

    def run(self, what: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread that all connections of this process share. Raises Fault, SourceError."""
        asyncssh = _asyncssh()
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(what, TIMEOUT_S), _loop(os.getpid()))
        try:
            return future.result()
        except asyncssh.HostKeyNotVerifiable:
            raise SourceError(
                f"folder at {self._host}: the host's key is not known; add it to ~/.ssh/known_hosts, or name a file "
                f"with it in {HOSTS_VARIABLE}",
                host=self._host,
            ) from None
        except (asyncssh.PermissionDenied, asyncssh.KeyImportError):
            raise SourceError(
                f"folder at {self._host}: the host refuses this user and key; check the user in the address, and the "
                f"key in {KEY_VARIABLE}, in ~/.ssh or in the agent",
                host=self._host,
            ) from None
        except asyncssh.SFTPNoSuchFile:
            raise Fault("the host says that it does not hold the folder, or a file that it lists") from None
        except asyncssh.SFTPPermissionDenied:
            raise SourceError(
                f"folder at {self._host}: the user may not read a folder or file there; make it readable, or leave it "
                "out with exclude",
                host=self._host,
            ) from None
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise Fault(f"no answer ({type(error).__name__})", answered=False) from None

    def close(self) -> None:
        """End the connection."""
        _loop(os.getpid()).call_soon_threadsafe(self._ssh.abort)


async def _connect(url: str) -> tuple[Any, Any]:
    parts = urlsplit(url)
    options: dict[str, Any] = {}
    if key := os.environ.get(KEY_VARIABLE):
        options["client_keys"] = [key]
    if known := os.environ.get(HOSTS_VARIABLE):
        options["known_hosts"] = known
    if parts.username:
        options["username"] = unquote(parts.username)
    connection = await _asyncssh().connect(parts.hostname, parts.port or 22, connect_timeout=TIMEOUT_S, **options)
    return connection, await connection.start_sftp_client()


@cache
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """Return the event loop of this process, which runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="sftp").start()
    return loop


def _asyncssh() -> Any:
    try:
        import asyncssh
    except ImportError as error:
        raise MissingExtra("asyncssh", "ssh") from error
    return asyncssh
