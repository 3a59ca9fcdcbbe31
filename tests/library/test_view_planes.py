"""Pictures of slices against nibabel's orientation, and against what the viewer draws of the same slice in Chromium."""

import io
import threading
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from builder.library.view import open_view
from builder.library.view.planes import PLANES
from builder.library.view.samples import Look, Samples
from builder.model.case import ClearedSample
from builder.model.geometry import Geometry
from builder.reader.opening import open_dataset
from tests.library.browser import CHROMIUM, browse
from tests.reader.conftest import make_sample, publish

SHAPE, SPACING = (20, 36, 44), (3.0, 1.0, 0.8)
AXIAL, FLIPPED = np.eye(3), np.diag([-1, -1, 1])
OBLIQUE = Rotation.from_euler("zyx", (20, -15, 25), degrees=True).as_matrix()
DIRECTIONS = (
    (FLIPPED @ OBLIQUE)[:, [1, 2, 0]], OBLIQUE[:, [2, 1, 0]], AXIAL[:, [2, 1, 0]], FLIPPED[:, [2, 1, 0]],
    -AXIAL[:, [2, 1, 0]], AXIAL, np.eye(3)[:, [2, 1, 0]] @ np.diag([1, -1, 1]), AXIAL[:, [0, 2, 1]],
)  # fmt: skip
"""Columns: where (slice, row, column) indices run, in LPS."""


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """Samples that no turn or reflection leaves as they are, each on a grid of another direction, with a mask."""
    samples = []
    for number, directions in enumerate(DIRECTIONS):
        rng = np.random.default_rng(number)
        image = ndimage.gaussian_filter(rng.standard_normal(SHAPE), (1, 3, 4))
        image = np.rint(image / np.abs(image).max() * 1000).astype(np.int16)
        mask = np.zeros(SHAPE, np.uint8)
        mask[13, 5:12, 30:39], mask[12:15, 8, 34] = 1, 2  # the middle of the fullest slice
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = directions * SPACING, (5, -7, 11)
        ragged: dict[str, Any] = {"segment_names": ["node/a", "node/b"]}
        row: dict[str, Any] = {**make_sample(number, (1, 1, 1)).row, "case_key": f"c{number}"}
        samples.append(ClearedSample({"image": image[None], "node": mask[None]}, Geometry(SHAPE, affine), row, ragged))
    root = tmp_path_factory.mktemp("turned") / "set"
    publish(
        root, [samples], chunk=(8, 16, 16), described={"image": ("mm", {}), "node": ("", {"a": (0, 1), "b": (0, 2)})}
    )
    return root


def test_a_picture_shows_the_slice_and_sides_that_nibabel_states(turned):
    dataset = open_dataset(turned, uses="off")
    samples = Samples(dataset)
    for position in range(len(dataset)):
        item, about = dataset[position], samples.about(position, "image")
        affine = np.diag([-1, -1, 1, 1]) @ item.geometry.affine
        upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(item["image"][0], affine))
        mask = nibabel.as_closest_canonical(nibabel.Nifti1Image(item["node"][0], affine))
        voxels, numbers = (np.asarray(image.dataobj).astype(float) for image in (upright, mask))
        superior, anterior, right = about["focus"]
        assert about["size"] == [*voxels.shape[::-1]]
        assert numbers[right, anterior, superior] == 2, "the mask is looked at"
        spacing = upright.header.get_zooms()
        for axis, plane in enumerate(("sagittal", "coronal", "axial")):
            along, up = (other for other in range(3) if other != axis)
            focus = about["focus"][PLANES[plane]]
            for number in (None, focus, focus - 1):
                expected = np.take(voxels, focus if number is None else number, axis).T[::-1]  # above is above
                expected = expected if plane == "sagittal" else expected[:, ::-1]  # the right is to the left
                first = np.take(voxels, focus, axis)
                data, (low, high) = samples.picture(position, "image", 0, Look(plane, "whole range", 0, number))
                assert (low, high) == (first.min(), first.max())
                png = np.asarray(Image.open(io.BytesIO(data)))[..., 0].astype(float)
                size = [n * spacing[other] for n, other in zip(expected.shape, (up, along), strict=True)]
                assert png.shape[1] / png.shape[0] == pytest.approx(size[1] / size[0], rel=0.05), "square pixels"
                rows, columns = (
                    ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(png.shape, expected.shape, strict=True)
                )
                grey = np.clip((expected - low) / (high - low) * 255, 0, 255)
                assert np.abs(png - grey[rows[:, None], columns]).max() <= 1
        image = nibabel.Nifti1Image.from_bytes(samples.volume(position, "image", 0))
        assert np.array_equal(np.asarray(image.dataobj), voxels), "what the viewer gets"
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms() == pytest.approx(spacing)


def _like(one, other):
    """How much two pictures are alike: their correlation."""
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])


def _stage(page, plane, viewer):
    """The image on the page once it shows a plane, in the picture or the viewer, without the letters at its edges."""
    if plane:
        page.evaluate(f"setPlane('{plane}')")
    page.until(f"document.body.dataset.viewer === '{viewer}' && document.body.dataset.plane.startsWith('{plane}')")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = page.evaluate("(({ x, y, width, height }) => [x, y, width, height])($('stage').getBoundingClientRect())")
    x, y, width, height = map(int, box)
    return page.picture()[y + 40 : y + height - 40, x + 40 : x + width - 40].astype(float)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_viewer_draws_what_the_picture_shows(turned, tmp_path: Path):
    server = open_view(str(turned), leave_out=tmp_path / "marks.txt")
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        with browse(tmp_path / "profile") as page:
            page.size(1000, 700)
            page.call("Page.navigate", url=server.address)
            page.until("document.body && document.body.dataset.shown === '0'")
            pictures = {plane: _stage(page, plane, "false") for plane in PLANES}
            superior, anterior, right = server.samples.about(0, "image")["focus"]
            page.evaluate("setPlane('axial')")
            page.evaluate("setSlice(1)")
            page.press("ArrowDown")
            page.until("document.body.dataset.slice === '0'")
            before = _stage(page, "", "false")
            page.evaluate("document.getElementById('picture').click()")
            assert _like(before, _stage(page, "", "true")) > 0.97 > _like(before, pictures["axial"]), "another slice"
            page.evaluate(f"setSlice({superior})")
            for plane, picture in pictures.items():
                drawn = _stage(page, plane, "true")
                assert _like(picture, drawn) > 0.97, plane
                for other in (drawn[::-1], drawn[:, ::-1], drawn[::-1, ::-1]):
                    assert _like(picture, other) < 0.9, "the test could tell"
            page.evaluate("setPlane('axial')")
            page.press("ArrowUp")
            page.until(f"viewer.frac2vox(viewer.scene.crosshairPos)[2] === {superior + 1}")
            place = page.evaluate("Array.from(viewer.frac2vox(viewer.scene.crosshairPos))")
            assert place == [right, anterior, superior + 1], "of a volume that is as nibabel states"
            page.press("n")
            page.until("document.body.dataset.shown === '1'")
            assert page.evaluate("document.body.dataset.viewer") == "false", "the picture of the next one"
            assert page.told == []
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
