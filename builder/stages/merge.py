"""Index parts -> INSTANCES in order: chunks that hold whole series, and the annotation objects beside them."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from builder.model.parquet import parquet_bytes, read_parquet
from builder.model.tables import INSTANCES
from builder.storage import Store

CHUNK_ROWS = 50_000
"""A chunk is cut at the first series boundary after this many rows."""

ORDER = "series_uid NULLS LAST, sop_instance_uid NULLS LAST, source, path, member"
ANNOTATION_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
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
        Local Parquet files by schema INSTANCES.
    store
        Gets ``images/00000.parquet`` ... (rows with status ``instance`` of image objects, ordered by series; a series
        is never divided), ``annotations.parquet`` (annotation objects, and files that may be masks or tables) and
        ``leftovers.parquet`` (everything that was quarantined or is a duplicate). Every row is in exactly one.

    Returns
    -------
    list of str
        Paths of the chunks, in order. Memory does not grow with the number of rows: DuckDB sorts out of core.
    """
    annotation = " OR ".join(f"sop_class_uid LIKE '{c}'" for c in ANNOTATION_CLASSES)
    with duckdb.connect(config={"threads": 1, "preserve_insertion_order": True}) as database:
        database.read_parquet([str(p) for p in parts]).create_view("parts")
        image = f"status = 'instance' AND NOT coalesce({annotation}, false)"
        beside = f"(status = 'instance' AND coalesce({annotation}, false)) OR status = 'file'"
        rest = "status NOT IN ('instance', 'file')"
        chunks = []
        for number, table in enumerate(_chunks(_query(database, image))):
            chunks.append(f"{IMAGES}/{number:05d}.parquet")
            store.put(chunks[-1], parquet_bytes(table))
        store.put(ANNOTATIONS, _written(_query(database, beside)))
        store.put(LEFTOVERS, _written(_query(database, rest)))
    return chunks


def read_chunk(store: Store, path: str, *, columns: list[str] | None = None) -> pa.Table:
    """A chunk that ``merge_parts`` wrote."""
    return read_parquet(store.read(path), columns=columns)


def by_series(chunk: pa.Table) -> Iterator[pa.Table]:
    """The series of a chunk, one table each, in order; rows without a series UID each stand alone."""
    names = chunk.column("series_uid").to_pylist()
    start = 0
    for row in range(1, len(names) + 1):
        if row == len(names) or names[row] != names[start] or names[row] is None:
            yield chunk.slice(start, row - start)
            start = row


def _query(database: duckdb.DuckDBPyConnection, condition: str) -> Iterator[pa.RecordBatch]:
    reader = database.sql(f"SELECT * FROM parts WHERE {condition} ORDER BY {ORDER}").to_arrow_reader(16_384)
    for batch in reader:
        yield pa.Table.from_batches([batch]).select(INSTANCES.names).cast(INSTANCES).combine_chunks().to_batches()[0]


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
    """Row where the last series of ``table`` starts; 0 when it is all one series."""
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
