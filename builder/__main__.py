"""``python -m builder`` and the command ``builder``: the command line, and a quick way out of it."""

import sys
from typing import NoReturn

from builder.cli import main
from builder.run.allocator import keep_one_heap
from builder.run.leaving import WayOut
from builder.run.loading import load_libraries, mind_garbage

BUILDS = frozenset({"build", "plan"})
"""Commands that need all libraries of a build."""


def run() -> NoReturn:
    """Run the command line and end the process."""
    mind_garbage()
    keep_one_heap()
    way_out = WayOut()
    way_out.prepare()
    try:
        if set(sys.argv[1:2]) & BUILDS:
            load_libraries()
        main()
    except SystemExit as leaving:
        way_out.code = leaving.code if isinstance(leaving.code, int) else None
        raise


if __name__ == "__main__":
    run()
