"""Recompute every number of a dataset's facts from its files with pandas, and notice numbers that are left out.

Every record is rendered from the facts and nothing else, so a number in a record is right where the facts are.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from pydicom.uid import UID

from tests.report.recount import Book

OF_ACQUISITION = ("modality", "body_part", "manufacturer", "manufacturer_model")
PROTOCOL = ("magnetic_field_strength", "kvp", "slice_thickness_mm", "convolution_kernel", "kernel_type", "series_type")


def recount(version: Path, document: dict[str, Any], private: pd.DataFrame) -> dict[str, str]:
    """Return path to what is wrong in a document of facts; ``private`` is the plan's cohort, with its dates."""
    book = Book(document)
    manifest = json.loads((version / "dataset.json").read_bytes())
    report = json.loads((version / "report" / "report.json").read_bytes())
    index, cohort = (pd.read_parquet(version / f"{name}.parquet") for name in ("index", "cohort"))
    book.expect(document, "facts_version", 1)
    _objects(book, version, manifest)
    _origins(book, pd.read_parquet(version / "catalog" / "origins.parquet"))
    _sizes(book, index, cohort[cohort.included], manifest)
    _of_report(book, report)
    dated = private[private.included & private.person_key.isin(index.person_key)]
    dated = dated.assign(split=dated.person_key.map(index.groupby("person_key").split.first()))
    _periods(book, dated)
    _quality(book, index, cohort[cohort.included], manifest)
    _time(book, dated, manifest["spec"])
    _independence(book, index, private)
    return book.complaints()


def _objects(book: Book, version: Path, manifest: dict[str, Any]) -> None:
    for file in book.document["files"]:
        book.expect(file, "bytes", (version / "catalog" / file["path"]).stat().st_size)
    for table in book.document["tables"]:
        book.expect(table, "rows", pq.read_metadata(version / "catalog" / table["path"]).num_rows)
    shards = book.document["shards"]
    book.expect(shards, "number", len(manifest["shards"]))
    stored = [
        version.parents[1] / "data" / s["fingerprint"] / o["path"] for s in manifest["shards"] for o in s["objects"]
    ]
    book.expect(shards, "bytes", sum(path.stat().st_size for path in stored))


def _origins(book: Book, origins: pd.DataFrame) -> None:
    for source in book.document["sources"]:
        same = origins[(origins.role == source["role"]) & (origins.license == source["license"])]
        book.expect(source, "series", int(same.series_key.notna().sum()))


def _sizes(book: Book, index: pd.DataFrame, used: pd.DataFrame, manifest: dict[str, Any]) -> None:
    document = book.document
    for row in document["splits"]:
        mine = index[index.split == row["split"]]
        counts = {"persons": mine.person_key.nunique(), "cases": mine.case_key.nunique(), "samples": len(mine)}
        book.all(row, counts)
    for name, values in document["images"].items():
        _values(book, values, used[name])
    persons = index.drop_duplicates("person_key")
    for name, values in document["people"].items():
        _values(book, values, persons[name])
    for name, entry in document["ranges"].items():
        for key, value in (("low", used[name].min()), ("median", used[name].median()), ("high", used[name].max())):
            book.expect(entry, key, value, within=1e-5)  # told in six digits
    files = sum(n for name, n in manifest["totals"].items() if name.startswith("files."))
    book.expect(document, "source_files", files)
    book.expect(document, "source_bytes", int(used.drop_duplicates("series_key").bytes.sum()))
    amounts = document["amounts"]
    book.all(amounts, {"examinations": used.study_key.nunique(), "series": used.series_key.nunique()})
    book.expect(amounts, "images", int(used.instances.sum()))
    each = used.groupby("series_key").instances.sum()
    for place, value in enumerate((each.min(), each.max())):
        book.expect(amounts["images_a_series"], place, int(value))
    series = used.drop_duplicates("series_key").transfer_syntax_uid
    _values(book, amounts["syntaxes"], series.map(lambda uid: UID(uid).name if isinstance(uid, str) else None))


def _values(book: Book, values: list[dict[str, Any]], column: pd.Series) -> None:
    told = column.map(lambda v: None if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v))
    for entry in values:
        same = told.isna() if entry["value"] is None else told == entry["value"]
        book.expect(entry, "count", int(same.sum()))


