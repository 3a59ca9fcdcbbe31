"""TCIA and IDC against local servers that answer as theirs do."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.filebase import DicomBytesIO

from builder.errors import CaseError, ElsewhereError, IncompleteError, Reason, SourceError, SpecError
from builder.protocols import Describing, Source, Stating
from builder.sources import Folder, Idc, Tcia, contents, tcia
from builder.sources.manifests import read_manifest
from builder.stages.index import index_partition
from tests.sources.archive import make_archive
from tests.sources.quick import no_pauses
from tests.sources.servers import Reply, http_server
from tests.synthetic import ct_series

PLACE = {"path", "size", "stamp"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    contents._opened.cache_clear()


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
                assert query.get("Collection", "My Collection") == "My Collection"
                rows = []
                for uid, members in series.items():
                    if query.get("SeriesInstanceUID", uid) != uid:
                        continue
                    first = pydicom.dcmread(DicomBytesIO(next(iter(members.values()))))
                    row: dict[str, Any] = {"SeriesInstanceUID": uid, "StudyInstanceUID": str(first.StudyInstanceUID)}
                    row |= {"Modality": first.Modality, "PatientID": first.PatientID, "ImageCount": len(members)}
                    row |= {"Collection": "My Collection", "CollectionURI": "https://doi.org/10.7937/TCIA.1"}
                    row |= {"LicenseURI": "http://creativecommons.org/licenses/by/3.0/"}
                    rows.append(row)
                if "short study" in faults:  # each time the same
                    del rows[0]
                return 200, {}, json.dumps(rows[::-1]).encode()
            case "/getPatientStudy":
                return 200, {}, json.dumps(studies_of(series)["unlisted study" in faults :]).encode()
            case "/getPatient":
                named = [*dict.fromkeys(row["PatientID"] for row in studies_of(series)), "nobody knows"]
                rows = [{"PatientId": p} for p in named[: None if "patient without study" in faults else -1]]
                return 200, {}, json.dumps(rows).encode()
            case "/getSOPInstanceUIDs":
                uids = list(series[query["SeriesInstanceUID"]])
                uids = uids[1:] if "incomplete" in faults else uids
                return 200, {}, json.dumps([{"SOPInstanceUID": uid} for uid in uids]).encode()
        hashed = "MD5" in urlsplit(target).path
        if hashed and "no hashes" in faults:
            return 404, {}, b"no such operation"
        body = made_zip(list(series[query["SeriesInstanceUID"]].values()), faults, hashed=hashed)
        return 200, {}, body[: len(body) // 2] if "cut" in faults else body

    return answer


def studies_of(series: dict[str, dict[str, bytes]]) -> list[dict[str, Any]]:
    """Rows of getPatientStudy."""
    found: dict[str, dict[str, Any]] = {}
    for members in series.values():
        first = pydicom.dcmread(DicomBytesIO(next(iter(members.values()))))
        study, patient = str(first.StudyInstanceUID), str(first.PatientID)
        row = found.setdefault(study, {"StudyInstanceUID": study, "PatientID": patient, "SeriesCount": 0})
        row["SeriesCount"] += 1
    return list(found.values())


def made_zip(members: list[bytes], faults: set[str], *, hashed: bool) -> bytes:
    """A series as NBIA zips it, with the MD5 of each file where it was asked for."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("LICENSE", "terms")
        for number, data in enumerate(members[: -1 if "short zip" in faults else None]):
            flipped = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:] if "flipped" in faults else data
            archive.writestr(f"1-{number}.dcm", flipped)
        if hashed:
            rows = [f"1-{number}.dcm,{hashlib.md5(data).hexdigest()}" for number, data in enumerate(members)]
            archive.writestr("md5hashes.csv", "\n".join(["Filename,MD5Hash", *rows]))
    return stream.getvalue()


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


