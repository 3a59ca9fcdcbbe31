"""Names of labels in a dataset.json, against those that the spec gives to the same values."""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from builder.errors import CaseError, SourceError
from builder.labels import AnyLabel
from builder.labels.mask import MaskFile
from builder.planning.layouts.names import MAX_DOCUMENT_BYTES
from builder.protocols import Entry
from builder.sources import AnySource, layout_in

LONGEST: Final = 40


def label_name_lines(labels: Mapping[str, AnyLabel], sources: Sequence[AnySource], files: pa.Table) -> Iterator[str]:
    """Yield a line for each value of a mask that the spec and a dataset.json name differently, or one alone names.

    Parameters
    ----------
    files
        The label files and documents of the inventory, with schema INSTANCES.
    """
    masks = {
        name: label.values
        for name, label in labels.items()
        if isinstance(label, MaskFile) and label.values and label.content == "labels" and "{label" in label.match
    }
    for number, source in enumerate(sources):
        layout = layout_in(source)
        if not masks or layout is None:
            continue
        if layout.kind in ("nnunet", "msd"):
            published = _published(source, number, files)
            for name, values in masks.items():
                yield from (f"{name}: {line}" for line in _differences(values, published))


def published_values(sources: Sequence[AnySource], files: pa.Table) -> dict[int, str]:
    """Return the names of the values of masks, by the dataset.json of the first source that has one."""
    for number, source in enumerate(sources):
        layout = layout_in(source)
        if layout is not None and layout.kind in ("nnunet", "msd"):
            return {value: name for value, name in _published(source, number, files).items() if value}
    return {}


def _differences(stated: Mapping[int, str], published: Mapping[int, str]) -> Iterator[str]:
    if not {*published} - {0}:
        return  # nothing is published, or regions of several values, which name none of their own
    for value, name in sorted(stated.items()):
        if value not in published:
            yield f"the spec names value {value} {name!r}, and dataset.json names no such value"
        elif _plain(published[value]) != _plain(name) and not _stands_for_several(stated, name):
            yield (
                f"the spec names value {value} {name!r}, and dataset.json {published[value]!r}; check that the values "
                "of the spec are those of the files"
            )
    left = [f"{value} {name!r}" for value, name in sorted(published.items()) if value and value not in stated]
    if left:
        yield f"dataset.json names values that the spec leaves out: {', '.join(left)}"


def _stands_for_several(stated: Mapping[int, str], name: str) -> bool:
    """Return whether the spec joins several values under a name, which then cannot be each one's own."""
    return [*stated.values()].count(name) > 1


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _published(source: AnySource, number: int, files: pa.Table) -> dict[int, str]:
    """Return the names of values in the dataset.json of a source; none where it cannot be read."""
    columns = (files.column(name).to_pylist() for name in ("source", "path", "member", "size", "stamp"))
    for owner, path, member, size, stamp in zip(*columns, strict=True):
        if owner != number or posixpath.basename(member or path) != "dataset.json" or size > MAX_DOCUMENT_BYTES:
            continue
        try:
            document = json.loads(source.read(Entry(path, size, stamp, member or "")).decode("utf-8-sig"))
        except (ValueError, RecursionError, CaseError, SourceError):
            return {}
        return _values(document.get("labels") if isinstance(document, dict) else None)
    return {}


def _values(labels: Any) -> dict[int, str]:
    """Read ``{"1": "liver"}`` of the Decathlon and ``{"liver": 1}`` of nnU-Net; regions of several values have none."""
    found: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, Mapping) else ():
        if isinstance(value, int) and not isinstance(value, bool):
            found[value] = str(key)[:LONGEST]
        elif isinstance(value, str) and str(key).isdecimal() and len(str(key)) < 6:
            found[int(key)] = value[:LONGEST]
    return found
