"""Malformed files: each ends in a volume or in a reason, soon and in little memory, without an unexpected exception."""

import json
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from builder.errors import CaseError, Reason
from builder.imaging.multiframe import resolve
from builder.imaging.parse import leniently, parse_instance
from builder.imaging.rows import instances_of
from builder.imaging.stacks.options import admit
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from tests import synthetic
from tests.imaging.bounds import bounded
from tests.imaging.reading import KEEP

Corpus = Callable[[str], Path]


PLACE = {
    "ImagePositionPatient": ["0", "0", "0"], "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
    "PixelSpacing": ["1", "1"], "SpacingBetweenSlices": "1",
}  # fmt: skip


def outcome(content: bytes, *, place: Mapping[str, Any] = MappingProxyType({})) -> str:
    """``volume``, or the reason why there is none; ``place`` is added to the header."""
    try:
        dataset = parse_instance(content)
        with leniently():
            for keyword, value in place.items():
                setattr(dataset, keyword, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stacks = split_stacks(instances_of([dataset]))
        for stack in stacks:
            for inner in resolve(stack, [dataset]):
                for part in admit(inner, KEEP):
                    assemble(part, [dataset], KEEP)
    except CaseError as error:
        return error.reason.value if error.detail else "no detail"
    return "volume"


def test_every_fuzzed_file_ends_in_a_volume_or_a_reason(corpus: Corpus) -> None:
    root = corpus("odd") / "malformed" / "fuzz"
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".json"]
    assert len(files) == 82
    found: dict[str, int] = {}
    for path in files:
        with bounded():
            what = outcome(path.read_bytes())
        found[what] = found.get(what, 0) + 1
    assert set(found) <= {*(r.value for r in Reason), "volume"}
    assert json.loads((root / "manifest.json").read_text()) is not None


def test_every_fuzzed_file_with_a_place_in_space_is_decoded_or_refused(corpus: Corpus) -> None:
    root = corpus("odd") / "malformed" / "fuzz"
    ends: Counter[str] = Counter()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".json"):
        with bounded():
            ends[outcome(path.read_bytes(), place=PLACE)] += 1
    assert outcome((root / "baseline" / "BASELINE_valid_ct.dcm").read_bytes(), place=PLACE) == "volume"
    reasons = {"undecodable_pixels", "inconsistent_pixels", "not_an_image", "too_large", "unreadable"}
    assert set(ends) <= {"volume", *reasons}
    assert ends["volume"] > 40
    assert ends["undecodable_pixels"] > 5


def test_every_odd_single_ends_in_a_volume_or_a_reason(corpus: Corpus) -> None:
    root = corpus("odd") / "odd_singles"
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        with bounded():
            outcome(path.read_bytes())


def test_a_deflate_bomb_is_refused_before_it_is_inflated() -> None:
    image = synthetic.ct_series(slices=1, encoding="deflated").images[0]
    content = synthetic.to_bytes(image)
    squeezer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(squeezer.compress(bytes(2**24)) for _ in range(8)) + squeezer.flush()
    with bounded(), pytest.raises(CaseError) as caught:
        parse_instance(_with_body(content, bomb), inflated_limit=2**26)
    assert caught.value.reason == Reason.TOO_LARGE


def _with_body(content: bytes, body: bytes) -> bytes:
    """File meta information of one file, another data set."""
    length = int.from_bytes(content[140:144], "little")
    return content[: 144 + length] + body


def test_deep_nesting_is_a_reason_not_a_crash() -> None:
    image = synthetic.ct_series(slices=1).images[0]
    content = synthetic.to_bytes(image)
    nest = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    body = nest * 20_000
    with bounded():
        assert outcome(_with_body(content, body)) != "volume"


@pytest.mark.parametrize("position", [["nan", "0", "0"], ["1e308", "1e308", "1e308"]])
def test_positions_that_are_no_numbers_are_unknown_geometry(position: list[str]) -> None:
    made = synthetic.ct_series(slices=3)
    row = instances_of(made.images).to_pylist()
    for r in row:
        r["image_position_patient"] = [float(p) for p in position]
    table = instances_of(made.images).from_pylist(row, schema=instances_of(made.images).schema)
    (stack,) = split_stacks(table)
    assert stack.verdict.value in ("unknown_geometry", "duplicate_positions")


@pytest.mark.parametrize("spacing", [[0.0, 1.0], [-1.0, 1.0], [1.0]])
def test_spacings_that_are_no_lengths_are_unknown_geometry(spacing: list[float]) -> None:
    made = synthetic.ct_series(slices=3, attributes={"PixelSpacing": [str(s) for s in spacing]})
    (stack,) = split_stacks(instances_of(made.images))
    assert stack.verdict.value == "unknown_geometry"
