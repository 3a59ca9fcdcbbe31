"""Write a table of rules of devices out of a script of another program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import SpecError, counted
from builder.release.ctp_pixels import Imported, import_pixel_script


@dataclass(frozen=True)
class Written:
    """What was imported, and where it lies."""

    imported: Imported
    path: str

    def facts(self) -> dict[str, Any]:
        """Return the outcome as JSON-able data."""
        found = self.imported
        return {
            "devices": self.path, "signatures": found.signatures, "regions": found.regions,
            "left_out": list(found.left_out),
        }  # fmt: skip

    def text(self) -> str:
        """Return the outcome for a person, with the next step."""
        found = self.imported
        lines = [
            f"{self.path}: {counted(found.signatures, 'signature')} with {counted(found.regions, 'region')}; "
            "name it as release.text.devices"
        ]
        return "\n".join([*lines, *(f"  no equivalent: {fault}" for fault in found.left_out)])


def import_script(script: Path, out: Path) -> Written:
    """Import a script of CTP's DicomPixelAnonymizer.

    Raises
    ------
    SpecError
        If the script is not there, is no text, or holds no signature.
    """
    try:
        text = script.read_bytes().decode("utf-8-sig", "replace")
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError(f"{script}: found no file, expected a script of CTP's DicomPixelAnonymizer") from None
    found = import_pixel_script(text, source=script.name)
    if not found.signatures:
        raise SpecError(f"{script}: found no signature in braces that can be read, expected a script of pixels")
    out.write_bytes(found.table)
    return Written(found, str(out))
