"""Export to the form that Hugging Face's ``datasets`` loads: Parquet with images inside, and a card.

Source: huggingface.co/docs/datasets (features ``Nifti``, ``List``, ``Value``); huggingface.co/docs/hub/datasets-cards.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from builder.errors import counted
from builder.model.layout import version_path
from builder.model.parquet import parquet_bytes
from builder.reader.dataset import Dataset
from builder.reader.export.folder import ExportFolder, Track, silently
from builder.reader.export.missing import Missing, check_present
from builder.reader.export.nifti import nifti_image
from builder.reader.item import Item

PER_FILE = 64
"""Samples of one Parquet file. They are held in memory until it is written."""

_LICENSES = frozenset(
    (
        *("cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "apache-2.0", "mit"),
    )
)
"""Licences that a card may name, as the hub writes them; any other one is ``other`` with its name."""

_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def export_huggingface(
    dataset: Dataset, folder: str | Path | ExportFolder, *, missing: Missing = "refuse", track: Track = silently
) -> list[Path]:
    """Write ``data/<split>-00000-of-00003.parquet`` and a card, ``README.md``, with the datasheet of the catalog.

    Every field is a column of NIfTI files, which ``datasets`` 4.2 and later decodes (``Nifti``); the columns of the row
    stand beside them. ``datasets.load_dataset(folder)`` gives the splits of the dataset.

    Returns
    -------
    list
        The Parquet files.
    """
    check_present(dataset, missing)
    target = ExportFolder.of(folder)
    splits = dataset.table.column("split").to_pylist()
    pieces = []
    for split in dict.fromkeys(splits):
        places = [n for n, name in enumerate(splits) if name == split]
        groups = [places[first : first + PER_FILE] for first in range(0, len(places), PER_FILE)]
        pieces += [(f"{split}-{n:05d}-of-{len(groups):05d}.parquet", group) for n, group in enumerate(groups)]
    schema = _schema(dataset)

    def write(number: int) -> Path:
        name, group = pieces[number]
        if not target.holds("data", name):
            target.write(parquet_bytes(_table(dataset.select(group), schema)), "data", name)
        return target.path("data", name)

    paths = target.each(write, range(len(pieces)), track)
    target.write(_card(dataset, list(dict.fromkeys(splits))).encode(), "README.md")
    return paths


def _table(dataset: Dataset, schema: pa.Schema) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in dataset.fields}
    for item in dataset:
        for name in dataset.fields:
            columns[name].append(_file(item, name))
    rows = dataset.table
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else rows[f.name] for f in schema]
    return pa.table(arrays, schema=schema)


def _file(item: Item, name: str) -> dict[str, Any]:
    data = gzip.compress(nifti_image(item, name).to_bytes(), compresslevel=6, mtime=0)
    return {"bytes": data, "path": f"{item.values(['sample_key'])['sample_key']}.{name}.nii.gz"}


def _schema(dataset: Dataset) -> pa.Schema:
    fields = [pa.field(name, _FILE) for name in dataset.fields]
    fields += [f.remove_metadata() for f in dataset.schema if f.name not in dataset.fields and _feature(f.type)]
    features = {f.name: {"_type": "Nifti"} if f.type == _FILE else _feature(f.type) for f in fields}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any] | None:
    """Return the feature of an Arrow type; None for those that ``datasets`` has no word for."""
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return None if inner is None else {"feature": inner, "_type": "List"}
    names = {pa.string(): "string", pa.bool_(): "bool", pa.float64(): "float64", pa.float32(): "float32"}
    name = names.get(kind) or (str(kind) if pa.types.is_integer(kind) else None)
    return None if name is None else {"dtype": name, "_type": "Value"}


def _card(dataset: Dataset, splits: list[str]) -> str:
    return "\n".join([*_front(dataset, splits), "", *_about(dataset), ""])


def _front(dataset: Dataset, splits: list[str]) -> Iterator[str]:
    """Yield the part of the card that machines read, as YAML; JSON's texts are valid YAML."""
    stated = dataset.manifest.spec
    yield "---"
    yield f"pretty_name: {json.dumps(str(stated.get('title') or dataset.manifest.name))}"
    name = str(stated.get("license") or "").lower()
    if name in _LICENSES:
        yield f"license: {name}"
    elif name:
        yield "license: other"
        yield f"license_name: {json.dumps(name)}"
    yield "tags: [medical]"
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for split in splits:
        yield f"  - split: {json.dumps(split)}"
        yield f"    path: {json.dumps(f'data/{split}-*')}"
    yield "---"


def _about(dataset: Dataset) -> Iterator[str]:
    manifest = dataset.manifest
    yield f"# {manifest.spec.get('title') or manifest.name}"
    yield ""
    if manifest.spec.get("description"):
        yield f"{manifest.spec['description']}\n"
    samples = counted(len(dataset), "sample")
    yield f"Version {manifest.version} of {manifest.name}: {samples}. No person is in two splits."
    yield ""
    yield "| field | type | unit | classes |"
    yield "|---|---|---|---|"
    for name in dataset.fields:
        layout = dataset.layout(name)
        classes = ", ".join(f"{segment} ({value})" for segment, (_, value) in sorted(layout.segments.items()))
        yield f"| {name} | {dataset.dtype(name)} | {layout.unit} | {classes} |"
    yield ""
    yield "Every field is a NIfTI file in RAS mm. The dataset it was exported from has the licences series by series,"
    yield "and the report on bias and losses."
    place = version_path(manifest.version, "catalog", "datasheet.md")
    if dataset.store.exists(place):
        yield ""
        yield dataset.store.read(place).decode().rstrip().replace("\n## ", "\n### ").replace("# ", "## ", 1)
