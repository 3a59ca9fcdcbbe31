"""Write samples to shards."""

from builder.shards.storing import CODECS, CodecName, FieldStorage
from builder.shards.streams import MOST_WAITING, MOST_WAITING_BYTES, SLAB_BYTES
from builder.shards.writer import ShardWriter, open_shard, write_shard

__all__ = [
    "CODECS",
    "MOST_WAITING",
    "MOST_WAITING_BYTES",
    "SLAB_BYTES",
    "CodecName",
    "FieldStorage",
    "ShardWriter",
    "open_shard",
    "write_shard",
]
