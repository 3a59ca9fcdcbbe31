"""Allow one builder per dataset by a lease with a growing counter; clocks of two machines are never compared.

``lease/<counter>.json`` exists for every holder so far. Creating the next one, if it is absent, takes the lease, so
only one of several contenders wins. A holder beats by replacing ``lease/<counter>.beat``. A waiting process watches the
beats. A holder loses the lease when its process is gone (on the same machine), or when its beat did not change while
the waiting process counted ``seconds`` on its own clock.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from builder.errors import LayoutError
from builder.storage import Store

FOLDER = "lease"
SECONDS = 60.0
SECONDS_VARIABLE = "BUILDER_LEASE_SECONDS"
WAITING = "another build of this dataset is at work ({holder}); waiting for it to end"


@dataclass(frozen=True)
class Lease:
    """A lease that was taken; ``check`` tells whether it is still valid."""

    store: Store
    counter: int

    def check(self) -> None:
        """Raise LayoutError if another builder has taken over the dataset, as nothing may be published then."""
        newest = _newest(self.store)
        if newest != self.counter:
            raise LayoutError(
                f"lease: found that build {newest} took this dataset over while build {self.counter} stood still, "
                "expected to be the only one; nothing was published by this build, the other goes on"
            )


@contextmanager
def hold_lease(private: Store, *, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lease of a dataset's private workspace, waiting while another live process holds it.

    Parameters
    ----------
    say
        Called once if somebody else holds the lease.
    """
    seconds = float(os.environ.get(SECONDS_VARIABLE, SECONDS))
    store = private.join(FOLDER)
    lease = Lease(store, _take(store, seconds, say))
    done = threading.Event()
    beats = threading.Thread(target=_beat, args=(lease, done, seconds / 6), daemon=True, name="lease")
    beats.start()
    try:
        yield lease
    finally:
        done.set()
        beats.join()
        with suppress(OSError):
            store.put(_released(lease.counter), b"")


def is_gone(private: Store, counter: int) -> bool:
    """Return whether a holder is known to have ended: it released the lease, died, or was succeeded."""
    store = private.join(FOLDER)
    return _newest(store) != counter or _is_free(store, counter)


def _take(store: Store, seconds: float, say: Callable[[str], None]) -> int:
    """Take the lease and return its counter."""
    told = False
    while True:
        newest = _newest(store)
        if newest and not _is_free(store, newest):
            if not told:
                say(WAITING.format(holder=_describe(store, newest)))
                told = True
            if not _outlived(store, newest, seconds):
                continue
        if not _won(store, newest + 1):
            continue
        for old in range(max(1, newest - 3), newest):
            for name in (_name(old), _beat_name(old), _released(old)):
                store.delete(name)
        return newest + 1


def _won(store: Store, counter: int) -> bool:
    """Try to become the holder of a counter."""
    mine = json.dumps({**_identity(), "token": secrets.token_hex(8)}, sort_keys=True).encode()
    try:
        store.create(_name(counter), mine)
    except FileExistsError:
        # if an answer is lost on the way, the store retries and finds the object it has just created
        return store.read(_name(counter)) == mine
    return True


def _newest(store: Store) -> int:
    """Return the highest counter; 0 when nobody ever held the lease."""
    found = (path.partition(".")[0] for path in store.list() if path.endswith(".json"))
    return max((int(name) for name in found if name.isdigit()), default=0)


def _is_free(store: Store, counter: int) -> bool:
    """Return whether a holder released its lease, or its process on this machine is gone."""
    if store.exists(_released(counter)):
        return True
    holder = json.loads(store.read(_name(counter)))
    mine = _identity()
    return bool(holder["machine"] == mine["machine"] and holder["process"] != _process(holder["pid"]))


def _outlived(store: Store, counter: int, seconds: float) -> bool:
    """Watch a holder: True once its beat stood still for ``seconds``, False when the lease is free or has moved on."""
    last, since = _read_beat(store, counter), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(min(1.0, seconds / 20))
        if _newest(store) != counter or _is_free(store, counter):
            return False
        beat = _read_beat(store, counter)
        if beat != last:
            last, since = beat, time.monotonic()
    return True


def _beat(lease: Lease, done: threading.Event, every: float) -> None:
    """Replace the beat repeatedly. A store that fails for a while only makes the beat look still."""
    while not done.wait(every):
        with suppress(OSError):
            lease.store.put(_beat_name(lease.counter), secrets.token_bytes(8))


def _read_beat(store: Store, counter: int) -> bytes:
    try:
        return store.read(_beat_name(counter))
    except FileNotFoundError:
        return b""


def _describe(store: Store, counter: int) -> str:
    holder = json.loads(store.read(_name(counter)))
    return f"build {counter}, process {holder['pid']} on {holder['host']}"


def _identity() -> dict[str, str | int]:
    """Identify this process and machine, so that neither a reboot nor a reused process number causes confusion."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": _machine(), "pid": pid, "process": _process(pid)}


def _machine() -> str:
    """Identify this boot of this machine and its process name space; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return secrets.token_hex(16)


def _process(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _name(counter: int) -> str:
    return f"{counter:010d}.json"


def _beat_name(counter: int) -> str:
    return f"{counter:010d}.beat"


def _released(counter: int) -> str:
    return f"{counter:010d}.released"
