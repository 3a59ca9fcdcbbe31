"""Twenty versions of one dataset: persons come, go, return, merge and change sites, and nobody ever moves."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from builder.errors import LayoutError
from builder.model.keyed import Key
from builder.model.layout import CURRENT, REGISTRY, SPLITS, Manifest, parse_current, version_path
from builder.model.parquet import parquet_bytes, read_parquet
from builder.persons import AliasIds, Persons, group_persons
from builder.persons.naming import keyed_names
from builder.plan import key_check
from builder.planning.deal import deal
from builder.planning.registry import facts_of, known_again, published, read_registry, still_published
from builder.publishing.finish import publish_files
from builder.spec import DatasetSpec
from builder.split.registry import Registry, carry, faults
from builder.storage import Store, open_store

KEY, OTHER = Key(b"the right key 01"), Key(b"another key 0123")
SITES = ("north", "south", None)
COLUMNS = [*((c, pa.string()) for c in ("patient_id", "issuer_of_patient_id", "study_uid", "patient_sex",
                                        "patient_birth_date")), ("source", pa.int32())]  # fmt: skip


@dataclass(eq=False)
class Human:
    """Somebody as nobody but the test knows: every name, and where the images are now."""

    number: int
    names: list[tuple[int, str, str]]
    """(source, issuer, PatientID), of which the last is the present one."""
    studies: list[tuple[tuple[int, str, str], str]] = field(default_factory=list)
    here: bool = True
    wanted: bool = True
    """Whether the cohort's rules take the person."""
    split: str | None = None


def spec(*, sites: Any = SITES, **splits: object) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "grown", "license": "CC0-1.0", "deid": {"patient_key": "${env:BUILDER_KEY}"},
            "sources": [{"kind": "folder", "url": f"/nowhere/{n}", "site": site} for n, site in enumerate(sites)],
            "samples": {"kind": "volumes"}, "splits": splits,
        }
    )  # fmt: skip


def find(
    humans: list[Human],
    aliases: list[tuple[str | None, str, str]],
    *,
    key: Key,
    store: Store | None = None,
    sites: tuple[str | None, ...] = SITES,
) -> Persons:
    rows = [
        {"patient_id": patient, "issuer_of_patient_id": issuer, "study_uid": study, "patient_sex": "FM"[h.number % 2],
         "patient_birth_date": f"19{h.number % 90 + 10}0101", "source": source}
        for h in humans if h.here for (source, issuer, patient), study in h.studies
    ]  # fmt: skip
    known = read_registry(spec().splits, store, key=key).table["members"].to_pylist() if store is not None else []
    by_site = {site: [pair for s, *pair in aliases if s == site] for site in SITES}
    tables = [AliasIds(site, tuple((2, tuple(pair)) for pair in pairs)) for site, pairs in by_site.items() if pairs]
    naming = spec().persons.naming(sites)
    remembered = [name for members in known for name in members]
    everybody = pa.Table.from_pylist(rows, schema=pa.schema(COLUMNS))
    return group_persons(everybody, key=key, naming=naming, aliases=tables, remembered=remembered)


@dataclass(frozen=True)
class Version:
    splits: pa.Table
    registry: pa.Table


def build(store: Store, options: DatasetSpec, humans: list[Human], persons: Persons, *, key: Key) -> Version:
    """What a build does with persons, without the images: reads the registry, deals, publishes."""
    registry = known_again(options.splits, read_registry(options.splits, store, key=key), persons, key=key)
    keys = {h.number: key_of(h, persons) for h in humans if h.here}
    cohort = pa.table(
        {
            "person_key": [keys[h.number] for h in humans if h.here for _ in h.studies],
            "included": [h.wanted for h in humans if h.here for _ in h.studies],
            "sex": ["FM"[h.number % 2] for h in humans if h.here for _ in h.studies],
            "grade": [str(h.number % 3) for h in humans if h.here for _ in h.studies],
        }
    )
    splits = deal(options, cohort, persons, registry=registry)
    dealt = dict(zip(splits["person_key"].to_pylist(), splits["split"].to_pylist(), strict=True))
    facts, known = facts_of(persons, key), registry.table
    table = carry(known, registry.found, persons.members, dealt, facts, bare=persons.bare, studies=registry.studies)
    files: Any = {SPLITS: parquet_bytes(splits), REGISTRY: parquet_bytes(table)}
    draft = Manifest("grown", "", {}, {"key_check": key_check(key)}, (), (), ())
    publish_files(draft, files, store, still_published(store, registry.current, lambda: None))
    return Version(splits, table)


