"""Summarise the evidence behind the labels: tiers by split, number of readers, and tools."""

import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from builder.model.canonical import Json
from builder.model.case import EVIDENCE_TIERS

_TIER = re.compile(r"evidence\.(?P<label>.+)\.tier")
MOST_TOOLS = 12


def evidence(index: pa.Table, *, splits: Sequence[str]) -> list[Json]:
    """Return one entry per label with evidence: cases by tier (strongest first) and split, readers, tools, and days
    from the image to the label.

    Parameters
    ----------
    index
        One row per sample, with ``evidence.<label>.<fact>`` columns.
    """
    entries = []
    for column in index.column_names:
        match = _TIER.fullmatch(column)
        if match is None:
            continue
        label = match["label"]
        facts = [f"evidence.{label}.{fact}" for fact in ("tier", "readers", "tool", "days_after_image")]
        names = ["case_key", "split", *facts]
        cases = {row["case_key"]: row for row in index.select(names).to_pylist()}
        entries.append(_entry(label, [cases[key] for key in sorted(cases)], splits))
    return entries


def _entry(label: str, cases: Sequence[Json], splits: Sequence[str]) -> Json:
    mark = f"evidence.{label}."
    stated = [row for row in cases if row[f"{mark}tier"] is not None]
    counts = Counter((row[f"{mark}tier"], row["split"]) for row in stated)
    tiers = [t for t in EVIDENCE_TIERS if any(t == tier for tier, _ in counts)]
    readers = [row[f"{mark}readers"] or [] for row in stated]
    tools = Counter(row[f"{mark}tool"] for row in stated if row[f"{mark}tool"])
    days = sorted(row[f"{mark}days_after_image"] for row in stated if row[f"{mark}days_after_image"] is not None)
    return {
        "label": label,
        "cases": len(stated),
        "without": len(cases) - len(stated),
        "tiers": [
            {
                "tier": tier,
                "splits": {split: counts[tier, split] for split in splits},
                "all": sum(n for (t, _), n in counts.items() if t == tier),
            }
            for tier in tiers
        ],
        "readers": len({name for names in readers for name in names}),
        "readers_a_case": {"least": min(map(len, readers), default=0), "most": max(map(len, readers), default=0)},
        "tools": [{"tool": t, "cases": n} for t, n in sorted(tools.items(), key=lambda i: (-i[1], i[0]))[:MOST_TOOLS]],
        "days_after_image": {"known": len(days), "first": days[0], "last": days[-1]} if days else None,
    }
