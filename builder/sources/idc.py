"""Read from the NCI Imaging Data Commons. Its series index (a Parquet file) locates the files in public buckets."""

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from builder.errors import CaseError, IncompleteError, Reason, SourceError, SpecError, counted
from builder.model.origin import Origin
from builder.protocols import Entry
from builder.sources.contents import place_of
from builder.sources.counted import UNLISTED, confirmed
from builder.sources.described import Remote
from builder.sources.http import Answer, Server, host_of, server
from builder.sources.idc_stated import stated_columns, stated_rows
from builder.sources.idc_tables import GCS_BUCKET, ON_GCS, UUID, Chosen, Tables, Wanted, choose, read_s5cmd
from builder.sources.patience import Fault, persist
from builder.sources.together import in_order

ENDPOINTS: Final = {
    "aws": "https://{bucket}.s3.amazonaws.com",
    "gcs": "https://storage.googleapis.com/{bucket}",
}
"""Addresses of the public buckets; both providers answer ListObjectsV2 without credentials."""

_COLUMNS = ("collection_id", "PatientID", "Modality", "SeriesInstanceUID", "license_short_name")
_DOI = "source_DOI"
_STUDY = "StudyInstanceUID"
_MD5 = re.compile(r'"([0-9a-f]{32})"')
"""ETag of an object that was uploaded in one piece."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_SERIES = re.compile(r"[0-9a-f\-]{36}")


class Idc(Remote):
    """Series of the IDC, chosen by the columns of its index.

    Parameters
    ----------
    index
        Path of ``idc_index.parquet``, as in the PyPI package ``idc-index-data``. Its version determines what is chosen.
    collections, patients, modalities, licenses, series
        Wanted values of ``collection_id``, ``PatientID``, ``Modality``, ``license_short_name`` and
        ``SeriesInstanceUID``; empty means all. At least one of collections, patients, series and manifest must be
        given.
    tables
        Paths of further tables by name (``ct_index``, ``mr_index``, ``pt_index``, ``seg_index``, ``rtstruct_index``,
        ``volume_geometry_index``, ...), as the package ``idc-index`` downloads them. ``select`` may name their columns.
    select
        Expression over the columns of the index and the tables, e.g. ``SliceThickness < 2.5``. A column that an
        earlier table has too is called by table and column, e.g. ``ct_index_Rows``.
    manifest
        Path of a manifest for s5cmd, as the IDC's portal hands it out; it names the series wanted.
    prior
        Path of ``prior_versions_index.parquet``, for series in versions that are no longer current.
    version
        Release of the IDC whose content is wanted; with ``prior``, revised series come as they were then.
    store
        ``aws`` or ``gcs``: the provider whose public buckets are asked.
    headers
        ``first``: every chosen series is listed and every header read before the plan. ``when_needed``: the plan stands
        from index and tables alone, and each shard lists and reads its own series when it is built.
    endpoint
        URL of a bucket, with ``{bucket}`` in place of its name. The default is the public bucket of ``store``.
    """

    VERSION: ClassVar[int] = 1
    CONNECTIONS: ClassVar[int] = 64

    kind: Literal["idc"] = "idc"
    index: str
    collections: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    tables: Mapping[str, str] = Field(default_factory=dict)
    select: str | None = None
    manifest: str | None = None
    prior: str | None = None
    version: int | None = Field(default=None, ge=1)
    store: Literal["aws", "gcs"] = "aws"
    headers: Literal["first", "when_needed"] = "first"
    endpoint: str | None = None

    @model_validator(mode="after")
    def _chooses(self) -> "Idc":
        if not (self.collections or self.patients or self.series or self.manifest):
            raise ValueError(
                "found no collections, patients, series or manifest, expected at least one: the IDC holds 90 TB"
            )
        if self.tables and not (self.select or self.deferred):
            raise ValueError("found tables without select, expected an expression that chooses by them")
        return self

    def news(self, now: datetime) -> Sequence[str]:
        """Return what was chosen from the tables, beside what every source tells."""
        return (self._choice.news, *super().news(now))

    @property
    def deferred(self) -> bool:
        """Return whether a plan takes what the tables state, and the files are listed when a shard needs them."""
        return self.headers == "when_needed"

    def stated(self, entries: Sequence[Entry]) -> pa.Table:
        """Return by columns of INSTANCES what the tables state of series that ``list`` gave. Raises SpecError."""
        places, rows = stated_rows(self._tables, self._wanted)
        return rows.take(pa.array([places[entry.path.split("/")[1]] for entry in entries], pa.int64()))

    def states(self) -> frozenset[str]:
        """Return the columns of INSTANCES that the tables state. Raises SpecError when they state no geometry."""
        return stated_columns(self._tables)

    def files_of(self, series: Entry) -> Sequence[Entry]:
        """List the files of a series that ``list`` gave. Raises SourceError."""
        bucket, prefix, _ = series.path.split("/")
        return self._list_files(bucket, prefix, int(series.stamp))

    def _list_series(self, row: Mapping[str, Any]) -> Sequence[Entry]:
        """List the files of a series."""
        return self._list_files(self._bucket_of(row), row[UUID], row["instanceCount"])

    def _list_files(self, bucket: str, prefix: str, count: int | None) -> Sequence[Entry]:
        try:
            found = self._objects(self._server(bucket), prefix, count)
        except IncompleteError as error:
            self._left_out(error)
            return [Entry(f"{bucket}/{prefix}", 0, UNLISTED)]
        return [Entry(f"{bucket}/{key}", size, etag) for key, size, etag in found]

    @property
    def lane(self) -> str:
        """Return one queue for all buckets."""
        return self._queue("net:idc")

    def study_of(self, path: str) -> str:
        """Return the study of a path's series, as the index tells it."""
        series = path.split("/")[1]
        return _studies(self.index).get(series, series)

    def list(self) -> Iterator[Entry]:
        """List every file of the chosen series, by series. Paths are ``bucket/series/instance.dcm``, stamps the ETags.

        With ``headers: when_needed`` no bucket is asked: an entry is a series, ``bucket/series/``, its size and its
        stamp, the number of its files, are those of the index.

        Raises
        ------
        SourceError
            When a bucket cannot be listed, or holds fewer or more files of a series than the index says.
        SpecError
            When the index is missing or is not an index.
        """
        if self.deferred:
            stated_rows(self._tables, self._wanted)
            for row in self._chosen():
                size = int((row.get("series_size_MB") or 0) * 1e6)
                yield Entry(f"{self._bucket_of(row)}/{row[UUID]}/", size, str(row["instanceCount"]))
            return
        for entries in in_order(self._list_series, self._chosen(), width=self.at_once):
            yield from entries

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of a file, provided that it has not changed since it was listed. Raises CaseError, SourceError.

        The start of a file is read alone, for the index. Whatever else is asked for brings the whole file, which is
        checked against the MD5 in its ETag and kept.
        """
        if entry.stamp == UNLISTED:
            raise CaseError(Reason.SOURCE_INCOMPLETE, "the source did not list the series whole after all tries")
        stop = entry.size if length is None else min(entry.size, start + length)
        if start >= stop:
            return b""
        folder, _, name = entry.path.rpartition("/")
        place = place_of(("idc", self.endpoint or self.store, folder), f"{name}\0{entry.stamp}")
        contents = self._contents()
        kept = contents.read(place, start=start, length=stop - start)
        if kept is not None:
            return kept
        if start == 0 and stop < entry.size:
            return self._get(entry, 0, stop)
        whole = self._get(entry, 0, entry.size)
        contents.put(place, whole)
        return whole[start:stop]

    def _get(self, entry: Entry, start: int, stop: int) -> bytes:
        """Get bytes of a file, checked as far as they can be. Raises CaseError, SourceError."""
        bucket, _, key = entry.path.partition("/")
        md5 = _MD5.fullmatch(entry.stamp) if (start, stop) == (0, entry.size) else None

        def read(answer: Answer) -> bytes:
            body = answer.body()
            data = body if answer.status == 206 else body[start:stop]
            if len(data) != stop - start:
                raise Fault(f"found {len(data)} bytes of a file, expected {stop - start}")
            if md5 is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5[1]:
                raise Fault("found a file whose MD5 is not the one in its ETag")
            return data

        headers = {"Range": f"bytes={start}-{stop - 1}", "If-Match": entry.stamp}
        try:
            return self._server(bucket).get(quote(key), read, headers=headers)
        except IncompleteError as error:
            raise self._left_out(error) from None

    def series_origins(self) -> Mapping[str, Origin]:
        """Return licence, collection and DOI of every chosen series, as the index states them. Raises SpecError."""
        origins = functools.cache(_origin)  # an index has a million series but only a few hundred origins
        return {
            row["SeriesInstanceUID"]: origins(row["collection_id"], row["license_short_name"], row.get(_DOI))
            for row in self._chosen()
        }

    def _chosen(self) -> Sequence[Mapping[str, Any]]:
        """Return the chosen rows of the index, ordered by bucket and series."""
        rows = self._choice.rows
        for row in rows:
            if not _BUCKET.fullmatch(row["aws_bucket"] or "") or not _SERIES.fullmatch(row["crdc_series_uuid"] or ""):
                raise SpecError("sources.index: found a row without a bucket and a series, expected both in each")
        return rows

    @property
    def _choice(self) -> Chosen:
        return choose(self._tables, self._wanted)

    @property
    def _tables(self) -> Tables:
        return Tables(self.index, tuple(sorted(self.tables.items())), self.prior or "")

    @property
    def _wanted(self) -> Wanted:
        values = (self.collections, self.patients, self.modalities, self.series, self.licenses)
        uuids = read_s5cmd(self.manifest) if self.manifest else ()
        return Wanted(tuple(zip(_COLUMNS, values, strict=True)), self.select or "", uuids, self.version)

    def _bucket_of(self, row: Mapping[str, Any]) -> str:
        """Return the name of a series' bucket at the provider that is asked."""
        bucket: str = row["aws_bucket"]
        return bucket if self.store == "aws" else row.get(GCS_BUCKET) or ON_GCS.get(bucket, bucket)

    def _server(self, bucket: str) -> Server:
        url = (self.endpoint or ENDPOINTS[self.store]).format(bucket=bucket)
        return server(url, source=self.kind, gate=self.gate(host_of(url)))

    def _objects(self, bucket: Server, prefix: str, count: int | None) -> Sequence[tuple[str, int, str]]:
        """Return key, size and ETag of the files of a series, in order, once there are as many as the index says.

        Of earlier versions of a series it does not say; their list must come twice in a row.
        """
        if count is None:

            def ask() -> dict[str, tuple[str, int, str]]:
                found = persist(lambda: sorted(_objects(bucket, prefix)), source=self.kind, host=bucket.host)
                return {item[0]: item for item in found}

            return list(confirmed(ask, source=self.kind, host=bucket.host).values())

        def attempt() -> Sequence[tuple[str, int, str]]:
            found = sorted(_objects(bucket, prefix))
            if len(found) != count:
                raise Fault(
                    f"a bucket holds {counted(len(found), 'file')} of a series, the index says {count}",
                    advice="use the index of the current IDC version",
                )
            return found

        return persist(attempt, source=self.kind, host=bucket.host)


