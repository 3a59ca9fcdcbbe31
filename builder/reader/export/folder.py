"""The target folder of an export, which keeps the export from writing anywhere else."""

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from builder.errors import LayoutError, SpecError
from builder.model.canonical import canonical_json

Made = TypeVar("Made")
Track = Callable[[Iterable[int]], Iterable[int]]
"""Passes numbers on and shows how far an export is."""

MARKER = "builder-export.json"
"""Says of which samples and in which form an export is, so that only the same export continues it."""


def silently(numbers: Iterable[int]) -> Iterable[int]:
    """Show nothing."""
    return numbers


@dataclass(frozen=True)
class ExportFolder:
    """The folder that an export fills.

    File names come from the dataset, which is untrusted, so every name is checked.

    Parameters
    ----------
    root
        The folder. The caller may pass a link here, but links below it that lead outside are refused.
    continues
        Whether files that are there are of this export, whole, and stay as they are (``begin``).
    workers
        How many samples are read and written at once, each by a thread; what is written does not depend on it.
    """

    root: Path
    continues: bool = False
    workers: int = 1

    @staticmethod
    def of(folder: "str | Path | ExportFolder") -> "ExportFolder":
        """Return the folder itself, or one at a path, where everything is written anew."""
        return folder if isinstance(folder, ExportFolder) else ExportFolder(Path(folder))

    def begin(self, identity: dict[str, object]) -> "ExportFolder":
        """Return the folder as one in which an export of this ``identity`` begins or continues.

        Raises
        ------
        SpecError
            If the folder holds anything else.
        """
        marker, stated = self.root / MARKER, canonical_json(identity)
        if marker.is_file():
            if marker.read_bytes() != stated:
                raise SpecError(
                    f"--to: found an export of other samples or in another form in {self.root}, expected an empty "
                    "folder, or the same export to continue; choose another folder, or delete this one"
                )
        elif self.root.is_dir() and any(self.root.iterdir()):
            raise SpecError(
                f"--to: found files of something else in {self.root}, expected an empty folder, or one that can be made"
            )
        else:
            self.write(stated, MARKER)
        return replace(self, continues=True)

    def each(self, work: Callable[[int], Made], numbers: Sequence[int], track: Track) -> list[Made]:
        """Do the work of every number, of ``workers`` numbers at once, and return what it gave in their order.

        When one fails or ``track`` stops, those that are under way are finished and no other one is begun.
        """
        if self.workers == 1:
            return [work(number) for number in track(numbers)]
        made, coming = [], iter(numbers)
        under_way: deque[Future[Made]] = deque()
        pool = ThreadPoolExecutor(self.workers)
        try:
            for _ in track(numbers):
                while len(under_way) < 2 * self.workers and (number := next(coming, None)) is not None:
                    under_way.append(pool.submit(work, number))
                made.append(under_way.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)
        return made

    def path(self, *parts: str) -> Path:
        """Return the path of a file, and create its folder.

        Raises
        ------
        LayoutError
            If the names lead out of the folder, through ``..``, an absolute path or an existing link.
        """
        target = self.root.joinpath(*parts)
        self.check(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def write(self, data: bytes, *parts: str) -> Path:
        """Write a whole file and return its path."""
        with self.replacing(*parts) as place:
            place.write_bytes(data)
        return self.path(*parts)

    @contextmanager
    def replacing(self, *parts: str) -> Iterator[Path]:
        """Yield the path to write a file to; it takes its name when it is whole, so that a name means a whole file."""
        target = self.path(*parts)
        # the ending stays, because writers choose the format by it
        place = self.path(str(Path(*parts).with_name(f".part-{target.name}")))
        yield place
        place.replace(target)

    def holds(self, *parts: str) -> bool:
        """Return whether this export wrote a file before."""
        self.check(*parts)
        return self.continues and self.root.joinpath(*parts).is_file()

    def fresh(self, name: str) -> "ExportFolder":
        """Return an empty folder inside this one. Files from an earlier export are deleted."""
        target = self.path(name)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
        return replace(self, root=target, continues=False)

    def inside(self, name: str) -> "ExportFolder":
        """Return a folder inside this one, with what is in it already."""
        return replace(self, root=self.path(name))

    def check(self, *parts: str) -> None:
        """Raise LayoutError if the names lead out of the folder."""
        root, real = os.path.realpath(self.root), os.path.realpath(self.root.joinpath(*parts))
        if any(".." in Path(part).parts for part in parts) or not real.startswith(root.rstrip(os.sep) + os.sep):
            raise LayoutError(
                "export: found a name that leads out of the target folder, expected one inside; "
                "the dataset was changed, or a link lies in the folder"
            )
