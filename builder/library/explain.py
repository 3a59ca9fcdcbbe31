"""Explain why an instance, series, study, patient or file is in, out or quarantined, by the last plan or publication.

If the private workspace beside the dataset is available, plans can be explained before anything is built, and files can
be looked up by their paths.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.deid import resolve_key
from builder.errors import BuilderError, CaseError, LayoutError, counted
from builder.headers.attributes import read_header
from builder.library.inspect import MOST_ROWS, Answer, key_of, keyed_names, published_manifest, rows_about
from builder.model.keyed import Key
from builder.model.layout import COHORT, CURRENT, EXCLUSIONS, LEDGER, parse_current, version_path
from builder.model.parquet import read_parquet
from builder.persons import lookup_names
from builder.planning.inventory import Inventory
from builder.planning.latest import Latest, read_latest
from builder.sources import Folder
from builder.sources.names import name_text
from builder.spec import DatasetSpec
from builder.stages.planned import SPEC
from builder.storage import Store, open_store, private_store

PLANNED = "planned, not published"


@dataclass(frozen=True, eq=False)
class _Accounts:
    """The location of a ledger and its tables, and the word that it uses for "used"."""

    about: str
    used: str
    store: Store
    folder: str
    names: frozenset[str]

    def table(self, name: str) -> pa.Table:
        return read_parquet(self.store.read(f"{self.folder}{name}"))


def explain(url: str, name: str, *, environment: Mapping[str, str]) -> Answer:
    """Explain why something is in, out or quarantined.

    Parameters
    ----------
    name
        A keyed name; a UID or PatientID of the archive, which needs the key; or the path of a file or folder of the
        archive, which needs the private workspace.

    Raises
    ------
    LayoutError
        If nothing is planned or published there, or neither knows the name.
    """
    known = list(_accounts(url, name, environment))
    for accounts in known:
        answer = _answer(accounts)
        if answer is not None:
            return answer
    if not known:
        raise LayoutError(
            f"{url}: found no plan and no published dataset, expected one; run builder plan, or check the location"
        )
    raise LayoutError(
        f"found nothing by that name in {' or '.join(a.about for a in known)}, expected a UID, PatientID or path of "
        f"the archive, or a name of the dataset{_hint(known)}"
    )


def _accounts(url: str, name: str, environment: Mapping[str, str]) -> Iterator[_Accounts]:
    """Yield the last plan, unless it is the published one, and then the published version."""
    text = name_text(os.fsencode(name))  # a terminal may hand over bytes that are no UTF-8
    dataset = open_store(url)
    private = private_store(url)
    latest = read_latest(private)
    try:
        current = parse_current(dataset.read(CURRENT))
    except FileNotFoundError:
        current = ""
    paths = frozenset[str]()
    if latest is not None:
        plan = private.join(latest.plan)
        spec = DatasetSpec.model_validate_json(plan.read(SPEC))
        key = _planned_key(spec, environment)
        paths = _names_of_path(private, latest, spec, name, key)
        if (not current or latest.version != current) and plan.exists(LEDGER):
            names = paths | _planned_names(text, key, spec)
            yield _Accounts("the last plan", PLANNED, plan, "", names)
    if current:
        manifest = published_manifest(dataset)
        if LEDGER in {stored.path for stored in manifest.files}:
            names = paths | keyed_names(text, manifest, environment) | _own_name(text, key_of(manifest, environment))
            yield _Accounts(f"version {current}", "used", dataset, version_path(current, ""), frozenset(names))


def _answer(accounts: _Accounts) -> Answer | None:
    exclusions, cohort = accounts.table(EXCLUSIONS), accounts.table(COHORT)
    names = set(accounts.names)
    ledger = rows_about(accounts.table(LEDGER), names)
    cases = cohort.filter(pc.is_in(cohort["case_key"], pa.array(sorted(names), pa.string())))
    if not ledger and cases.num_rows:
        ledger = rows_about(accounts.table(LEDGER), cases["series_key"].to_pylist())
    if not ledger:
        return None
    series = {row["series_key"] for row in ledger if row["series_key"]}
    of_series = cohort.filter(pc.is_in(cohort["series_key"], pa.array(sorted(series), pa.string())))
    out = rows_about(exclusions, {*names, *series, *of_series["case_key"].to_pylist()})
    status_of = {"used": accounts.used}
    fates = Counter(
        (status_of.get(r["status"], r["status"]), r["stage"] or "", r["reason"] or "", r["shard"] or "") for r in ledger
    )
    return Answer(_document(accounts, ledger, fates, out), tuple(_lines(accounts, ledger, fates, out)))


def _document(
    accounts: _Accounts, ledger: Sequence[Mapping[str, Any]], fates: Counter[Any], out: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    return {
        "by": accounts.about,
        "objects": len(ledger),
        "fates": [
            {"status": status, "stage": stage, "reason": reason, "shard": shard, "objects": count}
            for (status, stage, reason, shard), count in sorted(fates.items())
        ],
        "exclusions": [dict(row) for row in out],
    }


def _lines(
    accounts: _Accounts, ledger: Sequence[Mapping[str, Any]], fates: Counter[Any], out: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    yield f"{counted(len(ledger), 'object')} found by {accounts.about}:"
    for (status, stage, reason, shard), count in sorted(fates.items()):
        why = f" at stage {stage}: {reason}" if stage else ""
        yield f"  {count} {status}{why}{f', in shard {shard}' if shard else ''}"
    said = Counter(  # the stacks of a series are left out alike
        f"  {row['level']} {row['key']}: rule {row['rule']}, reason {row['reason']}"
        + (f" ({row['detail']})" if row["detail"] else "")
        for row in out
    )
    yield from (line if count == 1 else f"{line}, {count} times" for line, count in [*said.items()][:MOST_ROWS])
    if len(said) > MOST_ROWS:
        yield f"  and {len(said) - MOST_ROWS} more; --json lists all"


def _planned_key(spec: DatasetSpec, environment: Mapping[str, str]) -> Key | None:
    try:
        return resolve_key(spec.deid.patient_key, environment, read=lambda path: Path(path).read_bytes())
    except (BuilderError, OSError):
        return None


def _planned_names(name: str, key: Key | None, spec: DatasetSpec) -> frozenset[str]:
    if key is None:
        return frozenset({name})
    own = {key.name(kind, name) for kind in ("object", "series", "study")}
    return frozenset({name, *own, *lookup_names(key, name, [source.site for source in spec.sources])})


def _own_name(name: str, key: Key | None) -> set[str]:
    """Return the keyed name of a DICOM file that is readable on this machine, else nothing."""
    place = Path(name)
    try:
        if key is None or not place.is_file():
            return set()
        data = place.read_bytes()
        found = read_header(lambda start, length: data[start : start + length], len(data)).values
    except (OSError, ValueError, CaseError):
        return set()
    uid = found.get("sop_instance_uid")
    return {key.name("object", str(uid))} if uid else set()


def _names_of_path(private: Store, latest: Latest, spec: DatasetSpec, name: str, key: Key | None) -> frozenset[str]:
    """Return the keyed names of the files at or below a path of the archive, or of one member of an archive file."""
    if key is None or not name:
        return frozenset()
    wanted = {position: _relative(source, name) for position, source in enumerate(spec.sources)}
    names = set()
    for row in _files(private, latest):
        path, inner = row["path"], f"{row['path']}/{row['member']}"
        place = wanted.get(row["source"]) or _as_listed(name)
        if place in (path, inner, ".") or inner.startswith(place + "/"):
            names.add(key.name("file", str(row["source"]), path, row["member"]))
            if row["sop_instance_uid"]:
                names.add(key.name("object", row["sop_instance_uid"]))
    return frozenset(names)


def _relative(source: Any, name: str) -> str:
    """Return a path as the listing of the source has it, "." for its folder; a path outside of it stays as it is."""
    if not isinstance(source, Folder):
        return _as_listed(name)
    try:
        place = Path(name).expanduser().absolute()
        found = place.relative_to(source.root) if place.is_relative_to(source.root) else place.resolve()
        inside = found.relative_to(source.root) if found.is_absolute() else found
    except (OSError, ValueError, RuntimeError):
        return _as_listed(name)
    return name_text(os.fsencode(inside))


def _as_listed(name: str) -> str:
    """Return a path inside a source without what a shell puts around it: ``./`` in front and a slash at the end."""
    text = name_text(os.fsencode(name))
    return text.removeprefix("./").rstrip("/") or text


def _files(private: Store, latest: Latest) -> Iterator[Mapping[str, Any]]:
    inventory = Inventory(private.join(latest.inventory), latest.chunks, 0)
    columns = ("source", "path", "member", "sop_instance_uid")
    for number in range(len(latest.chunks)):
        yield from inventory.chunk(number, columns=columns).to_pylist()
    yield from inventory.annotations(columns=columns).to_pylist()
    yield from inventory.leftovers(columns=columns).to_pylist()


def _hint(known: Sequence[_Accounts]) -> str:
    if any(len(accounts.names) > 1 for accounts in known):
        return ""
    return "; to look up the archive's own UIDs, PatientIDs and paths, set the key that the dataset is built with"
