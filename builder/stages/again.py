"""Build a shard that lacks a case for a passing reason again in the next run, beside the one that readers may be using.

Such a reason is an internal error, or a source that did not give a study whole. Once the fault is fixed, the next run
repairs the dataset. The shard cannot be overwritten, because the published
version states the checksums of its objects. So each attempt has its own name, derived from the previous one. The first
without such a reason is kept, and later runs find it by following the same names. An attempt with the same content
as the previous one is removed, so that a persistent fault neither changes the dataset nor fills the disk.
"""

from dataclasses import replace

from builder.errors import Reason
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, Receipt, shard_path
from builder.storage import Store

GROUP = "zarr.json"
"""The only object of a shard that contains the shard's name."""


PASSING = frozenset({Reason.INTERNAL_ERROR, Reason.SOURCE_INCOMPLETE})
"""Reasons that say nothing of the case itself, so that the next run tries it again."""


def is_provisional(receipt: Receipt) -> bool:
    """Return whether a case of the shard was excluded for a passing reason."""
    return any(case.reason in PASSING for case in receipt.excluded)


def next_name(shard: str) -> str:
    """Return the name under which to build a shard again."""
    return fingerprint(shard, "again")


def same_content(one: Receipt, other: Receipt) -> bool:
    """Return whether two shards have the same content apart from their names."""
    return _nameless(one) == _nameless(other)


def discard(dataset: Store, receipt: Receipt) -> None:
    """Remove a shard, its receipt first, so that a half-removed shard never counts as finished."""
    dataset.delete(shard_path(receipt.fingerprint, RECEIPT))
    for stored in receipt.objects:
        dataset.delete(shard_path(receipt.fingerprint, stored.path))


def _nameless(receipt: Receipt) -> Receipt:
    objects = tuple(stored for stored in receipt.objects if stored.path != GROUP)
    return replace(receipt, fingerprint="", objects=objects)
