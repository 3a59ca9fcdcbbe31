"""Masks go back onto the series that they were drawn on, as highdicom and dciodvfy see it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from builder.errors import SpecError
from builder.library.dicomseg import Drawn, _described
from builder.library.export import Options, Wanted, export
from builder.run.pipeline import build
from tests import synthetic
from tests.endtoend.trees import KEY

SPEC = """
name: drawn
license: CC0-1.0
sources: [{kind: folder, url: "${tree}"}]
labels: {tumor: {kind: seg, segments: {core: (?i)core, rim: (?i)rim}}}
deid: {patient_key: "${env:BUILDER_KEY}"}
splits: {may_be_empty: [validation, test], ratios: {train: 1.0}}
samples: {kind: grid, shape: [4, 16, 16]}
"""
ENVIRONMENT = {"BUILDER_KEY": KEY}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, synthetic.Stack, dict[str, Any]]:
    """A folder with an archive and the dataset built of it, its oblique series and the masks on it."""
    root = tmp_path_factory.mktemp("drawn")
    made = synthetic.ct_series(root / "archive" / "ct", orientation=synthetic.OBLIQUE, slices=9)
    shape = made.geometry.shape
    masks = {name: np.zeros(shape, bool) for name in ("core", "rim")}
    masks["core"][2:7, 5:25, 9:20] = True
    masks["rim"][4:9, 20:32, 3:12] = True
    synthetic.seg(made, masks, directory=root / "archive" / "seg")
    synthetic.ct_series(root / "archive" / "bare", patient_id="P2", study="2", series="2", frame="2")
    (root / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(root / "spec.yaml", to=root / "data", parameters={"tree": str(root / "archive")})
    return root, made, masks


def test_a_segmentation_lies_on_the_images_where_it_was_drawn(drawn: Any, tmp_path: Path) -> None:
    root, made, masks = drawn
    options = Options(archive=str(root / "archive"), workers=2)
    outcome = export(
        str(root / "data"), str(tmp_path / "out"), form="dicomseg", options=options, environment=ENVIRONMENT
    )
    assert outcome.notes == ()
    (path,) = (tmp_path / "out").glob("*.dcm")
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    seg = highdicom.seg.segread(path)
    assert (seg.PatientID, seg.StudyInstanceUID) == ("P1", made.images[0].StudyInstanceUID)
    assert seg.FrameOfReferenceUID == made.images[0].FrameOfReferenceUID
    names = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers]
    assert names == ["core", "rim"]
    assert {seg.get_segment_description(n).algorithm_type.value for n in seg.segment_numbers} == {"MANUAL"}
    uids = [str(image.SOPInstanceUID) for image in made.images]
    found = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=False, assert_missing_frames_are_empty=True
    )
    for n, name in enumerate(names):
        np.testing.assert_array_equal(found[..., n].astype(bool), masks[name])
    again = export(
        str(root / "data"), str(tmp_path / "again"), form="dicomseg", options=options, environment=ENVIRONMENT
    )
    assert again.notes == ()
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    if shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr


@pytest.mark.parametrize(
    ("tiers", "kind"),
    [
        ({"machine"}, "AUTOMATIC"),
        ({"single_reader", "consensus"}, "MANUAL"),
        ({"machine", "crowd"}, "SEMIAUTOMATIC"),
        ({"unstated"}, "SEMIAUTOMATIC"),
        ({None}, "SEMIAUTOMATIC"),
    ],
)
def test_a_segment_states_who_drew_it(tiers: set[str | None], kind: str) -> None:
    drawn = Drawn("tumor", {"tumor": (0, 1)}, frozenset(tiers))
    described = _described(1, "tumor", drawn, "1")
    assert described.algorithm_type.value == kind
    assert ("SegmentationAlgorithmIdentificationSequence" in described) == (kind != "MANUAL")


def test_a_coarser_mask_is_the_nearest_voxel_of_the_dataset(drawn: Any) -> None:
    from builder.library.dicomseg import _drawn, _planes

    _, made, _ = drawn
    grid = made.geometry
    coarse = type(grid)((9, 14, 14), grid.affine @ np.diag([1.0, 2.3, 2.3, 1.0]))
    mask = np.random.default_rng(1).random((1, 9, 14, 14)) < 0.5
    (plane,) = _planes(dcmread(made.paths[3]))
    found = _drawn(plane, [(coarse, mask)], 1)[..., 0]
    places = coarse.to_voxel(grid.to_world([[3, r, c] for r in range(32) for c in range(32)]))
    nearest = np.floor(places + 0.5).astype(int)
    inside = (nearest < coarse.shape).all(axis=1)
    expected = np.where(inside, mask[0][tuple(np.where(inside[:, None], nearest, 0).T)], False)
    np.testing.assert_array_equal(found.ravel(), expected)
    assert 0.3 < found.mean() < 0.7


def test_what_cannot_be_written_back_is_said(drawn: Any, tmp_path: Path) -> None:
    root, _, _ = drawn
    url, archive = str(root / "data"), str(root / "archive")
    with pytest.raises(SpecError, match="--archive: found nothing, expected the folder"):
        export(url, str(tmp_path / "a"), form="dicomseg", environment=ENVIRONMENT)
    with pytest.raises(
        SpecError, match=r"found no key that the dataset was built with, expected \$\{env:BUILDER_KEY\}"
    ):
        export(url, str(tmp_path / "a"), form="dicomseg", options=Options(archive=archive))
    assert not (tmp_path / "a").exists()
    other = Options(archive=str(root / "archive" / "bare"))
    with pytest.raises(SpecError, match="--archive: found none of 1 series of the dataset in it"):
        export(url, str(tmp_path / "b"), form="dicomseg", options=other, environment=ENVIRONMENT)
    empty = Wanted(where="foreground_voxels == 0")
    outcome = export(
        url,
        str(tmp_path / "c"),
        form="dicomseg",
        wanted=empty,
        options=Options(archive=archive),
        environment=ENVIRONMENT,
    )
    assert outcome.notes == ("1 series without a file: no voxel of it is in a structure",)
    assert "1 series without a file" in outcome.text()
