"""A million series from survey to report: persons, clinical join, cohort, split, shard buckets, the page's numbers.

    python benchmarks/million.py

Takes every row of the public index of the Imaging Data Commons (pip install idc-index-data==25.0.5) as the survey of an
archive, in the tables a build makes of one, and goes through what ``builder plan`` does after the survey, with the same
functions. CT series of at least 20 slices are the cohort. No image is read. Prints seconds a step (of the clock and of
the processor) and the peak of memory. Target: under 60 s and 4 GB on two cores.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
from figures import figure

from builder.cohort import Cohort, select_cohort
from builder.headers.vendors import normalise
from builder.model.keyed import Key
from builder.model.tables import EXCLUSIONS
from builder.persons import group_persons
from builder.persons.grouping import COLUMNS
from builder.plan import CasePlan, assign_buckets
from builder.planning.candidates import person_column, series_table
from builder.planning.deal import deal, shared_keys
from builder.report import ReportInputs, assemble, render
from builder.spec import DatasetSpec
from builder.stages.stack_rows import STACKS

STRATA = ["collection", "sex", "age_band", "vendor"]
SPEC = {
    "name": "million", "license": "mixed", "sources": [{"kind": "folder", "url": "/nowhere"}],
    "deid": {"patient_key": "${env:BUILDER_KEY}"}, "samples": {"kind": "volumes"},
    "splits": {"stratify": STRATA, "seed": 7},
}  # fmt: skip


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print how long the block took."""
    clock, used = time.perf_counter(), time.process_time()
    yield
    figure(name, time.process_time() - used, "s")
    print(f"{name}: {time.perf_counter() - clock:.1f} s ({time.process_time() - used:.1f} s of processor)", flush=True)


def main() -> None:
    """Measure and print."""
    start, used = time.perf_counter(), time.process_time()
    key = Key(b"benchmark" * 4)
    with step("survey as tables"):
        stacks, clinical = survey()
    with step("persons"):
        persons = group_persons(stacks.select(list(COLUMNS)), key=key)
        keys = person_column(stacks, persons)
    with step("clinical join"):
        joined, counts = clinical_table(clinical, stacks, keys)
        table = series_table(stacks, keys, key=key, clinical=joined)
        table = with_decisions(table, stacks, counts)
    with step("cohort"):
        options = Cohort(image="modality == 'CT'", rules=({"name": "slices", "keep": "instances >= 20"},))
        cohort = select_cohort(table, options, labelled=False)
        del table, stacks
    with step("split"):
        splits = deal(DatasetSpec.model_validate(SPEC), cohort, persons, together=groups(cohort))
    with step("plan"):
        shards = assign_buckets(cases(cohort), key=key, most_cases=32, most_bytes=64 << 20)
    with step("report"):
        index = samples(cohort, splits)
        page = render(report(index, cohort, splits))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{cohort.num_rows} series, {index.num_rows} of them in the cohort, {len(persons.members)} persons, "
          f"{len(shards)} shards, a page of {len(page)} characters")  # fmt: skip
    figure("total", time.process_time() - used, "s")
    figure("memory", peak, "GB")
    print(f"total {time.perf_counter() - start:.1f} s, {time.process_time() - used:.1f} s of processor, "
          f"peak {peak:.2f} GB")  # fmt: skip


