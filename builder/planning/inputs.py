"""Define the inputs of a plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from builder.defacers.found import FoundFaces
from builder.model.keyed import Key
from builder.planning.inventory import Inventory, Survey
from builder.protocols import Progress
from builder.spec import DatasetSpec
from builder.split import Registry
from builder.split.withdrawn import Withdrawn
from builder.storage import Store


@dataclass(frozen=True, eq=False)
class PlanInputs:
    """Everything that a plan is made from.

    Parameters
    ----------
    spec
        Resolved, with locations filled in.
    published_spec
        The spec as it goes into the manifest, with locations withheld.
    private
        The private workspace of the dataset, which the plan is written to.
    dataset
        Where the dataset goes, with all its labels. Its registry says who was assigned to a split before.
    key
        The key behind all keyed names.
    inventory, survey
        What the archive holds, and its stacks under the spec's geometry policy.
    progress
        Called for every stage.
    faces
        Given the cohort, looks for faces in its images; finds none where faces stay.
    registry, withdrawn
        Who was dealt before, and who withdrew; ``builder.planning.withdrawn.with_history`` reads both.
    """

    spec: DatasetSpec
    published_spec: Mapping[str, Any]
    private: Store
    dataset: Store
    key: Key
    inventory: Inventory
    survey: Survey
    progress: Progress
    faces: Callable[[pa.Table], FoundFaces] = lambda _: FoundFaces()
    registry: Registry = field(default_factory=Registry.empty)
    withdrawn: Withdrawn = field(default_factory=Withdrawn)
