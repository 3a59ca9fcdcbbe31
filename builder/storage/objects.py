"""A store in a bucket. Each object is sent in one request, with its SHA-256 as an attribute."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from builder.errors import LayoutError, MissingExtra, SourceError, counted
from builder.storage.contract import ObjectReader, checked
from builder.storage.crash import checkpoint

ATTEMPTS = 4
DIGEST = "buildersha256"
"""Name of the attribute that holds an object's SHA-256. All stores accept names of letters and digits."""
KEPT_WHOLE = 2
"""Number of objects kept in memory for a server that cannot send ranges."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ObjectStore:
    """A store in a bucket or a folder of it, through obstore.

    obstore retries with backoff and takes credentials from the environment.
    """

    root: str
    prefix: str = field(default="")

    @property
    def url(self) -> str:
        return f"{self.root}/{self.prefix}" if self.prefix else self.root

    def join(self, *parts: str) -> "ObjectStore":
        return ObjectStore(self.root, self._key("/".join(parts)))

    def read(self, path: str) -> bytes:
        return _ask(path, lambda: _whole(path, _obstore().get(self._client(), self._key(path))))

    def read_range(self, path: str, start: int, *, length: int) -> bytes:
        if length == 0:
            return b""
        return self.read_ranges(path, [(start, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if not ranges:
            return []
        starts, lengths = [r[0] for r in ranges], [r[1] for r in ranges]
        key = self._key(path)
        try:
            found = _ask(path, lambda: _obstore().get_ranges(self._client(), key, starts=starts, lengths=lengths))
        except _WholeOnly:
            whole = self._whole(path)
            return [whole[start : start + length] for start, length in ranges]
        return [bytes(part) for part in found]

    def open(self, path: str) -> ObjectReader:
        return _RemoteReader(self, path)

    def size(self, path: str) -> int:
        return _ask(path, lambda: int(_obstore().head(self._client(), self._key(path))["size"]))

    def exists(self, path: str) -> bool:
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        base = self._key(prefix) if prefix else self.prefix
        cut = len(self.prefix) + 1 if self.prefix else 0
        listed = partial(_obstore().list, prefix=base or None)
        found = _ask(prefix, lambda: [entry["path"] for page in listed(self._client()) for entry in page])
        yield from sorted(path[cut:] for path in found)

    def put(self, path: str, data: bytes) -> None:
        checkpoint("write.before")
        _ask(path, lambda: self._put(path, data))
        checkpoint("write.renamed")

    def swap(self, path: str, data: bytes, *, guard: Callable[[], None]) -> None:
        found = self._version(path)
        guard()
        checkpoint("swap.guarded")
        try:
            _ask(path, lambda: self._put(path, data, mode="create" if found is None else found))
        except (_obstore().exceptions.AlreadyExistsError, _obstore().exceptions.PreconditionError) as error:
            # If the answer to the first attempt was lost, the client retries and finds the object it wrote itself
            if self.read(path) != data:
                raise LayoutError(
                    f"{path}: found that another build replaced it meanwhile, expected it to be as it was; "
                    "nothing was published by this build, the other one's stands"
                ) from error
        checkpoint("write.renamed")

    def fence(self) -> None:
        return  # not needed: swap names the version that it replaces, so an outdated swap fails anyway

    def create(self, path: str, data: bytes) -> None:
        checkpoint("create.before")
        try:
            _ask(path, lambda: self._put(path, data, mode="create"))
        except _obstore().exceptions.AlreadyExistsError as error:
            raise FileExistsError(errno.EEXIST, "found an object, expected none", path) from error
        checkpoint("create.linked")

    def settle(self, path: str) -> None:
        """Do nothing, because an object store answers only when an object is durable."""

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="builder-") as folder:
            yield Path(folder)

    def commit(self, path: str, scratch: Path) -> None:
        checkpoint("commit.before")
        with scratch.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        _ask(path, lambda: _obstore().put(self._client(), self._key(path), scratch, attributes={DIGEST: digest}))
        scratch.unlink()
        checkpoint("commit.renamed")

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _ask(path, lambda: _obstore().delete(self._client(), self._key(path)))

    def destroy(self, path: str) -> bool:
        self.delete(path)
        return False

    def sweep(self) -> int:
        return 0  # an object store never keeps an incomplete object

    @lru_cache(maxsize=KEPT_WHOLE)  # noqa: B019 - a frozen value, and few objects are kept
    def _whole(self, path: str) -> bytes:
        """Read an object from a web server that cannot send ranges, and keep it for the next range of it."""
        return self.read(path)

    def _put(self, path: str, data: bytes, *, mode: Any = "overwrite") -> None:
        digest = {DIGEST: hashlib.sha256(data).hexdigest()}
        _obstore().put(self._client(), self._key(path), data, attributes=digest, mode=mode)

    def _version(self, path: str) -> dict[str, str] | None:
        """Return the store's identifiers of the current version of an object, or None if there is no object."""
        try:
            found = _ask(path, lambda: _obstore().head(self._client(), self._key(path)))
        except FileNotFoundError:
            return None
        return {name: found[name] for name in ("e_tag", "version") if found[name] is not None}

    def _key(self, path: str) -> str:
        return f"{self.prefix}/{checked(path)}" if self.prefix else checked(path)

    def _client(self) -> Any:
        # One client per process, because a client owns threads, which do not survive a fork
        return _client(self.root, os.getpid())


