"""One archive with every form of label: spec, plan, build, dataset, reader; each lands where it was drawn."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

import builder
from builder.labels import LABELS
from builder.run.pipeline import build, plan
from tests import synthetic
from tests.endtoend.trees import KEY

START, STOP = (2, 8, 10), (6, 20, 24)
"""The lesion: voxels START <= (slice, row, column) < STOP of every image."""

SLICE = 3
"""The slice that annotations of one slice are on."""

SPEC = """
name: every-form
license: CC0-1.0
sources:
  - {kind: folder, url: "${tree}"}
labels:
  contours: {kind: rtstruct, roi: {lesion: "(?i)gtv"}}
  segments: {kind: seg, segments: {lesion: "(?i)gtv"}}
  numbers: {kind: seg, segments: {lesion: "^mapped$", liver: "^liver$"}}
  shares: {kind: seg, segments: {lesion: "(?i)gtv"}, fractional: keep}
  voxels: {kind: mask, match: "{parent}/mask.nii.gz", values: {1: lesion}}
  slicer: {kind: mask, match: "{parent}/slicer.seg.nrrd", names: {lesion: "(?i)tumor"}}
  itk: {kind: mask, match: "{parent}/itk.*", values: {7: lesion}}
  outlines:
    kind: polygons
    table: {match: "coco.json", by: {file_stem: instance}}
    space: pixel_corner
    outline: segmentation
    label: category
    structures: {lesion: lesion}
  boxes:
    kind: boxes
    table: {match: "boxes.csv", by: {series: series}}
    space: LPS
    corner: {x: x0, y: y0, z: z0}
    opposite: {x: x1, y: y1, z: z1}
    label: finding
  points:
    kind: landmarks
    table: {match: "points.csv", by: {who: patient}}
    space: RAS
    point: {x: R, y: A, z: S}
    label: name
  lines:
    kind: recist
    table: {match: "lines.csv", by: {sop: instance}}
    start: {x: x0, y: y0}
    end: {x: x1, y: y1}
    reader: annotator
  grade:
    kind: classes
    table: {match: "grades.csv", by: {who: patient}}
    findings: {grade: {column: grade, levels: [low, high]}, spread: {column: spread, values: {"0": no, "1": "yes"}}}
    evidence: {tier: pathology}
  words: {kind: report, match: "{parent}/report.txt", findings: [effusion, nodule]}
  findings: {kind: sr}
  markup: {kind: aim, match: "{parent}/aim.xml"}
  drawn: {kind: presentation}
  marked: {kind: key_object}
deid: {patient_key: "${env:BUILDER_KEY}"}
samples: {kind: volumes, chunk: [8, 16, 16]}
# everybody has the same image, so the check for copies puts them all in one split
splits: {ratios: {train: 0.5, validation: 0.25, test: 0.25}, may_be_empty: [validation, test], seed: 7}
"""

AIM = """<?xml version="1.0" encoding="UTF-8"?>
<ImageAnnotationCollection xmlns="gme://caCORE.caCORE/4.4/edu.northwestern.radiology.AIM" aimVersion="AIMv4_0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><user><loginName value="jdoe"/></user>
  <imageAnnotations><ImageAnnotation>
    <calculationEntityCollection><CalculationEntity><typeCode code="G-D7FE" codeSystemName="SRT"/>
      <calculationResultCollection><CalculationResult><unitOfMeasure value="mm"/><value value="14.0"/>
      </CalculationResult></calculationResultCollection></CalculationEntity></calculationEntityCollection>
    <markupEntityCollection><MarkupEntity xsi:type="TwoDimensionMultiPoint"><shapeIdentifier value="1"/>
      <imageReferenceUid root="{uid}"/><twoDimensionSpatialCoordinateCollection>
      <TwoDimensionSpatialCoordinate><coordinateIndex value="0"/><x value="10"/><y value="8"/>
      </TwoDimensionSpatialCoordinate>
      <TwoDimensionSpatialCoordinate><coordinateIndex value="1"/><x value="24"/><y value="8"/>
      </TwoDimensionSpatialCoordinate></twoDimensionSpatialCoordinateCollection></MarkupEntity>
    </markupEntityCollection>
  </ImageAnnotation></imageAnnotations></ImageAnnotationCollection>"""


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, Items(value) if name.endswith("Sequence") else value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> Items:
    return Items([item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def reference(made: synthetic.Stack) -> Items:
    image = made.images[SLICE]
    return Items([item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)])


def document(made: synthetic.Stack, sop_class: str, modality: str, **attributes: Any) -> Dataset:
    """An object of the image's patient and study that refers to one of its slices."""
    dataset = synthetic.rtstruct(made, {}, name=modality)
    for name in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence", "StructureSetLabel"):
        del dataset[name]
    del dataset.ReferencedFrameOfReferenceSequence
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = modality
    for name, value in attributes.items():
        setattr(dataset, name, Items(value) if name.endswith("Sequence") else value)
    return dataset


