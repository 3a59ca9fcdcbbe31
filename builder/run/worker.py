"""Dask's preload for workers of the local cluster: imports what tasks call while the other processes still start."""

import builder.run.batches
import builder.stages.index
import builder.stages.shard
import builder.stages.survey  # noqa: F401
