"""Split and report of a million series: seconds and memory.

    python benchmarks/report.py

Takes the public index of the Imaging Data Commons (pip install idc-index-data==25.0.5) as the candidates: CT series of
at least 20 slices are included. Target: under 60 s and 4 GB on two cores.
"""

import resource
import time
from itertools import pairwise

import duckdb
import pyarrow as pa
from split import RATIOS, STRATA, idc_ct_persons  # benchmarks/split.py, beside this file

from builder.model.tables import EXCLUSIONS
from builder.report import assemble, render
from builder.split import assign


def main() -> None:
    marks = [("start", time.perf_counter())]
    persons = idc_ct_persons()
    splits = assign(persons, ratios=RATIOS, strata=STRATA, seed=7)
    marks.append(("persons and split", time.perf_counter()))
    cohort, index = tables(persons, splits)
    marks.append(("tables", time.perf_counter()))
    document = assemble(
        index=index,
        cohort=cohort,
        exclusions=EXCLUSIONS.empty_table(),
        splits=splits,
        totals={},
        lock={},
        groups=["sex", "age_band", "vendor", "collection"],
        labels=["collection"],
        ratios=RATIOS,
        strata=STRATA,
    )
    page = render(document)
    marks.append(("report", time.perf_counter()))
    for (_, before), (name, after) in pairwise(marks):
        print(f"{name}: {after - before:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{cohort.num_rows} series, {index.num_rows} samples, page of {len(page)} characters")
    print(f"total {marks[-1][1] - marks[0][1]:.1f} s, peak {peak:.2f} GB")


def tables(persons: pa.Table, splits: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Candidates and samples, one a series."""
    import idc_index_data

    index = str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
    connection = duckdb.connect()
    connection.register("persons", persons)
    connection.register("splits", splits)
    cohort = connection.sql(
        f"""
        SELECT SeriesInstanceUID AS series_key, StudyInstanceUID AS study_key,
            collection_id || '/' || PatientID AS person_key, Modality AS modality, PatientSex AS sex,
            collection_id AS collection, instanceCount AS instances,
            Modality = 'CT' AND instanceCount >= 20 AS included,
            CASE WHEN Modality <> 'CT' THEN 'image' WHEN instanceCount < 20 THEN 'geometry' END AS rule,
            CASE WHEN Modality <> 'CT' THEN 'not_selected' WHEN instanceCount < 20 THEN 'single_slice' END AS reason
        FROM read_parquet('{index}')
        """
    ).to_arrow_table()
    connection.register("cohort", cohort)
    samples = connection.sql(
        """
        SELECT series_key AS sample_key, series_key AS case_key, person_key, split, c.modality, p.sex, p.age_band,
            p.vendor, p.manufacturer, p.collection
        FROM cohort c JOIN splits USING (person_key) JOIN persons p USING (person_key) WHERE included
        """
    ).to_arrow_table()
    return cohort, samples


if __name__ == "__main__":
    main()
