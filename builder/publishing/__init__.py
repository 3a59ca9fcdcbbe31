"""Runs once, after the shards: accounts, privacy check, report and catalog, and the swap to the new version."""
