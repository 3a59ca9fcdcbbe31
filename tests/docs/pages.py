"""Runs a page of docs/ as a reader would: every block of code in its order, in one shell, in an empty folder.

A comment on the page says what has to lie in the folder: ``<!-- needs: ARCHIVE FOLDER as NAME -->`` a folder of the
corpus, ``<!-- needs: checkout -->`` the example specs and scripts. A block with a title is a file, ``sh`` is typed,
``python`` is run, and ``text`` after one of them is what it prints: each line must be there, where ``...`` stands for
anything.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^<!-- needs: (.+?) -->$", re.MULTILINE)
MARK = "=== block "


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    kind: str
    title: str
    text: str

    def as_shell(self) -> str:
        """Return the lines of shell that stand for it."""
        if self.title:
            return f"cat > {self.title} <<'END_OF_FILE'\n{self.text}END_OF_FILE\n"
        if self.kind == "python":
            return f"python - <<'END_OF_FILE'\n{self.text}END_OF_FILE\n"
        return self.text


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page. Raises ValueError for a kind that nothing here runs."""
    for kind, title, text in FENCE.findall(page.read_text()):
        if not title and kind not in ("sh", "python", "text"):
            raise ValueError(f"{page.name}: a block of {kind} without a title would not be run")
        yield Block(kind, title, text)


def run(page: Path, folder: Path, corpus: Callable[[str], Path]) -> None:
    """Run a page in a folder. Raises AssertionError for a command that fails and a line that is not printed."""
    for need in NEEDS.findall(page.read_text()):
        lay_out(need, folder, corpus)
    known = list(blocks(page))
    assert known, page.name
    script = "set -euo pipefail\n"
    for number, block in enumerate(known):
        if block.kind != "text" or block.title:
            script += f"echo '{MARK}{number}'\n{block.as_shell()}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    environment.pop("BUILDER_KEY", None)
    ran = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    printed = {int(part.split("\n", 1)[0]): part for part in ran.stdout.split(MARK)[1:]}
    assert ran.returncode == 0, (
        f"{page.name}, block {max(printed, default=0)}:\n{ran.stdout[-2000:]}{ran.stderr[-3000:]}"
    )
    for number, block in enumerate(known):
        if block.kind == "text":
            shown = [line for line in printed.get(number - 1, "").splitlines() if line.strip()]
            for line in filter(str.strip, block.text.splitlines()):
                pattern = ".*".join(map(re.escape, line.split("...")))
                assert any(re.fullmatch(pattern, one) for one in shown), f"{page.name}: {line!r} not in {shown}"


def lay_out(need: str, folder: Path, corpus: Callable[[str], Path]) -> None:
    """Put into the folder what a page needs."""
    if need == "checkout":
        for name in ("specs", "examples", "cluster"):
            (folder / name).symlink_to(ROOT / name)
        return
    archive, _, place = need.partition(" ")
    inside, _, name = place.partition(" as ")
    (folder / name).symlink_to(corpus(archive) / inside)
