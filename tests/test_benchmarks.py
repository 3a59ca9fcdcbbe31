"""Figures of benchmarks: which scripts keep them, and how those of two commits are compared."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
MACHINE = {"cores": 2, "processor": "made up"}


def test_a_comparison_marks_what_became_worse_beyond_rounds(tmp_path: Path) -> None:
    old = {
        "time": [10.0, 11.0, 10.5],
        "rate": [100.0],
        "noisy time": [5.0, 10.0],
        "same": [1.0],
        "gone": [1.0],
        "never": [0.0],
    }
    new = {
        "time": [13.0, 14.0, 13.5],
        "rate": [200.0],
        "noisy time": [9.0, 11.0],
        "same": [1.05],
        "come": [1.0],
        "never": [0.0],
    }
    status, told = _compared(tmp_path, old, new)
    assert status == 1
    assert [line for line in told if line.startswith("!")] == ["! time: 10.5 -> 13.5 s, 29% worse"]
    assert "  rate: 100 -> 200 s, 100% better" in told
    assert "  noisy time: 7.5 -> 10 s, 33% worse" in told  # a round of the new one was quicker than one of the old
    assert "  gone: only in the old one" in told
    assert "  come: only in the new one" in told
    assert "  never: 0 -> 0 s, 0% better" in told
    assert "numpy differs: 1, then 2" in told
    assert told[-1] == "1 of 6 figures are worse by more than 10%"


def test_nothing_worse_is_no_error(tmp_path: Path) -> None:
    status, told = _compared(tmp_path, {"rate": [100.0]}, {"rate": [95.0]})
    assert (status, told[-1]) == (0, "0 of 1 figures are worse by more than 10%")


def test_a_script_keeps_figures_only_where_it_is_told(tmp_path: Path) -> None:
    code = "from figures import figure; figure('a', 1, 'x', better='more'); figure('b', 2, 's')"
    environment = {name: value for name, value in os.environ.items() if name != "BUILDER_FIGURES"}
    for more in ({}, {"BUILDER_FIGURES": str(tmp_path / "kept")}):
        subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, env={**environment, **more}, check=True)
        assert (tmp_path / "kept").exists() == bool(more)
    kept = [json.loads(line) for line in (tmp_path / "kept").read_text().splitlines()]
    assert kept == [
        {"name": "a", "value": 1.0, "unit": "x", "better": "more"},
        {"name": "b", "value": 2.0, "unit": "s", "better": "less"},
    ]


def test_each_script_that_is_run_keeps_figures() -> None:
    """Otherwise a comparison would miss it without a word."""
    run = set(re.findall(r'\["(\w+\.py)"', (BENCHMARKS / "everything.py").read_text()))
    assert len(run) >= 12
    assert [name for name in sorted(run) if "figure(" not in (BENCHMARKS / name).read_text()] == []


def _compared(folder: Path, old: dict[str, list[float]], new: dict[str, list[float]]) -> tuple[int, list[str]]:
    for number, figures in enumerate((old, new), 1):
        told = {
            "machine": MACHINE,
            "packages": {"numpy": str(number)},
            "runs": {},
            "figures": {
                name: {"unit": "s", "better": "more" if name == "rate" else "less", "values": values}
                for name, values in figures.items()
            },
        }
        (folder / f"{number}.json").write_text(json.dumps(told))
    command = [sys.executable, str(BENCHMARKS / "difference.py"), str(folder / "1.json"), str(folder / "2.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()
