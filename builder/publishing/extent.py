"""How much a dataset holds, how it is stored, over what time, and how many cases show which pathology."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
from pydicom.uid import UID

from builder.catalog.facts import Amounts, DistributionFacts, PeriodFacts, ValueCount
from builder.catalog.figures import FigureFacts
from builder.model.tables import used_rows
from builder.report.labels import title
from builder.report.people import one_row_each
from builder.shards import CODECS
from builder.spec import DatasetSpec
from builder.split import TRUE_DATE

DEMOGRAPHIC = ("sex", "age_years", "age_band", "ethnic_group", "patient_size", "patient_weight", "country")
TIMES = ("study_day", "visit")
YES, NO = ("positive", "present"), ("negative", "absent")
"""Levels of class labels that say that something is there, and that it is not. Others, as uncertain, say neither."""
FEWEST = 5
"""Persons behind a range of years, at least."""
OTHERS = "other sites"
"""Stands for the sites that have too few persons to be told apart."""


def amounts(included: pa.Table, index: pa.Table, spec: DatasetSpec) -> Amounts:
    """Return how many examinations, series and images were used, how they came and how they are stored.

    Parameters
    ----------
    included
        The published rows of the cohort that a case uses.
    """
    rows = included.select(["study_key", "series_key", "instances", "transfer_syntax_uid"]).to_pylist()
    series = {row["series_key"]: row for row in rows}
    # a series that was divided has one row a stack, and each instance is in one of them
    images = Counter[str]()
    for row in rows:
        images[row["series_key"]] += row["instances"] or 0
    syntaxes = Counter(_syntax(row["transfer_syntax_uid"]) for row in series.values())
    return Amounts(
        examinations=len({row["study_key"] for row in rows}),
        series=len(series),
        images=images.total(),
        images_a_series=(min(images.values()), max(images.values())) if images else None,
        syntaxes=tuple(ValueCount(name, n) for name, n in sorted(syntaxes.items(), key=lambda i: (i[0] is None, i))),
        stored=_stored(spec),
        associated=_associated(index, spec),
    )


def _syntax(uid: str | None) -> str | None:
    """Return the name of a transfer syntax (PS3.6, table A-1); null where the source does not state it."""
    return UID(uid).name if uid else None


def _stored(spec: DatasetSpec) -> tuple[str, ...]:
    """Return how the fields of a sample are compressed, those with an option of their own by name."""
    own = {name: rule.codec for name, rule in spec.shards.fields.items() if rule.codec is not None}
    named = {"all fields" if not own else "other fields": spec.shards.codec, **own}
    return tuple(
        f"{name}: Blosc {codec.compressor}, level {codec.level}, {codec.shuffle}, lossless, each chunk with its crc32c"
        for name, codec in ((name, CODECS[preset]) for name, preset in named.items())
    )


def _associated(index: pa.Table, spec: DatasetSpec) -> Mapping[str, tuple[str, ...]]:
    """Map kinds of data beside the images to the columns of the index that hold them."""
    have = index.column_names
    dated = [name for table in spec.clinical for name in table.dated]
    people = [name for name in DEMOGRAPHIC if name in have]
    times = [n for n in have if n in TIMES or n in dated or n.endswith((".delta_days", "label_days"))]
    clinical = [n for n in spec.clinical_columns if n in have and n not in (*people, *times)]
    texts = [n for n in have if n.startswith("text.")]
    found = {"demographic": people, "clinical": clinical, "timeline": times, "report texts": texts}
    return {kind: tuple(names) for kind, names in found.items() if names}


def periods(cohort: pa.Table, splits: Mapping[str, str], spec: DatasetSpec) -> tuple[PeriodFacts, ...]:
    """Return the years from the first to the last study of each site and split; none unless the spec asks for them.

    Sites count only where the spec retains them. A site and split with fewer than ``FEWEST`` persons (or
    ``deid.anonymity.k``, or ``report.mask_below``) is pooled with the other small ones of its split, and left out if
    they are still too few.

    Parameters
    ----------
    cohort
        The plan's, with the private dates.
    splits
        Person to split.
    """
    if spec.catalog.years != "ranges":
        return ()
    fewest = _fewest(spec)
    told = "site" in spec.deid.retain
    cells: dict[tuple[str | None, str], dict[str, list[int]]] = {}
    for row in used_rows(cohort).select(["person_key", "site", TRUE_DATE]).to_pylist():
        split = splits.get(row["person_key"])
        if split is not None and row[TRUE_DATE] is not None:
            place = cells.setdefault((row["site"] if told else None, split), {})
            place.setdefault(row["person_key"], []).append(row[TRUE_DATE].year)
    pooled: dict[str, dict[str, list[int]]] = {}
    for key in [key for key, people in cells.items() if len(people) < fewest]:
        for person, years in cells.pop(key).items():
            pooled.setdefault(key[1], {}).setdefault(person, []).extend(years)
    cells |= {(OTHERS if told else None, split): people for split, people in pooled.items() if len(people) >= fewest}
    found = [_period(site, split, people) for (site, split), people in cells.items()]
    return tuple(sorted(found, key=lambda p: (p.site or "", p.split)))


def _period(site: str | None, split: str, people: Mapping[str, Sequence[int]]) -> PeriodFacts:
    years = [year for person in people.values() for year in person]
    return PeriodFacts(site, split, min(years), max(years), len(people))


def coverage(cohort: pa.Table, people: Collection[str], spec: DatasetSpec) -> tuple[FigureFacts, ...]:
    """Return the mean number of days from the first to the last study of a person; nothing unless years are told.

    It is not told of fewer than ``FEWEST`` persons (or ``deid.anonymity.k``, or ``report.mask_below``), and masked
    where studies of several days are known of fewer, for the mean would tell theirs. Whole days, so that two versions
    which differ by a person do not tell that person's.

    Parameters
    ----------
    cohort
        The plan's, with the private dates.
    people
        Persons of the dataset.
    """
    if spec.catalog.years != "ranges":
        return ()
    days: dict[str, list[date]] = {}
    for row in used_rows(cohort).select(["person_key", TRUE_DATE]).to_pylist():
        if row["person_key"] in people and row[TRUE_DATE] is not None:
            days.setdefault(row["person_key"], []).append(row[TRUE_DATE])
    spans = [(max(found) - min(found)).days for found in days.values()]
    if len(spans) < _fewest(spec):
        return ()
    hidden = 0 < sum(span > 0 for span in spans) < _fewest(spec)
    mean = None if hidden else round(sum(spans) / len(spans))
    return (FigureFacts("coverage", "mean time from the first to the last study of a person", mean, None, "d"),)


def _fewest(spec: DatasetSpec) -> int:
    """Return of how many persons anything about dates is told, at least."""
    return max(FEWEST, spec.report.mask_below, spec.deid.anonymity.k if spec.deid.anonymity else 0)


def distribution(index: pa.Table, labels: Sequence[str], spec: DatasetSpec) -> DistributionFacts | None:
    """Return how many cases show each pathology that the spec names, and how many show none.

    A pathology is a label column (``label.tumor.gtv.volume_mm3``), named as the report names it (``tumor / gtv``,
    ``findings / effusion``) or by its label alone. A case is abnormal if one is present, normal if all are absent, and
    else unknown. Labels whose levels do not say that something is there count as missed. None without
    ``catalog.pathologies``, or where the counts are too small to be told.
    """
    asked = spec.catalog.pathologies
    if not asked:
        return None
    named = [name for name in labels if name in index.column_names and _is_asked(name, asked)]
    cases = one_row_each(index, named, key="case_key")
    names = [name for name in named if _can_tell(cases[name])]
    seen = {_short(name): [_shows(value, name) for value in cases[name].to_pylist()] for name in names}
    whole = [[values[row] for values in seen.values()] for row in range(cases.num_rows)]
    abnormal = sum(any(values) for values in whole)
    normal = sum(bool(values) and all(v is False for v in values) for values in whole)
    counts = {name: sum(v is True for v in values) for name, values in seen.items()}
    shown = (abnormal, normal, *counts.values())
    if any(0 < n < spec.report.mask_below for n in (*shown, *(cases.num_rows - n for n in shown))):
        return None
    missed = tuple(a for a in asked if not any(_is_asked(name, (a,)) for name in names))
    told = tuple(ValueCount(name, n) for name, n in sorted(counts.items()))
    return DistributionFacts(cases.num_rows, normal, abnormal, told, missed)


def _can_tell(column: pa.ChunkedArray) -> bool:
    """Return whether a column says of a case that something is there: volumes, numbers, truths, and words for them."""
    return not pa.types.is_string(column.type) or not {*YES, *NO}.isdisjoint(column.to_pylist())


def _shows(value: Any, name: str) -> bool | None:
    """Return whether a case shows what a column is about; None where nobody knows. Without a volume it shows none."""
    if isinstance(value, str):
        return True if value in YES else False if value in NO else None
    if value is None:
        return False if name.endswith(".volume_mm3") else None
    return bool(value > 0)


def _short(column: str) -> str:
    return title(column).removeprefix("label.").replace(".", " / ")


def _is_asked(column: str, asked: Sequence[str]) -> bool:
    """Return whether a label column is one of those named: as a column, a title, or by the name of its label."""
    name = _short(column)
    return not {column, name, name.replace(" / ", "."), name.partition(" / ")[0]}.isdisjoint(asked)
