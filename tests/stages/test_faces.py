"""What goes out of images that lie in one place, where one of them is doubtful or could not be read."""

from pathlib import Path

import numpy as np

from builder.defacers.cells import Cells
from builder.defacers.defacing import Defacing
from builder.defacers.heads import Verdict
from builder.defacers.removal import parse_removal
from builder.model.geometry import Geometry
from builder.stages.faces import Part, Placed, removal_path, together
from builder.storage import open_store

EYE = tuple(np.eye(4).ravel())


def cells(*levels: int) -> Cells:
    held = np.zeros((4, 4, 4), np.bool_)
    held[list(levels)] = True
    return Cells((0, 0, 0), held)


def test_what_is_doubtful_goes_out_of_no_other_image_and_no_brain_goes(tmp_path: Path) -> None:
    affine = np.array([[0.0, 0.0, 3.0, 0.0], [0.0, 3.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    grid = Geometry((4, 4, 4), affine)  # a voxel is a cell
    found: dict[str, Part | str] = {
        "a": Part(Defacing(Verdict.FACE, gone=cells(0, 1), surface=cells(0)), grid),
        "b": Part(Defacing(Verdict.FACE, gone=cells(2, 3), brain=cells(1)), grid),
        "c": Part(Defacing(Verdict.FACE, gone=cells(0, 1, 2, 3), brain=cells(2), doubt="too little"), grid),
        "d": "it is broken",
    }
    store = open_store(str(tmp_path))
    seen = {one.stack: one for one in together([Placed(name, "1.2", EYE) for name in found], found, store)}
    levels = {}
    for name in ("a", "b", "c"):
        gone = parse_removal(store.read(removal_path(seen[name].removal))).gone_in(grid)
        levels[name] = np.flatnonzero(gone.all(axis=(1, 2))).tolist()
        assert seen[name].taken_out == gone.sum() == 16 * len(levels[name])
        assert seen[name].brain_taken_out == 0
    assert levels == {"a": [0, 2, 3], "b": [0, 2, 3], "c": [0, 3]}
    assert (seen["d"].doubt, seen["d"].removal, seen["d"].is_head) == ("it is broken", "", True)
