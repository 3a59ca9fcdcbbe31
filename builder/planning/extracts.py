"""Read the bytes of clinical tables: of files as they are, of extracts as a snapshot that stays in the workspace."""

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from builder.clinical import ClinicalTable
from builder.clinical.phenotypes import Codes
from builder.errors import SourceError, SpecError
from builder.extracts.extract import SIZE_LIMIT
from builder.model.secrets import read_variable
from builder.planning.inputs import PlanInputs
from builder.planning.lock import package_version
from builder.sources.patience import Fault, persist
from builder.storage import open_store, read_at

Answer = TypeVar("Answer")

EXTRACTS: Final = "extracts"
"""Folder of the private workspace with the rows that a plan took from elsewhere, of all persons there."""


@dataclass(frozen=True)
class Taken:
    """The bytes of a table, private, and what the lock says of an extract: kind, version and keyed hash."""

    data: bytes = field(repr=False)
    lock: tuple[str, ...] = ()


def take(options: ClinicalTable, number: int, inputs: PlanInputs) -> Taken:
    """Return a table. What an extract gives is kept as ``extracts/<number>.parquet`` in the private workspace.

    The hash is keyed, because a table of few rows could be guessed from a plain one.

    Raises
    ------
    SpecError
        When there is no such file, or an extract cannot be had as declared.
    SourceError
        When a server does not answer.
    """
    if options.url is not None:
        return Taken(_read(options.url))
    extract = options.extract
    assert extract is not None  # the spec has one of them
    found = extract.take(World())
    for note in found.notes:
        inputs.progress.say(f"clinical: table {number} ({options.title}): {note}")
    data = _parquet(found.table)
    inputs.private.put(f"{EXTRACTS}/{number}.parquet", data)
    digest = inputs.key.name("clinical table", hashlib.sha256(data).hexdigest())
    return Taken(data, (f"{extract.kind} {extract.VERSION} {digest}",))


def with_code_files(options: ClinicalTable) -> ClinicalTable:
    """Return a table whose phenotypes list the codes of the files that they name. Raises SpecError without a file."""

    def filled(codes: Codes) -> Codes:
        if codes.url is None:
            return codes
        lines = (
            re.split(r"[,;\t#]", line)[0].strip(" \"'\r") for line in _read(codes.url).decode("utf-8-sig").split("\n")
        )
        return codes.model_copy(update={"codes": (*codes.codes, *filter(None, lines))})

    phenotypes = {
        name: block.model_copy(update={"any_of": tuple(map(filled, block.any_of))})
        for name, block in options.phenotypes.items()
    }
    return options.model_copy(update={"phenotypes": phenotypes}) if phenotypes else options


def decided_by(options: ClinicalTable) -> tuple[str, ...]:
    """Return what the lock says of that by which values are made: code lists by their hash, and libraries of units."""
    urls = [codes.url for block in options.phenotypes.values() for codes in block.any_of if codes.url is not None]
    lists = [f"codes sha256:{hashlib.sha256(_read(url)).hexdigest()}" for url in dict.fromkeys(urls)]
    in_units = any(column.unit_from is not None for column in options.columns.values())
    return (*lists, *(f"{name} {package_version(name)}" for name in ("ucumvert", "pint") if in_units))


class World:
    """What extracts may use of the world outside (``builder.protocols.Outside``)."""

    def files(self, url: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """Yield name and bytes of a file, or of the wanted files of a folder."""
        store, alone = open_store(url), url.rpartition("/")[2]
        try:
            names = sorted(store.list())
        except (NotADirectoryError, FileNotFoundError):
            names = []
        if not names and wanted(alone):
            yield alone, _read(url)
        names = list(filter(wanted, names))
        size = sum(map(store.size, names))
        if size > SIZE_LIMIT:
            raise SpecError(f"found {size} bytes of files, expected at most {SIZE_LIMIT}: take fewer tables or years")
        for name in names:
            yield name, store.read(name)

    def variable(self, name: str, *, where: str) -> str:
        """Return an environment variable that a spec may read."""
        return read_variable(name, os.environ, where=where)

    def ask(self, call: Callable[[], Answer], *, title: str, host: str) -> Answer:
        """Call until there is an answer, or patience ends."""

        def once() -> Answer:
            try:
                return call()
            except SourceError as error:
                raise Fault(f"found that {error}", answered=False) from None

        return persist(once, source=title, host=host)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd")
    return sink.getvalue()


def _read(url: str) -> bytes:
    try:
        return read_at(url)
    except FileNotFoundError:
        raise SpecError("found no file at its url, expected the table; check the path") from None
    except IsADirectoryError:
        raise SpecError("found a folder at its url, expected the table's file") from None
