"""The private table that leads from the names of a release back to the archive's, and how it is encrypted at rest."""

import json
from collections.abc import Collection, Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import LayoutError, MissingExtra, ResourceError, SpecError
from builder.model.canonical import canonical_json
from builder.model.keyed import Key
from builder.model.parquet import parquet_bytes, read_parquet
from builder.release.cleaning import Rules
from builder.release.objects import Unit
from builder.release.unit import UnitReceipt

CROSSWALK = "crosswalk.sealed"
"""The encrypted table, in the folder of the private workspace that belongs to releases."""
OPTION = "release.crosswalk"
FORMAT, VERSION = "builder crosswalk", 1
"""First line of the file: canonical JSON of ``format``, ``version``, ``salt`` and ``check`` in hexadecimal digits, and
``bytes``. All after it is AES-256-GCM of a Parquet file, with the tag at its end and the first line, line end included,
as associated data. HKDF-SHA256 of the secret, with the salt and the info ``builder crosswalk 1``, gives 32 bytes of
key, 12 of nonce and 16 that ``check`` repeats. Each file has a salt of its own, so that no key encrypts two."""
SALT_BYTES = 32
MOST_BYTES = 2**31 - 2**10
"""The library encrypts no more at once."""

TABLE = pa.schema([pa.field(name, pa.string()) for name in ("level", "released", "archive", "issuer")])
"""``level`` is person, study, series or instance. A person may have several rows: one for each PatientID, with its
issuer. ``archive`` is "" where the archive states no PatientID."""
_MEND = "bring it back from a backup, or remove it and run builder release again, which then writes it anew"
_UIDS = (("study", "study_uid"), ("series", "series_uid"), ("instance", "sop_instance_uid"))


def crosswalk_table(units: Iterable[Unit], receipts: Iterable[UnitReceipt], rules: Rules) -> pa.Table:
    """Return ``TABLE``, sorted, of everything that is released."""
    left = {released.source_key for receipt in receipts for released in receipt.objects}
    found: set[tuple[str, str, str, str]] = set()
    names = ["patient_id", "issuer_of_patient_id", *(column for _, column in _UIDS)]
    for unit in units:
        for row in unit.objects.select(names).to_pylist():
            if rules.uids.key.name("object", row["sop_instance_uid"]) in left:
                found.add(("person", unit.person, row["patient_id"] or "", row["issuer_of_patient_id"] or ""))
                found |= {(level, rules.named(row[column]), row[column], "") for level, column in _UIDS if row[column]}
    columns = zip(*sorted(found), strict=True) if found else ([] for _ in TABLE)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=TABLE)


def pairs_of(table: pa.Table, names: Collection[str]) -> list[dict[str, str]]:
    """Return the rows of ``TABLE`` that have one of the names on either side."""
    wanted = pa.array(sorted({name for name in names if name}), pa.string())
    either = pc.or_(pc.is_in(table["released"], wanted), pc.is_in(table["archive"], wanted))
    rows: list[dict[str, str]] = table.filter(either).to_pylist()
    return rows


def without_person(table: pa.Table, *, names: Collection[str], uids: Collection[str], ids: Collection[str]) -> pa.Table:
    """Return the rows of ``TABLE`` that are not of a person.

    Parameters
    ----------
    names
        Pseudonyms of the person.
    uids, ids
        UIDs and PatientIDs in the archive that nobody else has.
    """
    level, released, archive = (table[name].to_pylist() for name in ("level", "released", "archive"))
    kept = [
        not (new in names or old in ids if kind == "person" else old in uids)
        for kind, new, old in zip(level, released, archive, strict=True)
    ]
    return table.filter(pa.array(kept, pa.bool_()))


def require_cryptography() -> None:
    """Raise MissingExtra if the library that encrypts is not installed."""
    if find_spec("cryptography") is None:
        raise MissingExtra("cryptography", "crosswalk")


def seal(table: pa.Table, key: Key, *, salt: bytes) -> bytes:
    """Return the table as an encrypted file (``FORMAT`` says how).

    Parameters
    ----------
    salt
        ``SALT_BYTES`` random bytes that were never used before.

    Raises
    ------
    ResourceError
        If the table is larger than the library encrypts at once.
    """
    data = parquet_bytes(table)
    if len(data) > MOST_BYTES:
        raise ResourceError(
            f"{OPTION}: found a table of {len(data):,} bytes, expected at most {MOST_BYTES:,}; release fewer "
            "persons at once"
        )
    cipher, nonce, check = _derived(key, salt)
    facts = {"format": FORMAT, "version": VERSION, "salt": salt.hex(), "check": check.hex(), "bytes": len(data)}
    head = canonical_json(facts).rstrip(b"\n") + b"\n"
    return head + bytes(cipher.encrypt(nonce, data, head))


def unseal(sealed: bytes, key: Key) -> pa.Table:
    """Return the table of a file that ``seal`` wrote.

    Raises
    ------
    LayoutError
        If this is no such file, or it was cut off or changed.
    SpecError
        If it was written with another key.
    """
    head, line_end, body = sealed.partition(b"\n")
    salt, check, size = _facts(head)
    cipher, nonce, own = _derived(key, salt)
    if own != check:
        raise SpecError(
            f"{CROSSWALK}: found that another key wrote it, expected the key that the release was written with; if it "
            "is lost, remove the file and run builder release again"
        )
    from cryptography.exceptions import InvalidTag

    tag = 16
    if len(body) != size + tag:
        raise LayoutError(
            f"{CROSSWALK}: found {len(body):,} bytes after its first line, expected {size + tag:,}; it was cut off or "
            f"added to: {_MEND}"
        )
    try:
        return read_parquet(cipher.decrypt(nonce, body, head + line_end))
    except InvalidTag:
        raise LayoutError(f"{CROSSWALK}: found bytes that were changed after it was written; {_MEND}") from None


def _facts(head: bytes) -> tuple[bytes, bytes, int]:
    """Return salt, check and size of a first line. Raises LayoutError."""
    try:
        facts = json.loads(head)
        if facts["format"] != FORMAT:
            raise ValueError
        if facts["version"] != VERSION:
            raise LayoutError(
                f"{CROSSWALK}: found version {facts['version']} of its format, expected {VERSION}; read it with the "
                "program that wrote it"
            )
        return bytes.fromhex(facts["salt"]), bytes.fromhex(facts["check"]), int(facts["bytes"])
    except (ValueError, TypeError, KeyError):
        raise LayoutError(
            f"{CROSSWALK}: found no first line that states its format, expected a crosswalk; it was damaged: {_MEND}"
        ) from None


def _derived(key: Key, salt: bytes) -> tuple[Any, bytes, bytes]:
    """Return cipher, nonce and check."""
    require_cryptography()
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = f"{FORMAT} {VERSION}".encode()
    found = HKDF(algorithm=hashes.SHA256(), length=60, salt=salt, info=info).derive(key.secret)
    return AESGCM(found[:32]), found[32:44], found[44:]


def check_keys(own: Key, names: Key) -> None:
    """Refuse the key of the names as the key of the crosswalk. Raises SpecError."""
    if own.secret.lower() == names.secret.lower():
        raise SpecError(
            f"{OPTION}: found the key of deid.patient_key, expected a key of its own: with one key for both, "
            "neither could be handed out or destroyed without the other"
        )


def missing(names: Sequence[str], pairs: Sequence[dict[str, str]]) -> list[int]:
    """Return the positions, from 1, of the names that no pair has."""
    known = {pair[side] for pair in pairs for side in ("released", "archive")}
    return [number for number, name in enumerate(names, start=1) if name not in known]
