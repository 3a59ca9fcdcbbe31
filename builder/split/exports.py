"""Splits in the forms that other tools read: nnU-Net and CSV. Texts only; the caller writes them."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from builder.errors import SpecError


def nnunet_splits(cases: pa.Table, assigned: pa.Table) -> str:
    """Return nnU-Net's ``splits_final.json``: a list of folds, each ``{"train": [case, ...], "val": [...]}``.

    Parameters
    ----------
    cases
        ``case_key`` and ``person_key``.
    assigned
        Either the table of ``assign`` (one fold: train and validation; test cases are left out, as nnU-Net keeps
        them in ``imagesTs``) or the table of ``folds`` (one entry a repeat and fold).
    """
    persons_of = _cases_by_person(cases)
    if "fold" not in assigned.column_names:
        rows = assigned.select(["person_key", "split"]).to_pylist()
        parts = {
            ours: _cases([r["person_key"] for r in rows if r["split"] == theirs], persons_of)
            for ours, theirs in (("train", "train"), ("val", "validation"))
        }
        return json.dumps([parts], indent=2) + "\n"
    columns = ["person_key", *(["repeat"] if "repeat" in assigned.column_names else []), "fold"]
    rows = [(r["person_key"], (r.get("repeat", 0), r["fold"])) for r in assigned.select(columns).to_pylist()]
    everybody = {(person, fold[0]) for person, fold in rows}
    entries = []
    for fold in sorted({f for _, f in rows}):
        tested = {person for person, f in rows if f == fold}
        train = [person for person, repeat in everybody if repeat == fold[0] and person not in tested]
        entries.append({"train": _cases(train, persons_of), "val": _cases(sorted(tested), persons_of)})
    return json.dumps(entries, indent=2) + "\n"


def csv_text(assigned: pa.Table) -> str:
    """Return a table as CSV text: header, LF line ends, empty for null, true and false in lower case."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(assigned.column_names)
    for row in assigned.to_pylist():
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in row.values()])
    return out.getvalue()


def _cases_by_person(cases: pa.Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in cases.select(["case_key", "person_key"]).to_pylist():
        found.setdefault(row["person_key"], []).append(row["case_key"])
    return found


def _cases(persons: Sequence[str], cases: Mapping[str, list[str]]) -> list[str]:
    """Return the sorted cases of some persons. A person without a case was excluded later and adds nothing."""
    if not cases:
        raise SpecError("cases: found an empty table, expected case_key and person_key of every case")
    return sorted({case for person in persons for case in cases.get(person, [])})
