"""What a plan is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.keyed import Key
from builder.planning.inventory import Inventory, Survey
from builder.protocols import Progress
from builder.spec import DatasetSpec
from builder.storage import Store


@dataclass(frozen=True, eq=False)
class PlanInputs:
    """Everything a plan is made from.

    Parameters
    ----------
    spec
        Resolved: locations filled in.
    published_spec
        As it goes into the manifest: locations withheld.
    private
        The private workspace of the dataset, which gets the plan.
    dataset
        Where the dataset goes, with all its labels: its registry says who was dealt before.
    key
        The key behind all keyed names.
    inventory, survey
        What the archive holds, and its stacks under the spec's geometry policy.
    progress
        Told of every stage.
    """

    spec: DatasetSpec
    published_spec: Mapping[str, Any]
    private: Store
    dataset: Store
    key: Key
    inventory: Inventory
    survey: Survey
    progress: Progress
