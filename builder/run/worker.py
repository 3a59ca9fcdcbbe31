"""Preload for workers of the local Dask cluster: imports what tasks call while other processes are still starting."""

import builder.run.batches
import builder.stages.index
import builder.stages.shard
import builder.stages.survey  # noqa: F401
