"""Record which plan of a private workspace is the latest, and what was published from it."""

import json
from dataclasses import asdict, dataclass, replace

from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory, kept_inventory
from builder.storage import Store

LATEST = "latest.json"
PUBLISHED = "latest-published.json"
"""The plan that the published version was made from; later plans may lie beside it."""


@dataclass(frozen=True)
class Latest:
    """The latest plan.

    Parameters
    ----------
    plan, inventory
        Their folders in the private workspace.
    chunks
        Chunks of the inventory.
    version
        What was published from the plan; empty before that.
    """

    plan: str
    inventory: str
    chunks: tuple[str, ...]
    version: str = ""


def note_plan(private: Store, plan: DatasetPlan, inventory: Inventory) -> None:
    """Record that a plan is the latest."""
    made, found = (url.removeprefix(private.url).strip("/") for url in (plan.url, inventory.store.url))
    _write(private, Latest(made, found, inventory.chunks))


def latest_inventory(private: Store) -> Inventory | None:
    """Return the inventory of the latest plan; None if there is none any more."""
    latest = read_latest(private)
    if latest is None:
        return None
    try:
        return kept_inventory(private.join(latest.inventory))
    except FileNotFoundError:
        return None


def note_published(private: Store, version: str) -> None:
    """Record what was published from the latest plan."""
    latest = read_latest(private)
    if latest is not None:
        _write(private, replace(latest, version=version))
        _write(private, replace(latest, version=version), PUBLISHED)


def keep_published(private: Store, latest: Latest) -> None:
    """Record the plan that the published version was made from."""
    _write(private, latest, PUBLISHED)


def read_published(private: Store, version: str) -> Latest | None:
    """Read the plan that a version was made from; return None if it is not known."""
    for name in (PUBLISHED, LATEST):  # releases before withdrawals kept the latest plan only
        found = read_latest(private, name)
        if found is not None and found.version == version:
            return found
    return None


def _write(private: Store, latest: Latest, name: str = LATEST) -> None:
    private.put(name, json.dumps(asdict(latest), sort_keys=True).encode())


def read_latest(private: Store, name: str = LATEST) -> Latest | None:
    """Read the latest plan; return None if there is none, or if this user may not read it."""
    try:
        found = json.loads(private.read(name))
    except OSError:
        return None
    return Latest(found["plan"], found["inventory"], tuple(found["chunks"]), found["version"])
