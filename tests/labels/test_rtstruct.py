"""RTSTRUCT: the published voxel keys of the sarcoma cohort, closed-form phantoms, shapely as oracle, odd contours."""

import itertools
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pydicom
import pytest
import shapely
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.labels.contours import Rules, contour_area_mm2, fill_contours, plane_slabs
from builder.labels.raster import AREA_LINES, cover
from builder.labels.rtstruct import RtStruct
from builder.model.case import Mask
from builder.model.geometry import Geometry
from builder.model.linking import How, ImageRow
from builder.model.tables import INSTANCES
from builder.protocols import ImageFacts, LabelObject
from tests import synthetic
from tests.contracts.label_reader import LabelReaderContract
from tests.labels.images import dice, image_facts

MODES = ("centre", "area")


def facts(geometry: Geometry) -> ImageFacts:
    return ImageFacts(geometry, "1.2.3", {})


def grid(shape: tuple[int, int, int] = (40, 64, 64), spacing: tuple[float, float, float] = (2.0, 1.0, 1.0)) -> Geometry:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    affine[:3, 3] = (
        -np.array([spacing[2] * (shape[2] - 1), spacing[1] * (shape[1] - 1), spacing[0] * (shape[0] - 1)]) / 2
    )
    return Geometry(shape, affine)


def circle(radius: float, *, centre: tuple[float, float] = (0.0, 0.0), points: int = 400) -> NDArray[np.float64]:
    angle = np.arange(points) * 2 * np.pi / points
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=1)


def at_height(polygon: NDArray[np.float64], z: float) -> NDArray[np.float64]:
    return np.column_stack([polygon, np.full(len(polygon), z)])


def volume(contours: list[Any], geometry: Geometry, **rules: Any) -> float:
    return float(fill_contours(contours, geometry, Rules(**rules)).inside.sum()) * geometry.voxel_volume_mm3


class TestRtStructContract(LabelReaderContract):
    options = {"kind": "rtstruct", "roi": {"tumor": "(?i)gtv"}}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        made = synthetic.ct_series()
        return ImageFacts(made.geometry, made.series_uid, {str(i.SOPInstanceUID): n for n, i in enumerate(made.images)})

    @pytest.fixture
    def objects(self, image: ImageFacts) -> list[LabelObject]:
        made = synthetic.ct_series()
        dataset = synthetic.rtstruct(made, {"GTV": synthetic.box_contours(made.geometry, (2, 5, 5), (5, 20, 20))})
        dataset.PatientName = "DOE^JANE"
        return [LabelObject(dataset, "rt.dcm")]


@pytest.fixture(scope="module")
def cohort(corpus: Any) -> list[tuple[str, str, ImageFacts, Dataset, NDArray[np.bool_]]]:
    """(patient, modality, image, structure set, published mask as (slice, row, column)) of all 48 pairs."""
    pairs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in sorted((corpus("sts") / "sts_cohort").glob("*/*")):
            key = nibabel.load(next(folder.glob("*_mask.nii.gz")))
            voxels = np.asarray(key.dataobj).transpose(2, 1, 0) > 0
            dataset = pydicom.dcmread(next((folder / "mask").iterdir()), force=True)
            pairs.append((folder.parent.name, folder.name, image_facts(folder / "image"), dataset, voxels))
    return pairs


