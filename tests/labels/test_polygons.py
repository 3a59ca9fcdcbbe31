"""Outlines of tables: pycocotools and shapely as oracles, image and patient space, images with nothing in them."""

import json
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco
from pydantic import ValidationError

from builder.errors import CaseError, Reason
from builder.labels.boxes import BoxTable
from builder.labels.coco import decode_runs, read_outline
from builder.labels.polygons import PolygonTable
from builder.labels.rows import parse_table
from builder.model.case import Boxes, Mask
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow
from builder.protocols import ImageFacts, LabelObject
from tests import synthetic
from tests.contracts.label_reader import LabelReaderContract

GEOMETRY = Geometry((4, 30, 40), np.array([[0, 0, 0.5, -10], [0, 0.5, 0, -20], [3, 0, 0, 30], [0, 0, 0, 1.0]]), "1.9")
IMAGE = ImageFacts(GEOMETRY, "2.25.1", {"m-a": 0, "m-b": 1, "m-c": 2, "m-d": 3})
ROW = ImageRow("1.2.3", "1.2", "1.9", frozenset("abcd"), folder="site/P1/CT", patient_id="P1")
SQUARE = [2, 3, 12, 3, 12, 8, 2, 8]
"""Ten by five pixels: columns 2 to 11, rows 3 to 7."""


def document(**segmentations: Any) -> bytes:
    """A COCO file: image name to the segmentation on it, None for an image without annotation."""
    images = [{"id": n, "file_name": f"ct/{name}.dcm", "height": 30} for n, name in enumerate(segmentations)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [2, 3, 10, 5], "segmentation": value, "reader": "DOE^JANE"}
        for n, value in enumerate(segmentations.values())
        if value is not None
    ]
    categories = [{"id": 1, "name": "nodule"}, {"id": 2, "name": "mass"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def cut(reader: Any, content: bytes, row: ImageRow = ROW) -> list[LabelObject]:
    return [LabelObject(reader.cut(content, row, map_uid=lambda uid: f"m-{uid}"))]


def filled(reader: Any, content: bytes) -> Mask:
    (mask,) = reader.read("p", cut(reader, content), IMAGE)
    assert isinstance(mask, Mask)
    return mask


class TestPolygonContract(LabelReaderContract):
    options = {  # noqa: RUF012
        "kind": "polygons",
        "table": {"match": "coco.json", "by": {"file_stem": "instance"}},
        "space": "pixel_corner",
        "outline": "segmentation",
        "label": "category",
        "structures": {"lesion": "nodule|mass"},
    }

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        return cut(reader, document(b=[SQUARE], zzz=[[0, 0, 9, 0, 9, 9]]))

    def test_a_square_is_its_pixels_on_its_slice(self, reader: Any, objects: Any) -> None:
        (mask,) = reader.read("p", objects, IMAGE)
        truth = np.zeros(GEOMETRY.shape, bool)
        truth[1, 3:8, 2:12] = True
        assert np.array_equal(mask.voxels[0] > 0, truth)
        assert mask.measures["lesion/contour_volume_mm3"] == mask.measures["lesion/voxel_volume_mm3"] == 50 * 0.75
        assert b"DOE" not in objects[0].content

    def test_parts_add_up_and_holes_do_where_it_is_stated(self, reader: Any) -> None:
        inner = [4, 4, 8, 4, 8, 6, 4, 6]
        assert filled(reader, document(b=[SQUARE, inner])).voxels.sum() == 50
        toggled = reader.model_copy(update={"holes": "even_odd"})
        assert filled(toggled, document(b=[SQUARE, inner])).voxels.sum() == 50 - 8

    def test_an_image_without_annotation_was_looked_at(self, reader: Any) -> None:
        content = document(a=None, b=None)
        assert reader.mentions(content)(ROW)
        with pytest.raises(CaseError) as caught:
            filled(reader, content)
        assert caught.value.reason is Reason.LABEL_EMPTY
        kept = filled(reader.model_copy(update={"empty": "keep"}), content)
        assert [s.name for s in kept.segments] == ["lesion"]
        assert not kept.voxels.any()

    @pytest.mark.parametrize(
        "segmentation",
        [
            [],
            [[1, 2, 3]],
            "wide",
            {"size": [30, 40], "counts": [5]},
            {"size": [30, 40], "counts": "~~"},
            {"size": [9, 9], "counts": [81]},
            [["a", 2]],
            {"counts": [1200]},
        ],
    )
    def test_an_annotation_that_outlines_nothing_is_no_image_without_lesion(
        self, reader: Any, segmentation: Any
    ) -> None:
        with pytest.raises(CaseError) as caught:
            filled(reader.model_copy(update={"empty": "keep"}), document(b=segmentation))
        assert caught.value.reason in (Reason.LABEL_UNREADABLE, Reason.LABEL_OFF_GRID)

    @pytest.mark.parametrize(
        "change",
        [
            {"outline": None},
            {"vertex": {"x": "x", "y": "y"}},
            {"space": "LPS"},
            {"polygon": "p"},
            {"structures": {}},
        ],
    )
    def test_contradictory_options_are_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            PolygonTable.model_validate({**self.options, **change})


class TestAgainstPycocotools:
    @settings(max_examples=60)
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
    def test_run_lengths_packed_and_listed(self, rows: int, columns: int, seed: int, share: float) -> None:
        drawn = np.random.default_rng(seed).random((rows, columns)) < share
        packed = coco.encode(np.asfortranarray(drawn, dtype=np.uint8))
        runs = {"size": packed["size"], "counts": packed["counts"].decode()}
        assert np.array_equal(decode_runs(runs, (rows, columns)), drawn)
        flat = drawn.ravel(order="F")
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
        listed = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        assert np.array_equal(decode_runs({**runs, "counts": listed}, (rows, columns)), drawn)

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @settings(max_examples=40)
    @given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 30)), min_size=3, max_size=8))
    def test_polygons_cover_the_same_pixels_but_on_the_edge(self, vertices: list[tuple[float, float]]) -> None:
        hull = shapely.MultiPoint(vertices).convex_hull
        if hull.geom_type != "Polygon":
            return
        outline = [float(v) for point in list(hull.exterior.coords)[:-1] for v in point]
        reader = PolygonTable.model_validate({**TestPolygonContract.options, "empty": "keep"})
        ours = filled(reader, document(b=[outline])).voxels[0, 1] > 0
        theirs = coco.decode(coco.merge(coco.frPyObjects([outline], 30, 40))) > 0
        for row, column in np.argwhere(ours != theirs):
            # its rasteriser counts touched edges in; both are free only where the outline itself passes
            assert hull.exterior.distance(shapely.box(column, row, column + 1, row + 1)) < 1.0

    def test_run_lengths_and_polygon_of_one_square_are_one_mask(self) -> None:
        reader = PolygonTable.model_validate(TestPolygonContract.options)
        drawn = np.zeros((30, 40), np.uint8, order="F")
        drawn[3:8, 2:12] = 1
        packed = coco.encode(drawn)
        runs = {"size": packed["size"], "counts": packed["counts"].decode()}
        assert np.array_equal(filled(reader, document(b=runs)).voxels, filled(reader, document(b=[SQUARE])).voxels)


