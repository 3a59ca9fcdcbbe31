"""Record which plan of a private workspace is the latest, and what was published from it."""

import json
from dataclasses import asdict, dataclass, replace

from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory
from builder.storage import Store

LATEST = "latest.json"


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


def note_published(private: Store, version: str) -> None:
    """Record what was published from the latest plan."""
    latest = read_latest(private)
    if latest is not None:
        _write(private, replace(latest, version=version))


def _write(private: Store, latest: Latest) -> None:
    private.put(LATEST, json.dumps(asdict(latest), sort_keys=True).encode())


def read_latest(private: Store) -> Latest | None:
    """Read the latest plan; return None if there is none, or if this user may not read it."""
    try:
        found = json.loads(private.read(LATEST))
    except OSError:
        return None
    return Latest(found["plan"], found["inventory"], tuple(found["chunks"]), found["version"])
