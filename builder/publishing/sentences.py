"""The table of sentences in published texts: what each says about a finding, with its boxes and structures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.labels.reports import Lexicon, load_lexicon
from builder.labels.reports.assertion import judge_sentence, reported_text, split_sentences
from builder.labels.text import TEXTS
from builder.spec import DatasetSpec

SENTENCES = pa.schema(
    [
        ("sample_key", pa.string()),
        ("case_key", pa.string()),
        ("text_names", pa.string()),  # the label
        ("sentence", pa.int32()),  # number in the text, from 0
        ("text.sentence", pa.string()),
        ("class_names", pa.list_(pa.string())),  # <label>/<finding>; empty for a sentence without a finding
        ("class_values", pa.list_(pa.string())),  # what it says of each: positive, negative, uncertain, alternative
        ("box_numbers", pa.list_(pa.int32())),  # boxes of the sample whose class has the name of a finding here
        ("segment_names", pa.list_(pa.string())),  # structures of the sample likewise
    ]
)
"""One row a sentence of every sample."""


def sentence_table(index: pa.Table, spec: DatasetSpec) -> pa.Table | None:
    """Return the sentences of the texts whose label names a lexicon; None if none does."""
    wanted = {
        name: load_lexicon(reader.sentences)
        for name, reader in spec.labels.items()
        if isinstance(reader, TEXTS) and reader.sentences is not None
    }
    if not wanted:
        return None
    columns = ["sample_key", "case_key", "box_classes", "segment_names", *(f"text.{name}" for name in wanted)]
    rows = [line for row in index.select(columns).to_pylist() for line in _sentences(row, wanted)]
    return pa.Table.from_pylist(rows, schema=SENTENCES)


def _sentences(row: Mapping[str, Any], wanted: Mapping[str, Lexicon]) -> Iterator[dict[str, Any]]:
    for label, lexicon in wanted.items():
        text = row[f"text.{label}"]
        for number, sentence in enumerate(split_sentences(reported_text(text)) if text else ()):
            said = {finding: status.value for finding, status in judge_sentence(sentence, lexicon)}
            yield {
                "sample_key": row["sample_key"], "case_key": row["case_key"], "text_names": label,
                "sentence": number, "text.sentence": sentence,
                "class_names": [f"{label}/{finding}" for finding in said], "class_values": [*said.values()],
                "box_numbers": [n for n, kind in enumerate(row["box_classes"] or ()) if _same(kind, said)],
                "segment_names": [s for s in row["segment_names"] or () if _same(s.rpartition("/")[2], said)],
            }  # fmt: skip


def _same(name: str | None, findings: Sequence[str] | Mapping[str, Any]) -> bool:
    plain = (name or "").lower().replace("_", " ")
    return any(plain == finding.lower().replace("_", " ") for finding in findings)