class TestTables:
    def test_outlines_as_text_of_a_csv(self) -> None:
        points = [list(map(float, p)) for p in np.reshape(SQUARE, (-1, 2))]
        cells = [json.dumps(v) for v in ([SQUARE], points, {"vertices": points}, SQUARE)]
        for cell in cells:
            (polygon,) = read_outline(cell, (30, 40)).polygons
            assert polygon.tolist() == points

    @pytest.mark.parametrize("space", ["pixel_corner", "pixel_centre", "voxel", "LPS", "RAS"])
    def test_a_row_a_vertex_in_every_space(self, space: Any) -> None:
        """One square of a lesion, stated in each space, is one and the same mask."""
        centres = np.array([(1, r - 0.5, c - 0.5) for c, r in np.reshape(SQUARE, (-1, 2))])
        stated: dict[str, NDArray[np.float64]] = {
            "pixel_corner": centres[:, [2, 1, 0]] + [0.5, 0.5, 0],
            "pixel_centre": centres[:, [2, 1, 0]],
            "voxel": centres[:, [2, 1, 0]],
            "LPS": GEOMETRY.to_world(centres),
            "RAS": GEOMETRY.to_world(centres) * [-1, -1, 1],
        }
        deep = space in ("voxel", "LPS", "RAS")
        reader = PolygonTable(
            table={"match": "*.csv", "by": {"who": "patient"} if deep else {"sop": "instance"}},
            space=space,
            vertex={"x": "x", "y": "y", "z": "z" if deep else None},
            polygon="roi",
            structures={"lesion": "."},
        )
        lines = [f"P1,b,1,{x!r},{y!r},{z!r}" for x, y, z in stated[space].tolist()]
        mask = filled(reader, "\n".join(["who,sop,roi,x,y,z", *lines]).encode())
        truth = np.zeros(GEOMETRY.shape, bool)
        truth[1, 3:8, 2:12] = True
        assert np.array_equal(mask.voxels[0] > 0, truth)

    def test_classes_become_structures_and_what_is_not_named_is_counted(self) -> None:
        rows = [("nodule", 2), ("nodule", 9), ("mass", 15), ("rib", 20)]
        lines = ["sop,roi,x,y,kind"] + [
            f"c,{n},{x},{y},{kind}"
            for n, (kind, left) in enumerate(rows)
            for x, y in ((left, 4), (left + 3, 4), (left + 3, 6), (left, 6))
        ]
        reader = PolygonTable(
            table={"match": "*.csv", "by": {"sop": "instance"}},
            space="pixel_corner",
            vertex={"x": "x", "y": "y"},
            polygon="roi",
            label="kind",
            structures={"nodule": "nodule", "mass": "mass", "cyst": "cyst"},
        )
        mask = filled(reader, "\n".join(lines).encode())
        assert [int(channel.sum()) for channel in mask.voxels] == [12, 6, 0]
        assert mask.measures["outlines"] == 4
        assert mask.measures["outlines_unmatched"] == 1

    def test_an_oblique_image_keeps_the_polygon_where_it_was_drawn(self) -> None:
        geometry = synthetic.ct_series(orientation=synthetic.OBLIQUE).geometry
        voxels = np.array([(3, 4.5, 6.5), (3, 4.5, 16.5), (3, 10.5, 16.5), (3, 10.5, 6.5)])
        rows = [{"roi": 1, "x": x, "y": y, "z": z} for x, y, z in geometry.to_world(voxels).tolist()]
        reader = PolygonTable(
            table={"match": "*", "by": {"a": "study"}},
            space="LPS",
            vertex={"x": "x", "y": "y", "z": "z"},
            polygon="roi",
            structures={"lesion": "."},
        )
        (mask,) = reader.read("p", [LabelObject(json.dumps(rows).encode())], ImageFacts(geometry, "", {}))
        assert np.argwhere(mask.voxels[0]).min(axis=0).tolist() == [3, 5, 7]
        assert mask.voxels.sum() == 60


