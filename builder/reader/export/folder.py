"""The one way an export writes: into its own folder, and nowhere else."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from builder.errors import LayoutError


@dataclass(frozen=True)
class ExportFolder:
    """A folder that an export fills. Names come from the dataset, which anybody may have written.

    Parameters
    ----------
    root
        The folder. It may itself be a link that the caller chose; nothing below it may.
    """

    root: Path

    def path(self, *parts: str) -> Path:
        """Where a file of these names goes; its folder is made.

        Raises
        ------
        LayoutError
            When the names lead out of the folder, through ``..``, an absolute path or a link that lies there.
        """
        target = self.root.joinpath(*parts)
        self.check(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def write(self, data: bytes, *parts: str) -> Path:
        """Write a whole file; returns where it lies."""
        target = self.path(*parts)
        target.write_bytes(data)
        return target

    def fresh(self, name: str) -> "ExportFolder":
        """A folder in this one, emptied of what an earlier export left there."""
        target = self.path(name)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
        return ExportFolder(target)

    def check(self, *parts: str) -> None:
        """Raise LayoutError when the names lead out of the folder."""
        root, real = os.path.realpath(self.root), os.path.realpath(self.root.joinpath(*parts))
        if any(".." in Path(part).parts for part in parts) or not real.startswith(root.rstrip(os.sep) + os.sep):
            raise LayoutError(
                "export: found a name that leads out of the target folder, expected one inside; "
                "the dataset was changed, or a link lies in the folder"
            )