def key_of(human: Human, persons: Persons) -> str:
    table = pa.Table.from_pylist(
        [{"patient_id": n[2], "issuer_of_patient_id": n[1], "study_uid": s, "source": n[0]} for n, s in human.studies],
        schema=pa.schema([c for c in COLUMNS if c[0] in ("patient_id", "issuer_of_patient_id", "study_uid", "source")]),
    )
    (found,) = set(persons.keys_of(table))
    assert found is not None
    return found


class Growth(RuleBasedStateMachine):
    """Every step changes the world and publishes a version; of the steps every second one is drawn.

    The others take turns, so that each kind of change is in each history: rules of their own would be left out of most
    of a few examples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = open_store(str(Path(self.folder.name) / "grown"))
        self.humans: list[Human] = []
        self.aliases: list[tuple[str | None, str, str]] = []
        self.options: dict[str, object] = {"seed": 1}
        self.numbers: Iterator[int] = iter(range(10_000))
        self.counted = [0, 0, 0]
        self.versions = 0
        self.steps = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    def arrive(self, source: int, issuer: str = "") -> Human:
        number = next(self.numbers)
        # both hospitals count from 001: equal numbers at other sites are other people
        self.counted[source] += 1
        name = (source, issuer and f"{issuer}{source}", f"{self.counted[source]:03}")
        self.humans.append(Human(number, [name], [(name, f"study {number}")]))
        return self.humans[-1]

    def of_one_site(self, humans: list[Human]) -> list[Human]:
        """Who never had a name elsewhere, at a site whose alias table can say whose number is meant."""
        homes = [(h, {source for source, _, _ in h.names}) for h in humans]
        return [h for h, sources in homes if len(sources) == 1 and SITES[min(sources)] is not None]

    def dealt(self, humans: list[Human]) -> list[Human]:
        return [h for h in humans if h.here and h.wanted and h.split is not None]

    def present(self) -> list[Human]:
        return [h for h in self.humans if h.here]

    @initialize()
    def begin(self) -> None:
        for n in range(9):
            self.arrive(n % 3)
        self.publish()

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        turn, odd = divmod(self.steps, 2)
        self.steps += 1
        name = data.draw(st.sampled_from(CHANGES)) if odd else CHANGES[turn % len(CHANGES)]
        if data.draw(st.booleans()):
            self.choose_options(data)
        getattr(self, name)(data)

    def come(self, data: st.DataObject) -> None:
        counts = data.draw(st.tuples(*[st.integers(0, 3)] * 3))
        issuer = data.draw(st.sampled_from(["", "H"]))
        for source, count in enumerate(counts):
            for _ in range(count):
                self.arrive(source, issuer)
        self.publish()

    def go(self, data: st.DataObject) -> None:
        """Some lose their images, and the rules leave some out, but never everybody."""
        for attribute in ("here", "wanted"):
            left = [h for h in self.humans if h.here and h.wanted]
            for human in data.draw(st.lists(st.sampled_from(left), max_size=len(left) // 3, unique=True)):
                setattr(human, attribute, False)
        self.publish()

    def come_back(self, data: st.DataObject) -> None:
        """Of those who left some return, and some of these under an id that only an alias table ties to the old one."""
        away = [h for h in self.humans if not (h.here and h.wanted)]
        if not away:
            return self.go(data)
        for human in data.draw(st.lists(st.sampled_from(away), min_size=1, unique=True)):
            if not human.here and human in self.of_one_site(self.humans) and data.draw(st.booleans()):
                self.rename(human)
            human.here = human.wanted = True
        self.publish()

    def get_another_id(self, data: st.DataObject) -> None:
        """The old id has no images any more; only the alias table knows it."""
        self.rename(data.draw(st.sampled_from(self.of_one_site(self.present()) or [self.arrive(0)])))
        self.publish()

    def have_an_id_corrected(self, data: st.DataObject) -> None:
        """The archive writes another PatientID on the same studies, and no alias table knows it."""
        human = data.draw(st.sampled_from(self.present()))
        source, issuer, _ = human.names[-1]
        human.names.append((source, issuer, f"C{human.number}-{len(human.names)}"))
        human.studies = [(human.names[-1], study) for _, study in human.studies]
        self.publish()

    def rename(self, human: Human) -> None:
        source, issuer, old = human.names[-1]
        new = f"N{human.number}-{len(human.names)}"
        self.aliases.append((SITES[source], old, new))
        human.names.append((source, issuer, new))
        human.studies = [(human.names[-1], study) for _, study in human.studies]

    def change_site(self, data: st.DataObject) -> None:
        """For one version a study lies at both sites, which proves who it is; then the old one is gone.

        Whom the rules leave out at that time must be known again too.
        """
        site = data.draw(st.integers(0, 2))
        left_out = [h for h in self.present() if h.split is not None and not h.wanted]
        human = data.draw(st.sampled_from(left_out or self.present()))
        name = (site, "", f"M{human.number}-{len(human.names)}")
        study = human.studies[0][1]
        human.names.append(name)
        human.studies.append((name, study))
        self.publish()
        human.studies = [(name, study)]
        self.publish()

    def choose_options(self, data: st.DataObject) -> None:
        ratios = data.draw(st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.2, 0.2, 0.6)]))
        seed = data.draw(st.integers(0, 9))
        strata = data.draw(st.sampled_from([[], ["sex"], ["sex", "grade"]]))
        names = ("train", "validation", "test")
        self.options = {"ratios": dict(zip(names, ratios, strict=True)), "seed": seed, "stratify": strata}

    def change_the_key(self, data: st.DataObject) -> None:
        before = published(self.store)
        with pytest.raises(LayoutError, match="built with another key"):
            build(self.store, spec(**self.options), self.humans, find(self.humans, [], key=OTHER), key=OTHER)
        assert published(self.store) == before
        self.publish()

    def merge(self, data: st.DataObject) -> None:
        """Two who were dealt turn out to be one: the same study under both names."""
        dealt = data.draw(st.permutations(self.dealt(self.humans)))
        if len(dealt) >= 2:
            dealt[0].studies.append((dealt[1].names[-1], dealt[0].studies[0][1]))
            self.become_one(*dealt[:2])
        else:
            self.come(data)

    def merge_by_alias(self, data: st.DataObject) -> None:
        """Two who were dealt turn out to be one: the hospital's alias table says so."""
        dealt = data.draw(st.permutations(self.dealt(self.of_one_site(self.present()))))
        alike = [h for h in dealt if h.names[-1][0] == dealt[0].names[-1][0]]
        if len(alike) >= 2:
            source, _, old = alike[0].names[-1]
            self.aliases.append((SITES[source], old, alike[1].names[-1][2]))
            self.become_one(*alike[:2])
        else:
            self.come(data)

    def become_one(self, one: Human, other: Human) -> None:
        """Without an answer in the spec a conflict of two splits is refused; with one, the person goes there."""
        one.names = [*other.names, *one.names]
        one.studies += other.studies
        self.humans.remove(other)
        if one.split != other.split:
            persons = find(self.humans, self.aliases, key=KEY, store=self.store)
            before = published(self.store)
            with pytest.raises(LayoutError, match="dealt to several splits before"):
                build(self.store, spec(**self.options), self.humans, persons, key=KEY)
            assert published(self.store) == before
            one.split = "train"
        self.publish(on_merge="train")

    def publish(self, **more: object) -> None:
        options = spec(**{**self.options, **more})
        persons = find(self.humans, self.aliases, key=KEY, store=self.store)
        known = read_registry(options.splits, self.store, key=KEY).table
        made = build(self.store, options, self.humans, persons, key=KEY)
        homes = dict(zip(made.splits["person_key"].to_pylist(), made.splits["split"].to_pylist(), strict=True))
        keys = {}
        for human in self.humans:
            if human.here:
                person = key_of(human, persons)
                assert keys.setdefault(person, human) is human, "two humans became one person"
                if human.wanted:
                    assert human.split in (None, homes[person]), "somebody moved"
                    human.split = homes[person]
        assert list(faults(made.registry, made.splits, named=("registry", "splits"))) == []
        names = [name for members in made.registry["members"].to_pylist() for name in members]
        assert len(names) == len(set(names))
        assert {n for m in known["members"].to_pylist() for n in m} <= set(names), "the registry forgot a name"
        self.all_names_of_a_human_have_one_split(made.registry)
        self.versions += 1
        if self.versions % 3 == 0:
            again = build(self.store, options, self.humans, persons, key=KEY)
            assert again.registry.equals(made.registry), "the same history gives the same registry"

    def all_names_of_a_human_have_one_split(self, registry: pa.Table) -> None:
        """Also those without images: who comes back under any of them must find the same split."""
        rows = zip(*(registry[column].to_pylist() for column in ("members", "split")), strict=True)
        listed = {name: split for members, split in rows for name in members}
        naming = spec().persons.naming(SITES)
        for human in self.humans:
            for source, issuer, text in human.names:
                who = naming.identity(text, issuer, "", source)
                splits = {listed[name] for name in keyed_names(KEY, (issuer, text), who) if name in listed}
                assert splits <= {human.split}, "a name of somebody has another split"


