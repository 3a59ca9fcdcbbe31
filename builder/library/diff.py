"""Compare two versions: where spec, environment, persons, cases, columns and shards differ."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from builder.errors import counted
from builder.library.versions import Version, open_version
from builder.model.layout import COHORT, EXCLUSIONS, INDEX, SPLITS

ABSENT = "(absent)"
MOST_LINES = 12


@dataclass(frozen=True)
class Difference:
    """What differs, as data that JSON can hold and as text."""

    document: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Return all differences."""
        return dict(self.document)

    def text(self) -> str:
        """Return the differences as text; long lists are shortened, and ``--json`` shows them in full."""
        d = self.document
        lines = [f"A: {_named(d['a'])}", f"B: {_named(d['b'])}"]
        if d["same"]:
            return "\n".join([*lines, "the same version"])
        lines += _settings("spec", d["spec"]) + _settings("environment", d["lock"])
        lines += _things(d)
        return "\n".join(lines)


def diff(a: str, b: str) -> Difference:
    """Compare two versions, each ``DATASET`` or ``DATASET@VERSION``.

    Persons, cases and samples can only be matched if both versions were built with the same key, because their names
    are keyed hashes. Persons match if they share any keyed PatientID.

    Raises
    ------
    LayoutError
        If one of the versions does not exist.
    """
    first, second = open_version(a), open_version(b)
    matched = first.manifest.lock.get("key_check") == second.manifest.lock.get("key_check")
    return Difference(
        {
            "a": _identity(first, a),
            "b": _identity(second, b),
            "same": first.manifest.version == second.manifest.version,
            "same_key": matched,
            "spec": list(_changes(first.manifest.spec, second.manifest.spec)),
            "lock": list(_changes(first.manifest.lock, second.manifest.lock)),
            "splits": _by_value(first, second, INDEX, "split"),
            "exclusions": _by_value(first, second, EXCLUSIONS, "reason"),
            "fields": _named_things(_fields(first), _fields(second)),
            "columns": _named_things(_columns(first), _columns(second)),
            "shards": _shards(first, second),
            "persons": _persons(first, second) if matched else None,
            "cases": _cases(first, second) if matched else None,
            "samples": _samples(first, second) if matched else None,
        }
    )


def _identity(version: Version, name: str) -> dict[str, Any]:
    manifest = version.manifest
    totals = manifest.totals
    counts = {"samples": totals.get("samples"), "cases": totals.get("cases"), "persons": totals.get("persons.used")}
    return {"dataset": name, "name": manifest.name, "version": manifest.version, **counts}


