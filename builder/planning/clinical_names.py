"""What a clinical table may call each stack, by the fact of an image that a column of it names."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa

from builder.clinical import ClinicalTable, Rows
from builder.planning.clinical_archive import Archive
from builder.protocols import Source
from builder.sources.folder import Folder


def is_issued(options: ClinicalTable) -> bool:
    """Return whether ids of persons count only together with who issued them."""
    return options.issuer is not None or "issuer" in options.joins.values()


def with_issuers(rows: Rows, options: ClinicalTable, archive: Archive) -> Rows:
    """Return rows whose ids of persons are written together with who issued them; a person has several such pairs."""
    if not is_issued(options):
        return rows
    joins = [*options.joins.values()]
    person, names = joins.index("person"), options.issuer_names

    def issued(keys: tuple[str, ...]) -> tuple[str, ...]:
        told = options.issuer if options.issuer is not None else keys[joins.index("issuer")]
        pair = archive.issued(names.get(told, told), keys[person])
        return tuple(pair if fact in ("person", "issuer") else key for fact, key in zip(joins, keys, strict=True))

    return replace(rows, rows=tuple(replace(row, keys=issued(row.keys)) for row in rows.rows))


def names_of(
    fact: str, options: ClinicalTable, rows: Rows, inside: Sequence[bool], archive: Archive
) -> list[tuple[str, ...]]:
    """Return the names a table may use for each stack in the column of a fact; none for stacks outside the table."""
    if fact in ("person", "issuer"):
        of = archive.issued_ids if is_issued(options) else archive.person_ids
        ids = of(inside)  # a row about a person applies to all images, wherever they were made
        return [ids.get(person, ()) for person in archive.persons]
    if fact == "date":
        reach = range(-options.within_days, options.within_days + 1)
        names = [
            () if day is None else tuple((day + timedelta(days=n)).isoformat() for n in reach)
            for day in archive.study_dates
        ]
    elif fact in ("instance", "file"):
        return _instance_names(fact, options, rows, inside, archive)
    else:
        column = {"study": "study_uid", "series": "series_uid", "accession": "accession_number"}[fact]
        texts = [(text or "").strip(" \0") for text in archive.stacks[column].to_pylist()]
        names = [(text,) if text else () for text in texts]
    return [found if counts else () for found, counts in zip(names, inside, strict=True)]


def _instance_names(
    fact: str, options: ClinicalTable, rows: Rows, inside: Sequence[bool], archive: Archive
) -> list[tuple[str, ...]]:
    if fact == "instance":
        tables = archive.instance_names(["sop_instance_uid"], inside)
        return [() if t is None else tuple(filter(None, t["sop_instance_uid"].to_pylist())) for t in tables]
    place = list(options.joins.values()).index("file")
    lengths = {row.keys[place].count("/") + 1 for row in rows.rows}
    tables = archive.instance_names(["path", "member"], inside)
    folders = [_folders(source) for source in archive.inputs.spec.sources]
    return [
        () if t is None else _ends(t, lengths, folders[source])
        for t, source in zip(tables, archive.sources, strict=True)
    ]


def _folders(source: Source) -> tuple[str, ...]:
    """Return the places of a source's folder, as written and with links resolved; "" for sources without one."""
    if not isinstance(source, Folder):
        return ("",)
    return tuple({place.as_posix().strip("/") for place in (source.place, source.root)})


def _ends(instances: pa.Table, lengths: Iterable[int], folders: Sequence[str]) -> tuple[str, ...]:
    """Return the last parts of every file's path, as many as the table writes: the file name, or folders above it too.

    The folders of the source, and those above it, count: tables state paths from where their author stood.
    """
    found = set()
    for path, member in zip(instances["path"].to_pylist(), instances["member"].to_pylist(), strict=True):
        inside = f"{path}/{member}".replace("\\", "/").strip("/") if member else path
        for folder in folders:
            parts = [part for part in (*folder.split("/"), *inside.split("/")) if part]
            found |= {"/".join(parts[-n:]) for n in lengths if n <= len(parts)}
    return tuple(sorted(found))
