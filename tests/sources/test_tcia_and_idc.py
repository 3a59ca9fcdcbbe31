"""TCIA and IDC against local servers that answer as theirs do."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.filebase import DicomBytesIO

from builder.errors import CaseError, Reason, SourceError, SpecError
from builder.protocols import Describing, Source, Stating
from builder.sources import Folder, Idc, Tcia, http, series_cache
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.servers import Reply, http_server

PLACE = {"path", "size", "stamp"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", SimpleNamespace(sleep=lambda seconds: None))
    series_cache._cache.cache_clear()


def series_of(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for uid, data in files.items():
        series = str(pydicom.dcmread(DicomBytesIO(data)).SeriesInstanceUID)
        found.setdefault(series, {})[uid] = data
    return found


def rows_of(source: Any) -> dict[str, dict[str, Any]]:
    rows = index_partition(source, 0, list(source.list())).to_pylist()
    return {r["sop_instance_uid"]: {k: v for k, v in r.items() if k not in PLACE} for r in rows}


@pytest.fixture(scope="module")
def expected(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("files")
    for number, data in enumerate(files.values()):
        (folder / str(number)).write_bytes(data)
    return rows_of(Folder(url=str(folder)))


def nbia(files: dict[str, bytes], faults: set[str], asked: list[str]) -> Callable[[str, dict[str, str]], Reply]:
    series = series_of(files)

    def answer(target: str, headers: dict[str, str]) -> Reply:
        asked.append(target)
        query = {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
        match urlsplit(target).path:
            case "/getSeries":
                assert query["Collection"] == "My Collection"
                rows = []
                for uid, members in series.items():
                    first = pydicom.dcmread(DicomBytesIO(next(iter(members.values()))))
                    row: dict[str, Any] = {"SeriesInstanceUID": uid, "StudyInstanceUID": str(first.StudyInstanceUID)}
                    row |= {"Modality": first.Modality, "PatientID": first.PatientID, "ImageCount": len(members)}
                    row |= {"Collection": "My Collection", "CollectionURI": "https://doi.org/10.7937/TCIA.1"}
                    row |= {"LicenseURI": "http://creativecommons.org/licenses/by/3.0/"}
                    rows.append(row)
                return 200, {}, json.dumps(rows[::-1]).encode()
            case "/getSOPInstanceUIDs":
                uids = list(series[query["SeriesInstanceUID"]])
                uids = uids[1:] if "incomplete" in faults else uids
                return 200, {}, json.dumps([{"SOPInstanceUID": uid} for uid in uids]).encode()
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("LICENSE", "terms")
            objects = list(series[query["SeriesInstanceUID"]].values())
            for number, data in enumerate(objects[: 1 if "short zip" in faults else None]):
                archive.writestr(f"1-{number}.dcm", data)
        body = stream.getvalue()
        return 200, {}, body[: len(body) // 2] if "cut" in faults else body

    return answer


def test_tcia(files: dict[str, bytes], expected: dict[str, dict[str, Any]]) -> None:
    asked: list[str] = []
    with http_server(nbia(files, set(), asked)) as url:
        source = Tcia(url=url, collection="My Collection")
        assert isinstance(source, Source)
        assert isinstance(source, Describing)
        assert rows_of(source) == expected
        assert sum("getImage" in target for target in asked) == len(series_of(files))  # each series once
        for entry in source.list():
            assert source.read(entry) == files[entry.path.rpartition("/")[2]]
        assert len(list(Tcia(url=url, collection="My Collection", modalities=("RTSTRUCT",)).list())) == 1
        assert list(Tcia(url=url, collection="My Collection", patients=("nobody",)).list()) == []


def test_tcia_tells_the_terms_of_each_series(files: dict[str, bytes]) -> None:
    with http_server(nbia(files, set(), [])) as url:
        source = Tcia(url=url, collection="My Collection")
        assert isinstance(source, Stating)
        origins = source.series_origins()
    assert set(origins) == set(series_of(files))
    assert {o.model_dump_json(exclude_none=True) for o in origins.values()} == {
        '{"title":"My Collection","license":"http://creativecommons.org/licenses/by/3.0/","doi":"10.7937/TCIA.1"}'
    }


@pytest.mark.parametrize(("fault", "text"), [("incomplete", "ImageCount"), ("cut", "damaged zip")])
def test_tcia_faults_stop_and_are_retried(files: dict[str, bytes], fault: str, text: str) -> None:
    with http_server(nbia(files, {fault}, [])) as url, pytest.raises(SourceError, match=text):
        rows_of(Tcia(url=url, collection="My Collection"))


def test_tcia_instances_that_did_not_come_are_quarantined(files: dict[str, bytes]) -> None:
    with http_server(nbia(files, {"short zip"}, [])) as url:
        source = Tcia(url=url, collection="My Collection")
        statuses = index_partition(source, 0, list(source.list()))["status"].to_pylist()
    assert statuses.count("instance") == len(series_of(files))
    assert statuses.count("quarantined") == len(files) - len(series_of(files))


class Bucket:
    """S3's ListObjectsV2 and ranged GET over some objects."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.ranges: list[str] = []

    def __call__(self, target: str, headers: dict[str, str]) -> Reply:
        split = urlsplit(target)
        query = {k: v[0] for k, v in parse_qs(split.query).items()}
        if query.get("list-type") == "2":
            keys = [key for key in sorted(self.objects) if key.startswith(query["prefix"])]
            start = int(query.get("continuation-token", "0"))
            page, more = keys[start : start + 2], start + 2 < len(keys)
            items = "".join(
                f"<Contents><Key>{escape(k)}</Key><Size>{len(self.objects[k])}</Size>"
                f"<ETag>{escape(self.etag(k))}</ETag></Contents>"
                for k in page
            )
            token = f"<NextContinuationToken>{start + 2}</NextContinuationToken>" if more else ""
            body = (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
            )
            return 200, {}, body.encode()
        key = split.path.lstrip("/")
        if headers.get("if-match") != self.etag(key):
            return 412, {}, b""
        first, last = headers["range"].removeprefix("bytes=").split("-")
        self.ranges.append(headers["range"])
        return 206, {}, self.objects[key][int(first) : int(last) + 1]

    def etag(self, key: str) -> str:
        return f'"{hash(self.objects[key])}"'


