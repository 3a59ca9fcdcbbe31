"""Rules of devices tell by the header what shows text, and where; CTP's pixel scripts become such rules."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from builder.cli import app
from builder.errors import OutcomeError, SpecError
from builder.release.conditions import METHODS, parse_condition
from builder.release.ctp_pixels import import_pixel_script
from builder.release.devices import OWN, parse_devices, read_devices
from builder.run.release import release
from tests.endtoend.trees import KEY
from tests.release.test_decisions import SPEC
from tests.synthetic import ct_series

SCRIPT = """
Comments stand outside of braces.
Some maker
  { Modality.equals("US") *
    [0008,0070].containsIgnoreCase("acme") * !( Rows.equals("480") + [0028,0010].equals("600") ) }
  (10, 0, 200, 40)  (-50,-20,50,20)
 Unknown
  { NoSuchElement.equals("1") }
  (0,0,10,10)
 Crooked
  { Modality.equals("CT") }
  (1,2,3) (a,b,c,d)
"""


def header(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


CT = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}
US = {"Modality": "US", "Manufacturer": "ACME Medical", "Rows": 500, "Columns": 640}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('Modality.equals("US")', True),
        ('Modality.equals("us")', False),
        ('Modality.equalsIgnoreCase("us") * Rows.isGreaterThan("499") * Rows.isLessThan("501")', True),
        ('false. + true. * Modality.equals("CT")', False),
        ('(false. + true.) * !Modality.equals("CT")', True),
        ("! true. + true.", True),
        (
            'Manufacturer.matches("ACME.*") * Manufacturer.startsWith("ACME") * Manufacturer.endsWithIgnoreCase("CAL")',
            True,
        ),
        ('Manufacturer.matches("ACME")', False),
        ('ImageType.contains("SCREEN")', False),
        ('SeqOfUltrasoundRegions::[0018,601A].equals("7")', True),
    ],
)
def test_conditions_say_what_ctp_says_they_say(condition: str, expected: bool) -> None:
    """Precedence and methods as "The CTP DICOM Filter" documents them."""
    image = header(**US, SequenceOfUltrasoundRegions=[header(RegionLocationMinY0=7)])
    assert parse_condition(condition)(image) is expected


@pytest.mark.parametrize(
    "condition",
    [
        *("", "Modality", 'Modality.equals("US") Rows.equals("1")', "(true.", 'Modality.likes("US")', 'No.equals("")'),
        *("* true.", 'Modality.matches("(")', "true. " * 2000),
    ],
)
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_condition(condition)


def test_a_pixel_script_becomes_rules_and_what_has_no_equivalent_is_listed() -> None:
    found = import_pixel_script(SCRIPT, source="site.script")
    rules = parse_devices([found.table])
    assert (found.signatures, found.regions) == (2, 2)
    assert [text.partition(":")[0] for text in found.left_out] == ["line 8", "line 11", "line 11", "line 11"]
    assert "NoSuchElement" in found.left_out[0]
    rule = rules.rule_for(header(**US))
    assert rule.boxes((500, 640)) == [(0, 41, 10, 211), (480, 500, 590, 640)]
    assert rules.rule_for(header(**{**US, "Rows": 600})).action == "look"
    assert rules.rule_for(header(Modality="CT")).action == "look"
    assert b"site.script, line 4" in found.table


@pytest.mark.parametrize(
    ("values", "action"),
    [
        ({"BurnedInAnnotation": "YES", "Modality": "CT"}, "look"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, "look"),
        ({"SequenceOfUltrasoundRegions": [Dataset()]}, "outside_regions"),
        ({**CT, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, "clean"),
        (
            {**CT, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            "look",
        ),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "ImageType": ["DERIVED", "SECONDARY"]}, "look"),
        ({"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, "look"),
    ],
)  # fmt: skip
def test_the_rules_of_the_package_follow_the_standard(values: dict[str, object], action: str) -> None:
    assert read_devices(None).rule_for(header(**values)).action == action


def test_every_line_of_the_package_names_its_source() -> None:
    lines = OWN.read_text().splitlines()[1:]
    assert all("PS3." in line for line in lines[:-1])
    assert lines[-1].startswith("true.,look")
    assert len(METHODS) == 11


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("true.,wipe,,,,,x", "found no rule"),
        ("true.,clean,1,,,,x", "only with blank"),
        ("true.,blank,,1,0,2,x", "without row_from"),
        ("true.,blank,a,1,0,2,x", "no whole number"),
        ("Modality,clean,,,,,x", "expected a term"),
        ("true.,clean,,,,,x\ntrue.,look,,,,,x", "several actions"),
    ],
)
def test_a_table_that_holds_no_rules_is_refused(line: str, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        parse_devices([OWN.read_bytes().splitlines()[0] + b"\n" + line.encode()])


def test_a_release_blanks_what_an_imported_rule_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    doubtful = {"BurnedInAnnotation": "YES", "ManufacturerModelName": "Acme 9"}
    ct = ct_series(tmp_path / "archive", slices=2, shape=(8, 12), attributes=doubtful)
    script, table, path = tmp_path / "acme.script", tmp_path / "devices.csv", tmp_path / "spec.yaml"
    script.write_text('{ ManufacturerModelName.startsWith("Acme") } (3, -2, 4, 2)')
    done = CliRunner().invoke(app, ["import-ctp-pixels", str(script), "--out", str(table), "--json"])
    assert json.loads(done.output)["regions"] == 1
    text = SPEC.format(archive=tmp_path / "archive", undecided="wait", decisions="")
    path.write_text(text)
    with pytest.raises(OutcomeError, match="2 images that may show text"):
        release(path, to=tmp_path / "waits")
    path.write_text(text.replace("undecided: wait", f'undecided: wait, text: {{devices: "{table}"}}'))
    assert release(path, to=tmp_path / "out").done.objects == 2
    sources = [image.pixel_array for image in ct.images]
    for file in (tmp_path / "out").rglob("*.dcm"):
        image = dcmread(file)
        gone = np.zeros((8, 12), bool)
        gone[6:8, 3:8] = True
        assert any(np.array_equal(image.pixel_array[~gone], source[~gone]) for source in sources)
        assert len(set(image.pixel_array[gone])) == 1
    published = (tmp_path / "out" / "release.json").read_text()
    assert '"devices"' in published
    assert str(tmp_path) not in published
