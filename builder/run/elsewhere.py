"""Places beside a dataset and its private workspace that may hold a person: those that are known, and those named."""

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from os import environ
from pathlib import Path
from typing import Any

from builder.deid import resolve_key
from builder.errors import ResourceError, SpecError
from builder.library.absence import Needles, Search
from builder.library.records import BESIDE as PAGES
from builder.library.training import TRAINING
from builder.library.view import SUFFIX as MARKS
from builder.model.canonical import Json
from builder.planning.left_out import parse_names, without_names
from builder.planning.reviews import COLUMNS as REVIEWED
from builder.reader.export.folder import MARKER
from builder.reader.uses import USES
from builder.release.crosswalk import CROSSWALK, without_person
from builder.release.decisions import COLUMNS as DECIDED
from builder.release.finish import MANIFEST as RELEASED
from builder.run.crosswalk import RELEASE, keep_crosswalk, look_into, reference_of
from builder.run.lease import FOLDER as LEASE
from builder.sources.contents import FOLDER as CONTENT
from builder.sources.contents import empty
from builder.sources.recordings import empty_recording, is_recording, recorded_at
from builder.spec import DatasetSpec
from builder.stages.shard import read_file
from builder.storage import LocalStore, Store, checkpoint, open_beside, open_store, private_store, read_at

OPTION = "--also"
COMPARED = ("own", "person_key", "site")
"""Columns of the table in which a site lists the images that other sites have as well."""

_CACHED = re.compile(r"(?:.*/)?([0-9a-f]{2})/(\1[0-9a-f]{62})")
"""Objects in the cache of a reader, which are called by their SHA-256."""

NOT_SEARCHED = (
    "places that nobody named: exports, releases, caches of readers, backups, earlier states of buckets",
    "the sources of the dataset, and the clinical tables and aliases that its spec names",
    "what a trained model remembers",
    "the inside of compressed files, other than the dataset's own images and tables",
)


class Kind(StrEnum):
    """What a place is, which says what is done there."""

    NAMES = "file of names"
    """Lines with names of the person are taken out."""
    TABLE = "table"
    """Rows with names or UIDs of the person are taken out."""
    RECORDING = "recording"
    """Is deleted whole."""
    RELEASE = "release"
    """Rows of the person are taken out of its crosswalk; the rest is searched."""
    EXPORT = "export"
    FOLDER = "folder"
    """Copies of objects that the withdrawn versions had, as in a reader's cache, are deleted; the rest is searched."""
    FILE = "file"
    GONE = "not there"


@dataclass(frozen=True)
class Place:
    """One place.

    Parameters
    ----------
    told
        What the certificate calls it, which is shared: without a path.
    """

    url: str
    kind: Kind
    told: str

    def facts(self, found: int) -> dict[str, Json]:
        """Return what a certificate says of the place and of the number of objects in which anything was found."""
        return {"place": self.told, "kind": self.kind.value, "found_in": found}


def find_places(
    stores: Sequence[Store], private: Store, spec: DatasetSpec, also: Sequence[str], *, noted: Collection[str] = ()
) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """Return the places that are known or named, and what else is known of and cannot be searched.

    ``noted`` are locations that are left out: they were looked at before, and may be cleared by now.

    Raises
    ------
    SpecError
        When a named place is not there or is the dataset itself, or a named release has a crosswalk without its key.
    """
    found = [*_beside(stores), *_in_spec(spec)]
    recordings = recorded_at(private)
    for number, url in enumerate((u for u in recordings if u), 1):
        kind = Kind.RECORDING if is_recording(url) else Kind.GONE
        found.append(Place(url, kind, f"recording {number} of the dataset's builds"))
    for number, text in enumerate(also, 1):
        url = open_store(text).url
        if url in noted:
            continue
        homes = [home for store in stores for home in (store.url, private_store(store.url).url)]
        if any(url == home or url.startswith(f"{home}/") for home in homes):
            raise SpecError(
                f"{OPTION}: found the dataset itself or a folder in it, expected another place; leave it out"
            )
        found.append(Place(url, _kind(url, text), f"{OPTION} {number}"))
    others = [*NOT_SEARCHED]
    if "" in recordings:
        others.append("a recording that an earlier release made without a note of its place")
    if spec.splits.previous is not None:
        others.append("the dataset that splits.previous names")
    unique = {place.url: place for place in reversed(found) if place.url not in noted}
    return tuple(reversed(unique.values())), tuple(others)


def _beside(stores: Sequence[Store]) -> Iterator[Place]:
    for store in stores:
        whose = "the dataset" if store is stores[-1] else "the labels"
        marks = store.url + MARKS
        if isinstance(store, LocalStore) and Path(marks).is_file():
            yield Place(marks, Kind.NAMES, f"marks beside {whose}")
        for suffix, what in ((PAGES, "pages"), (USES, "log of use"), (TRAINING, "training reports")):
            home = open_beside(store, suffix)
            if next(iter(home.list()), None) is not None:
                yield Place(home.url, Kind.FOLDER, f"{what} beside {whose}")


def _in_spec(spec: DatasetSpec) -> Iterator[Place]:
    """Yield the files that the spec names, which people wrote about the dataset's cases."""
    named = [("cohort.leave_out", spec.cohort.leave_out, Kind.NAMES), ("splits.alike", spec.splits.alike, Kind.NAMES)]
    named += [(f"labels.{name}.review", reader.review, Kind.TABLE) for name, reader in sorted(spec.labels.items())]
    named.append(("release.decisions", spec.release.decisions, Kind.TABLE))
    for told, url, kind in named:
        if url is not None and _read(url) is not None:
            yield Place(url if "://" in url else str(Path(url).expanduser().absolute()), kind, told)


