"""Write the part of a spec that does what a script of CTP's DicomAnonymizer does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from builder.errors import SpecError, counted
from builder.release.ctp_headers import Imported, import_header_script


@dataclass(frozen=True)
class Written:
    """What was imported, and where it lies."""

    imported: Imported
    path: str

    def facts(self) -> dict[str, Any]:
        """Return the outcome as JSON-able data."""
        found = self.imported
        return {"spec": self.path, "rules": found.rules, **blocks_of(found), "left_out": list(found.left_out)}

    def text(self) -> str:
        """Return the outcome for a person, with the next step."""
        found = self.imported
        line = (
            f"{self.path}: {counted(found.rules, 'rule')}, {counted(len(found.options), 'option')}, "
            f"{counted(len(found.remove), 'attribute')} to remove; put its blocks into the spec"
        )
        return "\n".join([line, *(f"  otherwise: {told}" for told in found.left_out)])


def blocks_of(found: Imported) -> dict[str, Any]:
    """Return the blocks ``deid`` and ``release`` of a spec, without the key."""
    return {
        "deid": {"retain": list(found.retain), "options": list(found.options)},
        "release": {"remove": list(found.remove)},
    }


def import_anonymizer(script: Path, out: Path) -> Written:
    """Import a script of CTP's DicomAnonymizer.

    Raises
    ------
    SpecError
        If the script is not there, is no such script, or has no rule that counts.
    """
    try:
        found = import_header_script(script.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError(f"{script}: found no file, expected a script of CTP's DicomAnonymizer") from None
    except ValueError as error:
        raise SpecError(f"{script}: {error}, expected a script of CTP's DicomAnonymizer (<script>, <e>, <r>)") from None
    if not found.rules:
        raise SpecError(f'{script}: found no rule that counts, expected <e en="T" t="00100010"> elements')
    with out.open("w", encoding="utf-8") as file:
        YAML().dump(blocks_of(found), file)
    return Written(found, str(out))
