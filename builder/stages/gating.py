"""Run the privacy gate over a shard's cases and list in the private workspace what it withheld."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from builder.deid.checks import words_of
from builder.deid.gate import Gate
from builder.labels import AnyLabel
from builder.labels.report import Report
from builder.labels.reports import load_lexicon
from builder.labels.text import TEXTS
from builder.model.case import Case, ClearedSample, Sample
from builder.model.options import withhold_locations
from builder.spec import DatasetSpec
from builder.stages.annotate import facts_of
from builder.storage import Store

WITHHELD_TEXTS = "withheld"
"""Name of the folder that holds the lists, and of the tally in receipts."""


def gate_of(spec: DatasetSpec) -> Gate:
    """Return the privacy gate of a spec. It does not yet know what identifies any person."""
    return gates_of(spec, 1)[0]


def gates_of(spec: DatasetSpec, count: int) -> list[Gate]:
    """Return gates of a spec that learn and count each for itself, as the cases of a shard need them."""
    lexicons = [load_lexicon(name).findings for label in spec.labels.values() if (name := _lexicon(label))]
    words = words_of(withhold_locations(spec.model_dump(mode="json", by_alias=True)), *lexicons)
    declared = frozenset(spec.clinical_columns)
    return [Gate(words, rules=spec.deid.text, declared=declared) for _ in range(count)]


def _lexicon(label: AnyLabel) -> str | None:
    """Return the name of the lexicon whose findings a label names, if it names any."""
    return label.lexicon if isinstance(label, Report) else label.sentences if isinstance(label, TEXTS) else None


def cleared(samples: Iterator[Sample], case: Case, gate: Gate) -> Iterator[ClearedSample]:
    """Yield the samples of a case with its facts, after the gate has judged all their text."""
    facts = facts_of(case)
    for sample in samples:
        yield gate.sample(replace(sample, ragged={**sample.ragged, **facts}))


def list_withheld(store: Store, name: str, gates: Sequence[Gate]) -> dict[str, int]:
    """Write what the gates withheld to ``withheld/<name>.json`` (column, value, number of gates).

    Returns
    -------
    dict
        Maps each column to the number of gates that withheld text of it.
    """
    found = Counter(value for gate in gates for value in gate.dropped)
    if found:
        rows = [(column, value, found[column, value]) for column, value in sorted(found)]
        store.put(f"{WITHHELD_TEXTS}/{name}.json", json.dumps(rows, ensure_ascii=False).encode())
    columns = Counter(column for gate in gates for column in {column for column, _ in gate.dropped})
    return dict(sorted(columns.items()))
