"""Comparing datasets byte for byte, and running the command line as a user does."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

KEY = "7b1f0c6ad93e58427e5ab8d1469f03c2e8d7712f94ab360c5dfe81b2a94c6037"
"""The key of all tests: random once, because a key with a pattern is refused. Names in stored results hang on it."""
ROOT = Path(__file__).resolve().parents[2]
SARCOMA = ROOT / "specs" / "soft-tissue-sarcoma.yaml"
SARCOMA_CT_MR = ROOT / "specs" / "soft-tissue-sarcoma-ct-mr.yaml"


def tree(folder: Path) -> dict[str, str]:
    """Relative path to SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def environment() -> dict[str, str]:
    """The environment of a build: the key, and no inherited crash point."""
    return {**os.environ, "BUILDER_KEY": KEY}


def command(*arguments: str | Path) -> list[str]:
    """The command line of ``builder``."""
    return [sys.executable, "-m", "builder", *map(str, arguments)]


def run(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``builder`` to its end and check its exit code."""
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == expect, f"{done.args}: exit {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done
