"""Check where a dataset may be built: apart from its sources, and where this process may write."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from builder.errors import ResourceError, SpecError
from builder.sources import AnySource, Folder, RemoteFolder
from builder.split.options import Sequester
from builder.storage import PRIVATE_SUFFIX, LocalStore, open_store, private_store

READ_ONLY = ("http", "https")


def check_places(sources: Sequence[AnySource], to: str, *, sealed: Sequester | None) -> None:
    """Refuse a place in which a dataset must not or cannot be built, before anything is read or written.

    Parameters
    ----------
    sources
        With locations filled in.
    to
        As ``--to`` on the command line.
    sealed
        Where labels go that are kept apart, if any are.

    Raises
    ------
    SpecError
        When the place is empty, a file, read-only by its scheme, or is, lies in or contains a source. The next build
        would take the dataset for part of the archive, and anyone who passes on the dataset would pass on the archive.
    ResourceError
        When this process may not write there.
    """
    places = {"--to": to}
    if sealed is not None:
        places["splits.sequester.url"] = sealed.url
    faults = [fault for name, place in places.items() for fault in _faults(name, place, sources)]
    if faults:
        raise SpecError("\n".join(faults))
    for name, place in places.items():
        _check_writable(name, place)


def _faults(name: str, place: str, sources: Sequence[AnySource]) -> list[str]:
    if not place.strip():
        return [f"{name}: found an empty value, expected a folder or URL; is the shell variable set that you meant?"]
    scheme = urlsplit(place).scheme
    if "://" in place and scheme in READ_ONLY:
        return [f"{name}: found {scheme}://, which datasets are read from, expected a folder, s3://, gs:// or az://"]
    try:
        store = open_store(place)
    except SpecError as error:
        return [f"{name}: {error}"]
    if not isinstance(store, LocalStore):
        return [
            f"{name}: found {place}, which overlaps with the source sources.{number} ({source.url}); expected a place "
            "apart from it"
            for number, source in enumerate(sources)
            if isinstance(source, RemoteFolder) and _overlap(place, source.url)
        ]
    if not store.root.name:
        return [f"{name}: found {place}, which holds everything on this machine; expected a folder of its own"]
    nowhere = next((p for p in (store.root, *store.root.parents) if p.is_symlink() and not p.exists()), None)
    if nowhere is not None:
        return [f"{name}: found a link to nothing at {nowhere}, expected a folder, or a place where one can be made"]
    if store.root.exists() and not store.root.is_dir():
        return [f"{name}: found a file at {place}, expected a folder, or a place where one can be made"]
    return [
        f"{name}: found {place}, which {how} the source sources.{number} ({source.url}); "
        f"expected a place apart from it, such as {_apart(source)}"
        for number, source in enumerate(sources)
        if isinstance(source, Folder) and (how := _relation(store.root, source.root))
    ]


def _overlap(place: str, source: str) -> bool:
    """Return whether a dataset's URL or that of its private workspace is, lies in or contains a source's."""
    read = source.rstrip("/") + "/"
    urls = [place.rstrip("/") + "/", place.rstrip("/") + PRIVATE_SUFFIX + "/"]
    return any(url.startswith(read) or read.startswith(url) for url in urls)


def _relation(place: Path, source: Path) -> str:
    """Say how a dataset's folder and private workspace overlap with a source; empty when they do not."""
    for folder in (place.resolve(), place.with_name(place.name + PRIVATE_SUFFIX).resolve()):
        if folder == source:
            return "is"
        if folder.is_relative_to(source):
            return "lies in"
        if source.is_relative_to(folder):
            return "holds"
    return ""


def _apart(source: Folder) -> Path:
    return source.root.with_name(source.root.name + "-dataset")


def _check_writable(name: str, place: str) -> None:
    for folder in (open_store(place), private_store(place)):
        if isinstance(folder, LocalStore):
            there = next(path for path in (folder.root, *folder.root.parents) if path.exists())
            if not os.access(there, os.W_OK | os.X_OK):
                raise ResourceError(
                    f"{name}: found that {there} cannot be written by this user, expected a folder that can; "
                    "choose another place, or change its permissions, and run the same command again"
                )