def _read(url: str) -> bytes | None:
    """Return the bytes of a file, or None if there is none."""
    try:
        return read_at(url)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _kind(url: str, text: str) -> Kind:
    data = _read(url)
    if data is not None:
        return _kind_of_file(data)
    store = open_store(url)
    if is_recording(url):
        return Kind.RECORDING
    if store.exists(RELEASED):
        private = private_store(url)
        if private.exists(f"{RELEASE}/{CROSSWALK}"):
            look_into(private, resolve_key(reference_of(private), environ, read=read_file, where=OPTION))
        return Kind.RELEASE
    if store.exists(MARKER):
        return Kind.EXPORT
    if next(iter(store.list()), None) is None and not (isinstance(store, LocalStore) and store.root.is_dir()):
        raise SpecError(f"{OPTION}: found nothing at {text}, expected a file, a folder or a URL; check it")
    return Kind.FOLDER


def _kind_of_file(data: bytes) -> Kind:
    try:
        if parse_names(data, OPTION):
            return Kind.NAMES
    except SpecError:
        pass
    heads = set(next(iter(_rows(data)), ()))
    known = ({*REVIEWED[:4]}, {*DECIDED}, {*COMPARED})
    return Kind.TABLE if any(heads >= columns for columns in known) else Kind.FILE


def take_out_lines(places: Sequence[Place], names: Collection[str]) -> None:
    """Take the lines that name a person out of files of names and tables; other lines stay as they are.

    Raises
    ------
    ResourceError
        When such a file cannot be written.
    """
    for place in places:
        data = _read(place.url) if place.kind in (Kind.NAMES, Kind.TABLE) else None
        if data is not None:
            left = without_names(data, names) if place.kind == Kind.NAMES else without_rows(data, names)
            if left != data:
                checkpoint("withdraw.elsewhere")
                _write(place, left)


def without_rows(data: bytes, names: Collection[str]) -> bytes:
    """Return a CSV table without the rows that have one of the names in a cell; unchanged if there is none."""
    rows = _rows(data)
    kept = [row for row in rows if not {cell.strip() for cell in row} & set(names)]
    if len(kept) == len(rows):
        return data
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator="\r\n" if b"\r\n" in data else "\n").writerows(kept)
    return sink.getvalue().encode()


def _rows(data: bytes) -> list[list[str]]:
    """Return the rows of a CSV table; none if it is no such table."""
    try:
        return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return []


def _write(place: Place, data: bytes) -> None:
    folder, mark, name = place.url.rpartition("/")
    file = Path(place.url)
    closed = "://" not in place.url and file.stat().st_mode & 0o077 == 0
    try:
        open_store(folder + mark, directory_mode=0o700 if closed else 0o777).put(name, data)
    except OSError as error:
        raise ResourceError(
            f"{place.told}: found that the file cannot be written ({type(error).__name__}), expected that lines with "
            "names of the person can be taken out; make it writable and run the same command again"
        ) from None


def clear_places(places: Sequence[Place], needles: Needles, private: Store, *, guard: Callable[[], None]) -> None:
    """Remove a person from every place where it is known how."""

    def before() -> None:
        guard()
        checkpoint("withdraw.elsewhere")

    take_out_lines(places, needles.names | needles.uids)
    for place in places:
        if place.kind == Kind.RECORDING:
            empty_recording(place.url, private, before=before)
        elif place.kind == Kind.FOLDER:
            store = open_store(place.url)
            for path in list(store.list()):
                named = _CACHED.fullmatch(path)
                if named and named[2] in needles.objects:
                    before()
                    store.delete(path)
        elif place.kind == Kind.RELEASE:
            _clear_release(private_store(place.url), needles)


def _clear_release(private: Store, needles: Needles) -> None:
    empty(private.join(CONTENT))
    if private.exists(f"{RELEASE}/{CROSSWALK}"):
        key = resolve_key(reference_of(private), environ, read=read_file, where=OPTION)
        table = without_person(look_into(private, key), names=needles.names, uids=needles.uids, ids=needles.ids)
        checkpoint("withdraw.elsewhere")
        keep_crosswalk(private, table, key)


def search_places(places: Sequence[Place], needles: Needles) -> list[tuple[Place, int]]:
    """Return in how many objects of each place anything of a person was found."""
    return [(place, len(_searched(place, needles).found)) for place in places]


def _searched(place: Place, needles: Needles) -> Search:
    search = Search(needles)
    if place.kind in (Kind.NAMES, Kind.TABLE, Kind.FILE):
        folder, mark, name = place.url.rpartition("/")
        search.file(open_store(folder + mark), name)
    elif place.kind != Kind.GONE:
        search.store(open_store(place.url))
    if place.kind == Kind.RELEASE:
        search.store(private_store(place.url), leave_out=(f"{LEASE}/",))
    return search


def told_of(places: Sequence[tuple[Place, int]]) -> tuple[Mapping[str, Any], ...]:
    """Return the places with their locations, for the person who withdraws somebody and for nobody else."""
    return tuple({**place.facts(found), "url": place.url} for place, found in places)
