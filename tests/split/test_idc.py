"""The split of 39,512 CT patients of a public archive, recounted with pandas."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from builder.headers.vendors import normalise
from builder.split import assign

idc = pytest.importorskip("idc_index_data", reason="pip install idc-index-data==25.0.5")

RATIOS = {"train": 0.70, "validation": 0.15, "test": 0.15}
STRATA = ["collection", "sex", "age_band", "manufacturer"]


def test_every_stratum_and_every_level_of_a_large_archive():
    persons = duckdb.sql(
        f"""
        SELECT collection_id || '/' || PatientID AS person_key, collection_id AS collection, min(PatientSex) AS sex,
            min(PatientAge)[1:2] AS age_band, min(Manufacturer) AS manufacturer, count(*) AS series
        FROM read_parquet('{idc.IDC_INDEX_PARQUET_FILEPATH}') WHERE Modality = 'CT' GROUP BY 1, 2
        """
    ).to_arrow_table()
    vendors = [normalise(m) for m in persons["manufacturer"].to_pylist()]
    persons = persons.set_column(4, "manufacturer", [vendors])
    split = assign(persons, ratios=RATIOS, strata=STRATA, seed=3)
    frame = persons.to_pandas().fillna("missing").merge(split.to_pandas(), on="person_key")
    assert len(frame) == persons.num_rows > 30_000

    def off(columns):
        counts = pd.crosstab([frame[c] for c in columns], frame.split)[list(RATIOS)]
        return np.abs(counts.values - np.outer(counts.sum(axis=1), list(RATIOS.values()))).max()

    assert off(STRATA) < 1
    assert off(["stratum"]) < 1
    assert all(off([column]) < 2 for column in STRATA)
    shares = frame.split.value_counts(normalize=True)
    assert all(abs(shares[s] - r) < 0.0005 for s, r in RATIOS.items())
    series = frame.groupby("split").series.sum() / frame.series.sum()
    assert all(abs(series[s] - r) < 0.0005 for s, r in RATIOS.items())
