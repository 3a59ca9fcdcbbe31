"""Write the report of a version as JSON, and as a page with the same numbers."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError

from builder.clinical.matching import WHY_WITHHELD
from builder.deid.columns import crossing
from builder.errors import LayoutError
from builder.model.canonical import canonical_json
from builder.model.entries import json_object
from builder.model.layout import COHORT, CURRENT, EXCLUSIONS, INDEX, REPORT, Manifest, parse_current, version_path
from builder.plan import DatasetPlan
from builder.planning.image_sets import IMAGES_RULE
from builder.planning.left_out import RULE as LEFT_OUT_RULE
from builder.publishing.accounts import GEOMETRY_RULE, Accounts
from builder.publishing.thumbnails import thumbnails
from builder.report import ReportInputs, assemble
from builder.report.html import render
from builder.report.labels import label_statistics
from builder.report.reviews import reviews
from builder.storage import Store, open_store

REPORT_JSON = f"{REPORT}/report.json"
REPORT_PAGE = f"{REPORT}/index.html"
_LABEL_STATES = ("label_status", "label_tier")
VOLUME_COLUMN = re.compile(r"label\..+\.volume_mm3")
"""Columns that hold the volume of a structure in a case."""


def report_files(
    plan: DatasetPlan,
    accounts: Accounts,
    tables: Mapping[str, pa.Table],
    manifest: Manifest,
    dataset: Store,
    leaks: Mapping[str, Any],
    failed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """Return ``report/report.json`` and ``report/index.html``.

    ``failed`` lists the cases whose labels failed their proof.
    """
    index = tables[INDEX]
    inputs = ReportInputs(
        index=index,
        cohort=tables[COHORT],
        exclusions=tables[EXCLUSIONS],
        totals=accounts.totals,
        labels=[c for c in index.column_names if VOLUME_COLUMN.fullmatch(c)] + _outcomes(plan, index),
        thumbnails=thumbnails(
            index, manifest, dataset, count=plan.spec.report.thumbnails, groups=plan.spec.report.groups
        ),
        consensus=json.loads(plan.spec.model_dump_json(include={"consensus"}))["consensus"],
        unproven=failed,
        certificate=leaks,
        **_options(plan, index),
    )
    document = assemble(inputs)
    more = {"withheld": dict(accounts.withheld)} if accounts.withheld else {}
    return _files(plan, {**document, "reviews": reviews(index, plan.reviews), **more})


def plan_files(plan: DatasetPlan, accounts: Accounts) -> dict[str, bytes]:
    """Return the same two files for a plan: persons, splits and columns as they would be, before any image is read.

    Each case counts as one sample, and a label is only present or absent. Figures that need images (volumes of labels,
    intensities, copies) are missing. ``planned`` marks the document. ``accounts`` assume a build that loses nothing.
    """
    clinical = plan.spec.clinical_columns
    columns = crossing(plan.cohort.column_names, retain=plan.spec.deid.retain, clinical=clinical)
    cohort = plan.cohort.select([*columns, "included", "rule", "reason", "detail"])
    index = cohort.filter(cohort["included"])
    index = index.select([name for name in index.column_names if name not in ("image_name", "serves")])
    split_of = dict(zip(*(plan.splits[c].to_pylist() for c in ("person_key", "split")), strict=True))
    splits = pa.array([split_of[p] for p in index["person_key"].to_pylist()], pa.string())
    index = index.append_column("split", splits).append_column("sample_key", index["case_key"])
    inputs = ReportInputs(
        index=index,
        cohort=cohort,
        exclusions=accounts.exclusions,
        totals=accounts.totals,
        labels=_outcomes(plan, index),
        **_options(plan, index),
    )
    document = assemble(inputs)
    document["planned"] = True
    document["labels"] = [*_label_states(plan, splits, document), *document["labels"]]
    return _files(plan, document)


def _label_states(plan: DatasetPlan, splits: pa.Array, document: Mapping[str, Any]) -> list[Any]:
    """Return how many cases have their labels, and the tiers of evidence."""
    if not plan.spec.labels:
        return []
    cases = plan.cohort.filter(plan.cohort["included"]).select([*_LABEL_STATES]).append_column("split", splits)
    order = [row["split"] for row in document["splits"]]
    return label_statistics(cases, _LABEL_STATES, splits=order, mask_below=plan.spec.report.mask_below)


def _options(plan: DatasetPlan, index: pa.Table) -> dict[str, Any]:
    """Return the arguments of the report that come from the plan, whether it has been built or not."""
    options, splits = plan.spec.report, plan.spec.splits
    return {
        "title": plan.spec.name,
        "splits": plan.splits,
        "lock": plan.lock,
        "groups": [*options.groups, *(f"{name}.vendor" for name in plan.spec.cohort.partners)],
        "images": [*plan.spec.cohort.members],
        "ratios": splits.ratios,
        "strata": [c for c in splits.stratify if c in index.column_names],
        "rules": _rules(plan),
        "reference": options.reference.shares if options.reference is not None else None,
        "mask_below": options.mask_below,
        "seed": plan.spec.seed,
        "orders": {
            name: [*dict.fromkeys(column.mapping.values())]
            for table in plan.spec.clinical
            for name, column in table.columns.items()
            if column.mapping
        },
    }


def _outcomes(plan: DatasetPlan, index: pa.Table) -> list[str]:
    return [c for c in plan.spec.report.outcomes if c in index.column_names]


def _files(plan: DatasetPlan, document: dict[str, Any]) -> dict[str, bytes]:
    document["clinical"] = [{k: fact for k, fact in facts.items() if k != WHY_WITHHELD} for facts in plan.clinical]
    document["clinical_persons"] = _clinical_persons(plan.cohort)
    document["persons"] = plan.persons.counts()
    document["license"] = plan.spec.license
    document["description"] = plan.spec.description
    document["owner"] = plan.spec.governance.owner or ""
    document["structures"] = dict(plan.structures)
    if plan.anonymity is not None:
        document["anonymity"] = plan.anonymity.facts() | {"asked": plan.spec.deid.anonymity.k}
    document["reference"] = plan.spec.report.reference.name if plan.spec.report.reference is not None else None
    data = canonical_json(document)
    # The page is rendered from the stored JSON, so that it can be rendered again later.
    return {REPORT_JSON: data, REPORT_PAGE: render(json.loads(data)).encode()}


def render_again(url: str) -> str:
    """Render the page of the published version from its ``report.json``, and return its location.

    A published version is never changed. If the new page equals the published one, the location of that one is
    returned; otherwise the new page is written beside the dataset, to ``<dataset>.report/<version>.html``.

    Raises
    ------
    LayoutError
        If nothing is published there.
    """
    store = open_store(url)
    try:
        version = parse_current(store.read(CURRENT))
        document = json_object(store.read(version_path(version, REPORT_JSON)), REPORT_JSON)
    except FileNotFoundError:
        raise LayoutError(f"{url}: found no published report; build the dataset, or check the location") from None
    try:
        page = render(document).encode()
    except (LookupError, TypeError, ValueError, AttributeError, TemplateError) as error:
        raise LayoutError(f"{REPORT_JSON}: found no report that can be shown ({type(error).__name__})") from error
    if page == store.read(version_path(version, REPORT_PAGE)):
        return f"{store.url}/{version_path(version, REPORT_PAGE)}"
    beside = open_store(store.url + ".report")
    beside.put(f"{version}.html", page)
    return f"{beside.url}/{version}.html"


def _clinical_persons(cohort: pa.Table) -> dict[str, int]:
    """Count the persons with images who have a row in any clinical table."""
    rows = zip(cohort.column("person_key").to_pylist(), cohort.column("clinical_rows").to_pylist(), strict=True)
    found: dict[str, bool] = {}
    for person, count in rows:
        found[person] = found.get(person, False) or bool(count)
    return {"matched": sum(found.values()), "persons": len(found)}


def _rules(plan: DatasetPlan) -> list[str]:
    """Return the rules of the cohort in the order in which they were applied."""
    options = plan.spec.cohort
    first = ["image"] if options.image is not None or options.images else []
    clinical = ["clinical"] if options.clinical == "required" else []
    last = ["labels"] if plan.spec.labels and options.labels == "required" else []
    one_per = [f"one_per_{options.one_per}"] if options.one_per != "series" else []
    if options.images:
        last, one_per = [IMAGES_RULE, "labels"], [f"one_per_{options.case}"]
    left_out = [LEFT_OUT_RULE] if options.leave_out is not None else []
    return [*first, GEOMETRY_RULE, *clinical, *(r.name for r in options.rules), *last, *one_per, *left_out]