@dataclass(frozen=True)
class _RemoteReader:
    """Reads an object by its name, over the connections of the client."""

    store: ObjectStore
    path: str

    def read(self, start: int, length: int) -> bytes:
        return self.store.read_range(self.path, start, length=length)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterable[bytes]:
        return self.store.read_ranges(self.path, ranges)

    def memory(self) -> None:
        return None


@cache
def _client(root: str, process: int) -> Any:
    store = _obstore().store
    if root.startswith("memory://"):
        return store.MemoryStore()
    if root.startswith(("s3://", "s3a://")):
        # With a checksum the server refuses objects that were damaged on the way
        return store.from_url(root, config={"checksum_algorithm": "SHA256"})
    plain = {"client_options": {"allow_http": True}} if root.startswith("http://") else {}
    return store.from_url(root, **plain)


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingExtra("obstore") from error
    return obstore


class _Damaged(Exception):
    """The answer differs from what was stored."""


class _WholeOnly(SourceError):
    """The server is a plain web server that sends whole objects only."""


def _whole(path: str, answer: Any) -> bytes:
    """Return the bytes of an answer. Raises _Damaged if they differ from the SHA-256 stored with the object."""
    data = bytes(answer.bytes())
    stated = answer.attributes.get(DIGEST)
    if stated is not None and hashlib.sha256(data).hexdigest() != stated:
        raise _Damaged
    return data


def _ask(path: str, call: Callable[[], Answer]) -> Answer:
    """Call an object store, and call it again if the answer was cut off or damaged on the way.

    obstore itself retries only what fails before an answer starts. Every call here is safe to repeat.
    """
    errors = _obstore().exceptions
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (FileNotFoundError, errors.NotFoundError) as error:
            raise FileNotFoundError(errno.ENOENT, "found no object", path) from error
        except (errors.AlreadyExistsError, errors.PreconditionError):
            raise
        except errors.NotSupportedError as error:
            raise _WholeOnly(
                "object store: found a server that gives whole objects only, expected one for this"
            ) from error
        except (errors.BaseError, _Damaged) as error:
            refused = isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError)
            if refused or attempt == ATTEMPTS:
                what = "a damaged answer" if isinstance(error, _Damaged) else f"no answer but {type(error).__name__}"
                raise SourceError(
                    f"object store: found {what} ({counted(attempt, 'attempt')}), expected the object as it was "
                    "stored; check address, credentials and network, and run the same command again",
                    attempt=attempt,
                ) from error
    raise AssertionError("unreachable")
