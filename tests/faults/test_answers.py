"""A bad answer is never taken for missing data: one of each fault for each kind of server.

``make faults-long`` draws faults and moments (``BUILDER_FAULT_RUNS`` times, 200); CI runs one of each.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import builder
from builder.errors import IncompleteError, SourceError
from builder.run.pipeline import build
from builder.sources import DicomWeb, Idc, Tcia, contents, http
from builder.stages.index import index_partition
from tests.endtoend.trees import KEY, command, tree
from tests.faults.answers import FAULTS, STATED, Disturbed, disturbed_server
from tests.sources.quick import no_pauses
from tests.sources.servers import FakePacs
from tests.sources.test_tcia_and_idc import Bucket, nbia, write_index
from tests.synthetic import ct_series

KINDS = ("dicomweb", "tcia", "idc")
PERSONS = ("P1", "P2", "P3")
SPEC = """\
name: answers
license: CC0-1.0
sources:
  - {source}
deid: {{patient_key: "${{env:BUILDER_KEY}}"}}
splits: {{ratios: {{train: 1.0}}}}
samples: {{kind: volumes}}
max_lost: {{cases: 0.6, persons: 0.6}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three persons with a series each."""
    folder = tmp_path_factory.mktemp("archive")
    found = {}
    for person in PERSONS:
        made = ct_series(folder / person, slices=4, shape=(16, 16), patient_id=person)
        found |= {
            str(image.SOPInstanceUID): path.read_bytes() for image, path in zip(made.images, made.paths, strict=True)
        }
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setattr(http, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(http._LOCAL, "servers", {}, raising=False)
    contents._opened.cache_clear()


def healthy(kind: str, files: dict[str, bytes], folder: Path) -> Any:
    """The answers of a server of some kind."""
    if kind == "dicomweb":
        return FakePacs(files)
    if kind == "tcia":
        return nbia(files, set(), [])
    return Bucket(write_index(files, folder / "idc_index.parquet"))


def block(kind: str, folder: Path) -> dict[str, Any]:
    """The block of a spec that reads from it, without its address."""
    return {
        "dicomweb": {"page": 2},
        "tcia": {"collection": "My Collection"},
        "idc": {"index": str(folder / "idc_index.parquet"), "collections": ["mine"]},
    }[kind] | {"kind": kind}


def source_of(kind: str, url: str, folder: Path, *, content: str) -> Any:
    """A source with nothing kept yet."""
    where = {"endpoint" if kind == "idc" else "url": url}
    kinds: dict[str, Any] = {"dicomweb": DicomWeb, "tcia": Tcia, "idc": Idc}
    made = kinds[kind].model_validate(block(kind, folder) | where)
    return made.kept_in(str(folder / content))


def everything(source: Any) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The rows of its index and the bytes of its objects."""
    entries = list(source.list())
    return index_partition(source, 0, entries).to_pylist(), [source.read(entry) for entry in entries]


@pytest.mark.parametrize("fault", [*FAULTS, *STATED])
@pytest.mark.parametrize("kind", KINDS)
def test_source(kind: str, fault: str, files: dict[str, bytes], tmp_path: Path) -> None:
    """A fault that passes leaves no trace; one that stays stops the run; then the server gives what it always gave."""
    if fault in STATED and kind == "dicomweb":
        pytest.skip("DICOMweb states no hash of an object")
    disturbed = Disturbed(healthy(kind, files, tmp_path))
    if fault in STATED:  # lists have no hash
        disturbed.only = {"tcia": "getImage", "idc": ".dcm"}[kind]
    with disturbed_server(disturbed) as url:
        expected = everything(source_of(kind, url, tmp_path, content="a"))
        assert set(expected[1]) == set(files.values())
        disturbed.fault = fault
        if not (kind == "idc" and fault in STATED):  # the start of a file, which the index reads, has no hash
            assert everything(source_of(kind, url, tmp_path, content="b")) == expected
            assert disturbed.spoiled
        disturbed.persistent = True
        source = source_of(kind, url, tmp_path, content="c")
        if stays_harmless(kind, fault):
            assert everything(source) == expected
        else:
            with pytest.raises(SourceError, match=f"{kind} at 127.0.0.1|lists no object"):
                listed(everything(source))
        disturbed.fault = ""
        assert everything(source) == expected


def listed(found: tuple[list[dict[str, Any]], list[bytes]]) -> None:
    """What a run does with a source that lists nothing."""
    if not found[0]:
        raise SourceError("the source lists no object, expected at least one")


def stays_harmless(kind: str, fault: str) -> bool:
    """Whether the answers are still right: their content decides, not their stated type."""
    return fault == "type" and kind != "dicomweb"  # there the type names the boundary of the parts


@pytest.fixture(params=KINDS)
def served(request: Any, files: dict[str, bytes], tmp_path: Path) -> Iterator[tuple[str, Disturbed, Path, str]]:
    """A kind of server, its answers, a folder and its URL."""
    disturbed = Disturbed(healthy(request.param, files, tmp_path))
    with disturbed_server(disturbed) as url:
        yield request.param, disturbed, tmp_path, url


def write_spec(kind: str, folder: Path, url: str, **options: Any) -> Path:
    """A spec whose source is a server of some kind."""
    where = {"endpoint" if kind == "idc" else "url": url}
    text = ", ".join(
        f"{k}: {v if isinstance(v, (int, float)) else repr(v)}"
        for k, v in (block(kind, folder) | where | options).items()
    )
    path = folder / "spec.yaml"
    path.write_text(SPEC.format(source="{" + text + "}"))
    return path


def test_build_stops_and_then_gives_what_an_undisturbed_run_gives(served: tuple[str, Disturbed, Path, str]) -> None:
    kind, disturbed, folder, url = served
    spec = write_spec(kind, folder, url)
    build(spec, to=folder / "undisturbed")
    disturbed.only, disturbed.persistent = last_person(kind, disturbed), True
    for fault in ("half with its length", "empty", "404", "html"):
        disturbed.fault = fault
        contents._opened.cache_clear()
        with pytest.raises(IncompleteError, match="run the same command again"):
            build(spec, to=folder / "disturbed")
        assert not (folder / "disturbed" / "CURRENT").exists()
    disturbed.fault = ""
    assert not build(spec, to=folder / "disturbed").published.unchanged
    assert tree(folder / "disturbed") == tree(folder / "undisturbed")


def last_person(kind: str, disturbed: Disturbed) -> str:
    """What the requests for objects of one person contain, and no listing does."""
    series = {re_uid(target) for target in disturbed.asked if is_object(kind, target)}
    return sorted(series)[-1]


def is_object(kind: str, target: str) -> bool:
    """Whether a request asks for objects or their metadata."""
    return {"dicomweb": "/series/" in target and "?" not in target, "tcia": "getImage" in target}.get(
        kind, ".dcm" in target
    )


def re_uid(target: str) -> str:
    """The series in the target of a request for objects."""
    if "SeriesInstanceUID=" in target:
        return "SeriesInstanceUID=" + target.rpartition("=")[2]
    return target.split("/series/")[1].split("/")[0] + "/" if "/series/" in target else target.split("/")[1] + "/"


def test_build_leaves_a_study_out_and_asks_for_it_again(served: tuple[str, Disturbed, Path, str]) -> None:
    kind, disturbed, folder, url = served
    spec = write_spec(kind, folder, url, missing="exclude", missing_at_most=0.4)
    build(spec, to=folder / "undisturbed")
    disturbed.only, disturbed.persistent = last_person(kind, disturbed), True
    disturbed.fault = "404"
    contents._opened.cache_clear()
    for _ in range(2):  # never nothing to do
        built = build(spec, to=folder / "disturbed")
        assert len(builder.open_dataset(folder / "disturbed")) == len(PERSONS) - 1
        assert "source_incomplete" in str(built.facts()) + built.text()
    disturbed.fault = ""
    build(spec, to=folder / "disturbed")
    one, other = (builder.open_dataset(folder / name) for name in ("undisturbed", "disturbed"))
    assert sorted(s.row["case_key"] for s in one) == sorted(s.row["case_key"] for s in other)
    strict = write_spec(kind, folder, url, missing="exclude")
    disturbed.fault = "404"
    with pytest.raises(builder.errors.BuilderError, match="missing_at_most"):
        build(strict, to=folder / "strict")


def test_after_a_kill_nothing_complete_comes_twice(files: dict[str, bytes], tmp_path: Path) -> None:
    child: list[subprocess.Popen[bytes]] = []
    series: list[str] = []
    whole = nbia(files, set(), [])

    def answer(target: str, headers: dict[str, str]) -> Any:
        if "getImage" in target:
            series.append(target)
            if len(series) == 3 and child:
                child[0].send_signal(signal.SIGKILL)
        return whole(target, headers)

    with disturbed_server(Disturbed(answer)) as url:
        spec = write_spec("tcia", tmp_path, url, polite={"connections": 1})  # so that one series is on its way
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        environment = {**os.environ, "TMPDIR": str(temporary), "BUILDER_KEY": KEY}
        child.append(
            subprocess.Popen(command("build", spec, "--to", tmp_path / "out"), env=environment, stdout=-3, stderr=-3)
        )
        assert child[0].wait(timeout=120) == -signal.SIGKILL
        child.clear()
        assert not [path for path in temporary.rglob("*") if path.is_file()]  # nothing stays in /tmp
        assert (tmp_path / "out.private" / "content").stat().st_mode & 0o077 == 0
        build(spec, to=tmp_path / "out")
    assert sorted(series.count(target) for target in set(series)) == [1, 1, 2]


@pytest.mark.skipif(os.environ.get("BUILDER_FAULTS") != "long", reason="long: make faults-long")
def test_drawn_faults_lose_nothing_in_silence(files: dict[str, bytes], tmp_path: Path) -> None:
    draw = random.Random(20)
    for number in range(int(os.environ.get("BUILDER_FAULT_RUNS", "200"))):
        kind, folder = draw.choice(KINDS), tmp_path / str(number)
        folder.mkdir()
        disturbed = Disturbed(healthy(kind, files, folder))
        with disturbed_server(disturbed) as url:
            disturbed.fault, disturbed.persistent = draw.choice(FAULTS), draw.random() < 0.5
            share, missing = draw.random(), draw.choice(("stop", "exclude"))
            disturbed.next_fault = lambda target, d=disturbed, s=share: d.fault if draw.random() < s else ""  # type: ignore[method-assign, misc]
            spec = write_spec(kind, folder, url, missing=missing, missing_at_most=0.5)
            persons, told = 0, False
            try:
                built = build(spec, to=folder / "out")
                persons, told = built.published.persons, "source_incomplete" in str(built.facts()) + built.text()
            except builder.errors.BuilderError:
                told = True
            assert told or persons == len(PERSONS), (number, kind, disturbed.fault)
            disturbed.next_fault = lambda target: ""  # type: ignore[method-assign]
            build(spec, to=folder / "out")
            assert len(builder.open_dataset(folder / "out")) == len(PERSONS), (number, kind, disturbed.fault)
    print(number + 1, "runs", file=sys.stderr)