def report(made: synthetic.Stack) -> Dataset:
    """A TID 1500 group: a diameter of 14 mm between two points, of a coded finding at a coded site."""
    image = item(RelationshipType="SELECTED FROM", ValueType="IMAGE", ReferencedSOPSequence=reference(made))
    line = item(
        RelationshipType="INFERRED FROM",
        ValueType="SCOORD",
        GraphicType="POLYLINE",
        GraphicData=[10.0, 8.0, 24.0, 8.0],
        ContentSequence=[image],
    )
    diameter = item(
        RelationshipType="CONTAINS",
        ValueType="NUM",
        ConceptNameCodeSequence=code("81827009", "SCT", "Diameter"),
        MeasuredValueSequence=[
            item(NumericValue="14.0", MeasurementUnitsCodeSequence=code("mm", "UCUM", "millimeter"))
        ],
        ContentSequence=[line],
    )
    facts = [
        item(
            RelationshipType="CONTAINS",
            ValueType="CODE",
            ConceptNameCodeSequence=code(*name),
            ConceptCodeSequence=code(*value),
        )
        for name, value in (
            (("121071", "DCM", "Finding"), ("27925004", "SCT", "Nodule")),
            (("363698007", "SCT", "Finding Site"), ("39607008", "SCT", "Lung")),
        )
    ]
    tracking = item(
        RelationshipType="HAS OBS CONTEXT",
        ValueType="UIDREF",
        ConceptNameCodeSequence=code("112040", "DCM", "Tracking Unique Identifier"),
        UID=synthetic.uid("lesion", made.series_uid),
    )
    observer = item(
        RelationshipType="HAS OBS CONTEXT",
        ValueType="PNAME",
        ConceptNameCodeSequence=code("121008", "DCM", "Person Observer Name"),
        PersonName="ROE^RICHARD",
    )
    group = item(
        RelationshipType="CONTAINS",
        ValueType="CONTAINER",
        ConceptNameCodeSequence=code("125007", "DCM", "Measurement Group"),
        ContentSequence=[tracking, *facts, diameter],
    )
    return document(
        made,
        "1.2.840.10008.5.1.4.1.1.88.33",
        "SR",
        ValueType="CONTAINER",
        ConceptNameCodeSequence=code("126000", "DCM", "Imaging Measurement Report"),
        ContentSequence=[observer, group],
    )


def presentation(made: synthetic.Stack) -> Dataset:
    circle = item(
        GraphicAnnotationUnits="PIXEL", GraphicDimensions=2, NumberOfGraphicPoints=2, GraphicType="CIRCLE",
        GraphicData=[17.0, 14.0, 24.0, 14.0],
    )  # fmt: skip
    return document(
        made,
        "1.2.840.10008.5.1.4.1.1.11.1",
        "PR",
        GraphicAnnotationSequence=[item(ReferencedImageSequence=reference(made), GraphicObjectSequence=[circle])],
    )


