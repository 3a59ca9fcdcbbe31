"""Run functions that may kill their process in a separate process.

The process runs one task at a time, is started once, and is replaced when it dies. It is a plain ``python -m`` rather
than multiprocessing, so that nothing of the caller's script is imported or run again.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, BinaryIO


class Died(Exception):
    """The process ended before the task returned. ``status`` is its exit code or minus the signal."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Apart:
    """Runs functions in the other process. Use it as a context manager, which ends the process on exit.

    Functions must be importable, and arguments, values and errors picklable, as for every runner.

    Parameters
    ----------
    messages
        Where the other process writes its error output, as for ``subprocess``; None for that of this process.
    """

    def __init__(self, messages: int | None = None) -> None:
        self._messages = messages
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Return what ``function`` returns; raise what it raises, or Died."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((function, argument), process.stdin)
            process.stdin.flush()
            value, error = pickle.load(process.stdout)  # noqa: S301 (our own process)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            process.communicate()
            self._process = None
            raise Died(process.returncode) from None
        if error is not None:
            raise error
        return value

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "builder.decode.apart"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages)
        return self._process

    def _end(self) -> None:
        """Kill the process, even during a task: tasks can be interrupted anywhere."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Run requests in the other process until there are none left."""
    with ThreadPoolExecutor(1) as thread:  # whose futures store an error instead of raising it
        while True:
            try:
                function, argument = pickle.load(requests)  # noqa: S301 (from the process that started this one)
            except EOFError:
                return
            future = thread.submit(function, argument)
            error = future.exception()
            pickle.dump((None if error else future.result(), error), answers)
            answers.flush()


if __name__ == "__main__":
    # output printed by a library must not mix with the answers
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, answers)