CHANGES = (
    "come", "go", "change_site", "merge_by_alias", "come_back", "merge", "get_another_id",
    "have_an_id_corrected", "change_the_key",
)  # fmt: skip

Growth.TestCase.settings = settings(
    max_examples=4, stateful_step_count=20, deadline=None, report_multiple_bugs=False, phases=(Phase.generate,)
)
TestGrowth = Growth.TestCase


def test_publishing_fails_once_another_build_published(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "grown"))
    humans = [Human(n, [(0, "", f"{n}1")], [((0, "", f"{n}1"), f"s{n}")]) for n in range(6)]
    first = build(store, spec(), humans, find(humans, [], key=KEY), key=KEY)
    registry = read_registry(spec().splits, store, key=KEY)
    guard = still_published(store, registry.current, lambda: None)
    guard()
    humans.append(Human(6, [(0, "", "61")], [((0, "", "61"), "s6")]))
    build(store, spec(), humans, find(humans, [], key=KEY), key=KEY)
    with pytest.raises(LayoutError, match=r"CURRENT: found version \w+, expected version \w+ as when this build was"):
        guard()
    draft = Manifest("grown", "", {}, {}, (), (), ())
    files: Any = {SPLITS: parquet_bytes(first.splits)}
    with pytest.raises(LayoutError, match="type the same command again"):
        publish_files(draft, files, store, guard)


