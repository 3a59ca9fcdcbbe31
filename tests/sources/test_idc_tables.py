"""Series of the IDC chosen by its tables: the real index, and further tables made from the schemas beside it."""

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from builder.errors import SpecError
from builder.sources import Idc, contents
from builder.sources.idc_tables import Tables, Wanted, choose, read_s5cmd
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.servers import http_server
from tests.sources.test_tcia_and_idc import Bucket, write_index

idc = pytest.importorskip("idc_index_data", reason="pip install idc-index-data==25.0.5")
ROOT = Path(idc.__file__).parent
INDEX = str(ROOT / "idc_index.parquet")
PRIOR = str(ROOT / "prior_versions_index.parquet")
TYPES = {"STRING": pa.string(), "FLOAT": pa.float64(), "INTEGER": pa.int64(), "BOOLEAN": pa.bool_()}


def made_table(name: str, series: pa.Array, path: Path, **columns: Any) -> str:
    """A table with the columns of the wheel's schema, of which some have values."""
    schema = json.loads((ROOT / f"{name}_schema.json").read_text())
    fields = schema["columns"] if isinstance(schema, dict) else schema
    arrays = {"SeriesInstanceUID": series, **columns}
    table = {
        field["name"]: arrays.get(field["name"], pa.nulls(len(series), TYPES.get(field["type"], pa.string())))
        for field in fields
    }
    pq.write_table(pa.table(table), path)
    return str(path)


def test_thin_ct_of_nlst_is_chosen_from_tables_alone(tmp_path: Path) -> None:
    index = pq.read_table(
        INDEX, columns=["SeriesInstanceUID", "collection_id", "Modality", "PatientID", "series_size_MB"]
    )
    wanted = pc.and_(pc.equal(index["collection_id"], "nlst"), pc.equal(index["Modality"], "CT"))
    nlst = index.filter(wanted)
    assert nlst.num_rows > 200_000
    thickness = np.random.default_rng(7).choice([1.0, 1.25, 2.0, 2.5, 3.2, 5.0], nlst.num_rows)
    thickness[::1000] = np.nan
    made_table(
        "ct_index", nlst["SeriesInstanceUID"].combine_chunks(), tmp_path / "ct.parquet", SliceThickness=thickness
    )
    geometry = made_table(
        "volume_geometry_index", nlst["SeriesInstanceUID"].combine_chunks(), tmp_path / "geometry.parquet",
        regularly_spaced_3d_volume=pa.array(thickness != 2.0),
    )  # fmt: skip
    source = Idc(
        index=INDEX, collections=("nlst",), modalities=("CT",),
        tables={"ct_index": str(tmp_path / "ct.parquet"), "volume_geometry_index": geometry},
        select="SliceThickness < 2.5 and regularly_spaced_3d_volume",
    )  # fmt: skip
    begin = time.process_time()
    chosen = source._chosen()
    assert time.process_time() - begin < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 * 2**20  # KiB
    thin = nlst.filter(pa.array((thickness < 2.5) & (thickness != 2.0)))
    assert {row["SeriesInstanceUID"] for row in chosen} == set(thin["SeriesInstanceUID"].to_pylist())
    total, persons = pc.sum(thin["series_size_MB"]).as_py(), len(set(thin["PatientID"].to_pylist()))
    assert f"{len(chosen):,} series of {persons:,} persons, {total / 1000:,.1f} GB" in source._choice.news
    assert "licences: CC BY" in source._choice.news
    print(f"{time.process_time() - begin:.1f} s")


def test_an_earlier_release_and_what_was_revised() -> None:
    prior = pq.read_table(PRIOR, columns=["collection_id", "crdc_series_uuid", "SeriesInstanceUID", "max_idc_version"])
    row = prior.slice(0, 1).to_pylist()[0]
    version, collection = row["max_idc_version"], row["collection_id"]
    values = (("collection_id", (collection,)),)
    then = choose(Tables(INDEX, prior=PRIOR), Wanted(values, version=version))
    now = choose(Tables(INDEX), Wanted(values))
    assert row["crdc_series_uuid"] in {each["crdc_series_uuid"] for each in then.rows}
    assert row["crdc_series_uuid"] not in {each["crdc_series_uuid"] for each in now.rows}
    assert len({each["crdc_series_uuid"] for each in then.rows}) == len(then.rows)
    assert "in the version before a revision" in then.news


