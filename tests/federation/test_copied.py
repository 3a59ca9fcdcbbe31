"""A patient whose images two hospitals have: found by marks, kept at one, and left out at the other's next build."""

import os
import shutil

import pydicom
import pytest

from builder.federation.coordinating import plan_offers
from builder.run.copies import compare, give_marks
from builder.run.federation import approve, build_joint
from tests.endtoend.trees import KEY
from tests.federation.conftest import begin, document, offered, splits

if not os.environ.get("BUILDER_FEDERATION"):
    pytest.skip("make federation builds at two sites, which takes minutes", allow_module_level=True)

FIRST, SECOND = "north", "university"


def copy_a_patient(three) -> None:
    """Give a patient of the first site to the second as well, under another PatientID and with other study dates."""
    folder = max(three.at(FIRST, "archive").glob("PH-*"))
    table = three.at(SECOND, "clinical.csv")
    row = next(line for line in table.read_text().splitlines() if folder.name in line)
    table.write_text(table.read_text() + row.replace(folder.name, "PH-9001") + "\n")
    shutil.copytree(folder, three.at(SECOND, "archive", "PH-9001"))
    for path in (p for p in three.at(SECOND, "archive", "PH-9001").rglob("*") if p.is_file()):
        held = pydicom.dcmread(path)
        held.PatientID, held.PatientName = "PH-9001", "Moved^Away"
        held.save_as(path)


def test_a_patient_of_two_hospitals_stays_at_one(tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setenv("BUILDER_SHARED", "d0" + KEY[:-2])
    three = begin(tmp_path, persons=32)
    copy_a_patient(three)
    for site, other in ((FIRST, SECOND), (SECOND, FIRST)):
        policy = three.at(site, "policy.yaml")
        policy.write_text(policy.read_text() + f"copies: {{sites: [{other}], key: '${{env:BUILDER_SHARED}}'}}\n")
    data, _ = plan_offers(three.signed, offered(three), three.home / "coordinator.key", sequence=1)
    three.plan.write_bytes(data)

    def build(site: str) -> None:
        policy = three.at(site, "policy.yaml")
        build_joint(three.plan, three.signed, policy, three.at(site, "out"), cluster="serial")
        approve(three.at(site, "out", "receipt.json"), policy, three.at(site, "site.key"))

    given = {}
    for site in (FIRST, SECOND):
        build(site)
        given[site] = give_marks(three.plan, three.signed, three.at(site, "policy.yaml"), three.at(site, "out"))
        approve(given[site], three.at(site, "policy.yaml"), three.at(site, "site.key"))
        assert not any(volume["bands"] for volume in document(given[site])["volumes"])  # leaks.pixels: exact
    before = {site: splits(three.at(site, "dataset")) for site in (FIRST, SECOND)}
    found = {
        site: compare(three.plan, three.signed, three.at(site, "policy.yaml"), [given[other]], three.at(site, "out"))
        for site, other in ((FIRST, SECOND), (SECOND, FIRST))
    }
    assert {site: (done.persons, done.left_out) for site, done in found.items()} == {
        FIRST: ({SECOND: 1}, 0), SECOND: ({FIRST: 1}, 1)
    }  # fmt: skip

    first = document(three.at(SECOND, "out", "receipt.json"))
    for site in (FIRST, SECOND):
        build(site)
    after = {site: splits(three.at(site, "dataset")) for site in (FIRST, SECOND)}
    assert after[FIRST] == before[FIRST]
    (gone,) = before[SECOND].keys() - after[SECOND].keys()
    assert after[SECOND] == {person: split for person, split in before[SECOND].items() if person != gone}
    second = document(three.at(SECOND, "out", "receipt.json"))
    assert second["version"] != first["version"]
    assert second["counted"] == first["version"]  # new numbers would tell of the one who left
    again = give_marks(three.plan, three.signed, three.at(SECOND, "policy.yaml"), three.at(SECOND, "again"))
    approve(again, three.at(SECOND, "policy.yaml"), three.at(SECOND, "site.key"))
    ended = compare(three.plan, three.signed, three.at(FIRST, "policy.yaml"), [again], three.at(FIRST, "again"))
    assert ended.persons == {SECOND: 0}