def _of_report(book: Book, report: dict[str, Any]) -> None:
    """Numbers that the report has, which ``tests/report/recount.py`` recomputes there."""
    document = book.document
    book.expect(document, "strata", report["balance"]["strata"]["number"])
    left = [row for box in report["flow"]["boxes"] for row in box["left"]]
    for row in document["left"]:
        same = [r["things"] for r in left if (r["reason"], r["level"]) == (row["reason"], row["level"])]
        book.expect(row, "things", sum(same))
    for row, entry in zip(document["evidence"], report["evidence"], strict=True):
        book.expect(row, "readers", entry["readers"])
        for one, other in zip(row["tiers"], entry["tiers"], strict=True):
            book.expect(one, "count", other["all"])
        for one, other in zip(row["tools"], entry["tools"], strict=True):
            book.expect(one, "count", other["cases"])


def _quality(book: Book, index: pd.DataFrame, used: pd.DataFrame, manifest: dict[str, Any]) -> None:
    declared = [name for table in manifest["spec"]["clinical"] for name in table["columns"]]
    names = [n for n in dict.fromkeys(("sex", "age_years", "site", "country", "collection", *declared)) if n in index]
    persons = index.groupby("person_key")[names]
    known = persons.first()
    acquired = used[
        [n for n in ("modality", "body_part", "manufacturer", "manufacturer_model", *PROTOCOL) if n in used]
    ]
    files = {n.removeprefix("files."): v for n, v in manifest["totals"].items() if n.startswith("files.")}
    texts = [n for n in names if not pd.api.types.is_numeric_dtype(known[n])]
    clear = (persons.nunique()[texts] == 1).sum().sum()
    expected: dict[str, tuple[int, int]] = {
        "values known of persons": (int(known.notna().sum().sum()), known.size),
        "attributes known of series": (int(acquired.notna().sum().sum()), acquired.size),
        "files that were not quarantined": (sum(files.values()) - files.get("quarantined", 0), sum(files.values())),
        "files that are no copy of another": (sum(files.values()) - files.get("duplicate", 0), sum(files.values())),
        "values of persons that agree over their samples": (int(clear), int(known[texts].notna().sum().sum())),
    }
    for figure in book.document["figures"]:
        if figure["of"] is not None:
            count, of = expected[figure["about"]]
            book.all(figure, {"count": count, "of": of})


def _periods(book: Book, dated: pd.DataFrame) -> None:
    """Years of sites with five persons or more, and of the others together."""
    for row in book.document["periods"]:
        mine = dated[dated.split == row["split"]]
        persons = mine.groupby("site").person_key.transform("nunique")
        mine = mine[persons < 5] if row["site"] == "other sites" else mine[mine.site == row["site"]]
        years = mine.study_date.map(lambda day: day.year)
        book.all(row, {"first": years.min(), "last": years.max(), "persons": mine.person_key.nunique()})


def _time(book: Book, dated: pd.DataFrame, spec: dict[str, Any]) -> None:
    """Figures without a whole: the time since the last year that is told, and the mean time of a person."""
    for figure in book.document["figures"]:
        if figure["dimension"] == "timeliness":
            last = max(row["last"] for row in book.document["periods"])
            book.expect(figure, "count", int(spec["catalog"]["published"][:4]) - last)
        if figure["dimension"] == "coverage":
            days = dated.groupby("person_key").study_date.agg(lambda found: (found.max() - found.min()).days)
            book.expect(figure, "count", round(days.mean()))


def _independence(book: Book, index: pd.DataFrame, private: pd.DataFrame) -> None:
    cases = index.drop_duplicates("case_key").set_index("case_key")
    years = private[private.included].groupby("case_key").study_date.first() if "study_date" in private else pd.Series()
    joined: dict[str, Callable[[], pd.Series]] = {
        "person": lambda: cases.person_key,
        "site": lambda: cases.site,
        "device": lambda: _together(cases, ("manufacturer", "manufacturer_model")),
        "protocol": lambda: _together(cases, PROTOCOL),
        "period": lambda: years.map(lambda day: day.year).reindex(cases.index),
    }
    for row in book.document["independence"]:
        values = joined[row["level"]]()
        train, test = (values[cases.split == row[side]].dropna() for side in ("train", "test"))
        book.all(
            row,
            {
                "cases": int((cases.split == row["test"]).sum()), "known": len(test),
                "alike": int(test.isin(set(train)).sum()), "shared": len(set(train) & set(test)),
            },
        )  # fmt: skip


def _together(cases: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    there = [name for name in names if name in cases]
    rows = cases[there].dropna(how="all")
    return pd.Series(["|".join(map(str, row)) for row in rows.itertuples(index=False)], rows.index).reindex(cases.index)
