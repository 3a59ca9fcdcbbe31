"""Allow one builder per dataset by a lease in its private workspace (``builder.storage.leases`` says how)."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from builder.errors import LayoutError
from builder.storage import Store, leases

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
        newest = leases.newest(self.store)
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
        leases.release(store, lease.counter)


def is_gone(private: Store, counter: int) -> bool:
    """Return whether a holder is known to have ended: it released the lease, died, or was succeeded."""
    store = private.join(FOLDER)
    return leases.newest(store) != counter or leases.is_free(store, counter)


def _take(store: Store, seconds: float, say: Callable[[str], None]) -> int:
    """Take the lease and return its counter."""
    watch, told = leases.Watch(seconds), False
    while (counter := leases.try_take(store, watch)) is None:
        holding = leases.newest(store)
        if not told and holding:
            say(WAITING.format(holder=f"build {holding}, {leases.holder_of(store, holding)}"))
            told = True
        time.sleep(min(1.0, seconds / 20))
    return counter


def _beat(lease: Lease, done: threading.Event, every: float) -> None:
    while not done.wait(every):
        leases.beat(lease.store, lease.counter)
