"""Settle classes from the votes of readers over all cases, and join them to the index with their evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.errors import SpecError
from builder.labels.evidence import strongest, weakest
from builder.labels.fusion import Consensus
from builder.labels.votes import Settled, Vote, settle_votes
from builder.model.case import EVIDENCE_TIERS, Tier
from builder.planning.offsets import LABEL_DAYS
from builder.spec import DatasetSpec

EVIDENCE_COLUMNS = {
    "tier": pa.string(),
    "readers": pa.list_(pa.string()),
    "tool": pa.string(),
    "time": pa.string(),
}
"""Facts in the index columns ``evidence.<label>.<fact>``; null if a case lacks the label."""

_TOUCHED = ("class_", "measure_", "evidence_", "reading_")
_STORED = {"tier": "tiers", "readers": "readers", "tool": "tools", "time": "times"}


def settle_classes(index: pa.Table, spec: DatasetSpec) -> pa.Table:
    """Add the settled classes of every consensus on classes to the class labels and measures of the index.

    The classes of the individual readers are removed if the consensus drops them.
    """
    for name, block in spec.consensus.items():
        kinds = {spec.labels[label].kind for label in block.labels}
        if kinds <= {"classes", "report"}:
            index = _with_settled(index, name, block)
    return index


def with_evidence(index: pa.Table, days: Mapping[tuple[str, str], int]) -> pa.Table:
    """Replace the evidence lists of each sample by columns, sorted by name.

    ``days`` gives, by case and label, how many days after the image a label was made, if that may be published.
    """
    cases = index.column("case_key").to_pylist()
    labels = index.column("evidence_labels").to_pylist()
    for label in sorted({name for row in labels for name in row or ()}):
        places = [row.index(label) if row and label in row else None for row in labels]
        for fact, kind in EVIDENCE_COLUMNS.items():
            stored = index.column(f"evidence_{_STORED[fact]}").to_pylist()
            values = [None if at is None else row[at] for at, row in zip(places, stored, strict=True)]
            if fact == "readers":
                values = [None if v is None else [r for r in v.split("+") if r] for v in values]
            index = index.append_column(f"evidence.{label}.{fact}", pa.array(values, kind))
        index = index.append_column(
            f"evidence.{label}.{LABEL_DAYS}", pa.array([days.get((case, label)) for case in cases], pa.int64())
        )
    return index.drop_columns(["evidence_labels", *(f"evidence_{stored}" for stored in _STORED.values())])


def check_evidence(index: pa.Table, spec: DatasetSpec) -> None:
    """Check the evidence that was found against what the spec demands of the test splits.

    Raises
    ------
    SpecError
        If a test case has weaker evidence than a training case.
    """
    options = spec.splits.tested
    if options.evidence == "any" or not index.num_rows:
        return
    columns = [c for c in index.column_names if c.startswith("evidence.") and c.endswith(".tier")]
    tiers: dict[str, set[Tier]] = {"tested": set(), "trained": set()}
    for row in index.select(["split", *columns]).to_pylist():
        stated = [row[column] for column in columns if row[column] is not None]
        if stated:
            tiers["tested" if row["split"] in options.splits else "trained"].add(strongest(stated))
    if not tiers["tested"] or not tiers["trained"]:
        return
    weak, strong = weakest(sorted(tiers["tested"])), strongest(sorted(tiers["trained"]))
    if EVIDENCE_TIERS.index(weak) > EVIDENCE_TIERS.index(strong):
        raise SpecError(
            f"splits.tested.evidence: found a tested case of tier {weak} and a case trained on of tier {strong}, for "
            "objects say otherwise than the spec's evidence blocks; state the tier of each label, or leave out the "
            "weaker cases; nothing is published"
        )


def _with_settled(index: pa.Table, name: str, block: Consensus) -> pa.Table:
    settled = settle_votes(_votes(index, name), method=block.method, least=block.least)
    rows = index.select(["case_key", *(c for c in index.column_names if c.startswith(_TOUCHED))]).to_pylist()
    by_case: dict[str, dict[str, Settled]] = {}
    for (case, finding), value in settled.items():
        by_case.setdefault(case, {})[finding] = value
    changed = [_settled_row(row, name, block, by_case.get(row["case_key"], {})) for row in rows]
    for column in changed[0] if changed else ():
        place = index.schema.get_field_index(column)
        index = index.set_column(
            place, index.schema.field(place), pa.array([row[column] for row in changed], index.schema.field(place).type)
        )
    return index


def _votes(index: pa.Table, name: str) -> list[Vote]:
    """Return the readings of a consensus, once per case: every sample of a case repeats them."""
    columns = ("case_key", "reading_labels", "reading_readers", "reading_quantities", "reading_values")
    seen: dict[str, list[Vote]] = {}
    for case, labels, *lists in zip(*(index.column(c).to_pylist() for c in columns), strict=True):
        if case not in seen:
            parts = zip(labels or (), *(part or () for part in lists), strict=True)
            seen[case] = [Vote(case, r, q, v) for label, r, q, v in parts if label == name and v is not None]
    return [vote for case in sorted(seen) for vote in seen[case]]


def _settled_row(row: Mapping[str, Any], name: str, block: Consensus, values: Mapping[str, Settled]) -> dict[str, Any]:
    """Return the columns of a sample that a consensus changes."""
    classes = list(zip(row["class_names"] or (), row["class_values"] or (), strict=True))
    measures = list(zip(row["measure_names"] or (), row["measure_values"] or (), strict=True))
    evidence = _evidence_of(row)
    members = [evidence[label] for label in block.labels if label in evidence]
    if block.readers == "drop":
        classes = [c for c in classes if c[0].partition("/")[0] not in block.labels]
        evidence = {label: facts for label, facts in evidence.items() if label not in block.labels}
    for finding, settled in sorted(values.items()):
        classes.append((f"{name}/{finding}", settled.value))
        measures.append((f"{name}/{finding}/probability", settled.probability))
        measures.append((f"{name}/{finding}/readers", float(settled.readers)))
    if values:
        said = sorted({r for _, r in _readers(row, name)})
        evidence[name] = _evidence(members, said, block, max(s.readers for s in values.values()))
    ordered = sorted(evidence)
    return {
        "class_names": [n for n, _ in classes],
        "class_values": [v for _, v in classes],
        "measure_names": [n for n, _ in measures],
        "measure_values": [v for _, v in measures],
        "evidence_labels": ordered,
        **{f"evidence_{stored}": [evidence[label][fact] for label in ordered] for fact, stored in _STORED.items()},
    }


def _evidence_of(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    labels = row["evidence_labels"] or ()
    return {
        label: {fact: row[f"evidence_{stored}"][at] for fact, stored in _STORED.items()}
        for at, label in enumerate(labels)
    }


def _readers(row: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    pairs = zip(row["reading_labels"] or (), row["reading_readers"] or (), strict=True)
    return [(label, reader) for label, reader in pairs if label == name]


def _evidence(members: Sequence[Mapping[str, Any]], said: Sequence[str], block: Consensus, most: int) -> dict[str, Any]:
    tier = weakest([m["tier"] for m in members]) if members else "single_reader"
    if tier in ("single_reader", "unstated") and most > 1:
        tier = "consensus"
    return {
        "tier": block.evidence.tier or tier,
        "readers": "+".join(block.evidence.readers or said),
        "tool": block.evidence.tool or f"{block.method}/{block.VERSION}",
        "time": block.evidence.time,
    }