def _changes(a: Any, b: Any, path: str = "") -> Iterator[dict[str, Any]]:
    """Yield every leaf that differs between two documents, with its path and both values."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _changes(a.get(key, ABSENT), b.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _changes(one, other, f"{path}[{number}]")
    elif a != b:
        yield {"path": path, "a": a, "b": b}


def _by_value(first: Version, second: Version, table: str, column: str) -> list[dict[str, Any]]:
    """Count the rows that have each value of a column, in both versions."""
    counts = [Counter(v.table(table, [column])[column].to_pylist()) for v in (first, second)]
    names = sorted({*counts[0], *counts[1]}, key=lambda n: n or "")
    return [{column: name, "a": counts[0][name], "b": counts[1][name]} for name in names]


def _fields(version: Version) -> dict[str, str]:
    return {
        f.name: f"{f.dtype} {f.channels} x {f.shape or 'volumes'} {f.unit} {dict(sorted(f.segments.items()))}"
        for f in version.manifest.fields
    }


def _columns(version: Version) -> dict[str, str]:
    return {field.name: str(field.type) for field in version.table(INDEX).schema}


def _named_things(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, Any]:
    changed = [{"name": n, "a": a[n], "b": b[n]} for n in sorted(a.keys() & b.keys()) if a[n] != b[n]]
    return {"only_a": sorted(a.keys() - b.keys()), "only_b": sorted(b.keys() - a.keys()), "changed": changed}


def _shards(first: Version, second: Version) -> dict[str, int]:
    a, b = ({s.fingerprint: sum(o.bytes for o in s.objects) for s in v.manifest.shards} for v in (first, second))
    groups = {"shared": a.keys() & b.keys(), "only_a": a.keys() - b.keys(), "only_b": b.keys() - a.keys()}
    sizes = {**b, **a}
    found = {name: len(keys) for name, keys in groups.items()}
    return found | {f"{name}_bytes": sum(sizes[k] for k in keys) for name, keys in groups.items()}


def _persons(first: Version, second: Version) -> dict[str, Any]:
    """Count persons in only one version and persons who moved to another split, matched by keyed PatientID."""
    homes = [_members(v.table(SPLITS)) for v in (first, second)]
    known = homes[0].keys() & homes[1].keys()
    moved = Counter((homes[0][m][1], homes[1][m][1]) for m in known if homes[0][m][1] != homes[1][m][1])
    shared = [{home[m][0] for m in known} for home in homes]
    everyone = [{person for person, _ in home.values()} for home in homes]
    return {
        "shared": len(shared[1]),
        "only_a": len(everyone[0] - shared[0]),
        "only_b": len(everyone[1] - shared[1]),
        "moved": [{"from": a, "to": b, "members": n} for (a, b), n in sorted(moved.items())],
    }


def _members(splits: pa.Table) -> dict[str, tuple[str, str]]:
    """Map each keyed PatientID (or the person, if there is none) to person and split."""
    rows = splits.select(["person_key", "members", "split"]).to_pylist()
    return {m: (row["person_key"], row["split"]) for row in rows for m in (row["members"] or [row["person_key"]])}


def _cases(first: Version, second: Version) -> dict[str, Any]:
    """Count included cases in only one version, and for the others how many differ in each column of the cohort."""
    tables = [v.table(COHORT) for v in (first, second)]
    names = sorted(set(tables[0].column_names) & set(tables[1].column_names))
    included = [t.filter(t["included"]).select(names).to_pylist() for t in tables]
    rows = [{(row["series_key"], row["stack"]): row for row in found} for found in included]
    shared = rows[0].keys() & rows[1].keys()
    changed = Counter(name for key in shared for name in names if rows[0][key][name] != rows[1][key][name])
    return {
        "shared": len(shared),
        "only_a": len(rows[0].keys() - shared),
        "only_b": len(rows[1].keys() - shared),
        "changed": [{"column": name, "cases": n} for name, n in sorted(changed.items())],
    }


def _samples(first: Version, second: Version) -> dict[str, int]:
    a, b = (set(v.table(INDEX, ["sample_key"])["sample_key"].to_pylist()) for v in (first, second))
    return {"shared": len(a & b), "only_a": len(a - b), "only_b": len(b - a)}


def _named(entry: Mapping[str, Any]) -> str:
    counts = ", ".join(counted(entry[f"{name}s"], name) for name in ("sample", "case", "person"))
    return f"{entry['name']} {entry['version']}: {counts}"


def _settings(title: str, changes: list[dict[str, Any]]) -> list[str]:
    lines = [f"  {c['path']}: {c['a']} -> {c['b']}" for c in changes[:MOST_LINES]]
    more = [f"  and {len(changes) - MOST_LINES} more"] if len(changes) > MOST_LINES else []
    return [f"{title}: {'the same' if not changes else ''}".rstrip(" "), *lines, *more]


def _things(d: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in ("persons", "cases", "samples", "shards"):
        if d[name] is not None:
            size = f", {d[name]['only_b_bytes']} bytes new in B" if name == "shards" else ""
            counts = (d[name][k] for k in ("shared", "only_a", "only_b"))
            lines.append("{}: {} in both, {} only in A, {} only in B{}".format(name, *counts, size))
    if not d["same_key"]:
        lines.append("persons, cases, samples: made with different keys, their names cannot be matched")
    lines += [f"  moved from {m['from']} to {m['to']}: {m['members']}" for m in (d["persons"] or {}).get("moved", ())]
    lines += [
        f"  {counted(c['cases'], 'case differs', 'cases differ')} in {c['column']}"
        for c in (d["cases"] or {}).get("changed", ())
    ]
    for name in ("fields", "columns"):
        lines += [f"{name[:-1]} {x}: only in {side}" for side in "AB" for x in d[name][f"only_{side.lower()}"]]
        lines += [f"{name[:-1]} {c['name']}: {c['a']} -> {c['b']}" for c in d[name]["changed"]]
    for name, column in (("splits", "split"), ("exclusions", "reason")):
        lines += [f"{column} {r[column]}: {r['a']} -> {r['b']}" for r in d[name] if r["a"] != r["b"]]
    return lines