@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ({"incomplete"}, "as the server counts"),
        ({"cut"}, "damaged zip"),
        ({"short zip"}, "whose MD5 it states"),
        ({"short zip", "no hashes"}, "that were listed"),
        ({"flipped"}, "MD5 is not the one"),
    ],
)
def test_tcia_what_does_not_come_whole_stops_or_is_left_out(
    files: dict[str, bytes], expected: dict[str, dict[str, Any]], faults: set[str], text: str, tmp_path: Path
) -> None:
    asked: list[str] = []
    with http_server(nbia(files, faults, asked)) as url:
        source = Tcia(url=url, collection="My Collection").kept_in(str(tmp_path / "content"))
        with pytest.raises(IncompleteError, match=text):
            rows_of(source)
        left_out = source.model_copy(update={"missing": "exclude"})
        reasons = index_partition(left_out, 0, list(left_out.list()))["reason"].to_pylist()
        assert set(reasons) == {"source_incomplete"}
        faults.clear()
        assert rows_of(source) == expected  # nothing of the bad answers is left


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("short study", "fewer series of 1 study than SeriesCount states"),
        ("unlisted study", "study that getPatientStudy does not name"),
        ("patient without study", "1 patient in getPatient of whom getPatientStudy names no study"),
    ],
)
def test_tcia_lists_that_contradict_each_other_stop_the_run(fault: str, text: str, tmp_path: Path) -> None:
    """A list that is short in the same way each time is not believed, because the others state its length."""
    made = [ct_series(tmp_path / name, slices=2, shape=(16, 16), patient_id=name) for name in ("P1", "P2")]
    files = {str(i.SOPInstanceUID): p.read_bytes() for m in made for i, p in zip(m.images, m.paths, strict=True)}
    with http_server(nbia(files, {fault}, [])) as url:
        with pytest.raises(IncompleteError, match=text):
            list(Tcia(url=url, collection="My Collection").list())
        left_out = Tcia(url=url, collection="My Collection", missing="exclude")
        if fault != "short study":  # which study is concerned is not known
            with pytest.raises(IncompleteError, match=text):
                list(left_out.list())
            return
        entries = list(left_out.list())
        assert [entry.stamp for entry in entries].count("incomplete") == 1
        short = next(entry.path for entry in entries if entry.stamp == "incomplete")
        assert not [entry for entry in entries if entry.path.startswith(f"{short}/")]
        assert entries[-1].stamp != entries[0].stamp  # the other study is listed
        owner = {"P1", "P2"} - {
            row["PatientID"] for row in studies_of(series_of(files)) if row["StudyInstanceUID"] == short
        }
        assert list(Tcia(url=url, collection="My Collection", patients=tuple(owner)).list())  # nothing of it is short


def test_tcia_a_list_that_is_short_twice_is_asked_for_again(files: dict[str, bytes]) -> None:
    asked: list[str] = []
    whole = nbia(files, set(), asked)

    def answer(target: str, headers: dict[str, str]) -> Reply:
        status, stated, body = whole(target, headers)
        short = "getSeries" in target and sum("getSeries" in each for each in asked) <= 2
        return status, stated, json.dumps(json.loads(body)[:-1]).encode() if short else body

    with http_server(answer) as url:
        listed = {entry.path.rpartition("/")[2] for entry in Tcia(url=url, collection="My Collection").list()}
    assert listed == set(files)


def test_tcia_of_a_server_without_hashes(files: dict[str, bytes], expected: dict[str, dict[str, Any]]) -> None:
    with http_server(nbia(files, {"no hashes"}, [])) as url:
        assert rows_of(Tcia(url=url, collection="My Collection")) == expected


def test_tcia_series_come_once_for_all_processes(files: dict[str, bytes], tmp_path: Path) -> None:
    asked: list[str] = []
    with http_server(nbia(files, set(), asked)) as url:
        for _ in range(2):
            contents._opened.cache_clear()
            rows_of(Tcia(url=url, collection="My Collection").kept_in(str(tmp_path / "content")))
    assert sum("getImage" in target for target in asked) == len(series_of(files))


def test_tcia_manifest(files: dict[str, bytes], tmp_path: Path) -> None:
    wanted = next(iter(series_of(files)))
    old = f"A|B|{wanted}|CT"
    head = "downloadServerUrl=https://x/\nincludeAnnotation=true\nmanifestVersion={}\nListOfSeriesToDownload=\n"
    with http_server(nbia(files, set(), [])) as url:
        for version, line in (("3.0", wanted), ("1.0", old)):
            (tmp_path / "m.tcia").write_text(head.format(version) + line + "\n")
            source = Tcia(url=url, manifest=str(tmp_path / "m.tcia"))
            assert {entry.path.split("/")[1] for entry in source.list()} == {wanted}
            assert set(source.series_origins()) == {wanted}
        (tmp_path / "m.tcia").write_text(head.format("3.0") + f"{wanted}\n1.2.3.4\n")
        with pytest.raises(SourceError, match="1 series in the list that this server does not hold"):
            list(source.list())
    for text in ("", "ListOfSeriesToDownload=\n", f"ListOfSeriesToDownload=\n{wanted}\n../../etc/passwd\n"):
        (tmp_path / "m.tcia").write_text(text)
        with pytest.raises(SpecError, match="ListOfSeriesToDownload"):
            read_manifest(str(tmp_path / "m.tcia"))
    with pytest.raises(ValueError, match="neither collection nor manifest nor cart"):
        Tcia(url=url)