@functools.lru_cache(maxsize=4)
def _studies(index: str) -> Mapping[str, str]:
    """Return the StudyInstanceUID by the UUID of a series; empty when the index does not have it."""
    if _STUDY not in pq.read_schema(index).names:
        return {}
    table = pq.read_table(Path(index), columns=[UUID, _STUDY])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _origin(collection: str | None, license: str | None, doi: str | None) -> Origin:
    return Origin(
        title=collection or None,
        license=license or None,
        doi=doi if doi and doi.startswith("10.") else None,
    )


def _objects(bucket: Server, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Yield key, size and ETag of every object below ``prefix/`` (S3 ListObjectsV2)."""
    token = ""
    while True:
        query = {"list-type": "2", "prefix": f"{prefix}/", **({"continuation-token": token} if token else {})}
        page = bucket.get(f"?{urlencode(query)}", _parsed)
        for item in page.iterfind("{*}Contents"):
            size = _field(item, "Size")
            if not size.isdigit():
                raise Fault("found an object in a bucket's listing whose size is no number")
            yield _field(item, "Key"), int(size), _field(item, "ETag")
        following = page.findtext("{*}NextContinuationToken") or ""
        if page.findtext("{*}IsTruncated") != "true":
            return
        if not following or following == token:
            raise SourceError(f"idc at {bucket.host}: the bucket's listing does not go on", host=bucket.host)
        token = following


def _parsed(answer: Answer) -> ElementTree.Element:
    body = answer.body()
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:  # a listing has none, and expanding them could exhaust memory
        raise Fault("found an answer that is not a listing (it declares a document type)")
    try:
        page = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        page = None
    if page is None or not page.tag.endswith("ListBucketResult"):
        raise Fault(f"found {len(body)} bytes that are not a listing")
    return page


def _field(item: ElementTree.Element, name: str) -> str:
    text = item.findtext(f"{{*}}{name}")
    if text is None:
        raise Fault(f"found an object without {name} in a bucket's listing")
    return text
