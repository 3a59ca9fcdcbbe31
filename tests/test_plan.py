"""Shard buckets: order-free, bounded, stable under growth; fingerprints that notice what matters."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.deid import Deid
from builder.imaging.stacks.options import VolumeOptions
from builder.labels import LABELS
from builder.model.canonical import canonical_json, fingerprint
from builder.model.keyed import Key
from builder.patches import Patches
from builder.plan import (
    MOST_AHEAD_BYTES,
    PLANNED,
    CasePlan,
    ShardSummary,
    assign_buckets,
    image_role,
    is_image_role,
    recipe,
    shard_fingerprint,
)
from builder.spec import DatasetSpec
from builder.specfile import load_spec
from builder.transforms import Intensity, Orient, Resample

KEY = Key(b"0123456789abcdef")


def case(number: int, person: int, size: int = 10) -> CasePlan:
    return CasePlan(f"case{number:04d}", f"person{person}", f"series{number}", 0, 100, size, 1000)


cases = st.lists(st.integers(0, 40), min_size=1, max_size=80).map(
    lambda people: [case(i, p) for i, p in enumerate(people)]
)


@given(cases=cases, limit=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_every_case_is_in_one_bucket_and_order_does_not_matter(cases, limit, order):
    buckets = assign_buckets(cases, key=KEY, most_cases=limit, most_bytes=10**9)
    shuffled = list(cases)
    order.shuffle(shuffled)
    assert assign_buckets(shuffled, key=KEY, most_cases=limit, most_bytes=10**9) == buckets
    assert sorted(c.case_key for held in buckets.values() for c in held) == sorted(c.case_key for c in cases)
    for held in buckets.values():
        assert len(held) <= limit or len({c.person_key for c in held}) == 1
    homes = {}
    for bucket, held in buckets.items():
        for c in held:
            assert homes.setdefault(c.person_key, bucket) == bucket


@settings(max_examples=30)
@given(cases=cases, person=st.integers(0, 60))
def test_one_more_case_touches_one_bucket_or_splits_it(cases, person):
    before = assign_buckets(cases, key=KEY, most_cases=4, most_bytes=10**9)
    after = assign_buckets([*cases, case(9999, person)], key=KEY, most_cases=4, most_bytes=10**9)
    changed = {b for b, held in after.items() if before.get(b) != held}
    gone = set(before) - set(after)
    assert len(gone) <= 1
    home = next(b for b, held in after.items() if any(c.case_key == "case9999" for c in held))
    stem = next(iter(gone)) if gone else home
    assert all(b.startswith(stem) for b in changed)


def test_canonical_json_is_sorted_utf8_without_spaces_and_refuses_what_json_lacks() -> None:
    assert canonical_json({"b": [1, 0.5], "a": "\u00e4"}) == '{"a":"\u00e4","b":[1,0.5]}\n'.encode()
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json({"a": number})
    for key in ({1: 2}, {"a": [{1: 2}]}, {"a": {"b": {True: 2}}}):
        with pytest.raises(TypeError, match="expected text"):
            canonical_json(key)


def test_no_cases_need_no_bucket() -> None:
    assert assign_buckets([], key=KEY, most_cases=4, most_bytes=10**9) == {}


def test_bytes_bound_a_bucket_too():
    buckets = assign_buckets([case(i, i, size=60) for i in range(16)], key=KEY, most_cases=99, most_bytes=130)
    assert all(len(held) <= 2 for held in buckets.values())
    assert [*buckets] == sorted(buckets)
    for bucket, held in buckets.items():
        assert all(format(KEY.number("bucket", c.person_key), "064b").startswith(bucket) for c in held)
    pair = [case(0, 0, size=65), case(1, 1, size=65)]
    assert [*assign_buckets(pair, key=KEY, most_cases=99, most_bytes=130)] == [""], "exactly as much still fits"


SPECS = sorted((Path(__file__).parent.parent / "specs").glob("*.yaml"))
RECIPES = {
    "brain-tumour": "7c8c89de676b29a2cb43cef467bec38a",
    "chest-classification": "cf934a30abbe540e40c9c5ab22ae5685",
    "chest-detection": "4e7136d9da5fc8eda03613bfe7dcc953",
    "chest-image-text": "5a086ad1c7407892a3e5ba63c126f58b",
    "crowds-cure": "96024c073d9451378ca7f66aeb217666",
    "lidc-nodules": "186318f0360a943029358cee7e95c07e",
    "lung-cancer-within-a-year": "0b9b920566f23d91fb60626db2398e03",
    "mammography-views": "36f7db9d793be5b7eb801d4473a15d17",
    "phantom": "ab6ecdabd469c0049c191df8b748a7fd",
    "phantom-pictures": "68ed28e4d216078bce3eb878560e818d",
    "prostate-mpmri": "3ae1adc57145b34833b9c5ec1540a77e",
    "soft-tissue-sarcoma": "12545dc55474a643fcfc7c658c490ea2",
    "soft-tissue-sarcoma-ct-mr": "8e8f1a41e3a7e083dcf37a121e25028c",
    "soft-tissue-sarcoma-pet-ct": "af243e0053edaded340f27eb7c8d3a85",
    "ultrasound-stills": "9910a23844bfc073c0c11c2480d6765b",
}
"""Fingerprints of what the example specs state, versions apart.

