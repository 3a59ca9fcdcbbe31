"""Receipts of all sites to a joint report, with a page and a catalog entry. It is made from tallies alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.federation.documents import Plan, Receipt, Spec, Table
from builder.federation.joint import added
from builder.federation.local import splits_of
from builder.federation.showing import repeated
from builder.federation.statistics import statistics
from builder.model.canonical import Json, canonical_json
from builder.pages import template_environment
from builder.report.bias import wilson
from builder.specfile import parse_spec
from builder.split.joint import ANY


@dataclass(frozen=True)
class Joined:
    """The joint report as data; ``files`` gives what is written."""

    report: Mapping[str, Json]
    catalog: Mapping[str, Json]

    def files(self) -> dict[str, bytes]:
        """Return the report as JSON and as a page, and what schema.org's terms say of the dataset."""
        environment = template_environment(Path(__file__).parent)
        page = environment.get_template("joint.html.jinja").render(report=self.report)
        return {
            "report.json": canonical_json(self.report),
            "index.html": page.encode(),
            "dataset.jsonld": canonical_json(self.catalog),
        }


def join(signed: Spec, plan: Plan, receipts: Mapping[str, Receipt]) -> Joined:
    """Return the joint report of the sites that sent a receipt; of those that did not, it says so."""
    spec = parse_spec(signed.spec.encode(), name="spec")
    tables = added({site: [receipt.strata, *receipt.tables] for site, receipt in receipts.items()})
    report = {
        "federation": signed.federation,
        "sites": {
            site: {
                "version": receipt.version,
                "counted": receipt.counted,
                "k": receipt.k,
                "persons": _persons(receipt.tables),
            }
            for site, receipt in sorted(receipts.items())
        },
        "absent": sorted(set(plan.offers) - set(receipts)),
        "ratios": dict(plan.ratios),
        "held_out": dict(plan.held_out),
        "rules": list(plan.rules),
        "differences": [
            *plan.differences,
            *(f"{s}: {repeated(r)}" for s, r in sorted(receipts.items()) if r.counted != r.version),
        ],
        "persons": _persons(tables),
        "tables": [_with_shares(table) for table in tables],
        "statistics": statistics(receipts, splits_of(spec.splits)),
    }
    catalog = {
        "@context": {"@vocab": "https://schema.org/"},
        "@type": "Dataset",
        "name": spec.name,
        "description": spec.description,
        "license": spec.license,
        "size": f"{report['persons']} persons" if report["persons"] is not None else "not told",
        "hasPart": [
            {"@type": "Dataset", "name": f"{spec.name} at {s}", "version": r.version} for s, r in receipts.items()
        ],
    }
    return Joined(report, catalog)


def _persons(tables: list[Table]) -> int | None:
    return next((row.persons for table in tables if table.name == "total" for row in table.rows), None)


def _with_shares(table: Table) -> dict[str, Any]:
    """Return a table with the share of each number in that of its split, and Wilson's interval of the share."""
    known = {tuple(row.levels): row.persons for row in table.rows}
    rows = []
    for row in table.rows:
        by = [column.name for column in table.columns[:1]] == ["split"]
        whole = (*(row.levels[:1] if by else ()), *[ANY] * (len(row.levels) - by))
        total = known.get(whole)
        interval = wilson(row.persons, total) if row.persons is not None and total else None
        rows.append(
            {
                "levels": list(row.levels),
                "persons": row.persons,
                "share": row.persons / total if row.persons is not None and total else None,
                "low": interval[0] if interval else None,
                "high": interval[1] if interval else None,
            }
        )
    return {"name": table.name, "columns": [column.name for column in table.columns], "rows": rows}
