"""Histories of a dataset, each told version by version: who comes back or stays keeps the split, or the plan stops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import BuilderError, LayoutError
from builder.model.keyed import Key
from builder.model.layout import CURRENT, MANIFEST, REGISTRY, SPLITS, Manifest, parse_current, version_path
from builder.model.parquet import parquet_bytes, read_parquet
from builder.persons import AliasIds, group_persons
from builder.plan import key_check
from builder.planning.deal import deal
from builder.planning.registry import known_again, next_registry, read_registry, still_published
from builder.publishing.finish import publish_files
from builder.spec import DatasetSpec
from builder.split.registry import faults
from builder.split.registry_rows import REGISTRY_SCHEMA
from builder.storage import Store, open_store
from tests.planning.test_twenty_versions import COLUMNS, KEY, OTHER

Seen = tuple[str, int, str, str, str]
"""(who it is in truth, source, issuer, PatientID, study)."""

NUMBERS = tuple(f"{n:03}" for n in range(1, 17))
GONE = ("002", "005", "009", "011")
SEED = 1


def people(
    numbers: Sequence[str] = NUMBERS, *, source: int = 0, issuer: str = "", tag: str = "", study: str = "s"
) -> tuple[Seen, ...]:
    """Patients who are called by their number; ``tag`` tells those of another hospital apart."""
    return tuple((tag + n, source, issuer, n, f"{study}{tag}{n}") for n in numbers)


def renamed(who: Sequence[Seen], names: Mapping[str, str], *, study: str = "") -> tuple[Seen, ...]:
    """The same humans under other PatientIDs, with the same studies unless ``study`` names new ones."""
    return tuple((h, s, i, names.get(h, p), study + h if study and h in names else t) for h, s, i, p, t in who)


def but(*gone: str) -> tuple[str, ...]:
    return tuple(n for n in NUMBERS if n not in gone)


@dataclass(frozen=True)
class Version:
    """What is different in a version from one hospital, sixteen patients, default rules."""

    seen: tuple[Seen, ...] = people()
    sites: tuple[str | None, ...] = ("north",)
    aliases: tuple[tuple[str, str], ...] = ()
    splits: Mapping[str, Any] = field(default_factory=dict)
    persons: Mapping[str, Any] = field(default_factory=dict)
    together: tuple[tuple[str, ...], ...] = ()
    key: Key = KEY
    at: str = "dataset"
    refused: str = ""
    """Words of the refusal; everything that was published stays."""


Splits = dict[str, set[str]]


def spec_of(version: Version, home: Path, seed: int) -> DatasetSpec:
    ratios = {"train": 0.5, "validation": 0.25, "test": 0.25}
    splits = {
        name: value.format(home=home) if isinstance(value, str) else value for name, value in version.splits.items()
    }
    return DatasetSpec.model_validate(
        {
            "name": "told", "license": "CC0-1.0", "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "sources": [{"kind": "folder", "url": f"/nowhere/{n}", "site": s} for n, s in enumerate(version.sites)],
            "samples": {"kind": "volumes"}, "persons": dict(version.persons),
            "splits": {"seed": seed, "ratios": ratios, **splits},
        }
    )  # fmt: skip


def publish(version: Version, home: Path, seed: int) -> Splits:
    """Do what a build does with persons; return the splits of each human."""
    store, spec = open_store(str(home / version.at)), spec_of(version, home, seed)
    numbers = [int(human[-3:]) for human, *_ in version.seen]
    columns = {
        "patient_id": [p for _, _, _, p, _ in version.seen],
        "issuer_of_patient_id": [i for _, _, i, _, _ in version.seen],
        "study_uid": [t for *_, t in version.seen],
        "patient_sex": ["FM"[n % 2] for n in numbers],
        "patient_birth_date": [f"19{20 + n % 70}0101" for n in numbers],
        "source": [s for _, s, *_ in version.seen],
    }
    archive = pa.table(columns, schema=pa.schema(COLUMNS))
    aliases = AliasIds(None, tuple((n, pair) for n, pair in enumerate(version.aliases, start=2)))
    registry = read_registry(spec.splits, store, key=version.key)
    persons = group_persons(
        archive,
        key=version.key,
        naming=spec.persons.naming(version.sites),
        aliases=[aliases] if version.aliases else [],
        remembered=[name for members in registry.table["members"].to_pylist() for name in members],
    )
    registry = known_again(spec.splits, registry, persons, key=version.key)
    keys = [str(key) for key in persons.keys_of(archive)]
    cohort = pa.table({
        "person_key": keys, "included": [True] * len(keys), "sex": columns["patient_sex"],
        "grade": [str(n % 3) for n in numbers], "site": [version.sites[s] or "none" for _, s, *_ in version.seen],
    })  # fmt: skip
    of: dict[str, set[str]] = {}
    for (human, *_), key in zip(version.seen, keys, strict=True):
        of.setdefault(human, set()).add(key)
    groups = [sorted(key for human in group for key in of[human]) for group in version.together]
    splits = deal(spec, cohort, persons, together=groups, registry=registry)
    table = next_registry(registry, persons, splits, key=version.key)
    assert list(faults(table, splits, named=(REGISTRY, SPLITS))) == []
    files: Any = {SPLITS: parquet_bytes(splits), REGISTRY: parquet_bytes(table)}
    draft = Manifest("told", "", {}, {"key_check": key_check(version.key)}, (), (), ())
    publish_files(draft, files, store, still_published(store, registry.current, lambda: None))
    dealt = dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))
    return {human: {dealt[key] for key in own} for human, own in of.items()}


def tell(home: Path, seed: int, versions: Sequence[Version]) -> None:
    """Publish one version after the other; nobody may move, and a refused version leaves all as it was."""
    homes: Splits = {}
    for number, version in enumerate(versions):
        if version.refused:
            before = published(open_store(str(home / version.at)))
            with pytest.raises(BuilderError, match=version.refused):
                publish(version, home, seed + number)
            assert published(open_store(str(home / version.at))) == before
            continue
        for human, found in publish(version, home, seed + number).items():
            assert len(found) == 1, f"{human} is in two splits"
            assert homes.setdefault(human, found) == found, f"{human} moved in version {number}"


def published(store: Store) -> bytes | None:
    try:
        return store.read(CURRENT)
    except FileNotFoundError:
        return None


ALL, AWAY = Version(), Version(people(but(*GONE)))
NEW = tuple((f"new{n}", 0, "", f"{n}", f"t{n}") for n in range(901, 908))
GROWN = people() + NEW
BOTH = people() + people(source=1, tag="b")
SITES = ("north", "south")
STRIPPED = {n: n.lstrip("0") for n in NUMBERS}
BARE = tuple((f"b{n}", 0, "", n.lstrip("0"), f"b{n}") for n in NUMBERS)
"""Other people, whose numbers have no leading zeros."""
JOIN, DISTINCT = {"leading_zeros": "join"}, {"leading_zeros": "distinct"}
NOBODYS = tuple((f"x{n}", 0, "", "ANONYMOUS", f"x{n}") for n in range(301, 307))

RETURNING = {
    "after two versions of absence": (ALL, AWAY, AWAY, ALL),
    "as ratios, strata and names of splits changed": (
        ALL,
        Version(people(but(*GONE)), splits={"stratify": ["sex"], "ratios": {"train": 0.2, "test": 0.8}}),
        Version(splits={"stratify": ["grade", "sex"], "ratios": {"fit": 0.5, "train": 0.2, "test": 0.3}}),
    ),
    "with an issuer": (ALL, AWAY, Version(people(but(*GONE)) + people(GONE, issuer="HOSP", study="t"))),
    "in other letters and widths": (
        Version(renamed(people(), {n: f"ab{n}" for n in NUMBERS})),
        Version(renamed(people(but(*GONE)), {n: f"ab{n}" for n in NUMBERS})),
        Version(renamed(people(study="t"), {n: f"\uff21B\u200b{n} " for n in NUMBERS})),
    ),
    "without zeros, new studies": (
        ALL, AWAY, Version(people(but(*GONE)) + renamed(people(GONE), STRIPPED, study="t"), persons=JOIN),
        Version(people(but(*GONE)) + renamed(people(GONE), STRIPPED, study="u"), persons=JOIN),
    ),
    "all without zeros": (ALL, Version(renamed(people(), STRIPPED, study="t"), persons=JOIN), ALL),
    "beside others with other zeros": (
        Version(people() + BARE, persons=DISTINCT), Version(people() + BARE, persons=DISTINCT),
        Version(BARE, persons=DISTINCT),
    ),
    "all with more zeros": (
        Version(renamed(people(), STRIPPED)),
        Version(renamed(people(), {n: f"00{n}" for n in NUMBERS}, study="t"), persons=JOIN),
    ),
    "under an id that was corrected": (
        ALL, AWAY, Version(renamed(people(), {n: f"C{n}" for n in GONE})),
        Version(renamed(people(), {n: f"C{n}" for n in GONE}, study="t")), ALL,
    ),
    "anonymised": (ALL, Version(renamed(people(), dict.fromkeys(GONE, "UNKNOWN"))), ALL),
    "named, after being anonymous": (
        Version(people() + NOBODYS), Version(people() + renamed(NOBODYS, {h: f"P{h}" for h, *_ in NOBODYS})),
        Version(people() + renamed(NOBODYS, {h: f"P{h}" for h, *_ in NOBODYS}, study="t")),
    ),
    "as a list of placeholders grows": (ALL, Version(persons={"placeholders": list(GONE)}), ALL),
    "with the site renamed": (ALL, AWAY, Version(sites=("nord",)), Version(people(study="t"), sites=("nord",))),
    "with the whole source": (
        Version(BOTH, sites=SITES), Version(people(tag="b"), sites=("south",)), Version(BOTH, sites=SITES),
    ),
    "through an alias of an id without images": (
        ALL, Version((*people(but("002")), ("002", 0, "", "Z9", "z")), aliases=(("002", "Y9"), ("Y9", "Z9"))),
        Version((*people(but("002")), ("002", 0, "", "Y9", "y"))),
    ),
    "after the alias table went": (
        ALL, Version((*people(but(*GONE)), ("005", 0, "", "N5", "n")), aliases=(("005", "N5"),)),
        Version((*people(), ("005", 0, "", "N5", "m"))),
    ),
}  # fmt: skip

GROWING = {
    "newcomers": (ALL, Version(GROWN)),
    "with strata": (ALL, Version(GROWN, splits={"stratify": ["sex", "grade"]})),
    "with a split more": (ALL, Version(GROWN, splits={"ratios": {"train": 0.3, "test": 0.3, "tuning": 0.4}})),
    "with folds": (ALL, Version(GROWN, splits={"folds": {"k": 3}})),
    "with copies of known images": (ALL, Version(GROWN, together=(("new901", "002"), ("new901", "new902")))),
    "with copies of several persons' images": (
        ALL, Version(GROWN, together=(("new901", *NUMBERS),), refused="dealt to several splits"), Version(GROWN),
    ),
    "a second hospital with the same numbers": (
        Version(sites=(None,)), Version(BOTH, sites=(None, None), refused="which state no site"),
        Version(BOTH, sites=SITES),
    ),
    "a second hospital without a site": (ALL, Version(BOTH, sites=("north", None))),
    "sources in another order": (
        Version(BOTH, sites=SITES), Version(people(source=1) + people(tag="b"), sites=SITES[::-1]),
    ),
    "an id that two issuers have": (
        Version(people(issuer="A") + people(issuer="B", tag="b")),
        Version(people(issuer=" a") + people(issuer="B", tag="b") + NEW),
    ),
    "another key": (ALL, Version(GROWN, key=OTHER, refused="built with another key"), Version(GROWN)),
    "two who merge": (
        ALL, Version(GROWN, aliases=tuple((NUMBERS[0], n) for n in NUMBERS[1:]), refused="dealt to several splits"),
        Version(GROWN),
    ),
    "a study that goes to another patient": (
        ALL, Version(tuple((h, s, i, "001", t) if h in NUMBERS else (h, s, i, p, t) for h, s, i, p, t in GROWN),
                     refused="taken over somebody's study"),
    ),
    "a hold-out of those who were dealt": (
        ALL, Version(GROWN, splits={"hold_out": [{"column": "site", "values": ["north"], "split": "test"}]},
                     refused="a person never moves"),
        Version(GROWN),
    ),
    "from another dataset": (
        Version(at="other"), Version(GROWN, splits={"previous": "{home}/other"}), Version(GROWN, splits={"seed": 90}),
    ),
    "from another dataset, which knows an alias": (
        Version((*people(), ("002", 0, "", "Z2", "z")), aliases=(("002", "Z2"),), at="other"),
        Version(splits={"previous": "{home}/other"}),
        Version((*people(but("002")), ("002", 0, "", "Z2", "y")), splits={"previous": "{home}/other"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("told", [*RETURNING, *GROWING])
def test_nobody_moves(told: str, tmp_path: Path) -> None:
    tell(tmp_path, SEED, {**RETURNING, **GROWING}[told])


def test_who_is_away_in_these_histories_has_several_splits(tmp_path: Path) -> None:
    homes = publish(ALL, tmp_path, SEED)
    assert len({split for human in GONE for split in homes[human]}) > 1


@pytest.mark.parametrize("lacking", [("studies",), ("studies", "bare")])
def test_a_registry_of_an_earlier_release_goes_on(lacking: tuple[str, ...], tmp_path: Path) -> None:
    """Published before registries had these columns; whoever is away then comes back all the same."""
    homes = publish(ALL, tmp_path, 1)
    store = open_store(str(tmp_path / "dataset"))
    version = parse_current(store.read(CURRENT))
    table = read_parquet(store.read(version_path(version, REGISTRY)))
    splits = store.read(version_path(version, SPLITS))
    old = parquet_bytes(table.select([name for name in REGISTRY_SCHEMA.names if name not in lacking]))
    draft = Manifest("told", "", {}, {"key_check": key_check(KEY)}, (), (), ())
    files: Any = {SPLITS: splits, REGISTRY: old}
    publish_files(draft, files, store, lambda: None)
    assert store.read(CURRENT).strip().decode() != version
    assert store.read(version_path(parse_current(store.read(CURRENT)), MANIFEST))
    for seed, seen in ((5, people(but(*GONE))), (6, people()), (7, renamed(people(), {n: f"C{n}" for n in GONE}))):
        found = publish(Version(seen), tmp_path, seed)
        assert found.items() <= homes.items(), "somebody moved"


def test_another_dataset_that_knows_a_study_otherwise_is_refused(tmp_path: Path) -> None:
    """Both were begun apart, and a patient of the one is the other's under another PatientID."""
    publish(ALL, tmp_path, 1)
    other = publish(Version(renamed(people(), {n: f"C{n}" for n in NUMBERS}), at="other"), tmp_path, 9)
    assert other
    with pytest.raises(LayoutError, match="whom that dataset has in other splits"):
        publish(Version(splits={"previous": "{home}/other"}), tmp_path, 2)
