"""Power failures of a disk, worked out: what a process had not flushed when it died is lost.

``record`` is planted in a build: it notes which files and folders were flushed, and which names were given since. The
model is the worst that POSIX allows: a file never flushed is empty, and a name given in a folder that was not flushed
since may be gone, or stand for what it stood for before.
"""

import json
import os
import random
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def record(log: str) -> None:
    """Note flushes and names from now on, in a file that outlives this process."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    saved = Path(log + ".saved")
    saved.mkdir(exist_ok=True)
    real: dict[str, Callable[..., Any]] = {n: getattr(os, n) for n in ("fsync", "replace", "rename", "link", "mkdir")}

    def note(**facts: str) -> None:
        os.write(handle, json.dumps(facts).encode() + b"\n")

    def fsync(descriptor: int) -> None:
        real["fsync"](descriptor)
        note(flushed=str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def named(how: str) -> Callable[..., None]:
        def call(source: Any, target: Any, **options: Any) -> None:
            kept = ""
            if os.path.isfile(target) and how != "link":  # noqa: PTH113
                kept = str(saved / uuid.uuid4().hex)
                real["link"](target, kept)
            real[how](source, target, **options)
            note(source=os.path.abspath(source), name=os.path.abspath(target), kept=kept)  # noqa: PTH100

        return call

    def mkdir(path: Any, *more: Any, **options: Any) -> None:
        real["mkdir"](path, *more, **options)
        note(made=os.path.abspath(path))  # noqa: PTH100

    os.mkdir = mkdir
    vars(os)["fsync"] = fsync
    for how in ("replace", "rename", "link"):
        setattr(os, how, named(how))


def fail(log: Path, roots: list[Path], dice: random.Random) -> list[str]:
    """Take from folders what a power failure after the recorded events may take; returns what that was."""
    flushed, pending = _replay([json.loads(line) for line in log.read_text().splitlines()])
    lost = []
    for root in roots:
        for path in [p for p in root.rglob("*") if p.is_file()]:
            if str(path) not in flushed and path.stat().st_size:
                os.truncate(path, 0)
                lost.append(str(path))
    for event in reversed(pending):
        name = event.get("name") or event["made"]
        if dice.random() < 0.5 or not Path(name).exists():
            continue
        lost.append(name)
        if "made" in event:
            shutil.rmtree(event["made"], ignore_errors=True)
        elif event["kept"]:
            Path(event["name"]).unlink(missing_ok=True)
            os.link(event["kept"], event["name"])
        else:
            Path(event["name"]).unlink(missing_ok=True)
    return lost


def _replay(events: list[dict[str, str]]) -> tuple[set[str], list[dict[str, str]]]:
    """The files whose content was flushed, and the names that were given in folders not flushed since."""
    flushed: set[str] = set()
    pending: list[dict[str, str]] = []
    for event in events:
        if "flushed" in event:
            flushed.add(event["flushed"])
            pending = [p for p in pending if os.path.dirname(p.get("name") or p["made"]) != event["flushed"]]  # noqa: PTH120
            continue
        pending.append(event)
        if "name" in event:
            flushed.discard(event["name"])
            if event["source"] in flushed:
                flushed.add(event["name"])
    return flushed, pending
