"""Read from the NCI Imaging Data Commons. Its series index (a Parquet file) locates the files in public buckets."""

import functools
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import model_validator

from builder.errors import SourceError, SpecError
from builder.model.origin import Origin
from builder.protocols import Entry
from builder.sources.described import Described
from builder.sources.http import Server, server

PUBLIC_ENDPOINT: Final = "https://{bucket}.s3.amazonaws.com"

_COLUMNS = ("collection_id", "PatientID", "Modality", "SeriesInstanceUID", "license_short_name")
_DOI = "source_DOI"
_PLACE = ("aws_bucket", "crdc_series_uuid")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_SERIES = re.compile(r"[0-9a-f\-]{36}")


class Idc(Described):
    """Series of the IDC, chosen by the columns of its index.

    Parameters
    ----------
    index
        Path of ``idc_index.parquet``, as in the PyPI package ``idc-index-data``. Its version determines what is chosen.
    collections, patients, modalities, licenses, series
        Wanted values of ``collection_id``, ``PatientID``, ``Modality``, ``license_short_name`` and
        ``SeriesInstanceUID``; empty means all. At least one of collections, patients and series must be given.
    endpoint
        URL of a bucket, with ``{bucket}`` in place of its name. The default is the public bucket on AWS.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["idc"] = "idc"
    index: str
    collections: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    endpoint: str = PUBLIC_ENDPOINT

    @model_validator(mode="after")
    def _chooses(self) -> "Idc":
        if not (self.collections or self.patients or self.series):
            raise ValueError("found no collections, patients or series, expected at least one: the IDC holds 90 TB")
        return self

    @property
    def lane(self) -> str:
        """Return one queue for all buckets."""
        return "net:idc"

    def list(self) -> Iterator[Entry]:
        """List every file of the chosen series, by series. Paths are ``bucket/series/instance.dcm``, stamps the ETags.

        Raises
        ------
        SourceError
            When a bucket cannot be listed, or holds fewer or more files of a series than the index says.
        SpecError
            When the index is missing or is not an index.
        """
        for row in self._chosen():
            bucket, prefix = row["aws_bucket"], row["crdc_series_uuid"]
            found = sorted(_objects(self._server(bucket), prefix), key=lambda entry: entry[0])
            if len(found) != row["instanceCount"]:
                raise SourceError(
                    f"a bucket holds {len(found)} files of a series, the index says {row['instanceCount']}; "
                    "use the index of the current IDC version",
                    host=self._server(bucket).host,
                )
            yield from (Entry(f"{bucket}/{key}", size, etag) for key, size, etag in found)

    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """Read bytes of a file, provided that it has not changed since it was listed. Raises CaseError, SourceError."""
        if length is None:
            length = max(0, entry.size - start)
        length = min(length, max(0, entry.size - start))
        if length == 0:
            return b""
        bucket, _, key = entry.path.partition("/")
        headers = {"Range": f"bytes={start}-{start + length - 1}", "If-Match": entry.stamp}
        answer = self._server(bucket).get(quote(key), headers=headers)
        data = answer.body if answer.status == 206 else answer.body[start : start + length]
        if len(data) != length:
            raise SourceError(f"found {len(data)} bytes of a range, expected {length}", host=self._server(bucket).host)
        return data

    def series_origins(self) -> Mapping[str, Origin]:
        """Return licence, collection and DOI of every chosen series, as the index states them. Raises SpecError."""
        origins = functools.cache(_origin)  # an index has a million series but only a few hundred origins
        return {
            row["SeriesInstanceUID"]: origins(row["collection_id"], row["license_short_name"], row.get(_DOI))
            for row in self._chosen()
        }

    def _chosen(self) -> Sequence[dict[str, Any]]:
        """Return the chosen rows of the index, ordered by bucket and series."""
        wanted = (self.collections, self.patients, self.modalities, self.series, self.licenses)
        given = [pc.field(n).isin(pa.array(v, pa.string())) for n, v in zip(_COLUMNS, wanted, strict=True) if v]
        try:
            stated = [_DOI] if _DOI in pq.read_schema(self.index).names else []
            columns = [*_COLUMNS, *_PLACE, *stated, "instanceCount"]
            table = pq.read_table(Path(self.index), columns=columns, filters=functools.reduce(operator.and_, given))
        except (OSError, KeyError, ValueError) as error:
            raise SpecError(
                f"sources.index: found no IDC index that can be read ({type(error).__name__}); it is the file "
                "idc_index.parquet of the Python package idc-index-data"
            ) from None
        rows = table.to_pylist()
        for row in rows:
            if not _BUCKET.fullmatch(row["aws_bucket"] or "") or not _SERIES.fullmatch(row["crdc_series_uuid"] or ""):
                raise SpecError("sources.index: found a row without a bucket and a series, expected both in each")
        return sorted(rows, key=lambda row: (row["aws_bucket"], row["crdc_series_uuid"]))

    def _server(self, bucket: str) -> Server:
        return server(self.endpoint.format(bucket=bucket))


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
        page = _parsed(bucket.get(f"?{urlencode(query)}").body, bucket.host)
        for item in page.iterfind("{*}Contents"):
            yield _field(item, "Key"), int(_field(item, "Size")), _field(item, "ETag")
        following = page.findtext("{*}NextContinuationToken") or ""
        if page.findtext("{*}IsTruncated") != "true":
            return
        if not following or following == token:
            raise SourceError("the bucket's listing does not go on", host=bucket.host)
        token = following


def _parsed(body: bytes, host: str) -> ElementTree.Element:
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:  # a listing has none, and expanding them could exhaust memory
        raise SourceError("the bucket's answer is not a listing", host=host)
    try:
        return ElementTree.fromstring(body)
    except ElementTree.ParseError:
        raise SourceError("the bucket's answer is not a listing", host=host) from None


def _field(item: ElementTree.Element, name: str) -> str:
    text = item.findtext(f"{{*}}{name}")
    if text is None:
        raise SourceError(f"found an object without {name} in a bucket's listing", host="")
    return text
