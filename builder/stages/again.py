"""A shard that holds an internal error is built again by the next run, beside the one that readers may be reading.

A mended fault then heals the dataset. The shard cannot be overwritten, because the published version states the
checksums of its objects. So each attempt has a name of its own, derived from the one before it. The first without an
internal error is kept, and every later run finds it by walking the same names. An attempt that comes out like the one
before it is removed, so that a fault which persists neither changes the dataset nor fills the disk.
"""

from dataclasses import replace

from builder.errors import Reason
from builder.model.canonical import fingerprint
from builder.model.layout import RECEIPT, Receipt, shard_path
from builder.storage import Store

GROUP = "zarr.json"
"""The only object of a shard that states its name."""


def has_internal_error(receipt: Receipt) -> bool:
    """Whether a case of the shard was excluded for a fault of this program."""
    return any(case.reason == Reason.INTERNAL_ERROR for case in receipt.excluded)


def next_name(shard: str) -> str:
    """The name under which a shard is built again."""
    return fingerprint(shard, "again")


def same_content(one: Receipt, other: Receipt) -> bool:
    """Whether two shards hold the same, but for their names."""
    return _nameless(one) == _nameless(other)


def discard(dataset: Store, receipt: Receipt) -> None:
    """Remove a shard: its receipt first, so that it is never taken for a finished one."""
    dataset.delete(shard_path(receipt.fingerprint, RECEIPT))
    for stored in receipt.objects:
        dataset.delete(shard_path(receipt.fingerprint, stored.path))


def _nameless(receipt: Receipt) -> Receipt:
    objects = tuple(stored for stored in receipt.objects if stored.path != GROUP)
    return replace(receipt, fingerprint="", objects=objects)
