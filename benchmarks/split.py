"""Splits compared in one run: ours, random, scikit-learn's StratifiedGroupKFold, iterative-stratification.

    python benchmarks/split.py [--slow] [INFOclinical_STS.xlsx]

On the CT patients of the public index of the Imaging Data Commons (pip install idc-index-data==25.0.5), and on the
soft-tissue sarcoma cohort by grade and sex when its clinical sheet is given. ``--slow`` adds StratifiedGroupKFold on
the large table, which takes minutes; iterative-stratification is compared where it is installed (not beside the tests:
it brings a top-level package called ``tests``). Prints a row a method: seconds of the clock and of the processor, and
how far strata, single levels and the total are off (points: levels of at least 20 persons).
"""

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import openpyxl
import pyarrow as pa
from figures import figure
from numpy.typing import NDArray

from builder.headers.vendors import normalise
from builder.split import assign

RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}
STRATA = ["collection", "sex", "age_band", "vendor"]
TWENTIETHS = {"train": 14, "validation": 3, "test": 3}


HEADER = (
    *("method", "s", "s of processor", "stratum off", "strata >= 1", "level off", "levels >= 2"),
    *("worst points", "total off, points"),
)


def main() -> None:
    sheets = [Path(a) for a in sys.argv[1:] if a.endswith(".xlsx")]
    for sheet in sheets:
        compare(sarcoma_persons(sheet), ["grade", "sex"], grouped="always")
    compare(idc_ct_persons(), STRATA, grouped="always" if "--slow" in sys.argv else "never")


def compare(persons: pa.Table, strata: list[str], *, grouped: str) -> None:
    """Print the table of one cohort."""
    codes, cells = cells_of(persons, strata)
    print(f"{persons.num_rows} persons by {', '.join(strata)}: {len(np.unique(cells))} strata")
    print(" | ".join(HEADER))
    for name, method in methods(persons, codes, cells, strata, grouped).items():
        start, used = time.perf_counter(), time.process_time()
        split = method()
        seconds = [time.perf_counter() - start, time.process_time() - used]
        figure(f"{persons.num_rows} persons, {name}", seconds[1], "s")
        print(" | ".join([name, *(f"{s:.2f}" for s in seconds), *figures(split, codes, cells)]), flush=True)


def sarcoma_persons(sheet: Path) -> pa.Table:
    """The patients of the clinical sheet with grade and sex."""
    rows = list(openpyxl.load_workbook(sheet).active.iter_rows(values_only=True))
    names = [str(c).strip() if c is not None else "" for c in rows[0]]
    people = [dict(zip(names, row, strict=True)) for row in rows[1:] if str(row[0]).startswith("STS_")]
    said = [None if p["Grade"] in ("--", "N/A", "") else str(p["Grade"]).strip() for p in people]
    return pa.table(
        {
            "person_key": [str(p["Patient ID"]) for p in people],
            "grade": pa.array(said, pa.string()),
            "sex": pa.array([str(p["Sex"]).strip() for p in people], pa.string()),
        }
    )


def idc_ct_persons() -> pa.Table:
    """One row a patient with a CT: collection, sex, age band and vendor of the first series, number of series."""
    import idc_index_data

    index = str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
    rows = duckdb.sql(
        f"""
        SELECT collection_id || '/' || PatientID AS person_key, collection_id AS collection,
            arg_min(CASE WHEN PatientSex IN ('F', 'M') THEN PatientSex END, SeriesInstanceUID) AS sex,
            arg_min(CASE WHEN regexp_matches(PatientAge, '^[0-9]{{3}}Y$')
                THEN (CAST(PatientAge[1:3] AS INT) // 10 * 10)::VARCHAR END, SeriesInstanceUID) AS age_band,
            arg_min(Manufacturer, SeriesInstanceUID) AS manufacturer, count(*) AS series
        FROM read_parquet('{index}') WHERE Modality = 'CT' GROUP BY 1, 2 ORDER BY 1
        """
    ).to_arrow_table()
    vendor = pa.array([normalise(m) for m in rows["manufacturer"].to_pylist()], pa.string())
    return rows.append_column("vendor", vendor)


