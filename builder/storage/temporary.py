"""Temporary folders for what must not outlive the process that made it, even where that is killed."""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_LOCKED: Final[list[int]] = []
"""Handles of the folders of this process, which keep them locked."""


def temporary_folder(prefix: str) -> Path:
    """Make a folder that is removed when this process ends, and remove those of processes that were killed.

    The folders lie where the system keeps temporary ones, are readable to this user only, and begin with ``prefix``.

    A process holds a lock on its folder as long as it lives, so a folder without one belongs to nobody.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            held = _lock(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            _LOCKED.append(_lock(folder))
        except (FileNotFoundError, BlockingIOError):
            continue  # another process took it for one that was left behind
        except OSError:
            pass  # on a file system without locks no process removes what another left
        if folder.is_dir():
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder


def _lock(folder: Path) -> int:
    """Lock a folder and return the handle that keeps it locked. Raises OSError when another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
