"""The marks of a person who looks at a dataset: a file of keyed names, which ``cohort.leave_out`` of a spec takes."""

import threading
from pathlib import Path

from builder.errors import SpecError
from builder.planning.left_out import is_name, names_file, parse_names, without_names
from builder.storage import open_store


class Marks:
    """The names in a file. Each change reads the file again and replaces it whole, so that a crash loses no mark."""

    def __init__(self, place: Path) -> None:
        """Use the file at a place, which may not exist yet. Raises SpecError if it holds anything else."""
        self.place = place
        self._store, self._changing = open_store(place.parent), threading.Lock()
        self.names()

    def names(self) -> frozenset[str]:
        """Return what is marked now."""
        return parse_names(self._read(), self.place.name)

    def set(self, name: str, *, marked: bool) -> frozenset[str]:
        """Mark a case or person, or take the mark back, and return all names. Comments in the file stay."""
        if not is_name(name):
            raise SpecError("view: found a mark that is no keyed name, expected the name of a case or person")
        with self._changing:
            data = self._read() or names_file(())
            names = parse_names(data, self.place.name)
            if marked != (name in names):
                self._store.put(self.place.name, _with(data, name) if marked else without_names(data, {name}))
            return self.names()

    def _read(self) -> bytes:
        return self.place.read_bytes() if self.place.exists() else b""


def _with(data: bytes, name: str) -> bytes:
    return data + (b"" if data.endswith(b"\n") else b"\n") + name.encode() + b"\n"