def test_a_damaged_registry_and_a_missing_version_are_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "grown"))
    humans = [Human(n, [(0, "", f"{n}1")], [((0, "", f"{n}1"), f"s{n}")]) for n in range(4)]
    made = build(store, spec(), humans, find(humans, [], key=KEY), key=KEY)
    name = version_path(parse_current(store.read(CURRENT)), REGISTRY)
    store.put(name, parquet_bytes(made.registry.slice(1)))
    with pytest.raises(LayoutError, match=r"found another registry.parquet than the manifest states"):
        read_registry(spec().splits, store, key=KEY)
    assert read_registry(spec(fresh=True).splits, store, key=KEY).table.num_rows == 0
    store.delete(name)
    with pytest.raises(LayoutError, match=r"found no registry.parquet in version .*, which says where everybody was"):
        read_registry(spec().splits, store, key=KEY)
    store.put(CURRENT, b"gone\n")
    with pytest.raises(LayoutError, match="found no version gone"):
        read_registry(spec().splits, store, key=KEY)


def test_previous_names_another_dataset_one_of_its_versions_or_an_older_file(tmp_path: Path) -> None:
    other, own = open_store(str(tmp_path / "other")), open_store(str(tmp_path / "own"))
    humans = [Human(n, [(0, "", f"{n}1")], [((0, "", f"{n}1"), f"s{n}")]) for n in range(8)]
    persons = find(humans, [], key=KEY)
    made = build(other, spec(seed=5), humans, persons, key=KEY)
    wanted = made.splits.select(["person_key", "split"])
    (tmp_path / "old.parquet").write_bytes(parquet_bytes(made.splits))
    version = parse_current(other.read(CURRENT))
    for n, place in enumerate((other.url, f"{other.url}@{version}", str(tmp_path / "old.parquet"))):
        target = open_store(str(tmp_path / f"own{n}"))
        for seed in range(3):
            found = build(target, spec(seed=seed, previous=place), humans, persons, key=KEY)
            assert found.splits.select(["person_key", "split"]).equals(wanted)
    assert build(own, spec(seed=0), humans, persons, key=KEY).splits["split"] != wanted["split"]
    with pytest.raises(LayoutError, match="whom that dataset has in other splits"):
        read_registry(spec(previous=other.url).splits, own, key=KEY)
    for wrong in (str(tmp_path), str(tmp_path / "nothing.parquet"), f"{other.url}@never"):
        with pytest.raises(LayoutError, match="found no"):
            read_registry(spec(previous=wrong).splits, open_store(str(tmp_path / "new")), key=KEY)
    with pytest.raises(LayoutError, match="built with another key"):
        read_registry(spec(previous=other.url).splits, open_store(str(tmp_path / "new")), key=OTHER)


