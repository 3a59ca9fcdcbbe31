"""The case boundary: what nobody foresaw costs one case and is tried again; faults of the machine stop a build."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.hooks import hooks
from pydicom.tag import Tag

from builder.errors import CaseError, OutcomeError, Reason, SourceError
from builder.headers.boundary import elements_as, parsing
from builder.imaging.parse import parse_instance
from builder.imaging.rows import instances_of
from builder.library.verify import verify
from builder.run import pipeline
from builder.run.journal import read_events
from builder.run.outcomes import Built
from builder.run.progress import SilentProgress
from builder.stages import index, loading, survey
from builder.stages.boundary import describe, fault_of_case
from tests import synthetic
from tests.endtoend.trees import KEY, tree

SPEC = """
name: boundary
license: CC0-1.0
sources: [{kind: folder, url: "${tree}"}]
deid: {patient_key: "${env:BUILDER_KEY}"}
splits: {may_be_empty: [train, validation, test]}
max_lost: {cases: 1, persons: 1}
samples: {kind: volumes, chunk: [8, 32, 32]}
"""
SECRET = "DOE^JANE"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two persons: the one with 5 slices is the one that things happen to."""
    for name, slices in (("one", 4), ("other", 5)):
        synthetic.ct_series(tmp_path / "archive" / name, patient_id=name, slices=slices)
    return tmp_path / "archive"


def build(archive: Path, to: Path, **options: Any) -> Built:
    spec = to.with_suffix(".yaml")
    spec.write_text(SPEC)
    return pipeline.build(spec, to=to, parameters={"tree": str(archive)}, **options)


def published(to: Path, name: str) -> list[dict[str, Any]]:
    version = (to / "CURRENT").read_text().strip()
    return pq.read_table(to / "versions" / version / f"{name}.parquet").to_pylist()


