"""What happens to an image by its header, the rules of devices, what was found, and what a person decided."""

import pytest
from pydicom import Dataset

from builder.deid import Deid
from builder.errors import CaseError
from builder.release.devices import parse_devices, read_devices
from builder.release.triage import Triage
from builder.spec.blocks import TextOptions

RULE = b'when,action,row_from,row_to,column_from,column_to,source\nStationName.equals("ruled"),blank,0,5,0,40,test\n'
PACKAGE = read_devices(None)
RULES = parse_devices([RULE, *PACKAGE.tables])
FOUND = ((50, 60, 0, 9),)
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def image(**values: object) -> Dataset:
    made = Dataset()
    for name, value in {"Rows": 100, "Columns": 40, "Modality": "CT", **values}.items():
        setattr(made, name, value)
    return made


def blanked(
    source: Dataset, *, found=None, boxes=None, policy: str | None = "blank", nothing: str = "queue",
    reviewed: tuple[str, ...] = (),
) -> list[tuple[tuple[int, int], tuple[int, int]]] | str:  # fmt: skip
    """The rectangles that go, or why the image waits."""
    deid = Deid(patient_key="${env:BUILDER_KEY}", reviewed=reviewed)
    text = TextOptions.model_validate({"found": policy, **({"nothing_found": nothing} if policy else {})})
    try:
        verdict = Triage(deid, RULES, text).verdict({"boxes": boxes, "found": found}, source)
    except CaseError as error:
        return error.detail
    return sorted((region.rows, region.columns) for region in verdict.blank)


TEXT, STRIP = ((50, 60), (0, 9)), ((0, 5), (0, 40))
CLEAN = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ImageType": ["ORIGINAL", "PRIMARY"]}


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        (image(**CLEAN), {}, []),
        (image(), {}, "was not searched"),
        (image(), {"policy": None}, []),
        (image(), {"reviewed": ("CT",)}, []),
        (image(), {"found": FOUND}, [TEXT]),
        (image(), {"found": FOUND, "policy": "queue"}, "found text in the pixels"),
        (image(), {"found": (), "policy": "queue"}, []),
        (image(SOPClassUID=CAPTURE), {"found": ()}, "no text in it"),
        (image(SOPClassUID=CAPTURE), {"found": (), "nothing": "release"}, []),
        (image(SOPClassUID=CAPTURE), {"found": (), "reviewed": ("CT",)}, []),
        (image(SOPClassUID=CAPTURE), {"found": FOUND}, [TEXT]),
        (image(BurnedInAnnotation="YES"), {"found": (), "nothing": "release"}, "no text in it"),
        (image(BurnedInAnnotation="YES"), {"found": FOUND}, [TEXT]),
        (image(StationName="ruled"), {}, [STRIP]),
        (image(StationName="ruled", SOPClassUID=CAPTURE), {"found": FOUND}, [STRIP, TEXT]),
        (image(StationName="ruled", SOPClassUID=CAPTURE), {"found": ()}, [STRIP]),
        (image(StationName="ruled"), {"boxes": [[50, 60, 0, 9]], "policy": "queue"}, [STRIP, TEXT]),
        (image(StationName="ruled"), {"boxes": [], "policy": "queue"}, [STRIP]),
        (image(SOPClassUID=CAPTURE), {"boxes": [], "policy": "queue"}, []),
        (image(BurnedInAnnotation="YES"), {"boxes": []}, "without a rectangle"),
    ],
)
def test_each_row_of_the_table_in_the_docs(source: Dataset, options: dict, expected: object) -> None:
    done = blanked(source, **options)
    assert expected in done if isinstance(expected, str) else done == expected


def test_what_lies_outside_ultrasound_regions_goes_with_what_was_found() -> None:
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 39, 99
    source = image(Modality="US", SequenceOfUltrasoundRegions=[region])
    deid, text = Deid(patient_key="${env:BUILDER_KEY}"), TextOptions(found="blank")
    for row in ({"boxes": None, "found": FOUND}, {"boxes": [[50, 60, 0, 9]], "found": None}):
        verdict = Triage(deid, PACKAGE, text).verdict(row, source)
        assert [(r.rows, r.columns) for r in verdict.regions] == [((20, 100), (0, 40))]
        assert [(r.rows, r.columns) for r in verdict.blank] == [TEXT]