def test_other_people_are_refused_unless_the_spec_trusts_the_registry(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "grown"))
    humans = [Human(n, [(0, "", f"{n}1")], [((0, "", f"{n}1"), f"s{n}")]) for n in range(6)]
    made = build(store, spec(), humans, find(humans, [], key=KEY), key=KEY)
    strangers = [Human(n + 7, [(0, "", f"X{n}")], [((0, "", f"X{n}"), f"t{n}")]) for n in range(6)]
    swapped = [replace(h, number=h.number + 31) for h in humans]  # the same PatientIDs, other birth dates
    refusals = (
        (strangers, "found none of the registry's 6 persons"),
        (swapped, "another birth date or sex for 6 of 6 persons"),
    )
    for others, words in refusals:
        persons = find(others, [], key=KEY)
        with pytest.raises(LayoutError, match=words):
            build(store, spec(), others, persons, key=KEY)
    trusted = build(store, spec(trust_registry=True), strangers, find(strangers, [], key=KEY), key=KEY)
    assert trusted.registry.num_rows == 12
    back = build(store, spec(), humans, find(humans, [], key=KEY), key=KEY)
    assert back.splits.equals(made.splits)


def homes_of(humans: list[Human], persons: Persons, made: Version) -> dict[int, str]:
    found = dict(zip(made.splits["person_key"].to_pylist(), made.splits["split"].to_pylist(), strict=True))
    return {h.number: found[key_of(h, persons)] for h in humans if h.here}


@pytest.mark.parametrize(
    "change",
    [("north", "south", "west"), ("nord", "south", None), ("north", "sud", None)],
    ids=["stated", "renamed", "another renamed"],
)
@pytest.mark.parametrize("absent", [(), (2, 5, 8)])
def test_a_site_that_is_stated_or_changed_moves_nobody(
    change: tuple[str | None, ...], absent: tuple[int, ...], tmp_path: Path
) -> None:
    """Both hospitals and the one without a site count from 1; somebody may be away when the site changes."""
    store = open_store(str(tmp_path / "grown"))
    humans = [Human(n, [(n % 3, "", f"{n // 3 + 1:03}")], []) for n in range(24)]
    for human in humans:
        human.studies = [(human.names[0], f"s{human.number}")]
    persons = find(humans, [], key=KEY)
    first = homes_of(humans, persons, build(store, spec(), humans, persons, key=KEY))
    for human in humans:
        human.here = human.number not in absent
    for seed in range(2):
        persons = find(humans, [], key=KEY, sites=change)
        options = spec(sites=change, seed=seed + 5)
        made = build(store, options, humans, persons, key=KEY)
        assert homes_of(humans, persons, made).items() <= first.items(), "somebody moved"
        assert list(faults(made.registry, made.splits, named=("registry", "splits"))) == []
    for human in humans:
        human.here = True
    persons = find(humans, [], key=KEY, sites=change)
    assert homes_of(humans, persons, build(store, spec(sites=change), humans, persons, key=KEY)) == first


def test_sites_that_all_change_need_the_word_that_the_registry_is_to_be_trusted(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "grown"))
    before, after = (None, "south", None), ("north", "south", "north")
    humans = [Human(n, [(0, "", f"{n:03}")], [((0, "", f"{n:03}"), f"s{n}")]) for n in range(12)]
    persons = find(humans, [], key=KEY, sites=before)
    first = homes_of(humans, persons, build(store, spec(sites=before), humans, persons, key=KEY))
    for human in humans:
        human.studies = [(human.names[0], f"later {human.number}")]  # no study tells who they are
    persons = find(humans, [], key=KEY, sites=after)
    with pytest.raises(LayoutError, match=r"12 have a PatientID that the registry knows under another site or issuer"):
        build(store, spec(sites=after, seed=3), humans, persons, key=KEY)
    for seed in (3, 4):
        made = build(store, spec(sites=after, seed=seed, trust_registry=True), humans, persons, key=KEY)
        assert homes_of(humans, persons, made) == first
        assert made.registry.num_rows == 12
    issued = [replace(h, names=[(0, "H", h.names[0][2])], studies=[((0, "H", h.names[0][2]), f"last {h.number}")])
              for h in humans]  # fmt: skip
    persons = find(issued, [], key=KEY, sites=after)
    made = build(store, spec(sites=after, seed=5, trust_registry=True), issued, persons, key=KEY)
    assert homes_of(issued, persons, made) == first, "an issuer that is written from now on moves nobody either"


