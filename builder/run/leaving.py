"""A quick way out of a process that is ours alone."""

import atexit
import os
import sys
from dataclasses import dataclass


@dataclass
class WayOut:
    """Leaves the process once all exit functions have run, if ``code`` says with which exit code.

    Python would then free every object of the loaded libraries, which takes half a second and gives nothing back that
    the end of the process does not.
    """

    code: int | None = None

    def prepare(self) -> None:
        """Call it early: the first exit function to be registered is the last to run, after all threads have ended."""
        atexit.register(self._leave)

    def _leave(self) -> None:
        if self.code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            return  # Python says what is wrong with the stream, and chooses the exit code
        os._exit(self.code)
