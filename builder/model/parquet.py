"""Tables as Parquet bytes: equal tables give equal bytes."""

import io
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from builder.errors import LayoutError

_ROW_GROUP_ROWS = 1 << 16

_FOR_ONE_THREAD = 1 << 20
"""Size in bytes below which handing columns to threads takes longer than decoding them."""


def parquet_bytes(table: pa.Table, *, compression: Literal["zstd", "lz4"] = "zstd") -> bytes:
    """Return ``table`` as one Parquet file: one thread, pinned options, no pandas metadata.

    How the table is chunked in memory does not change the bytes.

    Parameters
    ----------
    compression
        ``zstd`` for what is kept. ``lz4`` for many small tables that only the builds of one workspace read: preparing
        zstd for each of a hundred columns takes as long as all else, and saves a tenth of the bytes.
    """
    kept = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"pandas"}
    plain = table.replace_schema_metadata(kept or None).combine_chunks()
    sink = io.BytesIO()
    pq.write_table(
        plain,
        sink,
        version="2.6",
        data_page_version="1.0",
        compression=compression,
        compression_level=3 if compression == "zstd" else None,
        use_dictionary=True,
        write_statistics=True,
        row_group_size=_ROW_GROUP_ROWS,
        store_schema=True,
    )
    return sink.getvalue()


def read_parquet(data: bytes, *, columns: list[str] | None = None, dictionaries: Sequence[str] = ()) -> pa.Table:
    """Read the table in ``data``. Raises LayoutError.

    Parameters
    ----------
    columns
        Only these are decoded where they are given.
    dictionaries
        Columns of text to return as numbers of their distinct values, which is faster where values recur.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(dictionaries) or None)
        return file.read(columns=columns, use_threads=len(data) >= _FOR_ONE_THREAD)
    except (pa.ArrowException, OSError) as error:
        said = str(error).strip().splitlines()[0]
        raise LayoutError(f"found {len(data)} bytes that are no table in Parquet, or a damaged one ({said})") from error
