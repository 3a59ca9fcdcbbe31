"""The last look before publishing: nothing that leaves holds a value the archive would recognise."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from builder.deid.leaks import Canaries, assert_clean
from builder.deid.text import vocabulary
from builder.plan import DatasetPlan

IDENTIFYING = (
    "patient_id",
    "accession_number",
    "sop_instance_uid",
    "series_uid",
    "study_uid",
    "frame_of_reference_uid",
    "device_serial_number",
)
TEXTS = (".json", ".html", ".csv", ".txt", ".md", ".xml")


def scan(plan: DatasetPlan, tables: Mapping[str, pa.Table], files: Mapping[str, bytes]) -> None:
    """Search tables and text files for identifiers of persons, studies, series and annotation objects.

    Raises
    ------
    PrivacyError
        Naming the file, never the value; nothing is published then.
    """
    canaries = Canaries.of(_identifiers(plan), ordinary=vocabulary())
    for name, table in sorted(tables.items()):
        assert_clean(table, canaries, where=name)
    for name, data in sorted(files.items()):
        if name.endswith(TEXTS):
            assert_clean(data, canaries, where=name)


def _identifiers(plan: DatasetPlan) -> Iterator[str]:
    for _, patient in plan.persons.keys:
        yield patient
    yield from plan.cohort.column("series_uid").to_pylist()
    for column in IDENTIFYING:
        yield from (value for value in plan.annotations.column(column).unique().to_pylist() if value)
