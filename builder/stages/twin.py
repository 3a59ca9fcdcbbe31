"""Take the signature of one image, to find the same image in another format before the cohort is chosen."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builder.errors import CaseError
from builder.imaging.stacks.options import VolumeOptions
from builder.model.case import Volume
from builder.model.geometry import Geometry
from builder.model.parquet import read_parquet
from builder.plan import CasePlan
from builder.sources import AnySource
from builder.stages.boundary import fault_of_case
from builder.stages.fetch import fetch, pixels_of
from builder.stages.prepare import plain_recipe, read_volume
from builder.storage import open_store
from builder.transforms.orient import find_turn, turn_array, turn_geometry

TWINS = "twins"
"""Folder of an inventory with what is known of the images that were compared."""
PLACES = 4096
"""Voxels that are compared, at the same places of both images."""

SAME_GRID_VOXELS = 0.05
SAME_VALUES = 2e-3
"""Largest difference of two values that count as one, in standard deviations: files round what scanners scale."""


@dataclass(frozen=True)
class TwinArgument:
    """The rows of one image, stored under ``rows`` in a store, and how to read them."""

    store: str
    rows: str
    signature: str
    frames: tuple[tuple[int, ...], ...]
    sources: tuple[AnySource, ...]
    volumes: VolumeOptions


@dataclass(frozen=True, eq=False)
class Signature:
    """The grid of an image in LPS order, and its values at fixed places, less their mean and over their deviation."""

    geometry: Geometry
    values: NDArray[np.float64]

    def is_twin_of(self, other: "Signature") -> bool:
        """Return whether both images show the same values at the same places, up to a factor and an offset."""
        if not self.geometry.same_grid(other.geometry, tolerance_voxels=SAME_GRID_VOXELS):
            return False
        return bool(np.abs(self.values - other.values).max() <= SAME_VALUES)


def run_twin(argument: TwinArgument) -> bool:
    """Store the signature of an image; return False if it has none because it cannot be read or is constant."""
    store = open_store(argument.store, directory_mode=0o700)
    if store.exists(argument.signature):
        return parse_signature(store.read(argument.signature)) is not None
    try:
        found = _signature(_volume(argument))
    except CaseError as error:
        fault_of_case(error)
        found = None  # the build of its case meets the same error and records it
    store.put(argument.signature, json.dumps(found, sort_keys=True).encode())
    return found is not None


def parse_signature(data: bytes) -> Signature | None:
    """Parse what ``run_twin`` stored."""
    found = json.loads(data)
    if found is None:
        return None
    shape = found["shape"]
    return Signature(Geometry((shape[0], shape[1], shape[2]), np.array(found["affine"])), np.array(found["values"]))


def _volume(argument: TwinArgument) -> Volume:
    rows = read_parquet(open_store(argument.store, directory_mode=0o700).read(argument.rows))
    case = CasePlan("", "", "", 0, 0, 0, 0, frames=argument.frames)
    recipe = plain_recipe(argument.volumes)
    objects = fetch(rows, argument.sources, argument.volumes)
    return read_volume(case, objects, recipe, fill=pixels_of(objects.rows, argument.sources, recipe.uids))


def _signature(volume: Volume) -> dict[str, Any] | None:
    turn = find_turn(volume.geometry, "LPS")
    geometry = turn_geometry(volume.geometry, turn)
    voxels = turn_array(volume.voxels[0], turn).reshape(-1)
    places = np.linspace(0, voxels.size - 1, min(PLACES, voxels.size)).astype(np.int64)
    values = voxels[places].astype(np.float64)
    spread = float(values.std())
    if not np.isfinite(spread) or spread == 0:
        return None
    scaled: Sequence[float] = ((values - values.mean()) / spread).round(6).tolist()
    return {"shape": list(geometry.shape), "affine": geometry.affine.tolist(), "values": scaled}
