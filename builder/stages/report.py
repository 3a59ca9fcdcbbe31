"""The report of a version: numbers as JSON, and the same numbers as one page."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from builder.errors import LayoutError
from builder.model.layout import (
    COHORT,
    CURRENT,
    EXCLUSIONS,
    INDEX,
    REPORT,
    Manifest,
    canonical_json,
    parse_current,
    version_path,
)
from builder.plan import DatasetPlan
from builder.report import assemble
from builder.report.html import render
from builder.stages.accounts import GEOMETRY_RULE, Accounts
from builder.stages.thumbnails import thumbnails
from builder.storage import Store, open_store

REPORT_JSON = f"{REPORT}/report.json"
REPORT_PAGE = f"{REPORT}/index.html"
VOLUME_COLUMN = re.compile(r"label\..+\.volume_mm3")
"""Columns with the volume of a structure in a case."""


def report_files(
    plan: DatasetPlan,
    accounts: Accounts,
    tables: Mapping[str, pa.Table],
    manifest: Manifest,
    dataset: Store,
    failed: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """``report/report.json`` and ``report/index.html``; ``failed`` are cases whose labels failed their proof."""
    index = tables[INDEX]
    document = assemble(
        title=plan.spec.name,
        index=index,
        cohort=tables[COHORT],
        exclusions=tables[EXCLUSIONS],
        splits=plan.splits,
        totals=accounts.totals,
        lock=plan.lock,
        groups=[g for g in plan.spec.report.groups if g in index.column_names],
        labels=[c for c in index.column_names if VOLUME_COLUMN.fullmatch(c)],
        thumbnails=thumbnails(index, manifest, dataset, count=plan.spec.report.thumbnails),
        ratios=plan.spec.splits.ratios,
        strata=[c for c in plan.spec.splits.stratify if c in index.column_names],
        rules=_rules(plan),
        consensus=json.loads(plan.spec.model_dump_json(include={"consensus"}))["consensus"],
        unproven=failed,
        mask_below=plan.spec.report.mask_below,
        seed=plan.spec.seed,
    )
    document["clinical"] = list(plan.clinical)
    document["persons"] = plan.persons.counts()
    document["structures"] = dict(plan.structures)
    data = canonical_json(document)
    # the page is made of the JSON that is stored, so that it can be made again from it
    return {REPORT_JSON: data, REPORT_PAGE: render(json.loads(data)).encode()}


def render_again(url: str) -> str:
    """Render the page of the published version from its ``report.json``; returns where it lies.

    A published version is never changed: where today's page is the published one, that one is named; else the new one
    is written beside the dataset, to ``<dataset>.report/<version>.html``.

    Raises
    ------
    LayoutError
        When nothing is published there.
    """
    store = open_store(url)
    try:
        version = parse_current(store.read(CURRENT))
        document = json.loads(store.read(version_path(version, REPORT_JSON)))
    except FileNotFoundError:
        raise LayoutError(f"{url}: found no published report; build the dataset, or check the location") from None
    page = render(document).encode()
    if page == store.read(version_path(version, REPORT_PAGE)):
        return f"{store.url}/{version_path(version, REPORT_PAGE)}"
    beside = open_store(store.url + ".report")
    beside.put(f"{version}.html", page)
    return f"{beside.url}/{version}.html"


def _rules(plan: DatasetPlan) -> list[str]:
    """The cohort's rules in the order they were applied."""
    options = plan.spec.cohort
    first = ["image"] if options.image is not None else []
    clinical = ["clinical"] if options.clinical == "required" else []
    last = ["labels"] if plan.spec.labels and options.labels == "required" else []
    one_per = [f"one_per_{options.one_per}"] if options.one_per != "series" else []
    return [*first, GEOMETRY_RULE, *clinical, *(r.name for r in options.rules), *last, *one_per]