def test_tcia_cart(files: dict[str, bytes]) -> None:
    wanted, *_ = series_of(files)
    held = nbia(files, set(), [])
    asked: list[str] = []

    def answer(target: str, headers: dict[str, str]) -> Reply:
        asked.append(target)
        if "getContentsByName" not in target:
            return held(target.removeprefix("/services/v4"), headers)
        rows = [{"seriesInstanceUID": wanted}] if "name=nbia-1%262" in target else []
        return 200, {}, json.dumps(rows).encode()

    with http_server(answer) as url:
        source = Tcia(url=f"{url}/services/v4", cart="nbia-1&2")
        assert {entry.path.split("/")[1] for entry in source.list()} == {wanted}
        with pytest.raises(SourceError, match="no series in the cart"):
            list(Tcia(url=f"{url}/services/v4", cart="nbia-3").list())
    assert {target.partition("?")[0] for target in asked if "Contents" in target} == {"/services/v1/getContentsByName"}
    with pytest.raises(ValueError, match="a manifest and a cart"):
        Tcia(manifest="m.tcia", cart="nbia-1")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (1, r"1 series .* \(url: nlst\) holds 1 of the first 1 of them: divide the list"),
        (0, "they may be restricted, withdrawn or at another server"),
        (None, r"they may be at the other public server \(url: nlst\), restricted or withdrawn"),
    ],
)
def test_tcia_says_where_a_series_is(
    files: dict[str, bytes], there: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent, *others = series_of(files)
    (tmp_path / "m.tcia").write_text("ListOfSeriesToDownload=\n" + "\n".join([absent, *others]))
    some = {uid: data for uid, data in files.items() if uid not in series_of(files)[absent]}
    at_other = nbia(files if there else some, set(), [])
    other: Callable[[str, dict[str, str]], Reply] = (lambda *_: (401, {}, b"")) if there is None else at_other
    with http_server(nbia(some, set(), [])) as url, http_server(other) as other_url:
        monkeypatch.setattr(tcia, "HOSTS", {"nbia": url, "nlst": other_url})
        with pytest.raises(ElsewhereError, match=message):
            list(Tcia(manifest=str(tmp_path / "m.tcia")).list())


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
        return f'"{hashlib.md5(self.objects[key]).hexdigest()}"'


def write_index(files: dict[str, bytes], path: Path, *, license: str = "CC BY 4.0") -> dict[str, bytes]:
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
                "license_short_name": license,
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


def test_idc_reads_whole_files_once_and_checks_their_md5(bucket: tuple[Bucket, str], tmp_path: Path) -> None:
    held, index = bucket
    flip: list[str] = ["once"]

    def answer(target: str, headers: dict[str, str]) -> Reply:
        status, sent, body = held(target, headers)
        return status, sent, (body[:-1] + bytes([body[-1] ^ 1]) if status == 206 and flip and flip.pop() else body)

    with http_server(answer) as url:
        source = Idc(index=index, collections=("mine",), endpoint=url).kept_in(str(tmp_path / "content"))
        entries = list(source.list())
        for _ in range(2):
            contents._opened.cache_clear()
            assert {source.read(entry, start=100) for entry in entries} == {d[100:] for d in held.objects.values()}
        assert len(held.ranges) == len(entries) + 1
        flip += ["always"] * 99
        with pytest.raises(IncompleteError, match="MD5 is not the one in its ETag"):
            source.kept_in(str(tmp_path / "other")).read(entries[0], start=100)


def test_idc_leaves_out_what_a_bucket_does_not_list(bucket: tuple[Bucket, str]) -> None:
    held, index = bucket
    with http_server(held) as url:
        source = Idc(index=index, collections=("mine",), endpoint=url, missing="exclude")
        gone = next(iter(source.list())).path.partition("/")[2]
        del held.objects[gone]
        entries = list(source.list())
        rows = index_partition(source, 0, entries).to_pylist()
    assert [row["path"] for row in rows if row["reason"] == "source_incomplete"] == [
        "idc-open-data/" + gone.partition("/")[0]
    ]


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
