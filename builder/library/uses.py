"""Read the log of use: read sessions of a dataset by version and split."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from builder.library.versions import open_version
from builder.reader.uses import USES
from builder.storage import Store, open_beside, open_store


@dataclass(frozen=True)
class Uses:
    """The read sessions of a dataset.

    Parameters
    ----------
    dataset
        Name of the dataset.
    entries
        Entries as they were logged, oldest first.
    damaged
        Number of files in the log that are not valid entries.
    """

    dataset: str
    entries: tuple[dict[str, Any], ...]
    damaged: int = 0

    def of(self, version: str) -> int:
        """Return how many sessions read a version."""
        return sum(1 for entry in self.entries if entry["version"] == version)

    def facts(self) -> dict[str, Any]:
        """Return the counts by version and split, and every session."""
        return {
            "dataset": self.dataset,
            "sessions": len(self.entries),
            "first": self.entries[0]["opened"] if self.entries else None,
            "last": self.entries[-1]["opened"] if self.entries else None,
            "by_version_and_split": [
                {"version": version, "split": split, "sessions": n} for (version, split), n in self._counted()
            ],
            "damaged": self.damaged,
            "entries": list(self.entries),
        }

    def text(self) -> str:
        """Return the counts as text."""
        if not self.entries:
            return f"{self.dataset}: no read session was logged"
        first, last = (self.entries[i]["opened"][:10] for i in (0, -1))
        lines = [f"{self.dataset}: {len(self.entries)} read sessions, {first} to {last}"]
        lines += [f"  {version} {split or 'all splits'}: {n}" for (version, split), n in self._counted()]
        return "\n".join([*lines, *([f"  damaged files in the log: {self.damaged}"] if self.damaged else [])])

    def _counted(self) -> list[tuple[tuple[str, str | None], int]]:
        counted = Counter((entry["version"], entry["split"]) for entry in self.entries)
        return sorted(counted.items(), key=lambda item: (item[0][0], item[0][1] or ""))


def read_uses(url: str, *, at: str | None = None) -> Uses:
    """Read the log beside a dataset, or the log that is kept ``at`` another place.

    Raises
    ------
    LayoutError
        If there is no such dataset.
    """
    version = open_version(url)
    home = open_store(at).join(version.manifest.name) if at else open_beside(version.store, USES)
    found = [_entry(home, path) for path in home.list() if path.endswith(".json")]
    entries = sorted((e for e in found if e is not None), key=lambda e: (e["opened"], e["version"], e["split"] or ""))
    return Uses(version.manifest.name, tuple(entries), sum(e is None for e in found))


def _entry(home: Store, path: str) -> dict[str, Any] | None:
    """Return an entry, or None if the file is not a valid entry."""
    try:
        entry = json.loads(home.read(path))
        shape = {"dataset": str, "version": str, "opened": str, "split": str | None}
        fits = isinstance(entry, dict) and all(isinstance(entry.get(k, 0), kind) for k, kind in shape.items())
    except (ValueError, RecursionError):
        return None
    return entry if fits else None
