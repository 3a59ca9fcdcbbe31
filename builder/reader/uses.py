"""The log of use: one small file per read session, written beside the dataset and never changed.

A session is the first time a process opens a given split and fields of a version, or exports it. The entry says what
was opened and when, and the form of an export, but not by whom, where or why. An entry that cannot be written is
skipped, so that reading never fails because of the log.
"""

import contextlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime

from builder.errors import LayoutError, MissingExtra, SourceError
from builder.model.layout import Manifest
from builder.storage import LocalStore, Store, open_beside, open_store

USES = ".uses"
"""Suffix that turns the location of a dataset into the folder of its log."""

BESIDE = "beside"
OFF = "off"
VARIABLE = "BUILDER_USES"
"""Environment variable: ``off``, or a folder or URL for the logs of all datasets."""

_seen: set[tuple[str, ...]] = set()


def log_use(
    store: Store,
    manifest: Manifest,
    *,
    where: str,
    split: str | None,
    fields: Sequence[str],
    samples: int,
    form: str = "",
) -> None:
    """Write the entry of a session, once.

    Parameters
    ----------
    where
        ``beside`` the dataset (only in a folder, never beside an object store), ``off``, or a folder or URL. The
        environment variable ``BUILDER_USES`` replaces ``beside``. ``catalog.log_of_use: false`` in the spec turns off
        the log beside the dataset.
    form
        Form of an export (``nifti``, ``bids``, ...); empty for a reader.
    """
    try:
        home = _home(store, manifest, where)
    except LayoutError:  # the location of the log is a link, which is not followed
        return
    session = (store.url, manifest.version, form, split or "", *fields)
    if home is None or session in _seen:
        return
    _seen.add(session)
    entry: dict[str, object] = {
        "dataset": manifest.name,
        "version": manifest.version,
        "opened": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "split": split,
        "fields": list(fields),
        "samples": samples,
    }
    if form:
        entry["form"] = form
    path = f"{manifest.version}/{os.urandom(16).hex()}.json"
    with contextlib.suppress(OSError, SourceError, MissingExtra, LayoutError):
        home.put(path, json.dumps(entry, sort_keys=True).encode() + b"\n")


def _home(store: Store, manifest: Manifest, where: str) -> Store | None:
    """Return the store for the entries, or None if no log is kept."""
    kept = manifest.spec.get("catalog", {}).get("log_of_use", True)
    if where == BESIDE:
        where = os.environ.get(VARIABLE) or BESIDE
    if where == OFF:
        return None
    if where != BESIDE:
        return open_store(where).join(manifest.name)
    return open_beside(store, USES) if kept and isinstance(store, LocalStore) else None
