"""Run the last stage, once after the shards: accounts, privacy check, report, catalog, and the swap to the version."""
