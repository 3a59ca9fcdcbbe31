"""Splits compared in one run: ours, random, scikit-learn's StratifiedGroupKFold, iterative-stratification.

    python benchmarks/split.py [--slow]

On the CT patients of the public index of the Imaging Data Commons (pip install idc-index-data==25.0.5). ``--slow``
adds StratifiedGroupKFold, which takes minutes; iterative-stratification is compared when it is installed
(pip install iterative-stratification). Prints a row a method: seconds, and how far strata, single levels and the
total are off (points: levels of at least 20 persons).
"""

import sys
import time
from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.report.vendors import normalise
from builder.split import assign

RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}
STRATA = ["collection", "sex", "age_band", "vendor"]
TWENTIETHS = {"train": 14, "validation": 3, "test": 3}


def main() -> None:
    persons = idc_ct_persons()
    codes, cells = cells_of(persons)
    print(f"{persons.num_rows} persons, {len(np.unique(cells))} strata")
    header = ("method", "s", "stratum off", "strata >= 1", "level off", "levels >= 2", "worst points", "total points")
    print(" | ".join(header))
    for name, method in methods(persons, codes, cells).items():
        start = time.perf_counter()
        split = method()
        seconds = time.perf_counter() - start
        print(" | ".join([name, f"{seconds:.2f}", *figures(split, codes, cells)]), flush=True)


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


def cells_of(persons: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(person, column) codes of the strata columns, and the stratum of each person."""
    columns = [np.unique([str(v) for v in persons[c].to_pylist()], return_inverse=True)[1] for c in STRATA]
    codes = np.stack(columns, axis=1)
    return codes, np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def methods(
    persons: pa.Table, codes: NDArray[np.int64], cells: NDArray[np.int64]
) -> dict[str, Callable[[], NDArray[np.int64]]]:
    """Name to a function that gives 0, 1 or 2 (train, validation, test) a person."""
    number = {name: i for i, name in enumerate(RATIOS)}

    def ours() -> NDArray[np.int64]:
        table = assign(persons, ratios=RATIOS, strata=STRATA, seed=7)
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
    if "--slow" in sys.argv:

        def grouped() -> NDArray[np.int64]:
            from sklearn.model_selection import StratifiedGroupKFold

            folds = StratifiedGroupKFold(20, shuffle=True, random_state=0).split(cells, cells, np.arange(len(cells)))
            return twentieths([test for _, test in folds], persons.num_rows)

        found["StratifiedGroupKFold"] = grouped
    return found


def twentieths(folds: list[NDArray[np.int64]], persons: int) -> NDArray[np.int64]:
    """Twenty folds joined to 14, 3 and 3."""
    split = np.zeros(persons, dtype=np.int64)
    for i, members in enumerate(folds):
        split[members] = 0 if i < 14 else 1 if i < 17 else 2
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
