"""Keep the crosswalk of a release, look names up in it, and destroy it with all else that leads back."""

import csv
import io
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from os import environ
from typing import Any

import pyarrow as pa

from builder.deid import resolve_key
from builder.errors import LayoutError, counted
from builder.model.canonical import canonical_json
from builder.model.keyed import Key
from builder.planning.shard_plans import PLAN
from builder.release.crosswalk import (
    CROSSWALK,
    OPTION,
    SALT_BYTES,
    TABLE,
    check_keys,
    missing,
    pairs_of,
    require_cryptography,
    seal,
    unseal,
)
from builder.run.lease import FOLDER as LEASE
from builder.run.lease import hold_lease
from builder.stages.planned import INDICES, SPEC
from builder.stages.shard import read_file
from builder.storage import Store, checkpoint, private_store

RELEASE = "release"
"""Folder of the private workspace for what belongs to a release."""
PUBLISHED = "published.json"
NOTE = "forgotten.json"
"""Private note that the way back was destroyed, and when."""
DEFAULT_KEY = "${env:BUILDER_CROSSWALK_KEY}"

NO_PROMISE = (
    "copies, backups and snapshots of the private folder, and what links in it lead to, are as they were",
    "old blocks may be there: of files that runs replaced before, on solid-state disks, on file systems that copy on "
    "write, and in buckets with versions",
    "whoever has the key of the crosswalk can read any copy of it: destroy that key as well",
    "whoever has deid.patient_key and the archive can compute every name again: destroy that key as well",
    "equal pixels, positions and times still lead from a released object to that of the archive",
)


def crosswalk_key(reference: str | None, names: Key, private: Store) -> Key | None:
    """Return the key of the crosswalk, before anything is read; None if the spec wants no crosswalk.

    Raises
    ------
    SpecError
        If the key is missing or weak, is that of the names, or is not the one of a crosswalk that is there.
    MissingExtra
        If the library that encrypts is not installed.
    LayoutError
        If the crosswalk that is there was damaged.
    """
    if reference is None:
        return None
    require_cryptography()
    key = resolve_key(reference, environ, read=read_file, where=OPTION, begun="crosswalk")
    check_keys(key, names)
    _kept(private, key)
    return key


def keep_crosswalk(private: Store, table: pa.Table, key: Key) -> None:
    """Write the crosswalk, unless one of the same names is there: it is encrypted anew only for another table."""
    found = _kept(private, key)
    if found is None or not found.equals(table):
        checkpoint("release.crosswalk")
        private.put(f"{RELEASE}/{CROSSWALK}", seal(table, key, salt=secrets.token_bytes(SALT_BYTES)))


def _kept(private: Store, key: Key) -> pa.Table | None:
    try:
        sealed = private.read(f"{RELEASE}/{CROSSWALK}")
    except FileNotFoundError:
        return None
    return unseal(sealed, key)


def look_into(private: Store, key: Key) -> pa.Table:
    """Return the crosswalk that is there. Raises LayoutError or SpecError if it cannot be read."""
    require_cryptography()
    return unseal(private.read(f"{RELEASE}/{CROSSWALK}"), key)


def reference_of(private: Store) -> str:
    """Return where the key of a crosswalk is found, as the spec of the release says."""
    for path in private.list(RELEASE):
        if path.endswith(f"/{SPEC}"):
            found = json.loads(private.read(path)).get("release", {}).get("crosswalk")
            if found:
                return str(found)
    return DEFAULT_KEY


def clear_plain(private: Store) -> None:
    """Destroy the plans of a published release that hold both names, of which the crosswalk is the encrypted form."""
    paths = [*private.list(PLAN), *private.list(RELEASE)]
    indices = [path for path in paths if path.endswith(INDICES)]  # first: a plan without one is written again
    plans = [p for p in paths if p.endswith((".jsonl", ".parquet")) and p.split("/")[-2] in ("shards", "units")]
    for path in (*indices, *plans):
        private.destroy(path)


