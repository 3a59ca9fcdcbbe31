"""Study descriptions and the user's table of RadLex Playbook procedures."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from builder.catalog.statement import Playbook
from builder.errors import SpecError
from builder.planning.playbook import UNMAPPED, map_procedures, normal, read_playbook
from builder.storage import open_store

TABLE = "description,rpid,name\nCT CHEST W/O,RPID16,CT Chest without contrast\npet/ct torso,RPID1234,PET CT Torso\n,,\n"
COHORT = pa.table(
    {
        "included": [True, True, True, True, False],
        "series_uid": ["1", "2", "3", "4", "5"],
        "study_key": ["a", "a", "b", "c", "d"],
        "chunk": pa.array([0, 0, 0, 1, 1], pa.int32()),
    }
)
CHUNKS = [
    pa.table({"series_uid": ["1", "1", "2", "3"], "study_description": [None, None, "Ct chest  w-o", "Mystery study"]}),
    pa.table({"series_uid": ["4", "5"], "study_description": ["  ", "PET/CT TORSO"]}),
]
INVENTORY: Any = SimpleNamespace(chunk=lambda number, columns: CHUNKS[number].select(columns))


def playbook(tmp_path, text: str = TABLE) -> Playbook:
    (tmp_path / "table.csv").write_text(text)
    return Playbook(url=str(tmp_path / "table.csv"))


def test_studies_are_counted_by_procedure_and_the_rest_stays_private(tmp_path):
    private = open_store(tmp_path / "private")
    found = map_procedures(playbook(tmp_path), COHORT, INVENTORY, private)
    assert found == {
        "studies": 3,
        "mapped": 1,
        "without_description": 1,
        "procedures": [{"rpid": "RPID16", "name": "CT Chest without contrast", "studies": 1}],
    }
    assert private.read(UNMAPPED).decode().splitlines() == ["studies,description", "1,Mystery study"]
    assert map_procedures(None, COHORT, INVENTORY, private) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,rpid,name\n", "no column 'description', expected it among text, rpid, name"),
        ("description,rpid,name\nCT,16,x\n", "no RPID in row 2"),
        ("description,rpid,name\nCT chest,RPID1,x\nct  CHEST,RPID2,y\n", "RPID1 and RPID2 for one description"),
        ("description\0", "catalog.playbook: found binary content"),
    ],
)
def test_faults_of_the_table(tmp_path, text, message):
    with pytest.raises(SpecError, match=message):
        read_playbook(playbook(tmp_path, text))


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match="no table at its url"):
        read_playbook(Playbook(url=str(tmp_path / "absent.csv")))


def test_the_normal_form_of_a_description():
    assert normal("CT_Chest  w/o") == normal("ct chest W-O") == "ct chest w o"
    assert normal("THORAX ÖDEM") == "thorax ödem"
