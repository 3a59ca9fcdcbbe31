"""Fetch series that a server only sends whole, once each, into a private folder of this process."""

import atexit
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

from builder.errors import CaseError, Reason

CACHE_LIMIT: Final = 8 * 2**30
"""Most bytes to keep. The least recently used series are removed first. A single series may use all of it."""

_UID = re.compile(r"[0-9.]{1,64}")


class SeriesFolder:
    """The folder into which one series is fetched, within the limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0

    def put(self, instance_uid: str, data: bytes) -> None:
        """Keep one instance. Raises CaseError when the series exceeds the limit or the UID is not valid."""
        if not _UID.fullmatch(instance_uid):
            raise CaseError(Reason.UNREADABLE, "the server sent an object whose SOP Instance UID is not a UID")
        self.bytes += len(data)
        if self.bytes > CACHE_LIMIT:
            raise CaseError(Reason.TOO_LARGE, f"the series is larger than {CACHE_LIMIT} bytes")
        (self.folder / instance_uid).write_bytes(data)


Fetch: TypeAlias = Callable[[SeriesFolder], None]


class SeriesCache:
    """The series that this process fetched, newest last. They are removed when the process ends."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="builder-series-"))
        self._held: OrderedDict[tuple[str, ...], SeriesFolder] = OrderedDict()
        self._lock = threading.Lock()
        self._count = 0
        atexit.register(shutil.rmtree, self._root, ignore_errors=True)

    def read(
        self,
        name: tuple[str, ...],
        instance: str,
        fetch: Callable[[SeriesFolder], None],
        *,
        start: int,
        length: int | None,
    ) -> bytes:
        """Read bytes of an instance of the series ``name``; ``fetch`` gets the series if it is not in the cache.

        Raises
        ------
        CaseError
            SOURCE_MISSING when the series arrived without that instance.
        """
        with self._lock:  # one fetch at a time, because threads mostly want the same series
            series = self._held.pop(name, None) or self._fetched(fetch)
            self._held[name] = series
            self._trim()
            try:
                with (series.folder / instance).open("rb") as stream:
                    stream.seek(start)
                    return stream.read(-1 if length is None else length)
            except FileNotFoundError as error:
                why = "the server listed the instance and did not send it with its series"
                raise CaseError(Reason.SOURCE_MISSING, why) from error

    def _fetched(self, fetch: Callable[[SeriesFolder], None]) -> SeriesFolder:
        self._count += 1
        series = SeriesFolder(self._root / str(self._count))
        series.folder.mkdir()
        try:
            fetch(series)
        except BaseException:
            shutil.rmtree(series.folder, ignore_errors=True)
            raise
        return series

    def _trim(self) -> None:
        while len(self._held) > 1 and sum(series.bytes for series in self._held.values()) > CACHE_LIMIT:
            _, oldest = self._held.popitem(last=False)
            shutil.rmtree(oldest.folder, ignore_errors=True)


def series_cache() -> SeriesCache:
    """Return the cache of this process."""
    return _cache(os.getpid())


@cache
def _cache(process: int) -> SeriesCache:
    return SeriesCache()
