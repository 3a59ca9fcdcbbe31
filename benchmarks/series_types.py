"""Coverage and errors of the rules that say what a series is, on the index of the Imaging Data Commons.

    python benchmarks/series_types.py

The index (PyPI: idc-index-data) holds descriptions but no acquisition parameters, so only rules on texts and SOP
classes can fire. It prints the share of series with a type by modality, and compares descriptions with labels in
``idc_series_labels.csv``. These were written before the rules' answers were seen: 300 drawn by modality before the
first rule was written; 150 more of CT, MR and PET ("fresh") after the rules had been improved with the first 300; and
300 more ("third") after they had been improved with both.
"""

import csv
import math
from collections import Counter
from pathlib import Path

import duckdb
import idc_index_data
import pyarrow as pa

from builder.imaging.series_types import UNKNOWN, work_out

LABELS = Path(__file__).with_name("idc_series_labels.csv")
COLUMNS = """SeriesInstanceUID AS series_uid, Modality AS modality, SeriesDescription AS series_description,
    StudyDescription AS study_description, BodyPartExamined AS body_part, SOPClassUID AS sop_class_uid"""
IMAGES = ("CT", "MR", "PT", "MG", "CR", "DX", "US", "NM", "SM", "XA", "RF")


def main() -> None:
    """Print coverage by modality, then errors with their intervals."""
    for modality in IMAGES:
        series = read(f"Modality = '{modality}'")
        kinds = Counter(typed(series).values())
        known = series.num_rows - kinds.pop(UNKNOWN, 0)
        most = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(8))
        print(f"{modality}: {known} of {series.num_rows} series ({known / series.num_rows:.1%}): {most}")
    with LABELS.open() as file:
        labels = list(csv.DictReader(file))
    for draw in ("first", "fresh", "third"):
        judge(draw, {row["series_uid"]: row["series_type"].split("|") for row in labels if row["draw"] == draw})


def read(where: str) -> pa.Table:
    """Return the series of the index that fulfil a condition."""
    return duckdb.sql(
        f"SELECT {COLUMNS} FROM read_parquet('{idc_index_data.IDC_INDEX_PARQUET_FILEPATH}') WHERE {where}"
    ).to_arrow_table()


def typed(series: pa.Table) -> dict[str, str]:
    """Return the type of each series by its UID."""
    found: dict[str, str] = {}
    for start in range(0, series.num_rows, 20_000):
        part = series.slice(start, 20_000)
        types = work_out(part.drop_columns(["series_uid"])).column("series_type").to_pylist()
        found |= dict(zip(part.column("series_uid").to_pylist(), types, strict=True))
    return found


def judge(draw: str, labels: dict[str, list[str]]) -> None:
    """Print how many labelled descriptions got a type, and how many of these are wrong."""
    uids = ", ".join(f"'{uid}'" for uid in labels)
    answers = {uid: kind for uid, kind in typed(read(f"SeriesInstanceUID IN ({uids})")).items() if kind != UNKNOWN}
    wrong = [uid for uid, kind in answers.items() if kind not in labels[uid]]
    low, high = wilson(len(wrong), len(answers))
    print(
        f"{draw}: {len(answers)} of {len(labels)} descriptions have a type, {len(wrong)} of them wrong: "
        f"{len(wrong) / len(answers):.1%} (95 % interval {low:.1%} to {high:.1%})"
    )


def wilson(hits: int, among: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    share, squared = hits / among, z * z / among
    middle = share + squared / 2
    half = z * math.sqrt(share * (1 - share) / among + squared / among / 4)
    return max(0.0, (middle - half) / (1 + squared)), (middle + half) / (1 + squared)


if __name__ == "__main__":
    main()
