"""Everything that a dataset publishes, byte by byte: names, files, and what is inside tables and arrays."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zarr


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (where, bytes) of every name, file, table with its metadata, and decompressed array below a folder."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        yield "file names", name.encode()
        yield name, path.read_bytes()
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            groups = [file.metadata.row_group(n).to_dict() for n in range(file.metadata.num_row_groups)]
            said = f"{file.metadata.to_dict()} {file.schema_arrow.metadata} {groups} {file.read().to_pydict()}"
            yield f"{name}, decompressed", said.encode()
        if path.name == "zarr.json" and json.loads(path.read_bytes())["node_type"] == "array":
            array = zarr.open_array(path.parent, mode="r")
            yield f"{name}, attributes", str(dict(array.attrs)).encode()
            yield f"{name}, decompressed", np.ascontiguousarray(array[...]).tobytes()
