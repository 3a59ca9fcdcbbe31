"""How often each fault was tried and how often it did harm: kept while the tests run, printed as a table at the end.

With ``BUILDER_FAULTS_LOG`` a line of JSON a test is appended to that file, and a later run leaves out what passed in
it: a long run can be cut off at any time and continued. A failure stays in the file, and in the table.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "BUILDER_FAULTS_LOG"
_running: dict[str, dict[str, Any]] = {}
_ended: list[dict[str, Any]] = []


def note(report: pytest.TestReport) -> None:
    """Take in one phase of a test; its last phase ends it."""
    if "tests/faults/" not in report.nodeid or report.skipped:
        return
    entry = _running.setdefault(report.nodeid, {"test": report.nodeid, "passed": True, "seconds": 0.0})
    entry["passed"] = entry["passed"] and report.passed
    entry["seconds"] = round(entry["seconds"] + report.duration, 2)
    if report.when != "teardown":
        return
    del _running[report.nodeid]
    properties: dict[str, Any] = dict(report.user_properties)
    if "fault" in properties:
        _end({**entry, "fault": properties["fault"], "times": int(properties.get("times", 1))})


def passed() -> set[str]:
    """Tests that passed in the run that is continued."""
    return {entry["test"] for entry in _kept() if entry["passed"]}


def table() -> list[str]:
    """A line a fault: tried, harm done, and the 95 % bound 3/n on the chance that it does."""
    entries = _kept() or _ended
    return list(_rows(entries)) if entries else []


def _rows(entries: Iterable[dict[str, Any]]) -> Iterable[str]:
    tried: Counter[str] = Counter()
    harm: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for entry in entries:
        tried[entry["fault"]] += entry["times"] if entry["passed"] else 1
        harm[entry["fault"]] += not entry["passed"]
        seconds[entry["fault"]] += entry["seconds"]
    yield f"| {'fault':75} | tried | harm | 95 % bound | seconds |"
    yield f"|{'-' * 77}|------:|-----:|-----------:|--------:|"
    for name in sorted(tried):
        bound = f"{min(1.0, 3 / tried[name]):.4f}" if tried[name] and not harm[name] else ""
        yield f"| {name:75} | {tried[name]:5} | {harm[name]:4} | {bound:>10} | {seconds[name]:7.0f} |"


def _end(entry: dict[str, Any]) -> None:
    _ended.append(entry)
    if VARIABLE in os.environ:
        path = Path(os.environ[VARIABLE])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(json.dumps(entry, sort_keys=True) + "\n")


def _kept() -> list[dict[str, Any]]:
    path = Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    print("\n".join(table()))
