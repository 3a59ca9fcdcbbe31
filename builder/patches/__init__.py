"""A case to samples: patches around a label, a grid of patches, whole volumes, or pictures."""

from builder.patches.cutting import Estimate, FieldFacts, cut, describe_fields, estimate, held_by, pad_value
from builder.patches.options import (
    CHUNK_COST,
    CHUNK_COSTS,
    PICTURE_KINDS,
    AnySamples,
    Grid,
    Images,
    Patches,
    Whole,
    choose_chunk,
    describe_storage,
    shard_chunk,
)

__all__ = [
    "CHUNK_COST",
    "CHUNK_COSTS",
    "PICTURE_KINDS",
    "AnySamples",
    "Estimate",
    "FieldFacts",
    "Grid",
    "Images",
    "Patches",
    "Whole",
    "choose_chunk",
    "cut",
    "describe_fields",
    "describe_storage",
    "estimate",
    "held_by",
    "pad_value",
    "shard_chunk",
]