def survey() -> tuple[pa.Table, pa.Table]:
    """Rows by schema STACKS, one a series; and a clinical row a patient."""
    import idc_index_data

    index = str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
    columns = [f.name for f in STACKS]
    known = {
        "series_uid": "SeriesInstanceUID", "study_uid": "StudyInstanceUID",
        "patient_id": "collection_id || '/' || PatientID", "patient_sex": "PatientSex",
        "study_date": "replace(CAST(StudyDate AS VARCHAR), '-', '')", "modality": "Modality", "site": "collection_id",
        "collection": "collection_id",
        "instances": "instanceCount", "frames": "instanceCount", "slices": "instanceCount",
        "manufacturer": "Manufacturer",
        "manufacturer_model": "ManufacturerModelName", "body_part": "BodyPartExamined",
        "bytes": "CAST(series_size_MB * 1e6 AS BIGINT)", "verdict": "'regular'", "stack": "0", "chunk": "0",
        "sex": "CASE WHEN PatientSex IN ('F', 'M') THEN PatientSex END",
        "age_years": "CASE WHEN regexp_matches(PatientAge, '^[0-9]{3}Y$') THEN CAST(PatientAge[1:3] AS DOUBLE) END",
    }  # fmt: skip
    picked = ", ".join(f"{known.get(name, 'NULL')} AS {name}" for name in columns)
    stacks = duckdb.sql(f"SELECT {picked} FROM read_parquet('{index}') ORDER BY SeriesInstanceUID").to_arrow_table()
    stacks = stacks.cast(STACKS)
    place = stacks.schema.get_field_index("vendor")
    vendors = {m: normalise(m) for m in stacks["manufacturer"].unique().to_pylist()}
    stacks = stacks.set_column(
        place, STACKS.field(place), pa.array([vendors[m] for m in stacks["manufacturer"].to_pylist()], pa.string())
    )
    clinical = duckdb.sql(
        f"""
        SELECT collection_id || '/' || PatientID AS patient_id, min(collection_id) AS collection,
            min(PatientAge) FILTER (WHERE regexp_matches(PatientAge, '^[0-9]{{3}}Y$'))[1:2] || '0s' AS decade
        FROM read_parquet('{index}') GROUP BY 1 ORDER BY 1
        """
    ).to_arrow_table()
    return stacks, clinical


def clinical_table(clinical: pa.Table, stacks: pa.Table, keys: list[str]) -> tuple[pa.Table, list[int]]:
    """The clinical row of every stack's person, and how many rows each stack has."""
    known = dict(zip(stacks["patient_id"].to_pylist(), keys, strict=True))
    rows = {known[name]: i for i, name in enumerate(clinical["patient_id"].to_pylist())}
    places = [rows.get(person) for person in keys]
    table = clinical.drop_columns(["patient_id"]).take(pa.array(places, pa.int64()))
    return table, [int(place is not None) for place in places]


def with_decisions(table: pa.Table, stacks: pa.Table, counts: list[int]) -> pa.Table:
    """What the cohort's fixed rules look at."""
    extra = {
        "usable_reason": pa.nulls(table.num_rows, pa.string()), "usable_detail": pa.nulls(table.num_rows, pa.string()),
        "clinical_rows": pa.array(counts, pa.int64()), "label_state": pa.nulls(table.num_rows, pa.string()),
        "label_detail": pa.nulls(table.num_rows, pa.string()), "case_key": table["series_key"],
    }  # fmt: skip
    bands = pa.array([None if a is None else f"{int(a // 10) * 10}s" for a in stacks["age_years"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("age_band"), "age_band", bands)
    for name, values in extra.items():
        table = table.append_column(name, values)
    return table


def groups(cohort: pa.Table) -> list[tuple[str, ...]]:
    """Persons who share a frame of reference or an accession number."""
    return [group for found in shared_keys(cohort) for group in found.groups]


def cases(cohort: pa.Table) -> list[CasePlan]:
    """Every included series as a case to build."""
    rows = cohort.filter(cohort["included"]).select(["case_key", "person_key", "series_key", "bytes"])
    return [
        CasePlan(case, person, series, 0, size, size, 2 * size)
        for case, person, series, size in zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True)
    ]


def samples(cohort: pa.Table, splits: pa.Table) -> pa.Table:
    """The included series with their split."""
    home = dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))
    index = cohort.filter(cohort["included"])
    index = index.append_column("split", pa.array([home[p] for p in index["person_key"].to_pylist()], pa.string()))
    return index.append_column("sample_key", index["case_key"])


def report(index: pa.Table, cohort: pa.Table, splits: pa.Table) -> dict[str, object]:
    """All numbers of the page."""
    return assemble(ReportInputs(
        index=index, cohort=cohort, exclusions=EXCLUSIONS.empty_table(), splits=splits, totals={}, lock={},
        groups=["sex", "age_band", "vendor"], labels=["collection"], rules=["image", "slices"],
        ratios={"train": 0.70, "validation": 0.15, "test": 0.15}, strata=STRATA,
    ))  # fmt: skip


if __name__ == "__main__":
    main()
