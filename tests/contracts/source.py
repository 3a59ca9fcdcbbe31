"""What every source must keep; a source's test subclasses ``SourceContract`` and gives one fixture."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from builder.errors import CaseError, SourceError
from builder.model.tables import INSTANCES
from builder.protocols import Describing, Source
from builder.sources import SOURCES, AnySource
from builder.stages.index import index_partition


@dataclass(frozen=True)
class Held:
    """A working source and what it must hold: SOP Instance UID to the bytes of its object."""

    source: Any
    files: Mapping[str, bytes]


class SourceContract:
    """Subclass it and give the fixture ``held``."""

    @pytest.fixture
    def held(self) -> Any:
        raise NotImplementedError

    def test_is_a_source_named_in_the_table(self, held: Held) -> None:
        assert isinstance(held.source, Source)
        assert SOURCES[held.source.kind] is type(held.source)
        assert isinstance(held.source.VERSION, int)
        assert isinstance(held.source.lane, str)

    def test_is_its_own_frozen_options(self, held: Held) -> None:
        block = held.source.model_dump(mode="json")
        assert TypeAdapter(AnySource).validate_python(block) == held.source
        assert pickle.loads(pickle.dumps(held.source)) == held.source  # noqa: S301 - our own bytes
        with pytest.raises(ValidationError):
            TypeAdapter(AnySource).validate_python(block | {"no such option": 1})
        with pytest.raises(ValidationError):
            held.source.site = "elsewhere"

    def test_lists_everything_once_in_one_order(self, held: Held) -> None:
        entries = list(held.source.list())
        assert entries == list(held.source.list())
        assert len({(entry.path, entry.member) for entry in entries}) == len(entries) == len(held.files)

    def test_reads_whole_objects_and_ranges(self, held: Held) -> None:
        for entry in held.source.list():
            data = held.source.read(entry)
            assert data in held.files.values()
            cut = len(data) // 3
            assert held.source.read(entry, start=0, length=cut) + held.source.read(entry, start=cut) == data
            assert held.source.read(entry, start=len(data), length=8) == b""

    def test_is_indexed_without_loss(self, held: Held) -> None:
        entries = list(held.source.list())
        table = index_partition(held.source, 3, entries)
        assert table.schema.equals(INSTANCES)
        assert set(table["sop_instance_uid"].to_pylist()) == set(held.files)
        assert set(table["status"].to_pylist()) == {"instance"}
        assert table.equals(index_partition(held.source, 3, entries))
        if isinstance(held.source, Describing):
            assert len(list(held.source.describe(entries))) == len(entries)

    def test_what_is_not_there_is_an_error_without_identifiers(self, held: Held) -> None:
        entry = next(iter(held.source.list()))
        absent = replace(entry, path=entry.path + ".999", member=entry.member and entry.member + ".999")
        with pytest.raises((CaseError, SourceError)) as caught:
            held.source.read(absent)
        assert absent.path not in str(caught.value)
        assert not any(uid in str(caught.value) for uid in held.files)