They change when somebody edits a spec, and otherwise only when every user's shards are to be renamed: say so in the
changelog. A new option with a default changes none of them.
"""


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_example_specs_keep_their_fingerprints(path: Path) -> None:
    found = recipe(load_spec(path), key=KEY)
    unversioned = {**found, "format": 0, "engine": 0, "versions": [name for name, *_ in found["versions"]]}
    assert fingerprint(unversioned) == RECIPES[path.stem]


BASE: dict[str, Any] = {
    "name": "base",
    "license": "CC0-1.0",
    "seed": 3,
    "sources": [{"kind": "folder", "url": "/archive", "site": "here"}],
    "deid": {"patient_key": "${env:BUILDER_KEY}"},
    "labels": {
        "tumor": {"kind": "rtstruct", "roi": {"core": "GTV", "edema": "PTV"}},
        "organ": {"kind": "seg", "segments": {"liver": "(?i)liver"}},
    },
    "transforms": [
        {"kind": "orient", "to": "LPS"},
        {"kind": "resample", "spacing_mm": [1.0, 1.0, 2.0]},
        {"kind": "intensity", "clip": [0, 25]},
    ],
    "samples": {"kind": "patches", "shape": [8, 8, 8], "centred_on": "tumor"},
    "shards": {"cases": 8},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """BASE with one value set: ``a.b.0.c``; a value of None removes it."""
    document = copy.deepcopy(BASE)
    *parents, last = path.split(".")
    place: Any = document
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    if value is None:
        del place[int(last) if isinstance(place, list) else last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return document


def name_of(document: dict[str, Any], key: Key = KEY) -> str:
    return fingerprint(recipe(DatasetSpec.model_validate(document), key=key))


MATTERS = [
    ("seed", 4),
    ("volumes.sheared", "resample"),
    ("volumes.padding", "keep"),
    ("volumes.join", ["echo_time"]),
    ("deid.options", []),
    ("deid.retain", ["sex"]),
    ("cohort.labels", "optional"),
    ("labels.tumor.roi.core", "(?i)gtv"),
    ("labels.tumor.roi", {"edema": "PTV", "core": "GTV"}),
    ("labels.other", {"kind": "rtstruct", "roi": {"core": "GTV"}}),
    ("labels.organ", None),
    ("labels", {"organ": BASE["labels"]["organ"], "tumor": BASE["labels"]["tumor"]}),
    ("transforms.0.to", "RAS"),
    ("transforms.1.spacing_mm", [1.0, 1.0, 2.5]),
    ("transforms.1.image", "cubic"),
    ("transforms.1.mask", "linear"),
    ("transforms.2.dtype", "int16"),
    ("transforms.2", None),
    ("transforms", BASE["transforms"][::-1]),
    ("samples.shape", [8, 8, 9]),
    ("samples.per_case", 5),
    ("samples.background", 0.5),
    ("samples.centred_on", "organ"),
    ("samples", {"kind": "grid", "shape": [8, 8, 8]}),
    ("samples", {"kind": "volumes"}),
    ("shards.codec", "small"),
    ("shards.fields", {"image": {"dtype": "int16"}}),
]

DOES_NOT_MATTER = [
    ("name", "other"),
    ("description", "Other words"),
    ("license", "CC-BY-4.0"),
    ("usage", "commercial"),
    ("sources.0.url", "/elsewhere"),
    ("sources.0.site", "there"),
    ("sources.1", {"kind": "folder", "url": "/second", "site": "there"}),
    ("persons.aliases", "/aliases.csv"),
    ("cohort.image", "modality == 'CT'"),
    ("cohort.one_per", "person"),
    ("deid.patient_key", "${file:/somewhere/key}"),
    ("splits.seed", 9),
    ("report.mask_below", 5),
    ("shards.cases", 4),
    ("shards.target_mib", 1),
    ("catalog.title", "A title"),
    ("samples.background", 0.25),
    ("volumes.padding", "fill"),
]


@pytest.mark.parametrize(("path", "value"), MATTERS, ids=lambda part: str(part)[:40])
def test_an_option_that_touches_voxels_or_rows_renames_the_shards(path: str, value: Any) -> None:
    assert name_of(changed(path, value)) != name_of(BASE)


def test_no_two_options_give_one_name() -> None:
    names = [name_of(changed(path, value)) for path, value in MATTERS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("path", "value"), DOES_NOT_MATTER, ids=lambda part: str(part)[:40])
def test_names_places_rules_and_stated_defaults_rename_nothing(path: str, value: Any) -> None:
    document = copy.deepcopy(BASE)
    document["sources"] = [*BASE["sources"], *([value] if path == "sources.1" else [])]
    assert name_of(document if path == "sources.1" else changed(path, value)) == name_of(BASE)


def test_another_key_renames_the_shards() -> None:
    assert name_of(BASE, Key(b"another key of 16 bytes")) != name_of(BASE)


@pytest.mark.parametrize(
    "block", [VolumeOptions, Deid, LABELS["rtstruct"], LABELS["seg"], Orient, Resample, Intensity, Patches]
)
def test_a_raised_version_renames_the_shards(block: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(BASE)
    monkeypatch.setattr(block, "VERSION", block.VERSION + 1)
    assert name_of(BASE) != before


@pytest.mark.parametrize("constant", ["ENGINE_VERSION", "FORMAT_VERSION"])
def test_a_raised_version_of_the_engine_renames_the_shards(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(BASE)
    monkeypatch.setattr(f"builder.plan.{constant}", 10**6)
    assert name_of(BASE) != before


class GrownPatches(Patches):
    mirrored: bool = False


class GrownOrient(Orient):
    also: tuple[str, ...] = ()


def test_a_new_option_at_its_default_renames_nothing() -> None:
    """The next release's spec, before and after somebody uses what it adds."""
    spec = DatasetSpec.model_validate(BASE)

    def grown(**options: Any) -> str:
        samples = GrownPatches(**BASE["samples"], **{k: v for k, v in options.items() if k == "mirrored"})
        orient = GrownOrient(**BASE["transforms"][0], **{k: v for k, v in options.items() if k == "also"})
        update = {"samples": samples, "transforms": (orient, *spec.transforms[1:])}
        return fingerprint(recipe(spec.model_copy(update=update), key=KEY))

    assert grown() == grown(mirrored=False) == name_of(BASE)
    assert len({name_of(BASE), grown(mirrored=True), grown(also=("boxes",))}) == 3