def test_whose_patient_id_two_sites_had_before_is_not_guessed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "grown"))
    humans = [Human(n, [(n % 2, "", f"{n // 2:03}")], []) for n in range(24)]
    for human in humans:
        human.studies = [(human.names[0], f"s{human.number}")]
        human.number *= 90  # equal birth dates and sexes: nothing tells the two apart
    persons = find(humans, [], key=KEY)
    build(store, spec(ratios={"train": 0.5, "test": 0.5}), humans, persons, key=KEY)
    after = ("nord", "sud", None)
    persons = find(humans, [], key=KEY, sites=after)
    known = known_again(spec().splits, read_registry(spec().splits, store, key=KEY), persons, key=KEY)
    assert len(known.found) == len(humans), "their studies tell who they are"
    for human in humans:
        human.studies = [(human.names[0], f"later {human.number}")]
    persons = find(humans, [], key=KEY, sites=after)
    with pytest.raises(LayoutError, match=r"in several splits under other sites or issuers.*one site at a time"):
        build(store, spec(sites=after, trust_registry=True), humans, persons, key=KEY)


def test_a_registry_of_nobody_is_where_a_dataset_begins(tmp_path: Path) -> None:
    found = read_registry(spec().splits, open_store(str(tmp_path / "new")), key=KEY)
    assert isinstance(found, Registry)
    assert (found.table.num_rows, found.current) == (0, None)
    assert read_parquet(parquet_bytes(found.table)).schema.equals(found.table.schema)


def test_a_dataset_of_a_release_without_a_registry_grows(tmp_path: Path) -> None:
    """Its splits.parquet as commit a73a6a5 wrote it: names of issuer and PatientID alone, whatever the site."""
    store = open_store(str(tmp_path / "old"))
    humans = [Human(n, [(n % 3, "", f"{n // 3 + 1:03}")], []) for n in range(18)]
    for human in humans:
        human.studies = [(human.names[0], f"s{human.number}")]
    old = {name: KEY.name("patient", "", name) for name in sorted({h.names[0][2] for h in humans})}
    homes = {name: ("train", "validation", "test")[n % 3] for n, name in enumerate(old)}
    splits = pa.Table.from_pylist(
        [{"person_key": key, "members": [key], "split": homes[name], "stratum": "everyone", "pooled": False,
          "folds": None} for name, key in sorted(old.items(), key=lambda pair: pair[1])],
        schema=pa.schema([("person_key", pa.string()), ("members", pa.list_(pa.string())), ("split", pa.string()),
                          ("stratum", pa.string()), ("pooled", pa.bool_()), ("folds", pa.list_(pa.int32()))]),
    )  # fmt: skip
    draft = Manifest("grown", "", {}, {"key_check": key_check(KEY)}, (), (), ())
    files: Any = {SPLITS: parquet_bytes(splits)}
    publish_files(draft, files, store, lambda: None)
    away = [h for h in humans if h.names[0][2] == "004"]
    for human in away:
        human.here = False
    humans.append(Human(99, [(0, "", "new")], [((0, "", "new"), "s99")]))
    for seed in range(3):
        persons = find(humans, [], key=KEY)
        made = build(store, spec(seed=seed), humans, persons, key=KEY)
        found = dict(zip(made.splits["person_key"].to_pylist(), made.splits["split"].to_pylist(), strict=True))
        for human in humans[:-1]:
            if human.here:
                assert found[key_of(human, persons)] == homes[human.names[0][2]]
        assert list(faults(made.registry, made.splits, named=("registry", "splits"))) == []
    for human in away:
        human.here = True
    persons = find(humans, [], key=KEY)
    made = build(store, spec(seed=9), humans, persons, key=KEY)
    found = dict(zip(made.splits["person_key"].to_pylist(), made.splits["split"].to_pylist(), strict=True))
    assert {found[key_of(human, persons)] for human in away} == {homes["004"]}
