"""Run the pipeline from a spec to a published dataset, on any runner."""

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from os import PathLike, environ
from pathlib import Path
from typing import Any

import pyarrow as pa

from builder.deid import resolve_key
from builder.errors import BuilderError, SpecError
from builder.imaging.series_types import Rule
from builder.model.canonical import fingerprint
from builder.model.keyed import Key
from builder.model.layout import CURRENT, parse_current
from builder.model.options import withhold_locations
from builder.model.parquet import parquet_bytes
from builder.plan import DatasetPlan
from builder.planning.faces import find_faces
from builder.planning.forecast import forecast
from builder.planning.inputs import PlanInputs
from builder.planning.inventory import INDEX, take_inventory
from builder.planning.latest import latest_inventory, note_plan, note_published
from builder.planning.making import make_plan
from builder.planning.registry import next_registry, published, still_published
from builder.planning.surveying import take_survey
from builder.planning.twins import leave_out_twins
from builder.planning.withdrawn import with_history
from builder.protocols import Progress
from builder.publishing.accounts import account, keep_accounts
from builder.publishing.outcome import check_plan
from builder.publishing.published import Published
from builder.run.arriving import Arriving
from builder.run.clusters import Profile, load_cluster
from builder.run.journal import Journal, JournalProgress, keep_journal
from builder.run.lease import hold_lease
from builder.run.outcomes import Built, Planned, internal_errors_line
from builder.run.places import check_places
from builder.run.progress import SilentProgress
from builder.sources.contents import FOLDER
from builder.sources.deferring import is_deferred
from builder.sources.politeness import CLOCK
from builder.sources.recordings import check_recorded
from builder.spec import KEY_PLACEHOLDER, LICENSE_PLACEHOLDER, DatasetSpec, keeping
from builder.specfile import fill_parameters, load_spec
from builder.split.withdrawn import Withdrawn
from builder.stages.boundary import Faults, InternalError, OnInternalError, default_action
from builder.stages.graph import Runner, Task
from builder.storage import Store, open_store, private_store

PUBLISHED = "published.json"
PRINTS = "prints"


