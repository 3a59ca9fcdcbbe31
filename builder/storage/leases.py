"""Hold a place in a store exclusively, by counters that only grow; clocks of two machines are never compared.

``<counter>.json`` exists for every holder so far. Creating the next one, if it is absent, takes the place, so only one
of several contenders wins. A holder beats by replacing ``<counter>.beat``, and ends by creating ``<counter>.released``.
A waiting process watches the beats. A holder loses its place when its process is gone (on the same machine), or when
its beat did not change while the waiting process counted some seconds on its own clock.
"""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import LayoutError
from builder.storage.contract import Store


@dataclass
class Watch:
    """Watches holders from outside.

    Parameters
    ----------
    seconds
        How long a beat must stand still before its holder counts as dead.
    """

    seconds: float
    _seen: tuple[int, bytes] = field(default=(0, b""), init=False)
    _since: float = field(default=0.0, init=False)

    def outlived(self, store: Store, counter: int) -> bool:
        """Return whether a holder's beat stood still for long enough since it was first seen."""
        seen = (counter, _read_beat(store, counter))
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since >= self.seconds


def try_take(store: Store, watch: Watch) -> int | None:
    """Take the place if nobody holds it, and return the counter; None when somebody does."""
    current = newest(store)
    if current and not is_free(store, current) and not watch.outlived(store, current):
        return None
    if not _won(store, current + 1):
        return None
    for old in range(max(1, current - 3), current):
        for name in (_name(old), _beat_name(old), _released(old)):
            store.delete(name)
    return current + 1


def newest(store: Store) -> int:
    """Return the highest counter; 0 when nobody ever held the place."""
    found = (path.partition(".")[0] for path in store.list() if path.endswith(".json"))
    return max((int(name) for name in found if name.isdigit()), default=0)


def is_free(store: Store, counter: int) -> bool:
    """Return whether a holder released the place, or its process on this machine is gone."""
    if store.exists(_released(counter)):
        return True
    try:
        holder = json.loads(store.read(_name(counter)))
    except FileNotFoundError:  # removed by a later holder
        return False
    mine = _identity()
    return bool(holder["machine"] == mine["machine"] and holder["process"] != _process(holder["pid"]))


def beat(store: Store, counter: int) -> None:
    """Show that the holder lives. A store that fails for a while only makes the beat look still.

    So does a folder that somebody removed meanwhile, which a store tells by LayoutError.
    """
    with suppress(OSError, LayoutError):
        store.put(_beat_name(counter), secrets.token_bytes(8))


def release(store: Store, counter: int) -> None:
    """Give the place up. Where its folder is gone, nobody waits for it."""
    with suppress(OSError, LayoutError):
        store.put(_released(counter), b"")


def holder_of(store: Store, counter: int) -> str:
    """Return the process and the host of a holder, for a message."""
    holder = json.loads(store.read(_name(counter)))
    return f"process {holder['pid']} on {holder['host']}"


def _won(store: Store, counter: int) -> bool:
    """Try to become the holder of a counter."""
    mine = json.dumps({**_identity(), "token": secrets.token_hex(8)}, sort_keys=True).encode()
    try:
        store.create(_name(counter), mine)
    except FileExistsError:
        # if an answer is lost on the way, the store retries and finds the object it has just created
        with suppress(FileNotFoundError):
            return store.read(_name(counter)) == mine
        return False
    return True


def _read_beat(store: Store, counter: int) -> bytes:
    try:
        return store.read(_beat_name(counter))
    except FileNotFoundError:
        return b""


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
