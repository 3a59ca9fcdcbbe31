"""The target folder of an export, which keeps the export from writing anywhere else."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from builder.errors import LayoutError


@dataclass(frozen=True)
class ExportFolder:
    """The folder that an export fills.

    File names come from the dataset, which is untrusted, so every name is checked.

    Parameters
    ----------
    root
        The folder. The caller may pass a link here, but links below it that lead outside are refused.
    """

    root: Path

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
        target = self.path(*parts)
        target.write_bytes(data)
        return target

    def fresh(self, name: str) -> "ExportFolder":
        """Return an empty folder inside this one. Files from an earlier export are deleted."""
        target = self.path(name)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
        return ExportFolder(target)

    def check(self, *parts: str) -> None:
        """Raise LayoutError if the names lead out of the folder."""
        root, real = os.path.realpath(self.root), os.path.realpath(self.root.joinpath(*parts))
        if any(".." in Path(part).parts for part in parts) or not real.startswith(root.rstrip(os.sep) + os.sep):
            raise LayoutError(
                "export: found a name that leads out of the target folder, expected one inside; "
                "the dataset was changed, or a link lies in the folder"
            )
