"""``python -m builder`` and the command ``builder``: the command line."""

import atexit
import codecs
import gc
import os
import sys

from builder.cli import main

YOUNG_OBJECTS = 50_000
"""New objects before Python looks for cycles: imports make many objects and few cycles, so the default is too eager."""


def run() -> None:
    """Run the command line and end the process."""
    speak_utf8()
    # Matrices here are small: threads that share a product wait for each other and take five times the processor time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(YOUNG_OBJECTS)
    atexit.register(gc.freeze)  # else Python searches every loaded library for cycles while it ends, for a second
    main()


def speak_utf8() -> None:
    """Start Python again in UTF-8 mode where the locale asks for less: archives have names that ASCII cannot hold."""
    if sys.flags.utf8_mode or codecs.lookup(sys.getfilesystemencoding()).name == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    run()
