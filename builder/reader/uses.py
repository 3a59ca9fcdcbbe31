"""The log of use: one small file a read session, written beside the dataset and never changed.

A session is the first opening, in one process, of some splits and fields of a version. What is kept says what was
opened and when, and nothing of who, where or why. A log that cannot be written is left out: reading never fails for it.
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
"""Added to a dataset's location: the folder of its log."""

BESIDE = "beside"
OFF = "off"
VARIABLE = "BUILDER_USES"
"""``off``, or a folder or URL where the logs of all datasets go."""

_seen: set[tuple[str, ...]] = set()


def log_use(
    store: Store, manifest: Manifest, *, where: str, split: str | None, fields: Sequence[str], samples: int
) -> None:
    """Write the session's entry, once.

    Parameters
    ----------
    where
        ``beside`` the dataset (in a folder: beside an object store nothing is written), ``off``, or a folder or URL.
        The environment's ``BUILDER_USES`` takes the place of ``beside``; ``catalog.log_of_use: false`` in the spec
        turns the log beside the dataset off.
    """
    try:
        home = _home(store, manifest, where)
    except LayoutError:  # a link lies where the log would go
        return
    session = (store.url, manifest.version, split or "", *fields)
    if home is None or session in _seen:
        return
    _seen.add(session)
    entry = {
        "dataset": manifest.name,
        "version": manifest.version,
        "opened": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "split": split,
        "fields": list(fields),
        "samples": samples,
    }
    path = f"{manifest.version}/{os.urandom(16).hex()}.json"
    with contextlib.suppress(OSError, SourceError, MissingExtra, LayoutError):
        home.put(path, json.dumps(entry, sort_keys=True).encode() + b"\n")


def _home(store: Store, manifest: Manifest, where: str) -> Store | None:
    """Where entries go; None when there is no log."""
    kept = manifest.spec.get("catalog", {}).get("log_of_use", True)
    if where == BESIDE:
        where = os.environ.get(VARIABLE) or BESIDE
    if where == OFF:
        return None
    if where != BESIDE:
        return open_store(where).join(manifest.name)
    return open_beside(store, USES) if kept and isinstance(store, LocalStore) else None
