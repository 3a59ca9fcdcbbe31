"""Draw a sample of a label for a person to review, as a table with the archive's own text."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import SpecError, counted
from builder.labels.report import draw_review, report_text
from builder.model.layout import CURRENT, INDEX, parse_current, version_path
from builder.model.parquet import read_parquet
from builder.plan import ShardSummary
from builder.planning.reviews import COLUMNS
from builder.run.pipeline import plan as make_plan
from builder.sources import AnySource
from builder.stages.listed import Listed, read_object
from builder.stages.planned import load_plan
from builder.storage import open_store


@dataclass(frozen=True)
class Drawn:
    """What was drawn, and where it was written."""

    label: str
    cases: int
    findings: int
    path: str

    def facts(self) -> dict[str, Any]:
        """Return the outcome as JSON-able data."""
        return {"label": self.label, "cases": self.cases, "findings": self.findings, "review": self.path}

    def text(self) -> str:
        """Return the outcome for a person, with the next step."""
        return (
            f"{self.path}: {counted(self.findings, 'finding')} of {counted(self.cases, 'case')}, "
            "with the archive's own text: keep it where the archive may be. "
            f"Write yes or no into 'correct', name the file in labels.{self.label}.review, and "
            "build again: the error rate goes into the report"
        )


def draw(
    spec: Path, label: str, *, to: str, count: int, out: Path, parameters: Mapping[str, str], splits: Sequence[str] = ()
) -> Drawn:
    """Write a table of the findings of ``count`` cases of a published dataset, with their text, for a person to judge.

    The dataset's key draws the cases, so an unchanged dataset gives the same ones again. Absent findings are included,
    because a finding that a labeler misses is an error too.

    Raises
    ------
    SpecError
        When the spec has no such label of class values, or nothing is published.
    """
    plan = make_plan(spec, to=to, parameters=parameters).plan
    reader = plan.spec.labels.get(label)
    if reader is None or reader.kind != "report":
        known = sorted(name for name, r in plan.spec.labels.items() if r.kind == "report")
        expected = f"expected one of {', '.join(known)}" if known else "and none in the spec, expected one to review"
        raise SpecError(f"review: found no label {label!r} of kind report, {expected}")
    values = _published_values(to, label, splits)
    chosen = draw_review(list(values), count, key=plan.key)
    texts = _texts(plan.url, plan.shards, plan.spec.sources, label, chosen)
    rows = [
        {"case_key": case, "finding": finding, "value": value, "correct": "", "text": texts[case] if not i else ""}
        for case in chosen
        for i, (finding, value) in enumerate(sorted(values[case].items()))
    ]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    out.touch(mode=0o600)
    out.write_text(sink.getvalue(), encoding="utf-8")
    return Drawn(label, len(chosen), len(rows), str(out))


def _published_values(to: str, label: str, splits: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the published values by case and finding."""
    store = open_store(to)
    try:
        version = parse_current(store.read(CURRENT))
    except FileNotFoundError:
        raise SpecError(f"{to}: found nothing published, expected a dataset to draw from; build it first") from None
    columns = ["case_key", "split", "class_names", "class_values"]
    found: dict[str, dict[str, str]] = {}
    for row in read_parquet(store.read(version_path(version, INDEX))).select(columns).to_pylist():
        if not splits or row["split"] in splits:
            pairs = zip(row["class_names"] or (), row["class_values"] or (), strict=True)
            own = {n.removeprefix(f"{label}/"): v for n, v in pairs if n.startswith(f"{label}/")}
            if own:
                found[row["case_key"]] = own
    return found


def _texts(
    url: str, shards: Sequence[ShardSummary], sources: Sequence[AnySource], label: str, cases: Sequence[str]
) -> dict[str, str]:
    """Return the text of each case's label objects, as the archive has it."""
    wanted = set(cases)
    store = open_store(url, directory_mode=0o700)
    texts: dict[str, str] = {}
    for shard in shards:
        if wanted.isdisjoint(case.case_key for case in shard.cases):
            continue
        objects = load_plan(store, shard.fingerprint).objects.to_pylist()
        for number, case in enumerate(shard.cases):
            if case.case_key in wanted:
                own = [row for row in objects if row["case"] == number and row["role"] == label]
                parts = [report_text(read_object(Listed.of(row), sources)) for row in own]
                texts[case.case_key] = "\n\n".join(parts)
    return texts