class TestSarcomaCohort:
    def test_centre_rule_equals_the_published_masks_voxel_for_voxel(self, cohort: Any) -> None:
        assert len(cohort) == 48
        reader = RtStruct(roi={"tumor": "(?i)gtv|mass"})
        for patient, modality, image, dataset, key in cohort:
            (mask,) = reader.read("tumor", [LabelObject(dataset)], image)
            assert isinstance(mask, Mask)
            assert np.array_equal(mask.voxels[0] > 0, key), (patient, modality)
            assert mask.measures["tumor/planes_on_slice_fraction"] == 1.0
            # 0.945 is STS_035's PET: 365 voxels of 5.5 mm, a third of them on the edge
            assert 0.94 < mask.measures["tumor/volume_ratio"] < 1.03, (patient, modality)

    @pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
    @pytest.mark.parametrize("series", [("STS_008", "CT"), ("STS_008", "MR_T1"), ("STS_035", "PET")])
    def test_plastimatch_fills_the_same_voxels(self, cohort: Any, corpus: Any, tmp_path: Path, series: Any) -> None:
        image, dataset = next((i, d) for patient, modality, i, d, _ in cohort if (patient, modality) == series)
        geometry = image.geometry
        fixed = SimpleITK.Image(*geometry.shape[::-1], SimpleITK.sitkUInt8)
        fixed.SetSpacing(geometry.spacing_mm[::-1])
        fixed.SetOrigin(geometry.origin_mm)
        SimpleITK.WriteImage(fixed, str(tmp_path / "fixed.mha"))
        source = next((corpus("sts") / "sts_cohort" / series[0] / series[1] / "mask").iterdir())
        command = ["plastimatch", "convert", "--input", str(source), "--fixed", str(tmp_path / "fixed.mha")]
        command += ["--output-prefix", str(tmp_path / "out"), "--prefix-format", "mha"]
        subprocess.run(command, check=True, capture_output=True)
        theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(next((tmp_path / "out").glob("*.mha")))))
        (mask,) = RtStruct(roi={"tumor": "."}).read("tumor", [LabelObject(dataset)], image)
        assert np.array_equal(mask.voxels[0] > 0, theirs > 0)

    def test_area_rule_differs_only_on_edges(self, cohort: Any) -> None:
        reader = RtStruct(roi={"tumor": "(?i)gtv|mass"}, inclusion="area")
        for patient, modality, image, dataset, key in cohort:
            (mask,) = reader.read("tumor", [LabelObject(dataset)], image)
            assert isinstance(mask, Mask)
            assert dice(mask.voxels[0] > 0, key) > 0.97, (patient, modality)

    def test_a_roi_that_names_an_unknown_frame_is_taken_at_its_structure_sets_word(self, cohort: Any) -> None:
        reader = RtStruct(roi={"tumor": "(?i)gtv|mass"})
        dangling = {
            patient
            for patient, _, image, dataset, _ in cohort
            if reader.read("t", [LabelObject(dataset)], image)[0].measures["rois_with_dangling_frame"]
        }
        assert dangling == {"STS_046"}

    def test_every_structure_set_links_by_series_to_its_own_image(self, cohort: Any) -> None:
        table, images = _index(cohort)
        reader = RtStruct(roi={"tumor": "x"})
        for number, image in enumerate(images):
            chosen = reader.select(image, table)
            assert (chosen.rows, chosen.how) == ((number,), How.SERIES)

    def test_without_series_references_the_frame_of_reference_links(self, cohort: Any) -> None:
        table, images = _index(cohort)
        index = table.schema.get_field_index("referenced_series_uids")
        table = table.set_column(index, table.schema.field(index), pa.array([[]] * len(table), pa.list_(pa.string())))
        for number, image in enumerate(images):
            chosen = RtStruct(roi={"tumor": "x"}).select(image, table)
            assert number in chosen.rows
            assert chosen.how is How.FRAME_OF_REFERENCE

    def test_raw_series_with_two_structures(self, corpus: Any) -> None:
        folder = corpus("sts") / "sts001_raw" / "FDG_PET"
        dataset = pydicom.dcmread(next((folder / "mask").iterdir()))
        (mask,) = RtStruct(roi={"mass": "GTV_Mass", "edema": "(?i)edema"}).read(
            "gtv", [LabelObject(dataset)], image_facts(folder / "image")
        )
        assert isinstance(mask, Mask)
        assert [s.name for s in mask.segments] == ["mass", "edema"]
        assert mask.measures["rois_unmatched"] == mask.measures["rois"] - 2
        # the oedema was drawn round the mass: both keep their voxels, each in a channel of its own
        assert mask.measures["overlap_voxels"] == np.count_nonzero(mask.voxels.all(axis=0)) > 0
        for part in ("mass", "edema"):
            assert mask.measures[f"{part}/volume_ratio"] == pytest.approx(1, abs=0.03)


def _index(cohort: Any) -> tuple[pa.Table, list[ImageRow]]:
    """INSTANCES rows of the cohort's structure sets, and the facts of its images."""
    rows, images = [], []
    for patient, _, image, dataset, _ in cohort:
        frame = dataset.ReferencedFrameOfReferenceSequence[0]
        row: dict[str, Any] = dict.fromkeys(INSTANCES.names)
        row |= {
            "format": "dicom",
            "path": "x",
            "sop_class_uid": str(dataset.SOPClassUID),
            "frame_of_reference_uid": str(dataset.get("FrameOfReferenceUID")),
            "referenced_frame_of_reference_uids": [str(frame.FrameOfReferenceUID)],
            "referenced_series_uids": [
                str(frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].SeriesInstanceUID)
            ],
            "referenced_sop_uids": sorted(
                {
                    str(i.ReferencedSOPInstanceUID)
                    for c in dataset.ROIContourSequence[0].ContourSequence
                    for i in c.get("ContourImageSequence", [])
                }
            ),
        }
        rows.append(row)
        frames = image.geometry.frame_of_reference
        images.append(ImageRow(image.series_uid, "", frames, frozenset(image.uid_to_slice), patient_id=patient))
    return pa.Table.from_pylist(rows, schema=INSTANCES), images


