"""A table on disk, and the facts about it that every record begins with."""

import hashlib

import pyarrow.parquet as pq
import pytest

from builder.catalog.facts import PARQUET, StoredFile, TableFacts
from tests.catalog.test_catalog import INDEX, columns


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "index.parquet"
    pq.write_table(INDEX, path)
    content = path.read_bytes()
    file = StoredFile("index.parquet", len(content), hashlib.sha256(content).hexdigest(), PARQUET)
    table = TableFacts("index.parquet", INDEX.num_rows, columns(INDEX.schema), ("sample_key",))
    return tmp_path, {"tables": (table,), "files": (file,)}
