"""Preload for workers of the local Dask cluster: imports what tasks call while other processes are still starting."""

import atexit
import gc
import logging

import builder.run.batches
import builder.stages.index
import builder.stages.shard
import builder.stages.survey  # noqa: F401


def told(record: logging.LogRecord) -> bool:
    """Return whether a worker's line is of use: not that of a heartbeat that a closing scheduler left unanswered."""
    return not record.getMessage().startswith("Failed to communicate with scheduler during heartbeat")


logging.getLogger("distributed.worker").addFilter(told)
atexit.register(gc.freeze)  # else Python searches every loaded library for cycles while it ends, for a second
