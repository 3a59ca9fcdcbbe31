"""``python -m builder`` and the command ``builder``: the command line, and a quick way out of it."""

import atexit
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

from builder.cli import main
from builder.run.allocator import keep_one_heap
from builder.run.loading import load_libraries, mind_garbage

BUILDS = frozenset({"build", "plan"})
"""Commands that need all libraries of a build."""


@dataclass
class _Exit:
    """Leaves the process once all exit functions have run.

    Python would then free every object of the loaded libraries, which takes half a second and gives nothing back that
    the end of the process does not.
    """

    code: int | None = None

    def leave(self) -> None:
        if self.code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            return  # Python says what is wrong with the stream, and chooses the exit code
        os._exit(self.code)


def run() -> NoReturn:
    """Run the command line and end the process."""
    mind_garbage()
    keep_one_heap()
    way_out = _Exit()
    atexit.register(way_out.leave)  # the first to be registered is the last to run, after all threads have ended
    try:
        if set(sys.argv[1:2]) & BUILDS:
            load_libraries()
        main()
    except SystemExit as leaving:
        way_out.code = leaving.code if isinstance(leaving.code, int) else None
        raise


if __name__ == "__main__":
    run()