class TestPhantoms:
    """Volumes of closed form; the bounds are those that docs/labels.md states."""

    @pytest.mark.parametrize("inclusion", MODES)
    def test_sphere(self, inclusion: str) -> None:
        geometry, radius = grid(), 20.0
        heights = [geometry.to_world([(k, 0, 0)])[0, 2] for k in range(40)]
        rings = [at_height(circle(np.sqrt(radius**2 - z**2)), z) for z in heights if abs(z) < radius]
        assert volume(rings, geometry, inclusion=inclusion) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)

    @pytest.mark.parametrize("inclusion", MODES)
    def test_ring_by_even_odd_and_by_keyhole(self, inclusion: str) -> None:
        geometry = grid()
        z = geometry.to_world([(20, 0, 0)])[0, 2]
        outer, inner = circle(20), circle(10)
        truth = np.pi * (20**2 - 10**2) * 2.0
        toggled = [at_height(outer, z), at_height(inner, z)]
        keyhole = at_height(np.concatenate([outer, outer[:1], inner[:1], inner[::-1]]), z)
        for contours in (toggled, [keyhole]):
            filled = fill_contours(contours, geometry, Rules(inclusion=inclusion))  # type: ignore[arg-type]
            assert filled.inside.sum() * 2.0 == pytest.approx(truth, rel=0.01)
            assert filled.contour_volume_mm3 == pytest.approx(truth, rel=0.001)
            assert not filled.inside[20, 32, 32]
        assert volume(toggled, geometry, holes="union") == pytest.approx(np.pi * 20**2 * 2.0, rel=0.01)
        assert contour_area_mm2(keyhole) == pytest.approx(np.pi * 300, rel=0.001)

    def test_island_in_a_hole_is_inside(self) -> None:
        geometry = grid()
        z = geometry.to_world([(20, 0, 0)])[0, 2]
        filled = fill_contours([at_height(circle(r), z) for r in (20, 12, 5)], geometry, Rules())
        assert filled.inside.sum() * 2.0 == pytest.approx(2 * np.pi * (400 - 144 + 25), rel=0.02)
        assert filled.contour_volume_mm3 == pytest.approx(2 * np.pi * (400 - 144 + 25), rel=0.001)

    @pytest.mark.parametrize("inclusion", MODES)
    @pytest.mark.parametrize("degrees", [15.0, 45.0, 90.0])
    def test_cylinder_of_contours_across_the_slices(self, inclusion: str, degrees: float) -> None:
        geometry = grid(spacing=(1.5, 1.0, 1.0))
        a = np.radians(degrees)
        turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        discs = [at_height(circle(10), z) @ turn.T for z in np.arange(-9, 10, 2.0)]
        filled = fill_contours(discs, geometry, Rules(inclusion=inclusion))  # type: ignore[arg-type]
        assert filled.oblique_contours == 10
        truth = np.pi * 100 * 20.0
        assert filled.contour_volume_mm3 == pytest.approx(truth, rel=0.001)
        assert filled.inside.sum() * 1.5 == pytest.approx(truth, rel=0.02)

    @pytest.mark.parametrize("inclusion", MODES)
    def test_sphere_on_a_tilted_gantry(self, inclusion: str) -> None:
        made = synthetic.ct_series(slices=24, shape=(64, 64), spacing=(2.0, 1.0, 1.0), tilt_degrees=18)
        assert not made.geometry.is_orthogonal
        centre = made.geometry.to_world([(11.5, 31.5, 31.5)])[0]
        contours = []
        normal = np.cross(made.geometry.directions[:, 2], made.geometry.directions[:, 1])
        for k in range(24):
            plane = made.geometry.to_world([(k, 31.5, 31.5)])[0]
            offset = float((plane - centre) @ normal)
            if abs(offset) < 15:
                ring = circle(np.sqrt(15**2 - offset**2))
                middle = centre + offset * normal
                contours.append(middle + ring @ made.geometry.directions[:, [2, 1]].T)
        filled = fill_contours(contours, made.geometry, Rules(inclusion=inclusion))  # type: ignore[arg-type]
        assert filled.oblique_contours == 0
        found = filled.inside.sum() * made.geometry.voxel_volume_mm3
        assert found == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.01)

    @pytest.mark.parametrize("inclusion", MODES)
    def test_one_voxel_lesion_is_that_voxel(self, inclusion: str) -> None:
        geometry = grid()
        (square,) = synthetic.box_contours(geometry, (7, 9, 11), (8, 10, 12))
        inside = fill_contours([square], geometry, Rules(inclusion=inclusion)).inside  # type: ignore[arg-type]
        assert np.argwhere(inside).tolist() == [[7, 9, 11]]

    def test_boxes_that_share_an_edge_through_pixel_centres_share_no_voxel(self) -> None:
        geometry = grid()
        corners = [(5, 10, 10), (5, 10, 20), (5, 20, 20), (5, 20, 10)]
        left = geometry.to_world(corners)
        right = geometry.to_world([(s, r, c + 10) for s, r, c in corners])
        a, b = (fill_contours([c], geometry, Rules()).inside for c in (left, right))
        assert a.sum() == b.sum() == 100
        assert not (a & b).any()