def test_a_manifest_of_s5cmd(tmp_path: Path) -> None:
    current = pq.read_table(INDEX, columns=["crdc_series_uuid"]).slice(0, 2)["crdc_series_uuid"].to_pylist()
    old = pq.read_table(PRIOR, columns=["crdc_series_uuid"]).slice(0, 1)["crdc_series_uuid"].to_pylist()
    path = tmp_path / "manifest.s5cmd"
    lines = [f"cp s3://idc-open-data/{current[0]}/* .", f"cp --sp gs://idc-open-data/{current[1]}/* '.'"]
    path.write_text("# from the portal\n" + "\n".join([*lines, f"cp s3://idc-open-data/{old[0]}/* ."]))
    assert read_s5cmd(str(path)) == (*current, old[0])
    source = Idc(index=INDEX, manifest=str(path), prior=PRIOR)
    assert sorted(row["crdc_series_uuid"] for row in source._chosen()) == sorted([*current, *old])
    assert "1 of them in a version that was revised or withdrawn since" in source._choice.news
    with pytest.raises(SpecError, match=r"sources.manifest: found 1 of 3 series in no table.*prior_versions_index"):
        Idc(index=INDEX, manifest=str(path))._chosen()
    path.write_text("cp s3://bucket/one.dcm .")
    with pytest.raises(SpecError, match="1 of 1 lines that name no series"):
        read_s5cmd(str(path))


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("SliceThicknes < 2", "SliceThickness"),
        ("SliceThickness < 'thin'", "sources.select: column"),
    ],
)
def test_expressions_that_do_not_fit(select: str, message: str, tmp_path: Path) -> None:
    series = pa.array(["1.2.3"])
    table = made_table("ct_index", series, tmp_path / "ct.parquet", SliceThickness=[1.0])
    with pytest.raises(SpecError, match=message):
        Idc(index=INDEX, collections=("qin_headneck",), tables={"ct_index": table}, select=select)._chosen()


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    twice = str(tmp_path / "twice.parquet")
    uid = pq.read_table(INDEX, columns=["SeriesInstanceUID"]).slice(0, 1)["SeriesInstanceUID"].to_pylist() * 2
    pq.write_table(pa.table({"SeriesInstanceUID": uid, "a": [1, 2]}), twice)
    with pytest.raises(SpecError, match=r"tables.t: found several rows for a series"):
        Idc(index=INDEX, series=(uid[0],), tables={"t": twice}, select="a = 1")._chosen()
    pq.write_table(pa.table({"column": ["age"]}), tmp_path / "clinical.parquet")
    tables = {"clinical_index": str(tmp_path / "clinical.parquet")}
    with pytest.raises(SpecError, match="without SeriesInstanceUID"):
        Idc(index=INDEX, series=(uid[0],), tables=tables, select="column = 'age'")._chosen()
    with pytest.raises(ValueError, match="tables without select"):
        Idc(index=INDEX, series=(uid[0],), tables={"t": twice})


def test_names_of_buckets_at_google(tmp_path: Path) -> None:
    contents._opened.cache_clear()
    files = make_archive(tmp_path / "archive")
    objects = write_index(files, tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet")
    place = table.schema.get_field_index("aws_bucket")
    table = table.set_column(place, "aws_bucket", pa.array(["idc-open-data-two"] * table.num_rows))
    pq.write_table(table, tmp_path / "index.parquet")
    with http_server(Bucket(objects)) as url:
        source = Idc(index=str(tmp_path / "index.parquet"), collections=("mine",), store="gcs", endpoint=url)
        entries = list(source.list())
        assert len(entries) == len(files)
        assert all(entry.path.startswith("idc-open-idc1/") for entry in entries)
        assert {row["status"] for row in index_partition(source, 0, entries).to_pylist()} == {"instance"}
