"""The report of a version: numbers as JSON, the same numbers as one page, and pictures of samples."""

import base64
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

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
from builder.reader.dataset import dataset_over
from builder.report import assemble
from builder.report.html import render
from builder.stages.accounts import GEOMETRY_RULE, Accounts
from builder.storage import Store, open_store

REPORT_JSON = f"{REPORT}/report.json"
REPORT_PAGE = f"{REPORT}/index.html"
VOLUME_COLUMN = re.compile(r"label\..+\.volume_mm3")
"""Columns with the volume of a structure in a case."""

THUMBNAIL_PIXELS = 160
OUTLINE = (255, 196, 0)


def report_files(
    plan: DatasetPlan,
    accounts: Accounts,
    tables: Mapping[str, pa.Table],
    manifest: Manifest,
    dataset: Store,
) -> dict[str, bytes]:
    """``report/report.json`` and ``report/index.html``."""
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
        mask_below=plan.spec.report.mask_below,
        seed=plan.spec.seed,
    )
    document["clinical"] = list(plan.clinical)
    document["persons"] = plan.persons.counts()
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


def thumbnails(index: pa.Table, manifest: Manifest, dataset: Store, *, count: int) -> list[dict[str, Any]]:
    """Pictures of evenly chosen samples, outlines of their masks drawn in: the slice with most foreground."""
    if not index.num_rows or not count:
        return []
    rows = sorted({round(i * (index.num_rows - 1) / max(1, count - 1)) for i in range(count)})
    samples = dataset_over(dataset, manifest, index, fields=[f.name for f in manifest.fields]).select(rows)
    pictures = []
    for sample in samples:
        row, picture = sample.row, _picture(sample.arrays)
        uri = "data:image/png;base64," + base64.b64encode(_png(picture)).decode()
        pictures.append({"sample_key": row["sample_key"], "split": row["split"], "png": uri})
    return pictures


def _rules(plan: DatasetPlan) -> list[str]:
    """The cohort's rules in the order they were applied."""
    options = plan.spec.cohort
    first = ["image"] if options.image is not None else []
    clinical = ["clinical"] if options.clinical == "required" else []
    last = ["labels"] if plan.spec.labels and options.labels == "required" else []
    one_per = [f"one_per_{options.one_per}"] if options.one_per != "series" else []
    return [*first, GEOMETRY_RULE, *clinical, *(r.name for r in options.rules), *last, *one_per]


def _picture(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    image = arrays["image"][0].astype(np.float32)
    inside = np.zeros(image.shape, bool)
    for name, mask in arrays.items():
        if name != "image":
            inside |= (mask > 0).any(axis=0)
    counts = inside.sum(axis=(1, 2))
    level = int(np.argmax(counts)) if counts.any() else image.shape[0] // 2
    low, high = np.percentile(image, (1, 99.5))
    grey = np.clip((image[level] - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    scale = max(1, THUMBNAIL_PIXELS // max(grey.shape))
    grey, region = (np.kron(a, np.ones((scale, scale), a.dtype)) for a in (grey, inside[level].astype(np.uint8)))
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[_outline(region.astype(bool))] = OUTLINE
    return picture


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a region with a neighbour outside of it."""
    padded = np.pad(region, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(region & ~inner)


def _png(picture: NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, format="PNG", compress_level=9)
    return sink.getvalue()