class TestGaps:
    def test_a_plane_reaches_half_the_usual_step(self) -> None:
        assert plane_slabs([0.0, 1.0, 2.0, 6.0], 1.0, max_step=5, gaps="leave") == [
            (-0.5, 0.5), (0.5, 1.5), (1.5, 2.5), (5.5, 6.5),
        ]  # fmt: skip
        assert plane_slabs([0.0, 1.0, 2.0, 6.0], 1.0, max_step=5, gaps="fill")[2:] == [(1.5, 4.0), (4.0, 6.5)]

    def test_planes_beyond_the_largest_step_are_lesions_of_their_own(self) -> None:
        assert plane_slabs([0.0, 40.0], 3.0, max_step=10, gaps="leave") == [(-1.5, 1.5), (38.5, 41.5)]

    def test_contours_on_every_third_slice_fill_the_slices_between(self) -> None:
        geometry = grid()
        rings = [at_height(circle(10), geometry.to_world([(k, 0, 0)])[0, 2]) for k in (10, 13, 16)]
        filled = fill_contours(rings, geometry, Rules())
        assert np.flatnonzero(filled.inside.any(axis=(1, 2))).tolist() == list(range(9, 18))
        left = fill_contours([rings[0], rings[2]], geometry, Rules(max_step_mm=5.0))
        assert np.flatnonzero(left.inside.any(axis=(1, 2))).tolist() == [10, 16]

    @given(st.lists(st.floats(-100, 100), min_size=1, max_size=20, unique=True), st.sampled_from(["leave", "fill"]))
    def test_slabs_hold_their_plane_and_never_overlap(self, offsets: list[float], gaps: Any) -> None:
        offsets = sorted(round(v, 3) for v in set(offsets))
        offsets = [v for k, v in enumerate(offsets) if k == 0 or v - offsets[k - 1] > 0.05]
        slabs = plane_slabs(offsets, 1.0, max_step=10, gaps=gaps)
        assert all(low < v < high for v, (low, high) in zip(offsets, slabs, strict=True))
        assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(slabs))


points_on_the_plane = st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 14)), min_size=3, max_size=9)


