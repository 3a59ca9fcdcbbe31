"""Scripts of CTP's DicomAnonymizer become blocks of a spec; what they ask for beyond it is told."""

import json
from pathlib import Path

import pytest
from pydicom import Dataset
from ruamel.yaml import YAML
from typer.testing import CliRunner

from builder.cli import app
from builder.deid import Deid
from builder.deid.identifiers import identifiers_in
from builder.deid.uids import UidMap
from builder.errors import SpecError
from builder.model.keyed import Key
from builder.release.cleaning import Rules, Whose, clean_object
from builder.release.ctp_headers import Imported, Wish, _wish, import_header_script
from builder.run.ctp import blocks_of, import_anonymizer
from builder.spec.blocks import ReleaseOptions
from tests.synthetic import ct_series

SCRIPT = """<?xml version="1.0" encoding="UTF-8"?>
<script>
  <p t="DATEINC">-3210</p>
  <p t="UIDROOT">1.2.3</p>
  <e en="T" t="00080018" n="SOPInstanceUID">@hashuid(@UIDROOT,this)</e>
  <e en="T" t="00080020" n="StudyDate">@incrementdate(this,@DATEINC)</e>
  <e en="T" t="00080030" n="StudyTime">@keep()</e>
  <e en="T" t="00080070" n="Manufacturer">@remove()</e>
  <e en="T" t="00080080" n="InstitutionName">@remove()</e>
  <e en="T" t="00081010" n="StationName">@keep()</e>
  <e en="T" t="0008103e" n="SeriesDescription">@keep()</e>
  <e en="F" t="00081090" n="ManufacturerModelName">@remove()</e>
  <e en="T" t="00100010" n="PatientName">@always()@hash(this,10)</e>
  <e en="T" t="00100020" n="PatientID">@hashptid(@SITEID,this,8)</e>
  <e en="T" t="00100040" n="PatientSex">@keep()</e>
  <e en="T" t="00101010" n="PatientAge">@if(this,greaterthan,89){090Y}{@keep()}</e>
  <e en="T" t="00101030" n="PatientWeight">@keep()</e>
  <e en="T" t="00102180" n="Occupation"></e>
  <e en="T" t="00120064" n="Methods">113100/113105/113106/113107/113108/113109</e>
  <e en="T" t="00180022" n="ScanOptions">@empty()</e>
  <e en="T" t="00180050" n="SliceThickness">@if(this,isblank){@remove()}{@keep()}</e>
  <e en="T" t="00181000" n="DeviceSerialNumber">@keep()</e>
  <e en="T" t="00181030" n="ProtocolName">@param(@PROJECTNAME)</e>
  <e en="T" t="00204000" n="ImageComments">@keep()</e>
  <e en="T" t="00400244" n="PPSStartDate">@keep()</e>
  <e en="T" t="0019100c" n="">@keep()</e>
  <e en="T" t="0029[SIEMENS CSA HEADER]10" n="">@keep()</e>
  <k en="F" t="0018">keep group</k>
  <k en="T" t="safeprivateelements">safe private</k>
  <r en="T" t="privategroups">private</r>
  <r en="T" t="unspecifiedelements">others</r>
  <r en="T" t="curves">curves</r>
  <r en="F" t="overlays">overlays</r>
</script>
"""


@pytest.fixture(scope="module")
def imported() -> Imported:
    return import_header_script(SCRIPT.encode())


def test_options_follow_from_what_a_script_keeps(imported: Imported) -> None:
    assert imported.options == (
        "clean_descriptors", "retain_device_identity", "retain_longitudinal_modified_dates",
        "retain_patient_characteristics", "retain_safe_private",
    )  # fmt: skip
    assert imported.retain == ("sex",)
    assert imported.remove == ("Manufacturer", "Occupation", "ProtocolName", "ScanOptions")


@pytest.mark.parametrize(
    "line",
    [
        "dates: found some kept and some moved",
        "113106: the script states it, and keeps nothing",
        "unspecifiedelements: the script removes what it does not name (groups kept: none)",
        "overlays: the script does not remove them; here overlays go",
        "PatientName: @hash: here the pseudonym",
        "PatientID: @hashptid: here the pseudonym",
        "SliceThickness: @if, @remove, @keep: has no equivalent; it stays here",
        "PatientAge: @if, @keep: has no equivalent; it stays here",
        "StudyDate: moved by the script; here by days of each study's own",
        "SeriesDescription: kept by the script, cleaned here",
        "0019100c: found no public element",
        "0029[SIEMENS CSA HEADER]10: found no public element",
    ],
)
def test_what_has_no_equivalent_is_told(imported: Imported, line: str) -> None:
    assert [told for told in imported.left_out if line in told], imported.left_out


