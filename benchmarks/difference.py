"""Compare the figures of two commits, as ``everything.py`` kept them.

    python benchmarks/difference.py OLD NEW [--by 0.1]

OLD and NEW are files, or commits whose files lie in .bench. A line for each figure: the median of both, and by how much
the new one is better or worse. What is worse by more than ``--by`` is marked, unless rounds of both commits overlap;
then the exit status is 1. What differs between the machines and packages is named first.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

KEPT: Final = Path(__file__).resolve().parent.parent / ".bench"


def main() -> int:
    """Print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--by", type=float, default=0.1, help="share from which a figure counts as worse")
    given = parser.parse_args()
    old, new = load(given.old), load(given.new)
    for line in unlike(old, new):
        print(line)
    worse = 0
    for name in sorted(old["figures"].keys() | new["figures"].keys()):
        before, after = old["figures"].get(name), new["figures"].get(name)
        if before is None or after is None:
            print(f"  {name}: only in the {'new' if before is None else 'old'} one")
            continue
        gain, sure = change(before["values"], after["values"], before["better"])
        marked = gain < -given.by and sure
        worse += marked
        shown = f"{median(before['values']):.4g} -> {median(after['values']):.4g} {after['unit']}"
        print(f"{'!' if marked else ' '} {name}: {shown}, {abs(gain):.0%} {'better' if gain >= 0 else 'worse'}")
    print(f"{worse} of {len(new['figures'])} figures are worse by more than {given.by:.0%}")
    return 1 if worse else 0


def load(name: str) -> dict[str, Any]:
    """Return what a file holds, or the one file of a commit."""
    found = [Path(name)] if Path(name).is_file() else sorted(KEPT.glob(f"{name}*.json"))
    if len(found) != 1:
        held = ", ".join(sorted(path.stem for path in KEPT.glob("*.json"))) or "none"
        raise SystemExit(f"{name}: found {len(found)} files of figures, expected one; there are: {held}")
    read: dict[str, Any] = json.loads(found[0].read_text())
    return read


def unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each fact in which two sets of figures differ besides their commit."""
    lines = []
    for what in ("machine", "packages"):
        for name in sorted(old[what].keys() | new[what].keys()):
            before, after = old[what].get(name, "none"), new[what].get(name, "none")
            if before != after:
                lines.append(f"{name} differs: {before}, then {after}")
    for which, one in (("old", old), ("new", new)):
        most = 2 * one["machine"]["cores"]
        busy = [name for name, runs in one["runs"].items() if max(run["load"] for run in runs) > most]
        if busy:
            lines.append(f"the machine of the {which} figures was busy before: {', '.join(busy)}")
    return lines


def change(old: Sequence[float], new: Sequence[float], better: str) -> tuple[float, bool]:
    """Return by which share the new median is better, and whether no two rounds say otherwise.

    A time that halves and a rate that doubles are both 100 % better; the reverse of each is 100 % worse.
    """
    first, second = median(old), median(new)
    if better == "less":
        first, second = second, first
        old, new = new, old
    if min(first, second) <= 0:
        gain = 0.0 if first == second else float("inf") if second > first else float("-inf")
    else:
        gain = second / first - 1 if second >= first else 1 - first / second
    return gain, min(new) > max(old) or max(new) < min(old)


if __name__ == "__main__":
    raise SystemExit(main())
