"""``python -m builder`` and the command ``builder``: the command line, and a quick way out of it."""

import codecs
import os
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
    speak_utf8()
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


def speak_utf8() -> None:
    """Start Python again in UTF-8 mode where the locale asks for less: archives have names that ASCII cannot hold."""
    if sys.flags.utf8_mode or codecs.lookup(sys.getfilesystemencoding()).name == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    run()
