"""What a loader is handed by mistake: states of other samples, classes with holes, places that are no dataset."""

import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.errors import BuilderError, LayoutError, SpecError
from builder.reader import open_dataset
from builder.reader.dataset import Dataset
from builder.reader.order import class_weights

OTHER: dict[str, Callable[[Dataset], Dataset]] = {
    "a split": lambda d: d.split("train"),
    "fewer by an expression": lambda d: d.where("sex == 'F'"),
    "fewer by a slice": lambda d: d[:9],
    "one": lambda d: d[16:],
    "as many, in another order": lambda d: d.select(np.arange(len(d))[::-1]),
    "as many, of which two changed places": lambda d: d.select([1, 0, *range(2, len(d))]),
    "as many, of which one stands twice": lambda d: d.select([0, 0, *range(2, len(d))]),
    "more": lambda d: d.select([*range(len(d)), 0]),
    "twice": lambda d: d.select([*range(len(d)), *range(len(d))]),
    "none": lambda d: d[:0],
}


@pytest.mark.parametrize("others", OTHER.values(), ids=OTHER)
def test_a_state_of_other_samples_is_refused(others: Callable[[Dataset], Dataset], patches: Any) -> None:
    dataset = open_dataset(patches.root, uses="off")
    state = next(iter(dataset.batches(3, order="shuffled", seed=2))).state
    assert state is not None
    with pytest.raises(ValueError, match=r"state: found another selection of samples .*, expected one of these"):
        others(dataset).batches(3, order="shuffled", state=state)
    with pytest.raises(ValueError, match="another selection"):
        others(dataset).batches(3, order="shuffled", state=state.to_dict())


SAME: dict[str, Callable[[Dataset], Dataset]] = {
    "itself": lambda d: d,
    "all by a slice": lambda d: d[:],
    "all by number": lambda d: d.select(range(len(d))),
    "all by an expression": lambda d: d.where("sex in ['F', 'M']"),
    "other fields": lambda d: open_dataset(d.store, fields=["image"], uses="off"),
}


@pytest.mark.parametrize("others", SAME.values(), ids=SAME)
def test_a_state_of_the_same_samples_goes_on(others: Callable[[Dataset], Dataset], patches: Any) -> None:
    dataset = open_dataset(patches.root, uses="off")
    first = next(iter(dataset.batches(3, order="shuffled", seed=2)))
    rest = [int(i) for b in others(dataset).batches(3, order="shuffled", state=first.state) for i in b.indices]
    assert sorted([*first.indices.tolist(), *rest]) == list(range(17))


HOLES: dict[str, tuple[list[Any], list[int]]] = {
    "one missing": (["a", "b", None], [2]),
    "most missing": (["a", *[None] * 9], list(range(1, 10))),
    "a number that is none": ([1.0, 2.0, float("nan")], [2]),
    "numpy's": ([np.float64(1), np.float64("nan")], [1]),
    "whole numbers": ([1, None, 2, 1], [1]),
    "truth values": ([True, None, False, True], [1]),
    "lists": ([["a"], None, ["a", "b"]], [1]),
    "an empty text is a value": (["", "a", None], [2]),
    "zero is a value": ([0, 1, None], [2]),
    "the word None is a value": (["None", None, "a"], [1]),
}


@pytest.mark.parametrize(("values", "missing"), HOLES.values(), ids=HOLES)
def test_a_missing_value_is_no_class(values: list[Any], missing: list[int]) -> None:
    weights = class_weights(values)
    assert np.flatnonzero(weights == 0).tolist() == missing
    classes: dict[str, float] = {}
    for value, weight in zip(values, weights.tolist(), strict=True):
        if weight:
            classes[repr(value)] = classes.get(repr(value), 0.0) + weight
    assert {round(weight, 12) for weight in classes.values()} == {1.0}, "every class is drawn equally often"


@pytest.fixture
def web(patches: Any) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(patches.root.parent))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


MOVED: dict[str, Callable[[Path, Path], Any]] = {
    "renamed": lambda root, to: shutil.copytree(root, to / "renamed"),
    "a name with blanks": lambda root, to: shutil.copytree(root, to / "my set (1)"),
    "a name beyond ASCII": lambda root, to: shutil.copytree(root, to / "Müller 日本"),
    "deep below": lambda root, to: shutil.copytree(root, to / "a" / "b" / "c"),
    "behind a link": lambda root, to: (to / "link").symlink_to(root) or to / "link",
    "as text": lambda root, to: str(root),
    "with a slash": lambda root, to: f"{root}/",
    "as a file URL": lambda root, to: root.as_uri(),
    "relative": lambda root, to: os.path.relpath(root),
    "read-only": lambda root, to: _read_only(shutil.copytree(root, to / "closed")),
}


def _read_only(root: Path) -> Path:
    for path in (*root.rglob("*"), root):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return root


@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
def test_a_dataset_is_read_wherever_it_lies(moved: Callable[[Path, Path], Any], patches: Any, tmp_path: Path) -> None:
    dataset = open_dataset(moved(patches.root, tmp_path), uses="off")
    np.testing.assert_array_equal(dataset[6]["image"], patches.samples[6].arrays["image"])


NO_DATASET = {
    "nothing": (LayoutError, "nothing: found no CURRENT, expected a published dataset"),
    "": (BuilderError, "expected"),
    "ftp://host/set": (SpecError, "ftp"),
    "s3//bucket/set": (LayoutError, "found no CURRENT"),
    "C:\\data\\set": (LayoutError, "found no CURRENT"),
    "file:///nowhere/my%20set": (LayoutError, "/nowhere/my set: found no CURRENT"),
    "~/nothing-here": (LayoutError, "found no CURRENT"),
    "magnet:?xt=urn": (BuilderError, "expected"),
    "gopher://host": (SpecError, "gopher"),
    "data:,x": (BuilderError, "expected"),
}


@pytest.mark.parametrize("place", NO_DATASET)
def test_a_place_that_is_no_dataset_is_named(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, words = NO_DATASET[place]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        open_dataset(place, uses="off")
    assert words in str(caught.value)


def test_a_plain_web_server_is_read_and_its_gaps_are_named(web: str, patches: Any) -> None:
    dataset = open_dataset(f"{web}{patches.root.name}", uses="off")
    np.testing.assert_array_equal(dataset[6]["image"], patches.samples[6].arrays["image"])
    with pytest.raises(LayoutError, match="found no CURRENT"):
        open_dataset(f"{web}absent", uses="off")