def key_object(made: synthetic.Stack) -> Dataset:
    image = item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=reference(made))
    return document(made, "1.2.840.10008.5.1.4.1.1.88.59", "KO", ValueType="CONTAINER", ContentSequence=[image])


def write_person(tree: Path, number: int) -> synthetic.Stack:
    """One person's CT with an object of every form beside it."""
    name = f"ANNA^{number:03d}"
    home = tree / f"person{number}"
    made = synthetic.ct_series(home / "ct", patient_id=name, study=name, series=name, frame=name)
    inside = np.zeros(made.geometry.shape, bool)
    inside[tuple(slice(a, b) for a, b in zip(START, STOP, strict=True))] = True
    rois = {"GTV": synthetic.box_contours(made.geometry, START, STOP), f"skin of {name}": []}
    synthetic.rtstruct(made, rois, directory=home / "rt")
    synthetic.seg(made, {"GTV": inside}, directory=home / "seg")
    parts = {"liver": np.flip(inside, axis=2), "mapped": inside}
    synthetic.seg(made, parts, kind="LABELMAP", name="labelmap", directory=home / "labelmap")
    for kind, dataset in (("sr", report(made)), ("pr", presentation(made)), ("ko", key_object(made))):
        synthetic.write_all([dataset], home / kind)
    # NIfTI: axes (column, row, slice), RAS
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ made.geometry.affine[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(inside.transpose(2, 1, 0).astype(np.uint8), affine), home / "mask.nii.gz")
    write_itk(made, inside, home)
    (home / "aim.xml").write_text(AIM.replace("{uid}", str(made.images[SLICE].SOPInstanceUID)))
    (home / "report.txt").write_text("FINDINGS: No pleural effusion. There is a nodule in the left upper lobe.")
    return made


def write_itk(made: synthetic.Stack, inside: Any, home: Path) -> None:
    """A MetaImage header with its voxels beside it, and a segmentation as 3D Slicer writes it."""
    for name, value in (("itk.mhd", 7), ("slicer.seg.nrrd", 1)):
        image = SimpleITK.GetImageFromArray(inside.astype(np.uint8) * value)
        image.SetSpacing(made.geometry.spacing_mm[::-1])
        image.SetOrigin(made.geometry.origin_mm)
        image.SetDirection(made.geometry.directions[:, ::-1].ravel())
        facts = {"ID": "Segment_1", "Name": "Tumor", "LabelValue": "1", "Layer": "0"}
        facts["Tags"] = "TerminologyEntry:~SCT^49755003^Morphologically Altered~SCT^4147007^Mass~^^~~^^~^^|"
        for key, text in facts.items() if value == 1 else ():
            image.SetMetaData(f"Segment0_{key}", text)
        SimpleITK.WriteImage(image, str(home / name))


