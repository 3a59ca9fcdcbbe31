"""Record what servers answer, and answer from a recording later, when no server is there.

A recording holds the archive's objects and names as they came, so it is private (mode 0700), and it expires. It holds
no credentials: requests are recorded without their headers, under a hash.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from builder.errors import SourceError, SpecError
from builder.storage import Store, open_store

DAYS: Final = 30
"""Days after which a recording is no longer used, unless another number is asked for."""

_PIECE = 64 << 20
_LABEL = "recording.json"
_ANSWER = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}/(?:\d{6}|answer\.json)")
_MARKS = "recorded"
"""Of a private workspace: notes of where its builds recorded."""


@dataclass(frozen=True)
class Recording:
    """A folder with answers, which every worker reaches."""

    url: str
    mode: Literal["record", "replay"]

    @property
    def replays(self) -> bool:
        """Return whether answers come from the recording and no server is asked."""
        return self.mode == "replay"

    def keep(self, request: Sequence[str], facts: Mapping[str, str], body: Iterator[bytes]) -> Iterator[bytes]:
        """Pass a body through and record it with what is known of it, once it came whole and ``body`` has ended."""
        store, name = open_store(self.url, directory_mode=0o700), _name(request)
        held, pieces, digest = bytearray(), 0, hashlib.sha256()
        for chunk in body:
            digest.update(chunk)
            held += chunk
            if len(held) >= _PIECE:
                store.put(f"{name}/{pieces:06d}", bytes(held))
                pieces, held = pieces + 1, bytearray()
            yield chunk
        store.put(f"{name}/{pieces:06d}", bytes(held))
        found = {"facts": dict(facts), "pieces": pieces + 1, "sha256": digest.hexdigest()}
        store.put(f"{name}/answer.json", json.dumps(found, sort_keys=True).encode())

    def put(self, request: Sequence[str], data: bytes) -> None:
        """Record an answer."""
        for _ in self.keep(request, {}, iter((data,))):
            pass

    def find(self, request: Sequence[str], *, source: str, host: str) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return what was recorded of a request: facts and the body. Raises SourceError when it was not."""
        store, name = open_store(self.url, directory_mode=0o700), _name(request)
        try:
            found = json.loads(store.read(f"{name}/answer.json"))
        except FileNotFoundError:
            raise SourceError(
                f"{source} at {host}: the recording has no answer to a request of this build, expected one to each; "
                "record again with this spec and this version of builder",
                host=host,
            ) from None

        def body() -> Iterator[bytes]:
            digest = hashlib.sha256()
            for piece in range(found["pieces"]):
                data = store.read(f"{name}/{piece:06d}")
                digest.update(data)
                yield data
            if digest.hexdigest() != found["sha256"]:
                raise SourceError(f"{source} at {host}: the recording is damaged; record again", host=host)

        return found["facts"], body()

    def get(self, request: Sequence[str], *, source: str, host: str) -> bytes:
        """Return the body of a recorded answer. Raises SourceError when there is none."""
        return b"".join(self.find(request, source=source, host=host)[1])


CURRENT: ContextVar[Recording | None] = ContextVar("recording", default=None)
"""The recording that the builds of this context make or use."""


@contextmanager
def recording(*, record: str | None = None, replay: str | None = None, days: int = DAYS) -> Iterator[None]:
    """Let builds in this context record to a folder, or replay one.

    Raises
    ------
    SpecError
        When both are asked for, or there is no recording to replay, or it has expired.
    """
    if record and replay:
        raise SpecError("--record: found --replay too, expected one of them")
    made = None
    if record:
        made = Recording(record, "record")
        store = open_store(record, directory_mode=0o700)
        expires = datetime.now(UTC) + timedelta(days=days)
        store.put(_LABEL, json.dumps({"expires": expires.isoformat(timespec="seconds")}).encode())
    elif replay:
        made = Recording(replay, "replay")
        _check_age(replay)
    token = CURRENT.set(made)
    try:
        yield
    finally:
        CURRENT.reset(token)


def check_recorded(private: Store, begun: str) -> None:
    """Refuse to record a build of which an earlier run has asked the servers already, without a recording.

    Parameters
    ----------
    private
        The dataset's private workspace.
    begun
        Folder in it that an earlier run has filled.

    Raises
    ------
    SpecError
        When it has: the recording would lack what is not asked again.
    """
    current = CURRENT.get()
    if current is None or current.replays:
        return
    mark = _mark(current.url)
    if private.exists(mark):
        return
    if next(iter(private.list(begun)), None) is not None:
        raise SpecError(
            f"--record: found that {private.url} holds what an earlier run has read, expected a new dataset: what is "
            "kept is not asked for again, and would be missing in the recording; give another --to"
        )
    private.put(mark, open_store(current.url).url.encode())


def recorded_at(private: Store) -> list[str]:
    """Return where builds of a dataset recorded, by its private workspace; "" for what an earlier release noted."""
    return [private.read(path).decode() for path in sorted(private.list(_MARKS))]


def is_recording(url: str) -> bool:
    """Return whether a folder holds a recording."""
    return open_store(url).exists(_LABEL)


def empty_recording(url: str, private: Store, *, before: Callable[[], None]) -> None:
    """Delete a recording whole, and the note of it; parts of a person's images cannot be told from those of others.

    ``before`` is called ahead of each deletion. What ``record`` did not write into the folder stays.
    """
    store = open_store(url)
    answers = [path for path in store.list() if _ANSWER.fullmatch(path)]
    for path in (_LABEL, *answers):  # a recording without its label is none, so that nobody replays half of it
        before()
        store.delete(path)
    for path in list(private.list(_MARKS)):
        if private.read(path) == url.encode():
            private.delete(path)


def _mark(url: str) -> str:
    return f"{_MARKS}/{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def _check_age(url: str) -> None:
    try:
        expires = datetime.fromisoformat(json.loads(open_store(url).read(_LABEL))["expires"])
    except (FileNotFoundError, KeyError, ValueError):
        raise SpecError(f"--replay: found no recording in {url}, expected what --record made there") from None
    if datetime.now(UTC) >= expires:
        raise SpecError(
            f"--replay: found that the recording expired on {expires.date()}, expected one that has not: delete it, as "
            "it holds patients' data, and record again (--record-days N keeps one for longer)"
        )


def _name(request: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(request).encode()).hexdigest()
    return f"{digest[:2]}/{digest}"
