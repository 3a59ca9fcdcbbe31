"""Where series came from, and the proof that their licences allow a use."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builder.errors import SpecError
from builder.model.keyed import Key
from builder.model.options import withhold_locations
from builder.model.origin import Origin
from builder.plan import LINKS
from builder.planning.origins import ask_origins, gather_origins, prove_usage
from builder.spec import DatasetSpec
from builder.spec.columns import columns_of
from builder.stages.parts import part_name

KEY = Key(b"k" * 32)
COHORT = pa.table(
    {
        "included": [True, True, True, False],
        "source": pa.array([0, 0, 1, 0], pa.int32()),
        "series_uid": ["1.1", "1.2", "2.1", "1.9"],
        "series_key": [KEY.name("series", uid) for uid in ("1.1", "1.2", "2.1", "1.9")],
    }
)
ANNOTATIONS = pa.table({"source": pa.array([0, 0, 1], pa.int32()), "series_uid": ["1.3", "1.8", None]})
LINKED = pa.Table.from_pylist(
    [{"annotation": row, "case_key": "c", "label": "tumor", "how": "uid"} for row in (0, 2, 2)], schema=LINKS
)


def spec(tmp_path: Path, *, usage: str | None = None, license: str = "CC-BY-4.0", own: str = "CC-BY-4.0"):
    index = tmp_path / "idc_index.parquet"
    uids = ["1.1", "1.2", "1.3", "1.8", "1.9"]
    terms = ["CC BY 4.0", "CC BY-NC 4.0", "CC BY 3.0", None, "CC BY-NC 4.0"]
    pq.write_table(
        pa.table(
            {
                "collection_id": ["lung"] * 5,
                "PatientID": ["p"] * 5,
                "Modality": ["CT"] * 5,
                "SeriesInstanceUID": uids,
                "license_short_name": terms,
                "source_DOI": ["10.7937/lung", "10.7937/lung", "10.5281/labels", None, None],
                "aws_bucket": ["bucket"] * 5,
                "crdc_series_uuid": [f"{i:08d}-0000-0000-0000-000000000000" for i in range(5)],
                "instanceCount": [1] * 5,
            }
        ),
        index,
    )
    return DatasetSpec.model_validate(
        {
            "name": "x",
            "license": own,
            "usage": usage,
            "sources": [
                {"kind": "idc", "index": str(index), "collections": ["lung"], "origin": {"citation": "Lung 2016"}},
                {"kind": "folder", "url": "/data", "origin": {"title": "Ours", "license": license}},
            ],
            "clinical": [
                {"url": "t.csv", "person_id": "id", "columns": {"x": {"from": "X", "type": "text"}},
                 "origin": {"license": "CC0-1.0"}}
            ],
            "labels": {"tumor": {"kind": "rtstruct", "roi": {"tumor": "gtv"}}},
            "deid": {"patient_key": "${env:KEY}"},
            "samples": {"kind": "volumes"},
        }
    )  # fmt: skip


def origins(made: DatasetSpec) -> pa.Table:
    return gather_origins(made, ask_origins(made), COHORT, LINKED, ANNOTATIONS, key=KEY)


def test_each_series_has_what_its_source_knows_completed_by_the_spec(tmp_path):
    rows = origins(spec(tmp_path)).to_pylist()
    told = {(r["role"], r["series_key"]): (r["title"], r["license"], r["doi"], r["citation"]) for r in rows}
    names = {uid: KEY.name("series", uid) for uid in ("1.1", "1.2", "1.3", "2.1")}
    assert told == {
        ("image", names["1.1"]): ("lung", "CC BY 4.0", "10.7937/lung", "Lung 2016"),
        ("image", names["1.2"]): ("lung", "CC BY-NC 4.0", "10.7937/lung", "Lung 2016"),
        ("image", names["2.1"]): ("Ours", "CC-BY-4.0", None, None),
        ("label", names["1.3"]): ("lung", "CC BY 3.0", "10.5281/labels", "Lung 2016"),
        ("label", None): ("Ours", "CC-BY-4.0", None, None),
        ("clinical", None): (None, "CC0-1.0", None, None),
    }
    assert len(rows) == 6


def test_the_licence_is_a_column_a_cohort_can_ask_for(tmp_path):
    made = spec(tmp_path, license="my own terms")
    assert ask_origins(made).licenses(COHORT) == ["CC-BY-4.0", "CC-BY-NC-4.0", "my own terms", "CC-BY-NC-4.0"]
    assert columns_of(made.clinical, labelled=bool(made.labels)).field("license").type == pa.string()


def test_commercial_use_is_refused_by_one_series(tmp_path):
    prove_usage(spec(tmp_path), origins(spec(tmp_path)))
    made = spec(tmp_path, usage="commercial", license="my own terms", own="CC-BY-NC-4.0")
    with pytest.raises(SpecError) as caught:
        prove_usage(made, origins(made))
    message = str(caught.value)
    assert "1 series of images from source 1 under CC BY-NC 4.0, which allows no commercial use" in message
    assert "1 series of images from source 2 under my own terms, which is not one this program can judge" in message
    assert "label" in message
    assert "own licence CC-BY-NC-4.0" in message
    assert "1.1" not in message


def test_commercial_use_is_proven_when_all_allow_it(tmp_path):
    made = spec(tmp_path, usage="commercial")
    allowed = origins(made).filter(pa.compute.not_equal(origins(made)["license"], "CC BY-NC 4.0"))
    prove_usage(made, allowed)
    unknown = allowed.set_column(4, "license", pa.array([None] * allowed.num_rows, pa.string()))
    with pytest.raises(SpecError, match="clinical table 1 under no stated licence; "):
        prove_usage(made, unknown)


def test_an_origin_is_published_and_does_not_index_anew(tmp_path):
    made = spec(tmp_path)
    published = withhold_locations(made.model_dump(mode="json", by_alias=True))["sources"][1]
    assert published["origin"]["title"] == "Ours"
    assert published["url"] == "(withheld)"
    source = made.sources[1]
    assert part_name(source, 1, []) == part_name(source.model_copy(update={"origin": Origin(title="Other")}), 1, [])
