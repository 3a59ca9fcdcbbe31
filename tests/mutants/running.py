"""Runs the tests near a room against a changed copy of the project, those that execute the changed lines first."""

import contextlib
import functools
import gc
import inspect
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "--assert=plain")
"""The check for unraisable exceptions collects garbage five times a run, and costs more than many tests."""

NOTHING_RAN = 5
"""Pytest's exit code when it found no test."""

SLOWEST = 5
"""A run that takes this many times the processor time that it takes unchanged counts as noticed: a loop never ends."""

SPARE_SECONDS = 20
SPARE_SECONDS_OF_A_TEST = 4
SPARE_WAIT_OF_A_TEST = 30
LONGEST_WAIT = 20
"""A run may wait this many times the processor time it may use, because other programs use the machine too."""


@dataclass(frozen=True)
class Ran:
    """What one test did when nothing was changed: how long it took, and which lines of each file it executed."""

    test: str
    seconds: float
    lines: Mapping[str, frozenset[int]]

    def executes(self, path: str, lines: range) -> bool:
        """Return whether the test executed one of the lines of a file."""
        return not self.lines.get(path, frozenset()).isdisjoint(lines)


class Recorder:
    """A pytest plugin that records what each test executes. What fixtures execute counts for all tests of the file."""

    def __init__(self, place: Path, paths: Collection[str]) -> None:
        self._paths = {str(place / path): path for path in paths}
        self._shared: dict[str, dict[str, set[int]]] = {}
        self._lines: dict[str, set[int]] = {}
        self._own: dict[str, dict[str, set[int]]] = {}
        self.seconds: dict[str, float] = {}

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        path = self._paths.get(frame.f_code.co_filename)
        if path is None:
            return None
        lines = self._lines.setdefault(path, set())

        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            return None  # a module or class that the first test to need it happens to import

        def line(frame: FrameType, event: str, arg: object) -> Any:
            lines.add(frame.f_lineno)
            return line

        return line(frame, event, arg)

    @contextlib.contextmanager
    def _into(self, lines: dict[str, set[int]]) -> Generator[None]:
        self._lines = lines
        sys.settrace(self._trace)
        threading.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        _forget()
        with self._into(self._shared.setdefault(_file(item.nodeid), {})):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        began = time.perf_counter()
        with self._into(self._own.setdefault(item.nodeid, {})):
            try:
                return (yield)
            finally:
                self.seconds[item.nodeid] = time.perf_counter() - began

    def as_json(self) -> str:
        """Return the tests in the order in which they ran."""
        rows = []
        for test, seconds in self.seconds.items():
            parts = (self._own[test], self._shared.get(_file(test), {}))
            lines = {p: sorted({n for part in parts for n in part.get(p, ())}) for p in self._paths.values()}
            rows.append({"test": test, "seconds": seconds, "lines": {p: found for p, found in lines.items() if found}})
        return json.dumps(rows)


class Limit:
    """A pytest plugin that ends the process in a test that takes ``SLOWEST`` times its time, or sleeps for long."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        seconds = self._seconds.get(item.nodeid, 0.0)
        # the signals of both timers end the process, whatever it does
        signal.setitimer(signal.ITIMER_PROF, SLOWEST * seconds + SPARE_SECONDS_OF_A_TEST)
        signal.setitimer(signal.ITIMER_REAL, LONGEST_WAIT * seconds + SPARE_WAIT_OF_A_TEST)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _forget() -> None:
    """Clear the caches of our functions: otherwise only the first test that needs a result executes their lines."""
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] == "builder":
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("builder", "tests", "__main__", "__mp_main__")


def _file(test: str) -> str:
    return test.partition("::")[0]


def record(place: Path, tests: Sequence[str], paths: Collection[str]) -> tuple[list[Ran], float]:
    """Run the tests on the unchanged copy; return what each executed, and the processor seconds of all of them.

    They are recorded while they run, so the seconds are a little more than they take. Raises SystemExit when one fails.
    """
    kept, loaded = place / "ran.json", place / "loaded.json"

    def run() -> int:
        recorder = Recorder(place, paths)
        code = pytest.main([*OPTIONS, *tests], plugins=[recorder])
        kept.write_text(recorder.as_json())
        loaded.write_text(json.dumps([name for name in sys.modules if not _is_ours(name)]))
        return code

    before = _children_seconds()
    if _forked(place, run, seconds=None):
        sys.exit("the tests fail without any change")
    took = _children_seconds() - before
    for name in json.loads(loaded.read_text()):
        with contextlib.suppress(ImportError):  # here rather than in every fork
            import_module(name)
    rows = json.loads(kept.read_text())
    lines = [{path: frozenset(found) for path, found in row["lines"].items()} for row in rows]
    return [Ran(row["test"], row["seconds"], found) for row, found in zip(rows, lines, strict=True)], took


def that_execute(ran: Sequence[Ran], path: str, lines: range, *, limit: float) -> list[Ran]:
    """Return the tests that execute one of the lines, those of the fastest file first.

    All tests are returned for what runs when a module is imported, as nothing is recorded then. Of more than ``limit``
    seconds of tests, the quickest are returned.
    """
    first = [test for test in ran if test.executes(path, lines)] or [*ran]
    first.sort(key=lambda test: test.seconds)
    ends = accumulate(test.seconds for test in first)
    first = [test for test, end in zip(first, ends, strict=True) if end <= limit] or first[:1]
    cost: dict[str, float] = {}
    for test in first:
        cost[_file(test.test)] = cost.get(_file(test.test), 0.0) + test.seconds
    first.sort(key=lambda test: (cost[_file(test.test)], _file(test.test), test.seconds))
    return first


def passes(place: Path, tests: Sequence[Ran], *, seconds: float) -> bool:
    """Return whether no test fails on the copy as it is now, within some processor seconds in all."""
    limit = Limit({test.test: test.seconds for test in tests})
    names = [test.test for test in tests]
    run = partial(pytest.main, [*OPTIONS, *names], plugins=[limit])
    return _forked(place, run, seconds=SLOWEST * seconds + SPARE_SECONDS) == 0


def _forked(place: Path, run: Any, *, seconds: float | None) -> int:
    """Call ``run`` in a fork of this process, which has loaded the libraries it needs; return its exit code."""
    process = get_context("fork").Process(target=_child, args=(place, run, seconds))
    process.start()
    process.join(None if seconds is None else LONGEST_WAIT * seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode or 0


def _child(place: Path, run: Any, seconds: float | None) -> None:
    os.setpgrp()
    gc.freeze()
    # The profile of conftest.py inherits from this one. Any failure counts, so none is made smaller or explained.
    settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate))
    settings.load_profile("mutants")
    if seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.chdir(place)
    corpus = os.environ.get("BUILDER_CORPUS", str(ROOT.parent / "shared" / "corpus"))
    os.environ |= {"PYTHONPATH": str(place), "BUILDER_CORPUS": corpus}
    for name in [name for name in sys.modules if name.partition(".")[0] in ("builder", "tests")]:
        del sys.modules[name]
    sys.path[:] = [str(place), *(path for path in sys.path if path not in ("", str(ROOT)))]
    os._exit(run())


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