def test_what_is_done_alike_is_not_told(imported: Imported) -> None:
    told = "\n".join(imported.left_out)
    assert not [
        name for name in ("PatientWeight", "DeviceSerialNumber", "SOPInstanceUID", "Occupation") if name in told
    ]


def test_an_object_is_as_the_script_says(imported: Imported) -> None:
    made = ct_series(slices=1, shape=(4, 4), attributes={
        "Manufacturer": "ACME", "StationName": "CT99", "DeviceSerialNumber": "S-1", "ScanOptions": "HELIX",
        "PatientWeight": "70", "ProtocolName": "Chest", "SeriesDescription": "CHEST", "InstitutionName": "Klinikum",
    })  # fmt: skip
    blocks = blocks_of(imported)
    deid = Deid(patient_key="${env:BUILDER_KEY}", **blocks["deid"])
    uids = UidMap(Key(b"sixteen bytes and more"))
    rules = Rules.of(deid, uids, remove=ReleaseOptions(**blocks["release"]).remove)
    source: Dataset = made.images[0]
    clean = clean_object(source, rules, Whose("pseudonym", -500, identifiers_in((source,))))
    assert (clean.StationName, clean.DeviceSerialNumber, clean.PatientWeight) == ("CT99", "S-1", source.PatientWeight)
    assert clean.SeriesDescription == "CHEST"
    assert clean.StudyDate < source.StudyDate
    assert not [k for k in ("ScanOptions", "ProtocolName", "InstitutionName") if clean.get(k)]
    assert clean.get("Manufacturer", "REMOVED") == "REMOVED"


@pytest.mark.parametrize(
    ("said", "wish"),
    [("@keep()", Wish.KEEP), ("", Wish.REMOVE), ("@always()", Wish.REMOVE), ("@blank(8)", Wish.REMOVE),
     ("@hashuid(@UIDROOT,this)", Wish.UID), ("@hashdate(this,PatientID)", Wish.DATE), ("YES", Wish.OTHER),
     ("@keep()@param(@X)", Wish.OTHER), ("@if(this,exists){@keep()}{@remove()}", Wish.OTHER)],
)  # fmt: skip
def test_functions(said: str, wish: Wish) -> None:
    assert _wish(said)[0] is wish


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"no xml", "no XML"), (b"<other/>", "another kind"), (b"<!DOCTYPE a><script/>", "entities"),
     (b"<script><r en='T' t='curves'/></script>", "no rule")],
)  # fmt: skip
def test_what_is_no_script_is_refused(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "x.script").write_bytes(data)
    with pytest.raises(SpecError, match=found):
        import_anonymizer(tmp_path / "x.script", tmp_path / "out.yaml")
    assert not (tmp_path / "out.yaml").exists()


def test_the_command_writes_blocks_of_a_spec(tmp_path: Path) -> None:
    (tmp_path / "x.script").write_text(SCRIPT)
    done = CliRunner().invoke(
        app, ["import-ctp", str(tmp_path / "x.script"), "--out", str(tmp_path / "b.yaml"), "--json"]
    )
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    written = YAML(typ="safe").load(tmp_path / "b.yaml")
    assert written == {"deid": told["deid"], "release": told["release"]}
    assert told["rules"] == 20


def test_a_script_that_keeps_true_dates_and_uids() -> None:
    rules = {"00080020": "@keep()", "0020000d": "@keep()", "00080080": "@keep()", "0040a730": "@process()"}
    body = "".join(f'<e t="{tag}">{said}</e>' for tag, said in rules.items())
    found = import_header_script(f"<script>{body}</script>".encode())
    assert found.options == (
        "clean_structured_content", "retain_institution_identity", "retain_longitudinal_full_dates", "retain_uids",
    )  # fmt: skip
    assert any(told.startswith("elements that the script does not name") for told in found.left_out)