def plan(
    spec: str | PathLike[str] | DatasetSpec,
    *,
    to: str | PathLike[str],
    parameters: Mapping[str, str] | None = None,
    cluster: str = "serial",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Index, select, split and plan, without publishing anything. Only heads are decoded, with ``deid.faces``.

    Parameters
    ----------
    spec
        Path of a spec file, or a DatasetSpec.
    to
        Folder or URL of the dataset. Private tables (with the archive's identifiers) go beside it, to ``<to>.private``.
    parameters
        Values of ``${NAME}`` in the spec's URLs.
    cluster
        As ``--cluster`` of the command line.
    """
    asked = ask(spec, str(to), parameters or {})
    with opened(load_cluster(cluster), workers) as runner:
        faults = Faults(default_action(environ))
        return _with_report(plan_asked(asked, runner, progress or SilentProgress(), faults))


def build(
    spec: str | PathLike[str] | DatasetSpec,
    *,
    to: str | PathLike[str],
    parameters: Mapping[str, str] | None = None,
    cluster: str | Profile = "serial",
    workers: int | None = None,
    progress: Progress | None = None,
    on_internal_error: OnInternalError | None = None,
) -> Built:
    """Build and publish a dataset. Arguments as for ``plan``; ``cluster`` may also be a profile that opens a runner.

    A repeated call continues: shards that have a receipt are not built again, unless they hold an internal error. If
    spec and archive are unchanged, it does nothing.

    Parameters
    ----------
    on_internal_error
        Whether an unforeseen exception excludes its case or stops the build. The default is to exclude, unless the
        environment sets ``BUILDER_STRICT``.

    Raises
    ------
    SpecError, SourceError, PrivacyError, LayoutError, ResourceError
        Nothing is published then, and what was published before stays.
    """
    profile = load_cluster(cluster) if isinstance(cluster, str) else cluster
    asked = ask(spec, str(to), parameters or {}, building=True)
    private = private_store(asked.to)
    shown = progress or SilentProgress()
    with (
        hold_lease(private, say=shown.say) as lease,
        keep_journal(private, lease.counter, facts={"dataset": asked.spec.name, "cluster": profile.kind}) as journal,
        opened(profile, workers) as runner,
    ):
        open_store(asked.to).fence()  # a builder that was suspended until now can no longer publish
        report = JournalProgress(shown, journal)
        faults = Faults(on_internal_error or default_action(environ), noted_in(journal))
        try:
            planned = plan_asked(asked, runner, report, faults)
            return build_open(planned, open_store(asked.to), runner, report, lease.check, faults)
        except BuilderError:
            if faults.count:  # what is published would tell of them, but nothing is
                shown.say(internal_errors_line(faults.count, asked.to))
            raise


def noted_in(journal: Journal) -> Callable[[InternalError], None]:
    """Return a function that notes the traceback of what was left out, for ``builder logs``."""
    return lambda error: journal.note("internal_error", left_out=error.where, trace=error.trace)


def opened(profile: Profile, workers: int | None) -> AbstractContextManager[Runner]:
    """Return a runner. Local workers start while the archive is read; other clusters may take long to start."""
    cluster = profile.open(workers)
    return Arriving(cluster) if profile.kind == "local" else cluster


@dataclass(frozen=True)
class Asked:
    """What a user asked for, after every check that is possible before reading the archive."""

    spec: DatasetSpec
    """Resolved, with locations filled in."""
    published_spec: Mapping[str, Any]
    to: str
    key: Key = field(repr=False)


def ask(
    spec: str | PathLike[str] | DatasetSpec, to: str, parameters: Mapping[str, str], *, building: bool = False
) -> Asked:
    loaded = spec if isinstance(spec, DatasetSpec) else load_spec(Path(spec))
    if building:
        _check_placeholders(loaded)
    resolved = fill_parameters(loaded, parameters)
    check_places(resolved.sources, to, sealed=resolved.splits.sequester)
    check_recorded(private_store(to), INDEX)
    kept = keeping(resolved, private_store(to).join(FOLDER).url)
    published_spec = withhold_locations(loaded.model_dump(mode="json", by_alias=True))
    return Asked(kept, published_spec, to, _key(resolved.deid.patient_key))


def plan_asked(asked: Asked, runner: Runner, progress: Progress, faults: Faults) -> Planned:
    resolved, private = asked.spec, private_store(asked.to)
    for source in resolved.sources:
        for line in source.news(CLOCK.now()):
            progress.say(line)
    sealed = resolved.splits.sequester
    earlier = latest_inventory(private)
    inventory = take_inventory(
        resolved.sources, private, runner=runner, progress=progress, faults=faults, earlier=earlier
    )
    survey = take_survey(
        inventory, resolved.sources, resolved.volumes, runner=runner, progress=progress, faults=faults,
        rules=[Rule(r.column, r.value, r.name, r.when) for r in resolved.cohort.series_rules],
    )  # fmt: skip
    inputs = PlanInputs(
        spec=resolved,
        published_spec=asked.published_spec,
        private=private,
        dataset=open_store(asked.to if sealed is None else sealed.url),
        key=asked.key,
        inventory=inventory,
        survey=survey,
        progress=progress,
    )
    return plan_from(inputs, runner, faults)


def plan_from(inputs: PlanInputs, runner: Runner, faults: Faults, *, also: Withdrawn | None = None) -> Planned:
    """Plan from what an archive holds, without whoever withdrew. ``also``: tombstones that no version has yet."""
    inputs = with_history(inputs, also=also)
    inventory, spec = inputs.inventory, inputs.spec
    survey = leave_out_twins(inventory, inputs.survey, spec, runner=runner, progress=inputs.progress)
    known = replace(inputs, survey=survey)
    plan = make_plan(replace(known, faces=lambda cohort: find_faces(known, cohort, runner, faults)), runner)
    note_plan(inputs.private, plan, inventory)
    return Planned(plan, inventory, survey, forecast(plan, inputs.dataset, inventory=inventory, survey=survey))


def build_open(
    planned: Planned, dataset: Store, runner: Runner, progress: Progress, guard: Callable[[], None], faults: Faults
) -> Built:
    """Build into the dataset or, if splits are sequestered, into their store, and publish the rest."""
    options = planned.plan.spec.splits.sequester
    beside = private_store(dataset.url)
    if options is None:
        return _build(planned, dataset, beside, runner, progress, guard, faults)
    whole = open_store(options.url)
    from builder.publishing.sequester import check_places, publish_open

    check_places(whole, dataset)
    whole.fence()
    unmoved = still_published(dataset, published(dataset), guard)
    built = _build(planned, whole, beside, runner, progress, guard, faults)
    left = "labels" if options.what == "labels" else "persons"
    progress.say(f"sequester: the dataset without the {left} of " + ", ".join(options.splits))
    version = publish_open(whole, dataset, planned.plan.spec, guard=unmoved)
    return replace(built, dataset=dataset.url, version=version, labels=whole.url)


def _build(
    planned: Planned,
    dataset: Store,
    beside: Store,
    runner: Runner,
    progress: Progress,
    guard: Callable[[], None],
    faults: Faults,
) -> Built:
    plan = planned.plan
    private = open_store(plan.url, directory_mode=0o700)
    inputs = _inputs(plan)
    stamps = planned.inventory.stamps()
    done = _published(private, dataset, inputs, stamps)
    if done is not None:
        note_published(beside, done.version)
        return Built(dataset.url, done, len(plan.shards), len(plan.shards), planned=planned)
    if planned.refused:
        _with_report(planned)  # so that builder explain can say why
    check_plan(plan, hints=planned.hints())
    # imported here because a plan and a build with nothing to do need none of it
    from builder.publishing.leaks import Compared, compare, deal_again
    from builder.stages.copied import copy_shard
    from builder.stages.isolate import isolate_shard
    from builder.stages.shard import CASES, ShardArgument, build_shard

    deferred = any(is_deferred(source) for source in plan.spec.sources)
    prints = beside.join(PRINTS) if plan.spec.leaks.pixels != "off" else None
    tasks = [
        Task(
            f"shard-{shard.fingerprint}",
            copy_shard if planned.before else build_shard,
            ShardArgument(
                plan.url,
                dataset.url,
                shard.fingerprint,
                prints.url if prints is not None else "",
                faults.action,
                beside.join(FOLDER).url,
                beside.join(CASES).url,
                planned.before,
                deferred,
            ),
            memory=shard.peak_bytes,
            isolate=isolate_shard,
            deadly=shard.encoded,
        )
        for shard in plan.shards
    ]
    resumed = incomplete = 0
    renamed: dict[str, str] = {}
    compared = Compared((), (), {})
    for outcome in progress.track(runner.run(tasks), stage="build", total=len(tasks)):
        resumed += outcome.value.resumed
        faults.add(outcome.value.internal_errors)
        incomplete += outcome.value.incomplete
        renamed[outcome.task.argument.shard] = outcome.value.shard
    plan = replace(plan, shards=tuple(replace(s, fingerprint=renamed[s.fingerprint]) for s in plan.shards))
    if prints is not None:
        progress.say("leaks: every volume with every other one")
        compared = compare(plan, prints, runner)
    runner.dismiss()
    plan = deal_again(plan, compared)
    progress.say("finish: index, ledger, report")
    # imported here, with the report's statistics, because no worker needs it and this process may hold voxels before
    from builder.publishing.finish import finish

    unmoved = still_published(dataset, plan.registry.current, guard)
    inventory = replace(planned.inventory, later=_read_later(beside.join(CASES)) if deferred else ())
    done = finish(plan, compared, inventory, planned.survey, dataset, guard=unmoved)
    note_published(beside, done.version)
    if not faults.count and not incomplete:  # otherwise the next run tries the cases again, with the same inputs
        # the next run starts from the registry that this one leaves, in which the comparison of images may have joined
        # persons
        known = sorted({inputs, _inputs(plan)})
        found = {"inputs": known, "published": done.__dict__, "stamps": stamps}
        private.put(PUBLISHED, json.dumps(found).encode())
    return Built(dataset.url, done, len(plan.shards), resumed, internal_errors=faults.count, planned=planned)


def _read_later(cases: Store) -> tuple[str, ...]:
    """Return where the shards left who their headers name: also of other plans, for nobody's name may leave."""
    from builder.stages.shard import HEADERS

    return tuple(f"{cases.url}/{path}" for path in sorted(cases.list()) if path.endswith(HEADERS))


def _with_report(planned: Planned) -> Planned:
    """Write the report of a plan into its private folder and return the plan with it."""
    from builder.planning.offsets import read_lives
    from builder.publishing.privacy import clear_plan
    from builder.publishing.report import REPORT_JSON, REPORT_PAGE, plan_files

    store = open_store(planned.plan.url, directory_mode=0o700)
    # the report of a plan shows what a build would publish, so its texts pass the same gate
    plan = planned.plan
    lives = read_lives(plan.cohort, plan.persons, planned.survey, retain=plan.spec.deid.retain)
    plan, *_ = clear_plan(plan, planned.inventory, lives)
    accounts = account(plan, {}, planned.inventory, planned.survey)
    keep_accounts(plan, accounts)
    files = plan_files(plan, accounts)
    for name, data in files.items():
        store.put(name, data)
    return replace(planned, report=json.loads(files[REPORT_JSON]), report_page=f"{store.url}/{REPORT_PAGE}")


def _inputs(plan: DatasetPlan) -> str:
    """Fingerprint everything that a version is made from.

    The registry is included as the version will carry it, so it is the same before and after publication.
    """
    registry = next_registry(plan.registry, plan.persons, plan.splits, key=plan.key)
    found = (plan.cohort, plan.splits, plan.links, plan.annotations, plan.origins, registry, *_withdrawn(plan))
    tables = [parquet_bytes(t) for t in found]
    shards = [s.fingerprint for s in plan.shards]
    procedures = None if plan.procedures is None else dict(plan.procedures)
    reviews = {name: list(rows) for name, rows in plan.reviews.items()}
    return fingerprint(plan.published_spec, dict(plan.lock), shards, list(plan.clinical), procedures, reviews, *tables)


def _withdrawn(plan: DatasetPlan) -> tuple[pa.Table, ...]:
    return (plan.withdrawn.stored(),) if plan.withdrawn.table.num_rows else ()


def _published(private: Store, dataset: Store, inputs: str, stamps: str) -> Published | None:
    """Return what an earlier run published from the same inputs, if readers still see that version."""
    try:
        found = json.loads(private.read(PUBLISHED))
        current = parse_current(dataset.read(CURRENT))
    except FileNotFoundError:
        return None
    if inputs not in found["inputs"] or found["published"]["version"] != current:
        return None
    dataset.settle(CURRENT)
    rewritten = found.get("stamps", stamps) != stamps
    return Published(**{**found["published"], "unchanged": True, "rewritten": rewritten})


def _check_placeholders(spec: DatasetSpec) -> None:
    """Refuse to build from a spec of ``builder init`` whose placeholders still stand."""
    faults = []
    if spec.license == LICENSE_PLACEHOLDER:
        expected = "expected the licence of the dataset, such as CC-BY-4.0"
        faults.append(f"license: found the placeholder {LICENSE_PLACEHOLDER}, {expected}")
    if spec.deid.patient_key == KEY_PLACEHOLDER:
        expected = "expected where your key is, such as ${env:BUILDER_KEY}"
        faults.append(f"deid.patient_key: found the placeholder {KEY_PLACEHOLDER}, {expected}")
    if faults:
        raise SpecError("\n".join((*faults, "a plan accepts placeholders, a build does not")))


def _key(reference: str) -> Key:
    if reference == KEY_PLACEHOLDER:
        return Key(secrets.token_bytes(32))
    return resolve_key(reference, environ, read=lambda path: Path(path).read_bytes())