class TestBoxesOfTheSameFiles:
    OPTIONS = {  # noqa: RUF012
        "table": {"match": "*", "by": {"file_stem": "instance"}},
        "space": "pixel_corner",
        "corner": {"x": "x", "y": "y"},
        "size": {"x": "width", "y": "height"},
        "label": "category",
    }

    def test_a_coco_box_is_the_box_of_its_polygon(self) -> None:
        reader = BoxTable.model_validate(self.OPTIONS)
        (boxes,) = reader.read("b", cut(reader, document(b=[SQUARE], c=None)), IMAGE)
        assert isinstance(boxes, Boxes)
        voxels = GEOMETRY.to_voxel(boxes.corners_mm[0])
        assert np.allclose([voxels.min(axis=0), voxels.max(axis=0)], [[0.5, 2.5, 1.5], [1.5, 7.5, 11.5]])

    def test_an_image_of_the_file_without_annotation_has_no_boxes(self) -> None:
        reader = BoxTable.model_validate(self.OPTIONS)
        (boxes,) = reader.read("b", cut(reader, document(c=None)), IMAGE)
        assert boxes.corners_mm.shape == (0, 8, 3)

    def test_opposite_corners_are_the_same_box_in_every_space(self) -> None:
        low, high = GEOMETRY.to_world([(0.5, 2.5, 1.5)])[0], GEOMETRY.to_world([(1.5, 7.5, 11.5)])[0]
        for space, signs in (("LPS", [1, 1, 1]), ("RAS", [-1, -1, 1])):
            ends = sorted(((low * signs).tolist(), (high * signs).tolist()))
            first, last = np.min(ends, axis=0), np.max(ends, axis=0)
            reader = BoxTable(
                table={"match": "*", "by": {"a": "study"}},
                space=space,
                corner={"x": "x0", "y": "y0", "z": "z0"},
                opposite={"x": "x1", "y": "y1", "z": "z1"},
            )
            row = dict(zip(("x0", "y0", "z0", "x1", "y1", "z1"), [*first, *last], strict=True))
            (boxes,) = reader.read("b", [LabelObject(row)], IMAGE)
            voxels = GEOMETRY.to_voxel(boxes.corners_mm[0])
            assert np.allclose([voxels.min(axis=0), voxels.max(axis=0)], [[0.5, 2.5, 1.5], [1.5, 7.5, 11.5]])

    def test_scalars_of_images_and_annotations_are_columns(self) -> None:
        row, bare = parse_table(document(b=[SQUARE], c=None))
        assert (row["image_height"], row["reader"], row["category"]) == (30, "DOE^JANE", "nodule")
        assert (bare["file_stem"], bare["x"], bare["segmentation"]) == ("c", None, None)
