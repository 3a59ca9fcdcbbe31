"""``python -m builder``: exit codes and streams are those of an ordinary end, and little is loaded for it."""

import subprocess
import sys

import pytest

ENDING = """
import atexit, sys, threading, time
import builder.__main__ as entry
def ended():
    time.sleep(0.1)
    print("thread ended")
def main():
    atexit.register(print, "exit function ran")
    threading.Thread(target=ended).start()
    {last}
entry.main = main
entry.run()
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_threads_and_exit_functions_end_and_streams_are_written(code):
    ended = run("-c", ENDING.format(last=f"raise SystemExit({code})"))
    assert (ended.returncode, ended.stdout.splitlines()) == (code, ["thread ended", "exit function ran"])
    assert ended.stderr == ""


def test_an_error_nobody_caught_is_shown():
    ended = run("-c", ENDING.format(last='raise RuntimeError("found a fault")'))
    assert ended.returncode == 1
    assert "RuntimeError: found a fault" in ended.stderr


def test_a_closed_pipe_is_no_success():
    code = "import sys; from builder.__main__ import run; sys.argv = ['builder', 'schema']; run()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) != 0


@pytest.mark.parametrize("slow", ["scipy.stats", "scipy.optimize", "SimpleITK", "highdicom", "nibabel", "jinja2"])
def test_a_build_starts_without_what_few_need(slow):
    loaded = run("-c", f"import sys, builder.cli, builder.run.pipeline; print({slow!r} in sys.modules)")
    assert loaded.stdout.strip() == "False"