OBJECT = {
    "case": 0, "role": "image", "content_sha256": "c0", "header_sha256": "h0", "size": 10, "sop_instance_uid": "1.2.3",
    "source": 0, "path": "a", "member": "", "series_uid": "1.2",
}  # fmt: skip


def shard_name(*objects: dict[str, Any], cases: Sequence[CasePlan] = (case(0, 0), case(1, 1))) -> str:
    table = pa.Table.from_pylist([{**OBJECT, **o} for o in objects], schema=PLANNED)
    return shard_fingerprint({"recipe": 1}, cases, table)


@pytest.mark.parametrize(
    "other",
    [{"case": 1}, {"role": "tumor"}, {"content_sha256": "c1"}, {"size": 11}, {"sop_instance_uid": "1.2.4"}],
    ids=lambda other: next(iter(other)),
)
def test_a_shard_is_named_by_the_content_of_its_objects(other: dict[str, Any]) -> None:
    assert shard_name({}, other) != shard_name({}, {})
    assert shard_name(other) != shard_name({})


def test_where_the_content_is_not_known_the_header_names_the_shard() -> None:
    unknown = {"content_sha256": None}
    assert shard_name({**unknown, "header_sha256": "h1"}) != shard_name(unknown)
    assert shard_name({"header_sha256": "h1"}) == shard_name({})


