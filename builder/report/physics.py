"""Count what the voxels mean and what is implausible about them, over cases and over candidate series."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from builder.model.canonical import Json
from builder.model.case import NO_SPACING

SPACINGS = ("spacing_slice_mm", "spacing_row_mm", "spacing_column_mm")


def physics(index: pa.Table, cohort: pa.Table) -> dict[str, Json]:
    """Count domains, notes and findings of the cases, and findings in the headers of the candidate series.

    Parameters
    ----------
    index
        Has ``case_key`` and, if known, ``domain`` (text), ``notes`` and ``findings`` (lists of codes, ``rule`` or
        ``rule=number``). A code that the privacy gate withheld is null, and is not counted.
    cohort
        One row per candidate series, with ``header_findings`` (codes joined by ``; ``) if known.

    Returns
    -------
    dict
        ``domains`` and ``notes`` map each name to its number of cases; ``findings`` and ``header_findings`` hold one
        row per rule with its number of cases or series and the smallest and largest number it saw.
    """
    names = [n for n in ("domain", "notes", "findings") if n in index.column_names]
    cases = list({row["case_key"]: row for row in index.select(["case_key", *names]).to_pylist()}.values())
    known = {name: [case[name] for case in cases] for name in names}
    stated = cohort.column("header_findings").to_pylist() if "header_findings" in cohort.column_names else []
    return {
        "domains": _counts([[domain] for domain in known.get("domain", []) if domain]),
        "notes": _counts([sorted({_rule(n) for n in _stated(notes)}) for notes in known.get("notes", [])]),
        "findings": _by_rule([_stated(found) for found in known.get("findings", [])]),
        "header_findings": _by_rule([found.split("; ") if found else () for found in stated]),
    }


def without_assumed_spacing(rows: pa.Table, index: pa.Table) -> pa.Table:
    """Return rows of cases or series without the spacing of pictures that state none: 1 mm stands for a pixel there.

    Parameters
    ----------
    rows
        Has ``case_key``, and any of ``SPACINGS``.
    index
        Has ``case_key`` and, if known, ``notes`` (lists of codes).
    """
    if "notes" not in index.column_names or "case_key" not in rows.column_names:
        return rows
    notes = zip(index["case_key"].to_pylist(), index["notes"].to_pylist(), strict=True)
    keys = sorted({key for key, codes in notes if NO_SPACING in (codes or ())})
    assumed = pc.is_in(rows["case_key"], pa.array(keys, pa.string()))
    for name in SPACINGS:
        place = rows.schema.get_field_index(name)
        if place >= 0:
            field = rows.schema.field(place)
            rows = rows.set_column(place, field, pc.if_else(assumed, pa.scalar(None, field.type), rows[name]))
    return rows


def _stated(codes: Sequence[str | None] | None) -> list[str]:
    """Return the codes that the privacy gate let out."""
    return [code for code in codes or () if code is not None]


def _rule(code: str) -> str:
    return code.partition("=")[0]


def _counts(groups: Sequence[Sequence[str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        for name in group:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _by_rule(groups: Sequence[Sequence[str]]) -> list[Json]:
    """Return one row per rule: how many cases or series it concerns, and the range of its numbers."""
    seen: dict[str, list[float]] = {}
    for group in groups:
        for code in group:
            rule, _, number = code.partition("=")
            seen.setdefault(rule, []).append(float(number))
    return [{"rule": r, "things": len(v), "low": min(v), "high": max(v)} for r, v in sorted(seen.items())]
