"""Merge index parts into ordered INSTANCES: chunks that hold whole series, and the annotation objects beside them."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.sorting import ordered
from builder.model.tables import INSTANCES
from builder.planning.duplicates import MEMORY_LIMIT
from builder.storage import Store

CHUNK_ROWS = 4_000
"""Rows from which a chunk is cut at its last series boundary; small enough to give every worker a few series."""

MEMORY_ROWS = 20_000
"""Most rows that are sorted in memory. They take less memory there than DuckDB's library alone."""
BATCH_ROWS = 4_096
ORDER = ("series_uid", "sop_instance_uid", "source", "path", "member")
"""Sort order. Rows without a UID come after those that have one."""
ANNOTATION_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    "1.2.840.10008.5.1.4.1.1.66.1",  # Spatial Registration
    "1.2.840.10008.5.1.4.1.1.66.3",  # Deformable Spatial Registration
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.88.%",  # structured reports and key objects
    "1.2.840.10008.5.1.4.1.1.11.%",  # presentation states
)
IMAGES = "images"
ANNOTATIONS = "annotations.parquet"
LEFTOVERS = "leftovers.parquet"


def merge_parts(parts: Sequence[Path], store: Store) -> list[str]:
    """Sort the index parts and write them as chunks, annotations and leftovers.

    Parameters
    ----------
    parts
        Local Parquet files with schema INSTANCES. What does not fit into memory lies beside the first meanwhile.
    store
        Receives ``images/00000.parquet`` ... (rows with status ``instance`` of image objects, ordered by series; a
        series is never divided), ``annotations.parquet`` (annotation objects, and files that may be masks or tables)
        and ``leftovers.parquet`` (every quarantined file and duplicate). Every row is in exactly one of them.

    Returns
    -------
    list of str
        Paths of the chunks, in order. Memory does not grow with the number of rows, because DuckDB sorts on disk.
    """
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    with (_in_memory if rows <= MEMORY_ROWS else _out_of_core)(parts) as query:
        chunks = []
        for number, table in enumerate(_chunks(query(IMAGES))):
            chunks.append(f"{IMAGES}/{number:05d}.parquet")
            store.put(chunks[-1], parquet_bytes(table))
        store.put(ANNOTATIONS, _written(query(ANNOTATIONS)))
        store.put(LEFTOVERS, _written(query(LEFTOVERS)))
    return chunks


def read_chunk(store: Store, path: str, *, columns: list[str] | None = None) -> pa.Table:
    """Read a chunk that ``merge_parts`` wrote."""
    return read_parquet(store.read(path), columns=columns)


Query = Callable[[str], Iterator[pa.RecordBatch]]
"""Maps IMAGES, ANNOTATIONS or LEFTOVERS to their rows in order."""


@contextmanager
def _in_memory(parts: Sequence[Path]) -> Iterator[Query]:
    table = pa.concat_tables([pq.ParquetFile(part).read(use_threads=False) for part in parts]).cast(INSTANCES)
    table = ordered(table, ORDER)
    masks = _masks(table)
    yield lambda which: iter(table.filter(masks[which]).combine_chunks().to_batches(max_chunksize=BATCH_ROWS))


def _masks(table: pa.Table) -> dict[str, pa.Array]:
    """Return which rows go where, by status and SOP class."""
    is_instance, is_file = (pc.equal(table["status"], status) for status in ("instance", "file"))
    is_annotation = pc.fill_null(pc.match_like(table["sop_class_uid"], ANNOTATION_CLASSES[0]), False)
    for pattern in ANNOTATION_CLASSES[1:]:
        is_annotation = pc.or_(is_annotation, pc.fill_null(pc.match_like(table["sop_class_uid"], pattern), False))
    return {
        IMAGES: pc.and_not(is_instance, is_annotation),
        ANNOTATIONS: pc.or_(pc.and_(is_instance, is_annotation), is_file),
        LEFTOVERS: pc.invert(pc.or_(is_instance, is_file)),
    }


@contextmanager
def _out_of_core(parts: Sequence[Path]) -> Iterator[Query]:
    import duckdb  # imported late, because its library takes more memory than all of a small archive's rows

    annotation = "coalesce(" + " OR ".join(f"sop_class_uid LIKE '{c}'" for c in ANNOTATION_CLASSES) + ", false)"
    conditions = {
        IMAGES: f"status = 'instance' AND NOT {annotation}",
        ANNOTATIONS: f"(status = 'instance' AND {annotation}) OR status = 'file'",
        LEFTOVERS: "status NOT IN ('instance', 'file')",
    }
    order = ", ".join(f"{name} NULLS LAST" for name in ORDER)
    holding = _holding(parts)
    # by default it would take most of the machine's memory, and then write identifiers into the current folder
    limits = {"threads": 1, "memory_limit": MEMORY_LIMIT, "temp_directory": str(parts[0].parent)}
    with duckdb.connect(config={**limits, "preserve_insertion_order": True}) as database:

        def query(which: str) -> Iterator[pa.RecordBatch]:
            if not holding[which]:
                return
            rows = database.read_parquet(holding[which])
            found = rows.query("parts", f"SELECT * FROM parts WHERE {conditions[which]} ORDER BY {order}")
            for batch in found.to_arrow_reader(BATCH_ROWS):
                table = pa.Table.from_batches([batch]).select(INSTANCES.names).cast(INSTANCES)
                yield table.combine_chunks().to_batches()[0]

        yield query


def _holding(parts: Sequence[Path]) -> dict[str, list[str]]:
    """Return which parts hold rows of each kind: a query decodes every column of every row of a file that it reads."""
    found: dict[str, list[str]] = {IMAGES: [], ANNOTATIONS: [], LEFTOVERS: []}
    for part in parts:
        masks = _masks(pq.ParquetFile(part).read(columns=["status", "sop_class_uid"], use_threads=False))
        for which, mask in masks.items():
            if pc.any(mask).as_py():
                found[which].append(str(part))
    return found


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    rows = 0
    for batch in batches:
        held.append(pa.Table.from_batches([batch]))
        rows += batch.num_rows
        while rows >= CHUNK_ROWS:
            table = pa.concat_tables(held)
            cut = _last_boundary(table)
            if cut == 0:
                break
            yield table.slice(0, cut).combine_chunks()
            held, rows = [table.slice(cut)], table.num_rows - cut
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def _last_boundary(table: pa.Table) -> int:
    """Return the row where the last series of ``table`` starts; 0 when it holds a single series."""
    names = table.column("series_uid").to_pylist()
    row = len(names) - 1
    while row > 0 and names[row] == names[row - 1] and names[row] is not None:
        row -= 1
    return row


def _written(batches: Iterable[pa.RecordBatch]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, INSTANCES, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()