@pytest.mark.parametrize(
    "other",
    [
        {"layout": '{"values": "HU"}'},
        {"pixel_spacing": [0.2, 0.2]},
        {"modality": "PT"},
        {"units": "BQML"},
        {"body_part_examined": "CHEST"},
    ],
)
def test_what_is_stated_of_an_image_file_names_the_shard(other: dict[str, Any]) -> None:
    """A sidecar or the layout says it; neither is in the file that is hashed."""
    stated = {"layout": '{"values": ""}', "pixel_spacing": [0.1, 0.1], "modality": "CT"}
    assert shard_name({**stated, **other}) != shard_name(stated)
    without = {name: value for name, value in other.items() if name != "layout"}
    assert shard_name(without) == shard_name({})  # a DICOM header has a hash of its own


def test_the_name_of_a_plain_shard_stays_what_earlier_releases_made() -> None:
    assert shard_name({}) == "bfcc4216cdd32f6acac019fb39b994c4"
    assert shard_name({"sop_instance_uid": None}) == shard_name({"sop_instance_uid": ""})


def test_the_role_of_an_image_has_its_name_if_a_case_has_several() -> None:
    assert (image_role(""), image_role("pet")) == ("image", "image:pet")
    assert [is_image_role(role) for role in ("image", "image:pet", "tumor")] == [True, True, False]


def test_a_shard_is_not_encoded_unless_stated() -> None:
    assert ShardSummary("f", "0", ()).encoded is False
    assert CasePlan("c", "p", "s", 0, 1, 1, 1).load_bytes == 0


def test_places_and_order_of_objects_and_projected_sizes_name_nothing() -> None:
    first, second = {"sop_instance_uid": "1"}, {"sop_instance_uid": "2"}
    assert shard_name(first, second) == shard_name(second, first)
    assert shard_name({"source": 1, "path": "b", "member": "c"}) == shard_name({})
    larger = replace(case(0, 0), input_bytes=9, sample_bytes=9, peak_bytes=9, load_bytes=9)
    assert shard_name({}, cases=[larger, case(1, 1)]) == shard_name({})


def test_cases_persons_order_and_frames_name_the_shard() -> None:
    one = case(0, 0)
    others = [
        [one],
        [case(1, 1), one],
        [replace(one, case_key="other"), case(1, 1)],
        [replace(one, person_key="other"), case(1, 1)],
        [replace(one, frames=((0, 1),)), case(1, 1)],
    ]
    assert len({shard_name({}), *(shard_name({}, cases=cases) for cases in others)}) == 6
    assert shard_fingerprint({"recipe": 2}, [one], PLANNED.empty_table()) != shard_fingerprint(
        {"recipe": 1}, [one], PLANNED.empty_table()
    )


def test_a_shard_needs_its_largest_case_beside_the_next_that_is_loaded() -> None:
    def needs(peak: int, load: int) -> CasePlan:
        return replace(case(0, 0), peak_bytes=peak, load_bytes=load)

    assert ShardSummary("f", "", ()).peak_bytes == 0
    assert ShardSummary("f", "", (needs(9, 5),)).peak_bytes == 9
    assert ShardSummary("f", "", (needs(9, 5), needs(7, 4), needs(8, 6))).peak_bytes == 13
    large = MOST_AHEAD_BYTES + 1
    assert ShardSummary("f", "", (needs(9, 5), needs(large + 1, large))).peak_bytes == large + 1
    assert ShardSummary("f", "", (needs(large + 1, 5), needs(9, large))).peak_bytes == large + 1