def write_index(files: dict[str, bytes], path: Path) -> dict[str, bytes]:
    """Objects laid out as the IDC's; their index, with a row of another collection beside, goes to ``path``."""
    objects = {}
    rows = []
    for number, (series, members) in enumerate(series_of(files).items()):
        uuid = f"{number:08x}-0000-4000-8000-000000000000"
        for uid, data in members.items():
            objects[f"{uuid}/{uid}.dcm"] = data
        first = pydicom.dcmread(DicomBytesIO(next(iter(members.values()))))
        rows.append(
            {
                "collection_id": "mine",
                "PatientID": str(first.PatientID),
                "Modality": first.Modality,
                "SeriesInstanceUID": series,
                "license_short_name": "CC BY 4.0",
                "instanceCount": len(members),
                "aws_bucket": "idc-open-data",
                "crdc_series_uuid": uuid,
            }
        )
    rows.append({**rows[0], "collection_id": "other", "crdc_series_uuid": "f" * 36})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return objects


@pytest.fixture
def bucket(files: dict[str, bytes], tmp_path: Path) -> tuple[Bucket, str]:
    """A bucket and its index."""
    return Bucket(write_index(files, tmp_path / "idc_index.parquet")), str(tmp_path / "idc_index.parquet")


def test_idc(files: dict[str, bytes], expected: dict[str, dict[str, Any]], bucket: tuple[Bucket, str]) -> None:
    held, index = bucket
    with http_server(held) as url:
        source = Idc(index=index, collections=("mine",), endpoint=url)
        assert isinstance(source, Source)
        assert rows_of(source) == expected
        entries = list(source.list())
        assert {source.read(entry) for entry in entries} == set(files.values())
        assert source.read(entries[0], start=128, length=4) == b"DICM"
        assert source.read(entries[0], start=entries[0].size, length=4) == b""
        assert (
            len(
                list(
                    Idc(
                        index=index, patients=("P1",), modalities=("RTSTRUCT",), collections=("mine",), endpoint=url
                    ).list()
                )
            )
            == 1
        )
        assert list(Idc(index=index, collections=("mine",), licenses=("CC BY-NC 4.0",), endpoint=url).list()) == []


def test_idc_refuses_what_does_not_match_its_index(bucket: tuple[Bucket, str]) -> None:
    held, index = bucket
    with http_server(held) as url:
        source = Idc(index=index, collections=("mine",), endpoint=url)
        entry = next(iter(source.list()))
        key = entry.path.partition("/")[2]
        held.objects[key] = b"other bytes"
        with pytest.raises(CaseError) as caught:
            source.read(entry)
        assert caught.value.reason is Reason.SOURCE_CHANGED
        del held.objects[key]
        with pytest.raises(SourceError, match="the index says"):
            list(source.list())


def test_idc_wants_a_choice_and_an_index(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Idc(index="x")
    with pytest.raises(SpecError, match="idc-index-data"):
        list(Idc(index=str(tmp_path / "none"), collections=("a",)).list())


def test_idc_does_not_expand_entities(tmp_path: Path, bucket: tuple[Bucket, str]) -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "bbbb">]><ListBucketResult>&b;</ListBucketResult>'
    with http_server(lambda target, headers: (200, {}, bomb)) as url, pytest.raises(SourceError, match="not a listing"):
        list(Idc(index=bucket[1], collections=("mine",), endpoint=url).list())


def test_idc_tells_the_terms_of_each_series_of_its_real_index() -> None:
    package = pytest.importorskip("idc_index_data", reason="pip install idc-index-data")
    index = str(package.IDC_INDEX_PARQUET_FILEPATH)
    rows = pq.read_table(
        index,
        columns=["SeriesInstanceUID", "license_short_name", "source_DOI"],
        filters=[("collection_id", "in", ["soft_tissue_sarcoma", "qin_sarcoma"])],
    ).to_pylist()
    source = Idc(index=index, collections=("soft_tissue_sarcoma", "qin_sarcoma"))
    assert isinstance(source, Stating)
    origins = source.series_origins()
    told = {uid: (o.license, o.doi) for uid, o in origins.items()}
    assert told == {r["SeriesInstanceUID"]: (r["license_short_name"], r["source_DOI"]) for r in rows}
    assert {o.license for o in origins.values()} == {"CC BY 3.0", "CC BY 4.0"}