class TestAgainstShapely:
    @settings(deadline=None, max_examples=60)
    @given(points_on_the_plane)
    def test_area_of_a_pixel_is_the_area_of_the_intersection(self, vertices: list[tuple[float, float]]) -> None:
        hull = shapely.MultiPoint(vertices).convex_hull
        if hull.geom_type != "Polygon" or hull.area < 1e-3:
            return
        polygon = np.array(hull.exterior.coords)[:-1]
        share = cover([polygon], (10, 12), lines=AREA_LINES)
        truth = [
            [hull.intersection(shapely.box(r - 0.5, c - 0.5, r + 0.5, c + 0.5)).area for c in range(12)]
            for r in range(10)
        ]
        assert np.abs(share - truth).max() <= 1 / AREA_LINES + 1e-4

    @settings(deadline=None, max_examples=60)
    @given(
        st.tuples(st.floats(6, 18), st.floats(6, 18)),
        st.tuples(st.floats(0.3, 8), st.floats(0.3, 8)),
        st.floats(0, np.pi),
        st.sampled_from(MODES),
    )
    def test_no_area_is_off_by_more_than_its_edge(
        self, centre: tuple[float, float], axes: tuple[float, float], angle: float, mode: str
    ) -> None:
        """A pixel the outline does not touch is never wrong; one it touches is wrong by its whole or by half of it."""
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        ellipse = shapely.Polygon(circle(1, points=80) * axes @ turn.T + centre)
        lines, threshold, worst = (1, 0.5, 1.0) if mode == "centre" else (AREA_LINES, 0.5, 0.5 + 1 / AREA_LINES)
        found = np.count_nonzero(cover([np.array(ellipse.exterior.coords)[:-1]], (25, 25), lines=lines) >= threshold)
        row, column = np.indices((25, 25)).astype(float)
        pixels = shapely.box(row - 0.5, column - 0.5, row + 0.5, column + 0.5)
        touched = np.count_nonzero(shapely.intersects(ellipse.exterior, pixels))
        assert abs(found - ellipse.area) <= worst * touched

    @settings(deadline=None, max_examples=60)
    @given(points_on_the_plane)
    def test_centres_inside_are_those_shapely_covers(self, vertices: list[tuple[float, float]]) -> None:
        hull = shapely.MultiPoint(vertices).convex_hull
        if hull.geom_type != "Polygon":
            return
        found = cover([np.array(hull.exterior.coords)[:-1]], (10, 12), lines=1) > 0
        for row in range(10):
            for column in range(12):
                point = shapely.Point(row, column)
                if hull.exterior.distance(point) > 1e-5:
                    assert found[row, column] == hull.contains(point)


