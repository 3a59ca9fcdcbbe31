"""Take a person out of a published dataset: a build without the person, then everything that still holds the person.

Each step does nothing if it is done already, so that the same command continues after a kill at any point.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from os import environ
from typing import Any

from builder.deid import resolve_key
from builder.errors import LayoutError
from builder.imaging.series_types import Rule
from builder.library.absence import Needles, names_in, parse_needles
from builder.model.canonical import canonical_json
from builder.model.keyed import Key
from builder.model.layout import CURRENT, MANIFEST, Manifest, parse_current, parse_manifest, version_path
from builder.persons import lookup_names
from builder.planning.inputs import PlanInputs
from builder.planning.inventory import kept_inventory
from builder.planning.latest import PUBLISHED, Latest, keep_published, read_latest, read_published
from builder.planning.registry import read_registry
from builder.planning.surveying import take_survey
from builder.planning.withdrawn import read_withdrawn
from builder.protocols import Progress
from builder.run.clusters import Profile, load_cluster
from builder.run.elsewhere import clear_places, find_places, search_places, take_out_lines, told_of
from builder.run.journal import JournalProgress, keep_journal
from builder.run.lease import Lease, hold_lease
from builder.run.pipeline import build_open, noted_in, opened, plan_from
from builder.run.progress import SilentProgress
from builder.run.purge import certify_absence, collect_needles, purge, purge_private, seen_by
from builder.run.withdrawals import FOLDER, Gone, Intention, Policy, kept_intentions
from builder.spec import DatasetSpec
from builder.split.options import Splits
from builder.split.withdrawn import Withdrawn, hashed, tombstone
from builder.stages.boundary import Faults, default_action
from builder.stages.copied import SHARDS
from builder.stages.graph import Runner
from builder.stages.planned import SPEC, load_plan
from builder.stages.shard import read_file
from builder.storage import Store, checkpoint, open_store, private_store


def withdraw(
    url: str,
    *,
    people: Sequence[str],
    policy: Policy,
    cluster: str | Profile = "serial",
    workers: int | None = None,
    progress: Progress | None = None,
    today: date | None = None,
) -> Gone:
    """Take persons out of a dataset for good, and publish a version without them.

    Parameters
    ----------
    people
        Keyed names or PatientIDs.

    Raises
    ------
    LayoutError
        When nothing is published, nobody has such a name, or the private workspace does not know how the published
        version was planned.
    """
    profile = load_cluster(cluster) if isinstance(cluster, str) else cluster
    private, shown = private_store(url), progress or SilentProgress()
    with (
        hold_lease(private, say=shown.say) as lease,
        keep_journal(private, lease.counter, facts={"dataset": "withdrawal", "cluster": profile.kind}) as journal,
        opened(profile, workers) as runner,
    ):
        open_store(url).fence()
        faults = Faults(default_action(environ), noted_in(journal))
        work = _Work(url, private, JournalProgress(shown, journal), lease, today or date.today())
        intention = work.intention(people, policy)
        if not intention.published:
            work.publish(intention, runner, faults)
            intention = replace(intention, published=True)
            intention.keep(private)
            work.note()
        checkpoint("withdraw.published")
        return work.clear(intention)


def go_on(url: str, lease: Lease, *, progress: Progress, today: date | None = None) -> list[Gone]:
    """Remove the old versions of withdrawals whose day has come; ``lease`` is held by the caller."""
    private = private_store(url)
    work = _Work(url, private, progress, lease, today or date.today())
    return [
        work.clear(i) for i in kept_intentions(private) if i.published and i.due and i.due <= work.today.isoformat()
    ]


@dataclass(frozen=True)
class _Work:
    """Where a withdrawal works."""

    url: str
    private: Store
    progress: Progress
    lease: Lease
    today: date

    def intention(self, people: Sequence[str], policy: Policy) -> Intention:
        """Return the withdrawal of these persons that is under way, or else begin one."""
        plan, spec, key = self._published()
        whole = self._whole(spec)
        version = parse_current(whole.read(CURRENT))
        wanted = [self._names(text, spec, key) for text in people]
        for kept in kept_intentions(self.private):
            if all(names & kept.names for names in wanted):
                also = tuple(dict.fromkeys((*kept.policy.also, *policy.also)))
                return self._placed(replace(kept, policy=replace(kept.policy, also=also)), spec)
        registry = read_registry(Splits(), whole, key=key).table.to_pylist()
        rows = [self._row(names, registry, whole, key) for names in wanted]
        due = (self.today + timedelta(days=policy.days)).isoformat() if policy.old == "after" else ""
        made = Intention(
            tuple({r["person_key"]: r for r in rows}.values()), policy, version, plan.plan, plan.inventory, due
        )
        made = self._placed(made, spec)
        checkpoint("withdraw.begun")
        return made

    def _placed(self, intention: Intention, spec: DatasetSpec) -> Intention:
        """Note the places beside the dataset; of one that is known already, what it was before it was cleared."""
        noted = {place.url for place in intention.places}
        also = intention.policy.also
        found, others = find_places(self._stores(spec), self.private, spec, also, noted=noted)
        others = tuple(dict.fromkeys((*intention.not_searched, *others)))
        made = replace(intention, places=(*intention.places, *found), not_searched=others)
        made.keep(self.private)
        return made

    def _stores(self, spec: DatasetSpec) -> list[Store]:
        """Return where versions are: the dataset, after the store of its sequestered labels if there is one."""
        whole = self._whole(spec)
        return [whole] if whole.url == open_store(self.url).url else [whole, open_store(self.url)]

    def publish(self, intention: Intention, runner: Runner, faults: Faults) -> None:
        """Publish a version without the persons, unless that is done."""
        old = self.private.join(intention.plan)
        spec = DatasetSpec.model_validate_json(old.read(SPEC))
        key = _key(spec)
        whole = self._whole(spec)
        stones = Withdrawn().table
        for row in intention.people:
            stones = Withdrawn(stones).joined(Withdrawn(tombstone(key, row, intention.policy.reason))).table
        published = set(read_withdrawn(whole, key=key).table["person_key"].to_pylist())
        if published >= set(stones["person_key"].to_pylist()):
            return
        manifest = _manifest(whole, parse_current(whole.read(CURRENT)))
        people = intention.names
        # before the plan, which reads these files, so that a later build comes to the same version
        take_out_lines(intention.places, people | names_in(whole, manifest.version, manifest, people))
        inventory = kept_inventory(self.private.join(intention.inventory))
        survey = take_survey(
            inventory, spec.sources, spec.volumes, runner=runner, progress=self.progress, faults=faults,
            rules=[Rule(r.column, r.value, r.name, r.when) for r in spec.cohort.series_rules],
        )  # fmt: skip
        inputs = PlanInputs(
            spec=spec,
            published_spec=manifest.spec,
            private=self.private,
            dataset=whole,
            key=key,
            inventory=inventory,
            survey=survey,
            progress=self.progress,
        )
        planned = plan_from(inputs, runner, faults, also=Withdrawn(stones, _types(old)))
        _check_recipe(planned.plan.lock, manifest)
        made = read_latest(self.private)
        replace(intention, after={} if made is None else asdict(made)).keep(self.private)
        checkpoint("withdraw.planned")
        planned = replace(planned, before=old.url)
        build_open(planned, open_store(self.url), runner, self.progress, self.lease.check, faults)

    def note(self) -> None:
        """Note the plan of the published version, which the kill of an earlier run may have prevented."""
        latest, *_ = self._published()
        keep_published(self.private, latest)

    def clear(self, intention: Intention) -> Gone:
        """Remove what still holds the persons, search what is left, and write the certificate."""
        plan, spec, key = self._published()
        stores = self._stores(spec)
        version = parse_current(open_store(self.url).read(CURRENT))
        seen = seen_by(stores[-1], intention.names)
        if intention.due > self.today.isoformat():
            return Gone(self.url, version, len(intention.people), None, intention.due, seen)
        scratch = self.private.join(FOLDER, "search")
        intention = self._placed(intention, spec)
        needles = self._needles(intention, stores, scratch, plan)
        if intention.policy.old != "keep":
            for store in stores:
                purge(store, intention.names, guard=self.lease.check)
        self._clear_private(plan, needles, stores)
        clear_places(intention.places, needles, self.private, guard=self.lease.check)
        elsewhere = search_places(intention.places, needles)
        about = {
            "kind": "certificate of absence",
            "dataset": _manifest(stores[-1], version).name,
            "version": version,
            "tombstones": hashed(key, [row["person_key"] for row in intention.people]),
            "reason": intention.policy.reason,
            "old_versions": intention.policy.old,
        }
        place = f"{FOLDER}/{intention.name}.json"
        made = certify_absence(
            stores, self.private, needles, about, place=place,
            elsewhere=[one.facts(found) for one, found in elsewhere], not_searched=intention.not_searched,
        )  # fmt: skip
        stores[-1].put(place, canonical_json(made))
        checkpoint("withdraw.certified")
        scratch.delete(f"{intention.name}.json")
        self.private.join(FOLDER).delete(f"{intention.name}.json")
        return Gone(self.url, version, len(intention.people), made, "", seen, told_of(elsewhere))

    def _needles(self, intention: Intention, stores: Sequence[Store], scratch: Store, plan: Latest) -> Needles:
        """Collect what is searched for, once: later the places it comes from are gone."""
        path = f"{intention.name}.json"
        if scratch.exists(path):
            return parse_needles(scratch.read(path))
        needles = collect_needles(
            stores, self.private, intention.names, before=intention.inventory, after=plan.inventory
        )
        scratch.put(path, needles.to_json())
        checkpoint("withdraw.needles")
        return needles

    def _clear_private(self, plan: Latest, needles: Needles, stores: Sequence[Store]) -> None:
        shards = {
            s.fingerprint for store in stores for s in _manifest(store, parse_current(store.read(CURRENT))).shards
        }
        purge_private(self.private, plan, needles, shards)

    def _published(self) -> tuple[Latest, DatasetSpec, Key]:
        """Return how the published version was planned."""
        try:
            version = parse_current(open_store(self.url).read(CURRENT))
        except FileNotFoundError:
            raise LayoutError(f"{self.url}: found no published dataset, expected one; check the location") from None
        known = (read_published(self.private, version), *self._sealed(version), *self._unnoted(version))
        for latest in filter(None, known):
            spec = DatasetSpec.model_validate_json(self.private.join(latest.plan).read(SPEC))
            return latest, spec, _key(spec)
        raise LayoutError(
            f"{self.url}: found no plan of version {version} in the private workspace, expected the one it was built "
            "from; run the build again, which keeps it, and withdraw then"
        )

    def _unnoted(self, version: str) -> Iterator[Latest]:
        """Yield the plan of a withdrawal that was killed after it was published and before that was noted."""
        for kept in kept_intentions(self.private):
            if kept.after and version != kept.before:
                yield Latest(**{**kept.after, "chunks": tuple(kept.after["chunks"]), "version": version})

    def _sealed(self, version: str) -> list[Latest]:
        """Return the plan of a dataset whose labels are sequestered: it is noted with the version of the whole."""
        found = read_latest(self.private, PUBLISHED)
        if found is None:
            return []
        spec = DatasetSpec.model_validate_json(self.private.join(found.plan).read(SPEC))
        if spec.splits.sequester is None:
            return []
        whole = open_store(spec.splits.sequester.url)
        return [found] if parse_current(whole.read(CURRENT)) == found.version else []

    def _whole(self, spec: DatasetSpec) -> Store:
        return open_store(self.url if spec.splits.sequester is None else spec.splits.sequester.url)

    def _names(self, text: str, spec: DatasetSpec, key: Key) -> set[str]:
        """Return every keyed name that a person may have who is called by this name or PatientID."""
        return {text, *lookup_names(key, text, [source.site for source in spec.sources])}

    def _row(self, names: set[str], registry: Sequence[dict[str, Any]], whole: Store, key: Key) -> dict[str, Any]:
        found = [row for row in registry if names & {row["person_key"], *row["members"]}]
        if len(found) == 1:
            return {name: found[0][name] for name in ("person_key", "members", "named_by", "bare", "studies")}
        gone = read_withdrawn(whole, key=key).table["members"].to_pylist()
        if any(set(hashed(key, names)) & set(members) for members in gone):
            raise LayoutError(
                "withdraw: found a person who withdrew before, expected one of the dataset; nothing to do"
            )
        what = "nobody" if not found else f"{len(found)} persons"
        raise LayoutError(
            f"withdraw: found {what} of the given name in the registry, expected one person: give a keyed name "
            "(person_key), or a PatientID by --file with the key in the environment"
        )


def _key(spec: DatasetSpec) -> Key:
    return resolve_key(spec.deid.patient_key, environ, read=read_file)


def _manifest(store: Store, version: str) -> Manifest:
    return parse_manifest(store.read(version_path(version, MANIFEST)))


def _types(old: Store) -> dict[str, str]:
    """Return the number types that the old plan decided, by image."""
    for name, *_ in json.loads(old.read(SHARDS)):
        case = load_plan(old, name).cases[0]
        pairs = [(case.image, case.number_type), *((p.name, p.number_type) for p in case.partners)]
        return {image: kind for image, kind in pairs if kind}
    return {}


def _check_recipe(lock: Mapping[str, Any], manifest: Manifest) -> None:
    """Refuse to copy under the names of this release what another one stored."""
    for name in ("format", "engine", "plugins", "key_check"):
        if json.loads(canonical_json({"": lock[name]}))[""] != manifest.lock.get(name):
            raise LayoutError(
                f"withdraw: found that the published version was built with another {name} than this release has, "
                "expected the same, because stored samples are copied; withdraw with the release that built it "
                "(dataset.json names it), or build again with this one first"
            )
