"""Which plan of a private workspace is the last one, and what was published of it."""

import json
from dataclasses import asdict, dataclass, replace

from builder.plan import DatasetPlan
from builder.planning.inventory import Inventory
from builder.storage import Store

LATEST = "latest.json"


@dataclass(frozen=True)
class Latest:
    """The last plan.

    Parameters
    ----------
    plan, inventory
        Their folders in the private workspace.
    chunks
        Chunks of the inventory.
    version
        What was published of the plan; empty while nothing is.
    """

    plan: str
    inventory: str
    chunks: tuple[str, ...]
    version: str = ""


def note_plan(private: Store, plan: DatasetPlan, inventory: Inventory) -> None:
    """Note that a plan is the last one."""
    made, found = (url.removeprefix(private.url).strip("/") for url in (plan.url, inventory.store.url))
    _write(private, Latest(made, found, inventory.chunks))


def note_published(private: Store, version: str) -> None:
    """Note what was published of the last plan."""
    latest = read_latest(private)
    if latest is not None:
        _write(private, replace(latest, version=version))


def _write(private: Store, latest: Latest) -> None:
    private.put(LATEST, json.dumps(asdict(latest), sort_keys=True).encode())


def read_latest(private: Store) -> Latest | None:
    """The last plan; None where there is none, or where this user may not look."""
    try:
        found = json.loads(private.read(LATEST))
    except OSError:
        return None
    return Latest(found["plan"], found["inventory"], tuple(found["chunks"]), found["version"])