@dataclass(frozen=True)
class Found:
    """What a crosswalk says of names."""

    pairs: tuple[dict[str, str], ...]
    not_found: tuple[int, ...]
    """Which of the given names, counted from 1, it does not have."""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {"pairs": [*self.pairs], "not_found": [*self.not_found]}

    def text(self) -> str:
        """Return the pairs as CSV."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, TABLE.names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.pairs)
        return text.getvalue().rstrip("\n")


def look_up(release: str, names: Sequence[str], *, key: str = DEFAULT_KEY) -> Found:
    """Return the pairs that have one of the names, of the release or of the archive, on either side.

    Parameters
    ----------
    key
        Where the key of the crosswalk is found: ``${env:NAME}`` or ``${file:/path}``.

    Raises
    ------
    SpecError, LayoutError, MissingExtra
        If the key is missing or another one, or there is no crosswalk that can be read.
    """
    private = private_store(release)
    require_cryptography()
    forgotten = forgotten_on(private)
    if forgotten:
        raise LayoutError(f"{private.url}: found that its crosswalk was destroyed on {forgotten}, expected one")
    if not private.exists(f"{RELEASE}/{CROSSWALK}"):
        raise LayoutError(
            f"{private.url}: found no crosswalk, expected {RELEASE}/{CROSSWALK}; name its key in the spec as "
            f"{OPTION} and run builder release again, which then only writes the crosswalk"
        )
    table = _kept(private, resolve_key(key, environ, read=read_file, where="--key", begun="crosswalk"))
    pairs = pairs_of(table, names)
    return Found(tuple(pairs), tuple(missing(names, pairs)))


@dataclass(frozen=True)
class Forgotten:
    """What ``forget`` did."""

    private: str
    date: str
    overwritten: int
    """Files that were overwritten and removed."""
    removed: int
    """Files that were only removed: objects of a bucket, links, and files that have another name."""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {**asdict(self), "no_promise": [*NO_PROMISE]}

    def text(self) -> str:
        """Return it as lines for a person."""
        done = f"{counted(self.overwritten, 'file')} overwritten and removed, {self.removed} only removed"
        lines = (
            f"{self.private}: what leads back was destroyed on {self.date}; now {done}",
            "what this cannot promise:",
        )
        return "\n".join([*lines, *(f"  {line}" for line in NO_PROMISE)])


def forgotten_on(private: Store) -> str:
    """Return the day on which what leads back was destroyed; "" if it was not."""
    try:
        return str(json.loads(private.read(f"{RELEASE}/{NOTE}"))["date"])
    except FileNotFoundError:
        return ""


def _is_published(private: Store) -> bool:
    try:
        return "done" in json.loads(private.read(f"{RELEASE}/{PUBLISHED}"))
    except FileNotFoundError:
        return False


def forget(release: str, *, today: date, say: Callable[[str], None]) -> Forgotten:
    """Destroy everything in the private workspace of a published release, so that nothing in it leads back.

    Only a note with the date stays, and who held the lease. It is written first: from then on nothing is released there
    again, and the same command finishes what was interrupted.

    Raises
    ------
    LayoutError
        If no release was published there, or its private workspace is elsewhere. Nothing is removed then.
    """
    private = private_store(release)
    note = f"{RELEASE}/{NOTE}"
    if not _is_published(private) and not forgotten_on(private):
        raise LayoutError(
            f"{private.url}: found no private folder of a published release, expected one; nothing was removed. If the "
            "release was stopped, run it again, or delete both folders if nobody will"
        )
    with hold_lease(private, say=say) as lease:
        if not forgotten_on(private):
            private.put(note, canonical_json({"date": today.isoformat()}))
        overwritten = removed = 0
        kept = [path for path in private.list() if path != note and not path.startswith(f"{LEASE}/")]
        for path in sorted(kept, key=lambda path: not path.startswith(f"{RELEASE}/")):
            lease.check()
            checkpoint("forget.file")
            if private.destroy(path):
                overwritten += 1
            else:
                removed += 1
        return Forgotten(private.url, forgotten_on(private), overwritten, removed)