def cells_of(persons: pa.Table, strata: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(person, column) codes of the strata columns, and the stratum of each person."""
    columns = [np.unique([str(v) for v in persons[c].to_pylist()], return_inverse=True)[1] for c in strata]
    codes = np.stack(columns, axis=1)
    return codes, np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def methods(
    persons: pa.Table, codes: NDArray[np.int64], cells: NDArray[np.int64], strata: list[str], grouped: str
) -> dict[str, Callable[[], NDArray[np.int64]]]:
    """Name to a function that gives 0, 1 or 2 (train, validation, test) a person."""
    number = {name: i for i, name in enumerate(RATIOS)}

    def ours() -> NDArray[np.int64]:
        table = assign(persons, ratios=RATIOS, strata=strata, seed=7)
        return np.array([number[s] for s in table["split"].to_pylist()])

    def random() -> NDArray[np.int64]:
        return np.random.default_rng(0).choice(3, persons.num_rows, p=list(RATIOS.values()))

    found = {"controlled rounding (ours)": ours, "random": random}
    try:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
    except ImportError:
        pass
    else:

        def iterative() -> NDArray[np.int64]:
            labels = np.concatenate([codes[:, [i]] == np.unique(codes[:, i]) for i in range(codes.shape[1])], axis=1)
            folds = MultilabelStratifiedKFold(20, shuffle=True, random_state=0).split(labels, labels)
            return twentieths([test for _, test in folds], persons.num_rows)

        found["iterative-stratification"] = iterative
    if grouped == "always":

        def by_group() -> NDArray[np.int64]:
            from sklearn.model_selection import StratifiedGroupKFold

            k = min(20, int(np.bincount(cells).max()))  # it refuses more folds than the largest stratum has persons
            folds = StratifiedGroupKFold(k, shuffle=True, random_state=0).split(cells, cells, np.arange(len(cells)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # strata of fewer persons than folds
                return twentieths([test for _, test in folds], persons.num_rows)

        found["StratifiedGroupKFold"] = by_group
    return found


def twentieths(folds: list[NDArray[np.int64]], persons: int) -> NDArray[np.int64]:
    """Twenty folds (or fewer) joined to 14, 3 and 3 twentieths."""
    split = np.zeros(persons, dtype=np.int64)
    train, validation = round(0.70 * len(folds)), round(0.85 * len(folds))
    for i, members in enumerate(folds):
        split[members] = 0 if i < train else 1 if i < validation else 2
    return split


def figures(split: NDArray[np.int64], codes: NDArray[np.int64], cells: NDArray[np.int64]) -> list[str]:
    strata = deviations(split, cells)[0]
    levels = [deviations(split, codes[:, i]) for i in range(codes.shape[1])]
    persons_off = np.concatenate([d for d, _ in levels])
    points = max(float((100 * d / n)[n >= 20].max()) for d, n in levels)
    total, everyone = deviations(split, np.zeros(len(split), dtype=np.int64))
    return [
        f"{strata.max():.2f}",
        str(int((strata >= 1 - 1e-9).sum())),
        f"{persons_off.max():.2f}",
        str(int((persons_off >= 2 - 1e-9).sum())),
        f"{points:.2f}",
        f"{100 * float(total[0]) / int(everyone[0]):.3f}",
    ]


def deviations(split: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Largest deviation of each group from its shares in persons, and its size."""
    table = np.zeros((int(groups.max()) + 1, 3))
    np.add.at(table, (groups, split), 1)
    sizes = table.sum(axis=1)
    return np.abs(table - sizes[:, None] * np.array(list(TWENTIETHS.values())) / 20).max(axis=1), sizes.astype(np.int64)


if __name__ == "__main__":
    main()