def write_tables(tree: Path, people: list[synthetic.Stack]) -> None:
    """The tables of many patients; the last person has no row in any."""
    rows: dict[str, list[list[Any]]] = {
        "boxes.csv": [["series", "x0", "y0", "z0", "x1", "y1", "z1", "finding"]],
        "points.csv": [["who", "R", "A", "S", "name"]],
        "lines.csv": [["sop", "x0", "y0", "x1", "y1", "annotator"]],
        "grades.csv": [["who", "grade", "spread"]],
    }
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "lesion"}]}
    for number, made in enumerate(people[:-1]):
        who, sop = str(made.images[0].PatientID), str(made.images[SLICE].SOPInstanceUID)
        low, high = made.geometry.to_world([np.array(START) - 0.5, np.array(STOP) - 0.5])
        first, last = np.minimum(low, high), np.maximum(low, high)
        middle = made.geometry.to_world([(np.array(START) + np.array(STOP) - 1) / 2])[0]
        rows["boxes.csv"].append([made.series_uid, *first, *last, "mass"])
        rows["points.csv"].append([who, -middle[0], -middle[1], middle[2], "centre"])
        rows["lines.csv"].append([sop, 10, 8, 24, 8, "jane"])
        rows["grades.csv"].append([who, ("low", "high")[number % 2], number % 2])
        coco["images"].append({"id": number, "file_name": f"{sop}.png"})
        coco["annotations"].append(
            {"image_id": number, "category_id": 1, "segmentation": [[10, 8, 24, 8, 24, 20, 10, 20]]}
        )
    for name, lines in rows.items():
        with (tree / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    (tree / "coco.json").write_text(json.dumps(coco))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[synthetic.Stack]]:
    """The dataset's folder and the people of its archive."""
    folder = tmp_path_factory.mktemp("forms")
    people = [write_person(folder / "tree", number) for number in range(5)]
    write_tables(folder / "tree", people)
    (folder / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(folder / "spec.yaml", to=folder / "out", parameters={"tree": str(folder / "tree")})
    return folder / "out", people


ELSEWHERE = {"text", "text_table", "place"}
"""Built in test_image_text.py and test_class_columns.py."""


def test_the_spec_has_every_kind() -> None:
    kinds = {line.split("kind: ")[1].split(",")[0].strip("}") for line in SPEC.splitlines() if "kind: " in line}
    assert kinds >= set(LABELS) - ELSEWHERE


def test_who_is_in_no_table_is_excluded_by_the_plan(built: Any) -> None:
    out, people = built
    data = builder.open_dataset(out)
    assert len(data) == len(people) - 1
    version = (out / "CURRENT").read_text().strip()
    table = pq.read_table(out / "versions" / version / "exclusions.parquet")
    assert "shard" not in table.column("stage").to_pylist()
    (lost,) = (row for row in table.to_pylist() if row["stage"] == "cohort")
    assert lost["reason"] == "label_missing"
    assert lost["detail"] == "no object found for outlines, boxes, points, lines, grade"


def test_masks_of_every_form_are_one_lesion(built: Any) -> None:
    truth = np.zeros((8, 32, 32), bool)
    truth[tuple(slice(a, b) for a, b in zip(START, STOP, strict=True))] = True
    on_slice = truth & (np.arange(8) == SLICE)[:, None, None]
    for sample in builder.open_dataset(built[0]):
        for name in ("contours", "segments", "voxels", "slicer", "itk"):
            np.testing.assert_array_equal(sample[name][0] == 1, truth, err_msg=name)
        liver = np.flip(truth, axis=2)
        np.testing.assert_array_equal(sample["numbers"][0] == 1, truth)
        np.testing.assert_array_equal(sample["numbers"][1] == 1, liver & ~truth)
        np.testing.assert_array_equal(sample["shares"][0], truth * np.uint8(255))
        np.testing.assert_array_equal(sample["outlines"][0] == 1, on_slice)
        types = dict(zip(sample.row["segment_names"], sample.row["segment_types"], strict=True))
        categories = dict(zip(sample.row["segment_names"], sample.row["segment_categories"], strict=True))
        assert types["segments/lesion"] == types["shares/lesion"] == types["slicer/lesion"] == "SCT:4147007"
        assert categories["segments/lesion"] == "SCT:49755003"
        assert types["voxels/lesion"] is None


def test_boxes_points_and_lines_lie_on_the_lesion(built: Any) -> None:
    for sample in builder.open_dataset(built[0]):
        row = sample.row
        boxes = dict(zip(row["box_names"], np.reshape(row["boxes"], (-1, 6)).tolist(), strict=True))
        assert boxes["boxes"] == pytest.approx([*np.array(START) - 0.5, *np.array(STOP) - 0.5], abs=1e-6)
        assert boxes["drawn"] == pytest.approx([2.5, 6.5, 9.5, 3.5, 20.5, 23.5])
        points: dict[str, list[list[float]]] = {}
        for name, point in zip(row["landmark_names"], np.reshape(row["landmarks"], (-1, 3)).tolist(), strict=True):
            points.setdefault(name, []).append(point)
        assert points.pop("points") == [pytest.approx([3.5, 13.5, 16.5])]
        line = [pytest.approx([3, 7.5, 9.5], abs=1e-6), pytest.approx([3, 7.5, 23.5], abs=1e-6)]
        assert points == {"lines": line, "findings/points": line, "markup/points": line}


def test_measurements_and_classes_keep_unit_codes_and_value(built: Any) -> None:
    spread = []
    for sample in builder.open_dataset(built[0]):
        row = sample.row
        columns = ("quantities", "values", "units", "concepts", "findings", "sites")
        items = zip(row["measurement_names"], *(row[f"measurement_{c}"] for c in columns), strict=True)
        found = {name: tuple(values) for name, *values in items}
        assert found["lines/length"] == ("long_axis", pytest.approx(14.0), "mm", None, None, None)
        assert found["findings"] == ("Diameter", 14.0, "mm", "SCT:81827009", "SCT:27925004", "SCT:39607008")
        assert found["markup"][:3] == ("SRT:G-D7FE", 14.0, "mm")
        tracking = dict(zip(row["measurement_names"], row["measurement_tracking"], strict=True))["findings"]
        assert tracking.startswith("2.25.")
        assert tracking not in {synthetic.uid("lesion", made.series_uid) for made in built[1]}
        classes = dict(zip(row["class_names"], row["class_values"], strict=True))
        assert classes["marked/is_key_image"] == "true"
        assert classes["marked/key_images"] == "1"
        assert (classes["words/effusion"], classes["words/nodule"]) == ("negative", "positive")
        spread.append((classes["grade/grade"], classes["grade/spread"]))
    assert sorted(spread) == [("high", "yes")] * 2 + [("low", "no")] * 2


def test_names_of_rois_are_listed_in_private_and_counted_in_the_report(built: Any) -> None:
    out, people = built
    private = out.with_name(out.name + ".private")
    with (private / "label-names.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    mine = [row for row in listed if row["label"] == "contours"]
    assert [row["name"] for row in mine] == [*(f"skin of {p.images[0].PatientID}" for p in people[:-1]), "GTV"]
    assert [(row["structures"], row["cases"]) for row in mine] == [("", "1")] * 4 + [("lesion", "4")]
    version = (out / "CURRENT").read_text().strip()
    report = json.loads((out / "versions" / version / "report" / "report.json").read_text())
    counts = {"cases": 4, "names": 5, "names_taken_by_none": 4, "structures": {"lesion": 4}}
    assert report["structures"]["contours"] == counts
    page = (out / "versions" / version / "report" / "index.html").read_text()
    assert "Names of ROIs and segments" in page


def test_an_object_that_names_no_structure_is_passed_over_by_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    for number, name in enumerate(("GTV", "heart")):
        made = synthetic.ct_series(tmp_path / "tree" / name, patient_id=name, study=name, series=name, frame=name)
        rois = {name: synthetic.box_contours(made.geometry, START, STOP)}
        synthetic.rtstruct(made, rois, directory=tmp_path / "tree" / f"rt{number}")
    labels = 'labels: {lesion: {kind: rtstruct, roi: {lesion: "GTV"}}}'
    for cohort, cases in (("required", 1), ("optional", 2)):
        head = SPEC.partition("labels:")[0] + f"cohort: {{labels: {cohort}}}\n{labels}\ndeid:"
        (tmp_path / "spec.yaml").write_text(head + SPEC.partition("\ndeid:")[2])
        planned = plan(tmp_path / "spec.yaml", to=tmp_path / "out", parameters={"tree": str(tmp_path / "tree")})
        assert len(planned.plan.cases) == cases
        counts = {"cases": 2, "names": 2, "names_taken_by_none": 1, "structures": {"lesion": 1}}
        assert planned.plan.structures == {"lesion": counts}


def test_no_name_left(built: Any) -> None:
    out, people = built
    published = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert not any(str(made.images[0].PatientID).encode() in published for made in people)
    assert not any(name in published for name in (b"jdoe", b"jane", b"ROE^RICHARD"))
