"""Build a shard that holds an internal error again in the next run, beside the one that readers may be using.

Once the fault is fixed, the next run repairs the dataset. The shard cannot be overwritten, because the published
version states the checksums of its objects. So each attempt has its own name, derived from the previous one. The first
without an internal error is kept, and later runs find it by following the same names. An attempt with the same content
as the previous one is removed, so that a persistent fault neither changes the dataset nor fills the disk.
"""

from dataclasses import replace

from builder.errors import Reason
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, Receipt, shard_path
from builder.storage import Store

GROUP = "zarr.json"
"""The only object of a shard that contains the shard's name."""


def has_internal_error(receipt: Receipt) -> bool:
    """Return whether a case of the shard was excluded because of a bug in this program."""
    return any(case.reason == Reason.INTERNAL_ERROR for case in receipt.excluded)


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
