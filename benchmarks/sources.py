"""Measure how sources use a server that answers after 100 ms, each step beside a bare client with as many connections.

The server runs in a process of its own, waits before it answers, and notes what it was asked for. The bare client sends
the same requests again, from threads, and throws the answers away. Both times are by the clock.

Large slices come twice: as fast as the processor lets them through, and over a link of ``--gigabits`` that all
connections share, as in a hospital's network.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from statistics import median
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
from figures import figure
from pydicom.filebase import DicomBytesIO
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from builder.headers.walker import walk
from builder.sources import DicomWeb, Idc
from builder.sources.politeness import Politeness
from builder.stages.index import index_partition

Archive = dict[str, dict[str, bytes]]
"""Files by SOP Instance UID by Series Instance UID."""

Answer = Callable[[str], tuple[str, bytes]]
"""Returns the type and body of what a target names."""

Asked = tuple[str, str]
"""Target and range of a request."""

LOG = "/log"
PIECE = 2**18
Step = tuple[str, float, float]
"""What was done, and the seconds that we and the bare client took."""


@dataclass(frozen=True)
class Link:
    """How far away a server is: seconds before it answers, and what all its connections carry; 0 is no limit."""

    latency: float
    gigabits: float


def main() -> None:
    """Print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--web-series", type=int, default=40, help="of 100 slices of 33 kB")
    parser.add_argument("--large-series", type=int, default=16, help="of 60 slices of 525 kB")
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--gigabits", type=float, default=1.0, help="a second, of the link for the last lines")
    parser.add_argument("--connections", type=int, default=16, help="to the bucket; DICOMweb has its usual 4")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    bucket, web, large = made(given.series, 2), made(given.web_series, 100), made(given.large_series, 60, 512)
    compile_scan(bucket or web or large)
    slow = f"DICOMweb, larger slices, {given.gigabits:g} Gbit/s"
    for name, measured, archive, width, gigabits in (
        ("bucket", in_bucket, bucket, given.connections, 0.0),
        ("DICOMweb", over_web, web, 4, 0.0),
        ("DICOMweb, larger slices", over_web, large, 4, 0.0),
        (slow, over_web, large, 4, given.gigabits),
    ):
        if archive:
            link = Link(given.latency, gigabits)
            told(name, [list(measured(archive, link, width)) for _ in range(given.rounds)])


def told(name: str, rounds: list[list[Step]]) -> None:
    """Print the median of each step."""
    for at, (work, _, _) in enumerate(rounds[0]):
        taken = [found[at] for found in rounds]
        ours, bare = median(step[1] for step in taken), median(step[2] for step in taken)
        ratios = sorted(step[2] / step[1] for step in taken)
        figure(f"{name}, {work.partition(' (')[0]}, beside a bare client", median(ratios), "x", better="more")
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"{name}: {work}: {ours:.2f} s, bare client {bare:.2f} s, ratio {median(ratios):.2f} ({each})", flush=True
        )


def compile_scan(archive: Archive) -> None:
    """Have the scan of headers compiled, which is done once for an installation."""
    data = next(iter(next(iter(archive.values())).values()))
    walk([data], [len(data)])


def made(series: int, instances: int, side: int = 128) -> Archive:
    """Return CT series of noise."""
    noise = np.random.default_rng(1)
    return {
        f"1.2.3.{number}": {
            f"1.2.3.{number}.{place}": _file(number, place, noise.integers(0, 999, (side, side), np.int16))
            for place in range(1, instances + 1)
        }
        for number in range(1, series + 1)
    }


def _file(number: int, place: int, pixels: Any) -> bytes:
    item = pydicom.Dataset()
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID, item.SOPInstanceUID, item.Modality = CTImageStorage, f"1.2.3.{number}.{place}", "CT"
    item.StudyInstanceUID, item.SeriesInstanceUID, item.PatientID = f"1.2.3.{number}.0", f"1.2.3.{number}", str(number)
    item.ImageOrientationPatient, item.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, place]
    item.PixelSpacing, (item.Rows, item.Columns) = [1, 1], pixels.shape
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
    item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelData = 1, "MONOCHROME2", pixels.tobytes()
    stream = DicomBytesIO()
    pydicom.dcmwrite(stream, item, enforce_file_format=True)
    return bytes(stream.getvalue())


def in_bucket(archive: Archive, link: Link, width: int) -> Iterator[Step]:
    """Yield what was done with a bucket such as the IDC's."""
    uuids = {series: f"{number:08x}-0000-4000-8000-000000000000" for number, series in enumerate(archive)}
    held = {f"{uuids[s]}/{uid}.dcm": data for s, members in archive.items() for uid, data in members.items()}
    listed: dict[str, list[str]] = {}
    for key, data in held.items():
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        text = f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>&quot;{etag}&quot;</ETag></Contents>"
        listed.setdefault(key.partition("/")[0] + "/", []).append(text)

    def answer(target: str) -> tuple[str, bytes]:
        query = parse_qs(urlsplit(target).query)
        if "list-type" not in query:
            return "application/dicom", held[target.lstrip("/")]
        found = "".join(listed[query["prefix"][0]])
        return "", f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()

    shared = {
        "collection_id": "mine",
        "Modality": "CT",
        "license_short_name": "CC BY 4.0",
        "aws_bucket": "idc-open-data",
    }
    rows = [
        {"PatientID": s, "SeriesInstanceUID": s, "instanceCount": len(m), "crdc_series_uuid": uuids[s], **shared}
        for s, m in archive.items()
    ]
    with served(answer, link) as url, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pq.write_table(pa.Table.from_pylist(rows), f"{folder}/index.parquet")
        polite = Politeness(connections=width)
        source = Idc(index=f"{folder}/index.parquet", collections=("mine",), endpoint=url, polite=polite)
        source = source.kept_in(f"{folder}/content")
        source.news(datetime.now(UTC))
        yield from steps(source, url, width=source.connections)


