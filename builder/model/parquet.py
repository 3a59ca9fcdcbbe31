"""Tables as Parquet bytes: equal tables give equal bytes."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

_ROW_GROUP_ROWS = 1 << 16


def parquet_bytes(table: pa.Table) -> bytes:
    """``table`` as one Parquet file: one thread, pinned options, no pandas metadata.

    How the table is chunked in memory does not change the bytes.
    """
    kept = {k: v for k, v in (table.schema.metadata or {}).items() if k != b"pandas"}
    plain = table.replace_schema_metadata(kept or None).combine_chunks()
    sink = io.BytesIO()
    pq.write_table(
        plain,
        sink,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        row_group_size=_ROW_GROUP_ROWS,
        store_schema=True,
    )
    return sink.getvalue()


def read_parquet(data: bytes, *, columns: list[str] | None = None) -> pa.Table:
    """The table in ``data``; with ``columns`` only those are decoded."""
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns)
