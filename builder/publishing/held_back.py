"""Publish a dataset without the persons of some splits, and a page that compares them with everybody else."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from builder.model.canonical import Json, canonical_json, fingerprint
from builder.model.layout import (
    HELD_BACK,
    RECEIPT,
    SAMPLES,
    Receipt,
    ShardEntry,
    parse_receipt,
    shard_path,
    stored_object,
)
from builder.model.parquet import read_parquet
from builder.model.samples import SAMPLE_COLUMNS
from builder.pages import template_environment
from builder.patches import AnySamples, FieldFacts, shard_chunk
from builder.shards import CODECS, open_shard
from builder.shards.stored import StoredShard
from builder.spec.blocks import ShardOptions
from builder.stages.shard import found_receipt
from builder.storage import Store

VERSION = 1
"""Raised when the same whole dataset would give different bytes."""

PAGE = "held-back.html"

_OF_SAMPLES = {column.name for column in SAMPLE_COLUMNS}


@dataclass(frozen=True)
class Stored:
    """What decides how the open dataset is stored: the splits that are held back, and two blocks of the spec."""

    held_back: tuple[str, ...]
    samples: AnySamples
    shards: ShardOptions


def without_persons(
    whole: Store, target: Store, shards: Sequence[ShardEntry], index: pa.Table, stored: Stored
) -> tuple[list[ShardEntry], pa.Table]:
    """Copy the samples of everybody else, and return the shards that hold them, and their rows of the index.

    Samples are copied as they are stored. A shard that was finished before is not written again, and one that would
    hold nothing is left out.
    """
    home = dict(zip(index["case_key"].to_pylist(), index["split"].to_pylist(), strict=True))
    hidden = frozenset(case for case, split in home.items() if split in stored.held_back)
    entries: list[ShardEntry] = []
    places: dict[tuple[str, int], tuple[str, int]] = {}
    for entry in shards:
        shard = StoredShard(whole, parse_receipt(whole.read(shard_path(entry.fingerprint, RECEIPT))))
        kept = [case for case in shard.places if case not in hidden]
        if not kept:
            continue
        receipt = _copied(shard, kept, target, stored)
        numbers = [number for case in kept for number in shard.places[case]]
        places |= {(entry.fingerprint, old): (receipt.fingerprint, new) for new, old in enumerate(numbers)}
        entries.append(
            ShardEntry(receipt.fingerprint, receipt.rows, (*receipt.objects, stored_object(RECEIPT, receipt.to_json())))
        )
    return entries, _moved(index, places)


def _copied(shard: StoredShard, kept: Sequence[str], target: Store, stored: Stored) -> Receipt:
    name = fingerprint("shard without persons", VERSION, shard.receipt.fingerprint, sorted(kept))
    found = found_receipt(target, name)
    if found is not None:
        return found
    rows = read_parquet(shard.read(SAMPLES)).schema
    described = {}
    for layout in shard.receipt.fields:
        channels = tuple(zip(layout.channel_names, layout.channel_units, strict=True))
        described[layout.name] = FieldFacts(layout.unit, layout.segments, channels, layout.grid)
    with open_shard(
        target,
        name,
        codec=CODECS[stored.shards.codec],
        facts=pa.schema([field for field in rows if field.name not in _OF_SAMPLES]),
        chunk=shard_chunk(stored.samples, stored.shards.codec),
        storage=stored.shards.fields,
    ) as writer:
        writer.fields = shard.fields()
        for case in kept:
            writer.copy_case(map(shard.sample, shard.places[case]), described=described)
        return writer.finish()


def _moved(index: pa.Table, places: Mapping[tuple[str, int], tuple[str, int]]) -> pa.Table:
    """Return the rows of the index that were copied, with their new shards and rows."""
    rows = list(zip(index["shard"].to_pylist(), index["row"].to_pylist(), strict=True))
    kept = index.filter(pa.array([row in places for row in rows]))
    moved = [places[row] for row in rows if row in places]
    for column, values in (("shard", [m[0] for m in moved]), ("row", [m[1] for m in moved])):
        place = kept.schema.get_field_index(column)
        kept = kept.set_column(place, kept.schema.field(place), pa.array(values, kept.schema.field(place).type))
    return kept


def comparison(report: Mapping[str, Any], splits: Sequence[str], columns: Collection[str]) -> dict[str, bytes]:
    """Return the page, and its numbers, that compare the persons held back with everybody else.

    The numbers are those of the whole dataset's report: persons by split and level, and how far each level is from its
    share beside what whole persons allow. Only ``columns`` are told, which say nothing of labels.
    """
    balance = report["balance"] or {}
    document: dict[str, Json] = {
        "held_back": list(splits),
        "splits": report["splits"],
        "groups": [entry for entry in report["table_one"] if entry["column"] in columns and "levels" in entry],
        "levels": [row for row in balance.get("levels", ()) if row["column"] in columns],
    }
    page = template_environment(Path(__file__).parent).get_template("held_back.html.jinja").render(**document)
    return {HELD_BACK: canonical_json(document), PAGE: page.encode()}