class TestOddObjects:
    def made(self) -> tuple[synthetic.Stack, ImageFacts]:
        made = synthetic.ct_series()
        return made, ImageFacts(made.geometry, made.series_uid, {})

    def read(self, rois: dict[str, Any], **options: Any) -> Mask:
        made, image = self.made()
        mask = RtStruct(**{"roi": {"tumor": "GTV"}, **options}).read(
            "t", [LabelObject(synthetic.rtstruct(made, rois))], image
        )[0]
        assert isinstance(mask, Mask)
        return mask

    def test_points_and_two_point_contours_are_counted_not_filled(self) -> None:
        made, _ = self.made()
        boxes = synthetic.box_contours(made.geometry, (2, 5, 5), (3, 9, 9))
        mask = self.read({"GTV": [*boxes, boxes[0][:1], boxes[0][:2]]})
        assert mask.voxels.sum() == 16
        assert mask.measures["tumor/point_contours"] == 1
        assert mask.measures["tumor/degenerate_contours"] == 1

    def test_contours_that_toggle_do_so_under_every_rule_of_the_spec(self) -> None:
        made, image = self.made()
        rings = [
            *synthetic.box_contours(made.geometry, (2, 4, 4), (3, 16, 16)),
            *synthetic.box_contours(made.geometry, (2, 8, 8), (3, 12, 12)),
        ]
        dataset = synthetic.rtstruct(made, {"GTV": rings})
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
        for holes in ("even_odd", "union"):
            (mask,) = RtStruct(roi={"t": "GTV"}, holes=holes).read("t", [LabelObject(dataset)], image)
            assert mask.voxels.sum() == 144 - 16
        for contour in dataset.ROIContourSequence[0].ContourSequence:
            contour.ContourGeometricType = "CLOSED_PLANAR"
        (mask,) = RtStruct(roi={"t": "GTV"}, holes="union").read("t", [LabelObject(dataset)], image)
        assert mask.voxels.sum() == 144

    def test_only_the_structures_taken_say_whether_a_machine_drew_them(self) -> None:
        made, image = self.made()
        boxes = synthetic.box_contours(made.geometry, (2, 5, 5), (3, 9, 9))
        dataset = synthetic.rtstruct(made, {"GTV": boxes, "heart": boxes})
        dataset.StructureSetROISequence[1].ROIGenerationAlgorithm = "AUTOMATIC"
        tiers = [
            RtStruct(roi={"t": name}).read("t", [LabelObject(dataset)], image)[0].evidence.tier
            for name in ("GTV", "heart", "GTV|heart")
        ]
        assert tiers == ["single_reader", "machine", "single_reader"]

    def test_an_empty_roi_is_missing(self) -> None:
        with pytest.raises(CaseError) as caught:
            self.read({"GTV": []})
        assert caught.value.reason is Reason.LABEL_MISSING

    def test_a_contour_between_pixel_centres_is_empty(self) -> None:
        made, _ = self.made()
        tiny = made.geometry.to_world([(2, 5.2, 5.2), (2, 5.2, 5.4), (2, 5.4, 5.4)])
        with pytest.raises(CaseError) as caught:
            self.read({"GTV": [tiny]})
        assert caught.value.reason is Reason.LABEL_EMPTY

    def test_contours_beyond_the_image_are_off_grid(self) -> None:
        made, _ = self.made()
        boxes = synthetic.box_contours(made.geometry, (30, 5, 5), (33, 9, 9))
        with pytest.raises(CaseError) as caught:
            self.read({"GTV": boxes})
        assert caught.value.reason is Reason.LABEL_OFF_GRID

    def test_another_frame_of_reference_is_refused(self) -> None:
        made, image = self.made()
        rois = {"GTV": synthetic.box_contours(made.geometry, (2, 5, 5), (3, 9, 9))}
        other = Geometry(image.geometry.shape, image.geometry.affine, "1.2.3.4")
        with pytest.raises(CaseError) as caught:
            RtStruct(roi={"t": "GTV"}).read("t", [LabelObject(synthetic.rtstruct(made, rois))], facts(other))
        assert caught.value.reason is Reason.LABEL_GEOMETRY

    def test_require_all_and_label_map_and_ambiguity(self) -> None:
        made, image = self.made()
        rois = {
            "GTV 1": synthetic.box_contours(made.geometry, (2, 5, 5), (4, 9, 9)),
            "node": synthetic.box_contours(made.geometry, (3, 7, 7), (5, 12, 12)),
        }
        mask = self.read(rois, roi={"tumor": "GTV", "node": "^node$", "liver": "liver"}, layout="map")
        assert mask.voxels.shape[0] == 1
        assert [(s.name, s.value) for s in mask.segments] == [("tumor", 1), ("node", 2)]
        assert np.count_nonzero(mask.voxels == 1) == 32
        assert np.count_nonzero(mask.voxels == 2) == 50 - 4
        assert mask.measures["overlap_voxels"] == 4
        with pytest.raises(CaseError, match="liver"):
            self.read(rois, roi={"tumor": "GTV", "liver": "liver"}, require="all")
        objects = [LabelObject(synthetic.rtstruct(made, {n: c}, name=n)) for n, c in rois.items()]
        # an object without a declared structure is no reason to refuse the case
        (one,) = RtStruct(roi={"t": "node"}).read("t", objects, image)
        assert one.voxels.sum() == 50
        with pytest.raises(CaseError) as caught:
            RtStruct(roi={"t": "."}).read("t", objects, image)
        assert caught.value.reason is Reason.LABEL_AMBIGUOUS
        (joined,) = RtStruct(roi={"t": "."}, several="join").read("t", objects, image)
        assert joined.voxels.sum() == 32 + 50 - 4

    @pytest.mark.parametrize("text", ["1\\2", "1\\2\\nan\\0\\0\\0\\1\\1\\1", "a\\b\\c"])
    def test_damaged_contour_data_is_unreadable(self, text: str) -> None:
        made, image = self.made()
        dataset = synthetic.rtstruct(made, {"GTV": synthetic.box_contours(made.geometry, (2, 5, 5), (3, 9, 9))})
        contour = dataset.ROIContourSequence[0].ContourSequence[0]
        raw = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(0x30060050), "DS", len(text), text.encode(), 0, False, True
        )
        contour._dict[raw.tag] = raw
        with pytest.raises(CaseError) as caught:
            RtStruct(roi={"t": "GTV"}).read("t", [LabelObject(dataset)], image)
        assert caught.value.reason is Reason.LABEL_UNREADABLE

    def test_rt_utils_files_read_or_are_refused(self, corpus: Any) -> None:
        folder: Path = corpus("segmentation") / "rtutils_ct_rtstruct"
        image = image_facts(folder / "mock_data", "ct_*.dcm")
        outcomes = {}
        for path in sorted(folder.rglob("*rt*.dcm")):
            dataset = pydicom.dcmread(path)
            try:
                RtStruct(roi={"any": "."}).read("t", [LabelObject(dataset)], image)
                outcomes[path.name] = "read"
            except CaseError as error:
                outcomes[path.name] = error.reason.value
        assert outcomes.keys() == {
            "dummy_rt.dcm",
            "invalid_reference_rt.dcm",
            "non_existent_reference_rt.dcm",
            "rt.dcm",
        }
        assert set(outcomes.values()) <= {"read", "label_missing", "label_geometry_conflict", "label_off_grid"}