def break_load(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the case of five slices raise."""
    load = loading.load

    def broken(plan: Any, objects: Any, *rest: Any, **more: Any) -> Any:
        if objects.rows.num_rows == 5:
            raise error
        return load(plan, objects, *rest, **more)

    patch.setattr(loading, "load", broken)


def test_an_unforeseen_exception_costs_one_case_and_is_told(archive: Path, tmp_path: Path) -> None:
    to = tmp_path / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        break_load(patch, KeyError(SECRET))
        built = build(archive, to, on_internal_error="exclude")
    assert (built.published.cases, built.internal_errors) == (1, 1)
    assert "INTERNAL ERROR: 1" in built.text().splitlines()[-2]
    (excluded,) = [row for row in published(to, "exclusions") if row["level"] == "case"]
    assert excluded["reason"] == "internal_error"
    assert "found KeyError in builder/stages/loading.py line" in excluded["detail"]
    (event,) = [e for e in read_events(str(to)) if e["event"] == "internal_error"]
    assert "in broken" in event["trace"]
    assert event["left_out"] == excluded["key"]
    assert SECRET not in json.dumps(event)  # messages of exceptions may quote the archive
    assert not verify(str(to)).faults


def test_it_is_told_where_nothing_is_published_too(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(SilentProgress):
        said: ClassVar[list[str]] = []

        def say(self, message: str) -> None:
            self.said.append(message)

    monkeypatch.setattr(loading, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(OutcomeError):
        build(archive, tmp_path / "dataset", on_internal_error="exclude", progress=Heard())
    assert [text.splitlines()[0][:17] for text in Heard.said if "INTERNAL" in text] == ["INTERNAL ERROR: 2"]


def test_an_element_that_ends_too_early_is_a_fault_of_its_file() -> None:
    dataset = Dataset()
    dataset._dict[Tag(0x52009229)] = RawDataElement(Tag(0x52009229), "SQ", 4, b"\xfe\xff\x00", 0, False, True)
    with pytest.raises(OSError, match="No tag to read") as caught:  # as pydicom reports it
        dataset.get("SharedFunctionalGroupsSequence")
    assert fault_of_case(caught.value, on_internal_error="stop").reason == Reason.UNREADABLE
    with pytest.raises(OSError, match="gone"):  # of a disk or a server
        fault_of_case(OSError("gone"), on_internal_error="exclude")


def test_the_next_build_heals_the_shard_beside_the_published_one(archive: Path, tmp_path: Path) -> None:
    to = tmp_path / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        break_load(patch, KeyError(SECRET))
        build(archive, to, on_internal_error="exclude")
    before = tree(to)
    healed = build(archive, to)
    assert (healed.published.cases, healed.internal_errors) == (2, 0)
    after = tree(to)
    assert {path: after[path] for path in before if path != "CURRENT"} == {
        path: digest for path, digest in before.items() if path != "CURRENT"
    }  # a reader of the version before it finds every byte as it was
    assert not verify(str(to)).faults
    assert build(archive, to).published.unchanged


def test_a_fault_that_persists_is_tried_again_and_changes_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "dataset"
    break_load(monkeypatch, KeyError(SECRET))
    build(archive, to, on_internal_error="exclude")
    before = tree(to)
    again = build(archive, to, on_internal_error="exclude")
    assert (again.resumed, again.internal_errors) == (0, 1)
    assert tree(to) == before


def test_strict_stops_at_the_exception_itself(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_load(monkeypatch, KeyError(SECRET))
    with pytest.raises(KeyError):
        build(archive, tmp_path / "flag", on_internal_error="stop")
    monkeypatch.setenv("BUILDER_STRICT", "1")
    with pytest.raises(KeyError):
        build(archive, tmp_path / "variable")


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "I/O"), ImportError(), SourceError("gone")])
def test_faults_of_machine_and_transport_are_no_fault_of_a_case(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_load(monkeypatch, error)
    with pytest.raises(type(error)):
        build(archive, tmp_path / "dataset", on_internal_error="exclude")
    assert not (tmp_path / "dataset" / "CURRENT").exists()


def test_a_series_that_cannot_be_surveyed_is_left_out_alone_and_tried_again(archive: Path, tmp_path: Path) -> None:
    to, stacks_for = tmp_path / "dataset", survey.stacks_for

    def broken(instances: Any, options: Any) -> Any:
        if instances.num_rows == 5:
            raise ZeroDivisionError
        return stacks_for(instances, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "stacks_for", broken)
        built = build(archive, to, on_internal_error="exclude")
    assert (built.published.cases, built.internal_errors) == (1, 1)
    assert built.published.totals["instances"] == {"quarantined": 5, "used": 4}
    (row,) = [row for row in published(to, "exclusions") if row["level"] == "series"]
    assert row["reason"] == "internal_error"
    healed = build(archive, to)
    assert (healed.published.cases, healed.internal_errors) == (2, 0)


def test_a_file_that_cannot_be_indexed_is_left_out_alone_and_tried_again(archive: Path, tmp_path: Path) -> None:
    to = tmp_path / "dataset"
    (archive / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "file_row", lambda *_: dict[str, str]()["missing"])
        built = build(archive, to, on_internal_error="exclude")
    assert (built.published.cases, built.internal_errors) == (2, 1)
    assert built.published.totals["files"]["quarantined"] == 1
    healed = build(archive, to)
    assert healed.internal_errors == 0
    assert "quarantined" not in healed.published.totals["files"]


def test_a_row_that_does_not_fit_the_index_costs_its_file_alone(archive: Path, tmp_path: Path) -> None:
    (archive / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "file_row", lambda *_: {"rows": 2**70})
        built = build(archive, tmp_path / "dataset", on_internal_error="exclude")
    assert (built.published.cases, built.internal_errors) == (2, 1)


def test_a_damaged_element_is_a_fault_of_its_object_whenever_it_is_read() -> None:
    content = _with_rows_too_short()
    dataset = parse_instance(content)
    with pytest.raises(BytesLengthException) as caught:
        _ = dataset.Rows
    fault = fault_of_case(caught.value, on_internal_error="stop")
    assert fault.reason == Reason.UNREADABLE
    assert "Rows" in fault.detail
    with pytest.raises(CaseError) as label, elements_as(Reason.LABEL_UNREADABLE):
        _ = parse_instance(content).Rows
    assert label.value.reason == Reason.LABEL_UNREADABLE
    with pytest.raises(KeyError), elements_as(Reason.LABEL_UNREADABLE):
        raise KeyError


def test_memory_that_runs_out_over_an_element_is_no_absent_element(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a machine without memory would read a series as one without positions."""
    (image, *_) = synthetic.ct_series(slices=1).images
    dataset = parse_instance(synthetic.to_bytes(image))

    def out_of_memory(*given: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(hooks, "raw_element_value", out_of_memory)
    with pytest.raises(MemoryError):
        instances_of([dataset])


def test_whatever_a_parser_raises_is_a_fault_of_the_bytes() -> None:
    class Odd(Exception):
        pass

    with pytest.raises(CaseError) as caught, parsing(Reason.UNREADABLE, "a parser"):
        raise Odd(SECRET)
    assert str(caught.value) == "unreadable: a parser (Odd)"
    with pytest.raises(MemoryError), parsing(Reason.UNREADABLE, "a parser"):
        raise MemoryError
    with pytest.raises(SourceError), parsing(Reason.UNREADABLE, "a parser"):
        raise SourceError("gone")


def test_a_description_names_causes_and_no_messages() -> None:
    try:
        try:
            Dataset()["PatientName"]
        except KeyError as error:
            raise RuntimeError(SECRET) from error
    except RuntimeError as error:
        told = describe(error, "x").trace
    assert "RuntimeError" in told
    assert "KeyError" in told
    assert SECRET not in told


def _with_rows_too_short() -> bytes:
    """An image whose Rows (0028,0010) claims to be a double of two bytes."""
    content = synthetic.to_bytes(synthetic.ct_series().images[0])
    damaged = content.replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00FD\x02\x00")
    assert damaged != content
    return damaged
