"""Which images show a face, what is taken out of them, and what never is."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from scipy import ndimage

from builder.defacers import Surface
from builder.defacers.cells import Cells, cells_of, covering, parse_cells, united, without
from builder.defacers.defacing import FACES_REMOVED, Defacing, find_face, without_face
from builder.defacers.heads import Verdict, find_head
from builder.defacers.removal import Removal, parse_removal
from builder.errors import CaseError, Reason
from builder.model.case import Mask, Segment, ValueDomain, Volume
from builder.model.geometry import Geometry
from builder.model.keyed import Key
from builder.phantom.bodies import make_body, paint
from builder.phantom.head_scans import HeadScan, draw_scans, scan_head
from builder.phantom.heads import Pose, make_head
from builder.phantom.scans import axial_grid, oblique_grid
from tests.defacers.known import SEED, removal_of, score, volume_of


@pytest.fixture(scope="module")
def scans() -> list[HeadScan]:
    """CT and PET of a drawn head, and an oblique MR of another."""
    key = Key(sha256(SEED.encode()).digest())
    drawn = draw_scans(key, 1)
    grid = oblique_grid((90, 150, 130), (2.6, 1.8, 1.8), (0.0, -8.0, 0.0), "1.2.4", tilts_degrees=(8.0, -5.0))
    return [next(drawn), next(drawn), scan_head(key, 1, "MR", make_head(Pose(-8.0, 6.0, 3.0)), grid)]


@pytest.fixture(scope="module")
def ct(scans: list[HeadScan]) -> tuple[Volume, Defacing]:
    volume = volume_of(scans[0])
    return volume, find_face(volume, Surface(), told=False)


def test_the_face_goes_and_the_brain_stays(scans: list[HeadScan]):
    for made in scans:
        found = score(made, 1)
        assert not found.refused
        assert found.gone >= 0.99 * found.face, found
        assert found.brain == 0, found


def test_a_head_below_which_the_scan_ends_shows_no_face(scans: list[HeadScan]):
    volume = volume_of(scans[0])
    level = int(np.flatnonzero(scans[0].answer.brain.any(axis=(1, 2))).mean())
    upper = volume.geometry.box((level, 0, 0), (volume.geometry.shape[0] - level, *volume.geometry.shape[1:]))
    cropped = Volume(volume.voxels[:, level:], upper, volume.domain)
    found = find_head(cropped)
    assert found.verdict == Verdict.FACELESS, found.figures
    assert find_face(cropped, Surface(), told=True).gone.held.sum() == 0


def test_a_face_that_was_cut_off_is_none(scans: list[HeadScan]):
    volume = volume_of(scans[0])
    voxels = volume.voxels.copy()
    s, r, _ = np.nonzero(scans[0].answer.brain)
    front, middle = int(r.min()), int(np.median(s))
    voxels[:, :middle, : front + 45] = -1000
    assert find_head(replace(volume, voxels=voxels)).verdict == Verdict.FACELESS


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_trunk_is_no_head(modality: str):
    body = make_body(sex="F", height_m=1.7, weight_kg=70)
    grid = axial_grid((40, 80, 110), (5.0, 4.0, 4.0), (0.0, 0.0, 0.0), "1.2.3")
    domain = ValueDomain.HOUNSFIELD if modality == "CT" else ValueDomain.ARBITRARY
    noise = np.random.default_rng(1).normal(0, 9, grid.shape).astype(np.float32)
    volume = Volume((paint(body, grid, modality) + noise)[None], grid, domain)
    assert find_head(volume).verdict == Verdict.NO_HEAD
    assert "calls it an image of the head" in find_face(volume, Surface(), told=True).doubt


def test_labels_stay_and_one_over_the_whole_face_is_refused(scans: list[HeadScan], ct: tuple[Volume, Defacing]):
    volume, found = ct
    gone = found.gone.within(volume.geometry)
    small = np.zeros(gone.shape, np.bool_)
    places = np.argwhere(scans[0].answer.face & gone)
    s, r, c = places[len(places) // 2]
    small[s, r - 1 : r + 2, c - 1 : c + 2] = True
    after = without_face(volume, removal_of(found), [_mask(small, volume.geometry)])
    assert (after.voxels[0][small] == volume.voxels[0][small]).all()
    assert FACES_REMOVED in after.notes
    with pytest.raises(CaseError, match="labels over") as caught:
        without_face(volume, removal_of(found), [_mask(volume.voxels[0] > -300, volume.geometry)])
    assert caught.value.reason == Reason.FACE_SHOWN


def test_a_plug_in_cannot_reach_the_brain(scans: list[HeadScan]):
    class Everything(Surface):
        def __call__(self, scene, head, brain):
            return np.ones_like(brain)

    volume = volume_of(scans[0])
    found = find_face(volume, Everything(), told=False)
    changed = (without_face(volume, removal_of(found), ()).voxels != volume.voxels)[0]
    assert changed.sum() > 0.5 * changed.size
    brain = found.brain.within(volume.geometry)
    assert not (changed & brain).any()
    assert brain[scans[0].answer.brain].mean() > 0.99


def test_one_mask_fits_every_image_of_a_frame(scans: list[HeadScan], ct: tuple[Volume, Defacing]):
    pet = scans[1]
    gone = ct[1].gone.within(pet.scan.geometry)
    assert gone[pet.answer.face].mean() > 0.99
    assert not gone[pet.answer.brain].any()


def test_sets_of_cells_come_back_and_hold_the_voxels_they_were_made_of():
    rng = np.random.default_rng(4)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.1, 0.2, 1.0], [0.0, 1.0, -0.2], [2.5, 0.0, 0.1]])
    affine[:3, 3] = (-20.0, 7.5, 1.5)
    grid = Geometry((9, 20, 22), affine)
    mask = rng.random(grid.shape) < 0.1
    start, shape = covering(grid)
    cells = Cells(start, cells_of(mask, grid, start, shape))
    assert cells.within(grid)[mask].all()
    again = parse_cells(cells.to_bytes())
    assert again.start == cells.start
    assert (again.held == cells.held).all()
    assert again.to_bytes() == cells.to_bytes()
    part = Cells(start, rng.random(shape) < 0.5)
    both = united([part, without(cells, part)])
    assert (both.within(grid) == (cells.within(grid) | part.within(grid))).all()
    assert not united([]).held.size


def test_a_removal_comes_back_and_follows_its_image(ct: tuple[Volume, Defacing]):
    volume, found = ct
    turn = np.array([[0.0, -1.0, 0.0, 12.0], [1.0, 0.0, 0.0, -30.0], [0.0, 0.0, 1.0, 7.5], [0.0, 0.0, 0.0, 1.0]])
    moved = replace(volume.geometry, affine=np.linalg.inv(turn) @ volume.geometry.affine)
    removal = Removal(found.gone, found.surface, turn)
    again = parse_removal(removal.to_bytes())
    assert again.digest == removal.digest != removal_of(found).digest
    there = removal.gone_in(moved)
    assert (there == again.gone_in(moved)).all()
    assert (there == found.gone.within(volume.geometry)).mean() > 0.9999  # centres on the edge of a cell may cross it
    start, shape = covering(moved)
    everywhere = Cells(start, np.ones(shape, np.bool_))
    assert removal.kept_by(everywhere) > 0.99
    assert removal.kept_by(Cells((5000, 0, 0), np.ones((2, 2, 2), np.bool_))) == 0.0


def _mask(inside: np.ndarray, grid: Geometry) -> Mask:
    return Mask("tumour", inside[None].astype(np.uint8), grid, (Segment("tumour"),))


def test_a_head_that_was_cut_or_blurred_elsewhere_is_not_refused(scans: list[HeadScan]):
    whole, thinned = volume_of(scans[0]), (slice(None, None, 2),) * 3
    brain, face = scans[0].answer.brain[thinned], scans[0].answer.face[thinned]
    affine = whole.geometry.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    volume = replace(whole, voxels=whole.voxels[0][thinned][None], geometry=Geometry(brain.shape, affine))
    places = volume.geometry.to_world(np.argwhere(np.ones(brain.shape, np.bool_)))
    y, z = (places[:, axis].reshape(brain.shape) for axis in (1, 2))
    brow, low = y[brain].min(), z[brain].min()
    back = np.clip(low + 50.0 - z, 0.0, None) * 0.8  # a plane that falls back from the brow down, as quickshear cuts
    cut = np.where(y - (brow - 8.0) < back, np.float32(-1000), volume.voxels[0])
    sheared = find_face(replace(volume, voxels=cut[None]), Surface(), told=True)
    assert (sheared.verdict, sheared.doubt, sheared.gone.held.sum()) == (Verdict.FACELESS, "", 0), sheared.figures
    soft = ndimage.gaussian_filter(volume.voxels[0], [8.0 / mm for mm in volume.geometry.spacing_mm])
    blurred = replace(volume, voxels=np.where((y < brow) & (z < low + 70.0), soft, volume.voxels[0])[None])
    found = find_face(blurred, Surface(), told=True)  # nose and eyes still stand out, and go
    assert (found.verdict, found.doubt) == (Verdict.FACE, ""), found.figures
    changed = (without_face(blurred, removal_of(found), ()).voxels != blurred.voxels)[0]
    assert not changed[brain].any()
    assert found.gone.within(volume.geometry)[face].mean() > 0.95
