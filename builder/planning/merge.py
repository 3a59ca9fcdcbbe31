"""Merge index parts into ordered INSTANCES: chunks that hold whole series, and the annotation objects beside them."""

import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builder.errors import LayoutError
from builder.model.parquet import parquet_bytes
from builder.model.sorting import ordered
from builder.model.tables import INSTANCES
from builder.planning.duplicates import MEMORY_LIMIT
from builder.storage import Store

CHUNK_ROWS = (3_000, 9_000)
"""Rows from which a chunk is cut before a series that bears a mark, and rows from which it is cut before any series.
Small enough to give every worker a few series."""

_MARKED = 8
"""One series of so many bears a mark."""

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
        Receives chunks (rows with status ``instance`` of image objects, ordered by series; a series is never divided),
        ``annotations.parquet`` (annotation objects, and files that may be masks or tables) and ``leftovers.parquet``
        (every quarantined file and duplicate). Every row is in exactly one of them.

    Returns
    -------
    list of str
        Paths of the chunks, in order. Memory does not grow with the number of rows, because DuckDB sorts on disk.
    """
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    with (_in_memory if rows <= MEMORY_ROWS else _out_of_core)(parts) as query:
        chunks = [keep_chunk(store, table) for table in _chunks(query(IMAGES))]
        store.put(ANNOTATIONS, _written(query(ANNOTATIONS)))
        store.put(LEFTOVERS, _written(query(LEFTOVERS)))
    return chunks


def keep_rows(store: Store, name: str, table: pa.Table) -> None:
    """Write ANNOTATIONS or LEFTOVERS, as ``merge_parts`` does."""
    store.put(name, _written(table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS)))


def keep_chunk(store: Store, table: pa.Table) -> str:
    """Write a chunk and return its path. It is named after what it holds, so that what was found of it is found."""
    data = parquet_bytes(table, compression="lz4")
    path = _chunk_path(data)
    store.put(path, data)
    return path


def read_chunk(store: Store, path: str) -> bytes:
    """Read a chunk that ``keep_chunk`` wrote. Raises FileNotFoundError, or LayoutError if it holds something else."""
    data = store.read(path)
    if _chunk_path(data) != path:
        raise LayoutError(f"{path}: found other content than the one it is named after; it was changed or is damaged")
    return data


def _chunk_path(data: bytes) -> str:
    return f"{IMAGES}/{hashlib.sha256(data).hexdigest()[:32]}.parquet"


Query = Callable[[str], Iterator[pa.RecordBatch]]
"""Maps IMAGES, ANNOTATIONS or LEFTOVERS to their rows in order."""


@contextmanager
def _in_memory(parts: Sequence[Path]) -> Iterator[Query]:
    table = pa.concat_tables([pq.ParquetFile(part).read(use_threads=False) for part in parts]).cast(INSTANCES)
    table = ordered(table, ORDER)
    masks = kinds(table)
    yield lambda which: iter(table.filter(masks[which]).combine_chunks().to_batches(max_chunksize=BATCH_ROWS))


def kinds(table: pa.Table) -> dict[str, pa.Array]:
    """Return which rows are IMAGES, ANNOTATIONS and LEFTOVERS, by status and SOP class."""
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
        masks = kinds(pq.ParquetFile(part).read(columns=["status", "sop_class_uid"], use_threads=False))
        for which, mask in masks.items():
            if pc.any(mask).as_py():
                found[which].append(str(part))
    return found


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Cut rows, which are in order, into chunks."""
    cutter = Cutter()
    for batch in batches:
        yield from cutter.add(pa.Table.from_batches([batch]))
    yield from cutter.rest()


class Cutter:
    """Cuts rows, which are in order, into chunks of whole series.

    Where it cuts depends only on the series since the last cut. If some are added or removed, the chunks in front of
    these stay as they are, and soon after them the same series begin a chunk again.
    """

    def __init__(self) -> None:
        self._held: list[pa.Table] = []
        self._name: str | None = None
        self.rows = 0
        """Rows since the last cut."""

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Add rows and yield the chunks that are finished."""
        names, done = table["series_uid"], 0
        for start in self._starts(names):
            if self.cuts(names[start].as_py(), self.rows + start - done):
                self._hold(table.slice(done, start - done))
                yield from self.rest()
                done = start
        self._hold(table.slice(done))

    def rest(self) -> Iterator[pa.Table]:
        """Cut here, and yield the rows since the last cut if there are any."""
        if self.rows:
            yield pa.concat_tables(self._held).combine_chunks()
        self._held, self.rows = [], 0

    @staticmethod
    def cuts(name: str | None, rows: int) -> bool:
        """Return whether a series begins a new chunk after so many rows since the last cut."""
        least, most = CHUNK_ROWS
        return rows >= most or (rows >= least and name is not None and zlib.crc32(name.encode()) % _MARKED == 0)

    def _starts(self, names: pa.ChunkedArray) -> list[int]:
        """Return where series begin. A row without one is a series of its own."""
        if len(names) == 0:
            return []
        codes = names.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
        starts = np.flatnonzero((codes[1:] != codes[:-1]) | (codes[1:] < 0)) + 1
        first = names[0].as_py()
        return [*([0] if first is None or first != self._name else []), *starts.tolist()]

    def _hold(self, table: pa.Table) -> None:
        if table.num_rows:
            self._held.append(table)
            self.rows += table.num_rows
            self._name = table["series_uid"][-1].as_py()


def _written(batches: Iterable[pa.RecordBatch]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, INSTANCES, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()