def over_web(archive: Archive, link: Link, width: int) -> Iterator[Step]:
    """Yield what was done over DICOMweb."""
    head = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    whole = {s: b"".join(head + d + b"\r\n" for d in members.values()) + b"--b--\r\n" for s, members in archive.items()}
    described = {series: _metadata(members) for series, members in archive.items()}

    def answer(target: str) -> tuple[str, bytes]:
        words = urlsplit(target).path.strip("/").split("/")
        kind = "application/dicom+json"
        match words:
            case [*_, "metadata"]:
                return kind, described[words[3]]
            case ["studies"]:
                return kind, _found([("0020000D", f"{series}.0", {"00201206": 1}) for series in archive])
            case [_, study, "series"]:
                series = study.removesuffix(".0")
                return kind, _found([("0020000E", series, {"00201209": len(archive[series])})])
            case [_, _, _, series, "instances"]:
                return kind, _found([("00080018", uid, {}) for uid in archive[series]])
        return 'multipart/related; type="application/dicom"; boundary=b', whole[words[3]]

    with served(answer, link) as url, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source = DicomWeb(url=url, polite=Politeness(connections=width)).kept_in(f"{folder}/content")
        yield from steps(source, url, width=source.connections)


def _metadata(members: Mapping[str, bytes]) -> bytes:
    items = [pydicom.dcmread(DicomBytesIO(data), stop_before_pixels=True) for data in members.values()]
    syntax = {"00083002": {"vr": "UI", "Value": [ExplicitVRLittleEndian]}}
    return json.dumps([item.to_json_dict() | syntax for item in items]).encode()


def _found(rows: list[tuple[str, str, dict[str, int]]]) -> bytes:
    return json.dumps(
        [
            {tag: {"vr": "UI", "Value": [uid]}} | {n: {"vr": "IS", "Value": [v]} for n, v in of.items()}
            for tag, uid, of in rows
        ]
    ).encode()


def steps(source: Any, url: str, *, width: int) -> Iterator[Step]:
    """Yield the steps of a build: lists, index, objects."""
    entries: list[Any] = []
    works: list[tuple[str, Callable[[], object]]] = [
        ("lists", lambda: entries.extend(source.list())),
        ("index", lambda: index_partition(source, 0, entries)),
        ("whole objects, checked and kept", lambda: source.bring(entries)),
    ]
    total = [0.0, 0.0]
    for name, work in works:
        begin = time.perf_counter()
        work()
        ours = time.perf_counter() - begin
        asked = httpx.get(f"{url}{LOG}").json()
        time.sleep(1.5)  # connections that nobody uses are closed
        other = bare(url, asked, width=width)
        httpx.get(f"{url}{LOG}")
        total = [total[0] + ours, total[1] + other]
        yield f"{name} ({len(asked)} requests)", ours, other
        if name == works[-1][0]:
            yield "the same by a bare client that hashes and writes", bare(url, asked, width=width, then=written), other
            httpx.get(f"{url}{LOG}")
    yield "all three", total[0], total[1]


def written(data: bytes) -> None:
    """Do the least that keeps an answer: hash it and write it, in one piece."""
    with tempfile.TemporaryFile() as stream:
        stream.write(hashlib.sha256(data).digest() + data)


def bare(url: str, asked: list[Asked], *, width: int, then: Callable[[bytes], object] = len) -> float:
    """Return the seconds that threads with a client each take to send requests, given by target and range."""
    waiting: SimpleQueue[Asked] = SimpleQueue()
    for each in asked:
        waiting.put(each)

    def work(_: int) -> None:
        with httpx.Client(base_url=url, timeout=60, verify=context) as client:
            while not waiting.empty():
                target, part = waiting.get()
                answer = client.get(target, headers={"Range": part} if part else {})
                then(answer.raise_for_status().content)

    begin = time.perf_counter()
    context = httpx.create_ssl_context()  # a client needs one, over http too; ours makes one in its first step
    with ThreadPoolExecutor(width) as pool:
        list(pool.map(work, range(width)))
    return time.perf_counter() - begin


@contextmanager
def served(answer: Answer, link: Link) -> Iterator[str]:
    """Serve from another process; gives the URL."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: asyncio.run(_serve(answer, link, sending)), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiving.recv()}"
    finally:
        process.kill()
        process.join()


async def _serve(answer: Answer, link: Link, port: Any) -> None:
    asked: list[Asked] = []
    free = time.monotonic()  # when the link has sent all that it was given

    async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
        nonlocal free
        for at in range(0, len(data), PIECE if link.gigabits else len(data)):
            piece = memoryview(data)[at : at + PIECE] if link.gigabits else data
            if link.gigabits:
                free = max(free, time.monotonic()) + len(piece) * 8e-9 / link.gigabits
                await asyncio.sleep(free - time.monotonic())
            writer.write(piece)
            await writer.drain()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _request(reader):
            target, part = request
            if target == LOG:
                kind, body = "application/json", json.dumps(asked).encode()
                asked.clear()
            else:
                asked.append(request)
                await asyncio.sleep(link.latency)
                kind, body = answer(target)
            status = "200 OK"
            if found := re.fullmatch(r"bytes=(\d+)-(\d+)", part):
                body, status = body[int(found[1]) : int(found[2]) + 1], "206 Partial Content"
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            await send(writer, head.encode() + body)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=512)
    port.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    """Return target and range of a request; None at the end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    part = re.search(r"(?i)\r\nrange: (\S+)", head)
    return head.split(" ", 2)[1], part[1] if part else ""


if __name__ == "__main__":
    main()
