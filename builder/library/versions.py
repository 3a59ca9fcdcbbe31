"""Open one version of a published dataset to read its tables and documents."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.catalog.documents import FACTS
from builder.catalog.facts import Facts, parse_facts
from builder.errors import LayoutError
from builder.model.layout import CATALOG, CURRENT, MANIFEST, Manifest, parse_current, parse_manifest, version_path
from builder.model.parquet import read_parquet
from builder.storage import Store, open_store

MARK = "@"
"""``DATASET@VERSION`` names a version other than the published one."""


@dataclass(frozen=True)
class Version:
    """A version: its store and its manifest."""

    store: Store
    manifest: Manifest

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one table of the version."""
        data = self.store.read(version_path(self.manifest.version, name))
        return read_parquet(data, columns=None if columns is None else list(columns))

    def facts(self) -> Facts:
        """Read the facts of its catalog. Raises LayoutError if it has no catalog."""
        path = f"{CATALOG}/{FACTS}"
        try:
            document: dict[str, Any] = json.loads(self.store.read(version_path(self.manifest.version, path)))
        except FileNotFoundError:
            raise LayoutError(
                f"version {self.manifest.version}: found no {path}, expected one; build the dataset again"
            ) from None
        return parse_facts(document)


def split_name(name: str) -> tuple[str, str]:
    """Return the location of a dataset and the version named after ``@``, "" for the published one."""
    location, mark, version = name.rpartition(MARK)
    return (name, "") if not mark or "/" in version else (location, version)


def open_version(name: str) -> Version:
    """Open the published version of a dataset, or the version named after ``@``.

    Raises
    ------
    LayoutError
        If there is no such dataset or version.
    """
    location, version = split_name(name)
    store = open_store(location)
    try:
        chosen = version or parse_current(store.read(CURRENT))
        return Version(store, parse_manifest(store.read(version_path(chosen, MANIFEST))))
    except FileNotFoundError:
        what = f"version {version}" if version else "published dataset"
        raise LayoutError(f"{location}: found no {what}, expected one; build it, or check the location") from None
