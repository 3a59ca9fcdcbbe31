"""Scan an archive on any cluster, in a workspace of its own."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

from builder.errors import SpecError
from builder.library.scan import Scan, page_of, pictures, scan_archive
from builder.protocols import Progress
from builder.run.clusters import load_cluster
from builder.run.progress import SilentProgress
from builder.sources import AnySource, Folder
from builder.stages.boundary import Faults, default_action
from builder.storage import open_store, temporary_folder


def scan(
    paths: Sequence[str],
    *,
    cluster: str = "serial",
    workers: int | None = None,
    progress: Progress | None = None,
    page: Path | None = None,
    keep: Path | None = None,
    layout: Mapping[str, Any] | None = None,
) -> Scan:
    """Say what folders hold, without a spec.

    Parameters
    ----------
    paths
        Folders; each is one source.
    page
        File to write the private page to, with one picture for each group.
    keep
        Folder for the index, so that a later scan reads only files that are new; without it a temporary one.
    layout
        Who and what the files are that are not DICOM, by its options; the scan then takes them for images.

    Raises
    ------
    SpecError
        When a path is no folder, or the page would be written into one of them or where no folder is.
    SourceError
        When a folder holds no file.
    """
    sources: tuple[AnySource, ...] = tuple(_folder(path, layout) for path in paths)
    if page is not None and not page.absolute().parent.is_dir():
        raise SpecError(f"--html: found no folder {page.absolute().parent}, expected one for the page; make it first")
    _check_apart("--html", page, paths)
    _check_apart("--keep", keep, paths)
    shown = progress or SilentProgress()
    faults = Faults(default_action(environ))
    with _workspace(keep) as folder, load_cluster(cluster).open(workers) as runner:
        store = open_store(folder, directory_mode=0o700)
        found = scan_archive(sources, store, runner=runner, progress=shown, faults=faults)
        if page is not None:
            shown.say("scan: one picture for each group")
            _write_private(page, page_of(found, pictures(found, sources, runner=runner)))
    return found


def _folder(path: str, layout: Mapping[str, Any] | None) -> Folder:
    if not path.strip():
        raise SpecError("found an empty path, expected a folder; is the shell variable set that you meant?")
    if Path(path).is_file():
        raise SpecError(f"{path}: found a file, expected a folder; name the folder that holds it")
    own = {} if layout is None else {"layout": layout, "site": Path(path).resolve().name}
    return Folder.model_validate({"url": path, **own})  # two datasets may hold paths of one name


def _check_apart(option: str, place: Path | None, paths: Sequence[str]) -> None:
    for path in paths:
        if place is not None and Path(place).resolve().is_relative_to(Path(path).resolve()):
            raise SpecError(
                f"{option}: found {place}, which lies in the archive {path}, expected a place apart from it"
            )


def _write_private(page: Path, text: str) -> None:
    """Write a file that only this user may read."""
    with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # a page that was there keeps its mode otherwise
        file.write(text)


@contextmanager
def _workspace(keep: Path | None) -> Iterator[Path]:
    """Yield the folder of the index. What a killed scan left, with names, is removed by the next one."""
    if keep is not None:
        yield keep
        return
    folder = temporary_folder("builder-scan-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
