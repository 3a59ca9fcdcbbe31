"""Run a release from a spec to a folder of de-identified DICOM, on any runner."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike, environ
from typing import Any

from builder.deid.checks import words_of
from builder.deid.profile import EDITION, OPTIONS_EDITION
from builder.deid.uids import UidMap
from builder.errors import BuilderError, LayoutError, OutcomeError, Reason, SpecError, counted
from builder.model.canonical import fingerprint
from builder.model.keyed import Key
from builder.model.layout import CURRENT
from builder.planning.offsets import read_lives
from builder.planning.stated import refuse_stated
from builder.protocols import Progress
from builder.release.cleaning import Rules
from builder.release.crosswalk import crosswalk_table
from builder.release.decisions import UNDECIDED, read_decisions, undecided_table
from builder.release.devices import read_devices
from builder.release.finish import MANIFEST, REPORT_PAGE, Done, inputs_of, publish_release
from builder.release.found import DECISIONS, FOUND, FoundText, parse_found
from builder.release.labels import words_in
from builder.release.objects import Unit, Wanted, choose_objects
from builder.release.outlook import outlook
from builder.release.triage import RULES
from builder.release.unit import (
    UnitArgument,
    UnitReceipt,
    encoded,
    parse_receipt,
    peak_bytes,
    receipt_path,
    release_unit,
    unit_path,
)
from builder.run.clusters import Profile, load_cluster
from builder.run.crosswalk import NOTE, PUBLISHED, RELEASE, clear_plain, crosswalk_key, forgotten_on, keep_crosswalk
from builder.run.journal import JournalProgress, keep_journal
from builder.run.lease import hold_lease
from builder.run.outcomes import Planned, internal_errors_line
from builder.run.pipeline import ask, noted_in, opened, plan_asked
from builder.run.progress import SilentProgress
from builder.sources import AnySource
from builder.sources.contents import FOLDER
from builder.spec import DatasetSpec
from builder.spec.blocks import TextOptions
from builder.stages.boundary import Faults, OnInternalError, default_action
from builder.stages.graph import Runner, Task
from builder.stages.planned import SPEC
from builder.storage import Store, open_store, private_store

WITHHELD_WORDS = "withheld-words.txt"
"""Private list of the words that were taken out of typed labels."""
BEGUN, CURRENT_PLAN = "begun", "plan"
PS3_15 = {"table": EDITION, "options": OPTIONS_EDITION}
"""Editions of Table E.1-1, for the lock."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of ``release``."""

    folder: str
    done: Done
    units: int
    resumed: int
    internal_errors: int = 0

    def facts(self) -> dict[str, Any]:
        """Return what was released, as JSON-able data."""
        named = {"release": self.folder, "units": self.units, "units_already_there": self.resumed}
        return {**named, **asdict(self.done), "internal_errors": self.internal_errors}

    def text(self) -> str:
        """Return the facts as lines for a person."""
        done = self.done
        if done.unchanged:
            return f"{self.folder}: nothing to do, release {done.version} is published from these inputs"
        lines = [
            f"{self.folder}: published release {done.version}",
            f"  {counted(done.objects, 'object')} of {counted(done.persons, 'person')}, {done.bytes:,} bytes "
            f"({self.resumed} of {counted(self.units, 'unit')} there already)",
            f"  references to what does not leave: {done.references_removed} taken out",
            *(f"  does not leave: {counted(n, 'object')}, {reason}" for reason, n in done.failed.items()),
            *(
                f"  {level}: " + ", ".join(f"{n} {status}" for status, n in counts.items())
                for level, counts in done.totals.items()
            ),
            f"  report: {self.folder}/{REPORT_PAGE}",
        ]
        if self.internal_errors:
            lines.append(internal_errors_line(self.internal_errors, self.folder))
        return "\n".join(lines)


def release(
    spec: str | PathLike[str] | DatasetSpec,
    *,
    to: str | PathLike[str],
    parameters: Mapping[str, str] | None = None,
    cluster: str | Profile = "serial",
    workers: int | None = None,
    progress: Progress | None = None,
    on_internal_error: OnInternalError | None = None,
) -> Outcome:
    """Write the cohort of a spec and the objects that refer to it as de-identified DICOM. Arguments as for ``build``.

    A repeated call continues; if spec and archive are unchanged, it does nothing.

    Raises
    ------
    SpecError, SourceError, PrivacyError, LayoutError, OutcomeError, ResourceError
        Nothing is published then: a folder without ``release.json`` is no release.
    """
    profile = load_cluster(cluster) if isinstance(cluster, str) else cluster
    asked = ask(spec, str(to), parameters or {}, building=True)
    if asked.spec.splits.sequester is not None:
        raise SpecError("splits.sequester: found it in a release, whose objects hold labels; expected no such block")
    private = private_store(asked.to)
    check_folder(open_store(asked.to), private)
    own = crosswalk_key(asked.spec.release.crosswalk, asked.key, private)
    shown = progress or SilentProgress()
    with (
        hold_lease(private, say=shown.say) as lease,
        keep_journal(private, lease.counter, facts={"dataset": asked.spec.name, "cluster": profile.kind}) as journal,
        opened(profile, workers) as runner,
    ):
        check_folder(open_store(asked.to), private)  # it may have been forgotten while this run waited
        private.put(f"{RELEASE}/{BEGUN}", b"")
        noted = JournalProgress(shown, journal)
        faults = Faults(on_internal_error or default_action(environ), noted_in(journal))
        try:
            refuse_stated(asked.spec.sources, what="a release")
            planned = plan_asked(asked, runner, noted, faults)
            outcome = _release(planned, asked.to, runner, noted, guard=lease.check, faults=faults, own=own)
            if own is not None:
                clear_plain(private)
            return outcome
        except BuilderError:
            if faults.count:
                shown.say(internal_errors_line(faults.count, asked.to))
            raise


def check_folder(target: Store, private: Store) -> None:
    """Refuse a folder that holds something else: what a release does not name would be taken for a part of it."""
    if target.exists(CURRENT):
        raise SpecError(f"--to: found a dataset in {target.url}, expected a new or an empty folder for the release")
    forgotten = forgotten_on(private)
    if forgotten:
        raise LayoutError(
            f"{private.url}/{RELEASE}/{NOTE}: found that what leads back from this release was destroyed on "
            f"{forgotten}, expected a new folder: to read the archive again for this one would bring it back"
        )
    if private.exists(f"{RELEASE}/{BEGUN}"):
        return
    if next(iter(target.list()), None) is not None:
        raise SpecError(f"--to: found files in {target.url}, expected a new or an empty folder for the release")


def _release(
    planned: Planned,
    to: str,
    runner: Runner,
    progress: Progress,
    *,
    guard: Callable[[], None],
    faults: Faults,
    own: Key | None,
) -> Outcome:
    plan, target = planned.plan, open_store(to)
    if planned.refused:
        raise OutcomeError("\n  ".join(["release: " + "; ".join(planned.refused), *planned.hints()]))
    lives = read_lives(plan.cohort, plan.persons, planned.survey, retain=plan.spec.deid.retain)
    decisions = read_decisions(plan.spec.release.decisions or _own_decisions(private_store(to)))
    text = plan.spec.release.text
    devices = read_devices(text.devices) if text is not None else None
    ruled = {"devices": devices.sha256} if devices is not None else {}
    found = read_found(private_store(to), text)
    plan = replace(plan, lock={**plan.lock, **decisions.lock, **ruled, **found.lock, "ps3_15": PS3_15})
    words = tuple(sorted(words_in(words_of(plan.published_spec).spec)))
    wanted = Wanted(
        plan.cohort, plan.persons, plan.key, plan.spec.deid, plan.spec.release, words, **ruled, found=found.boxes,
        faces=plan.faces,
    )  # fmt: skip
    units = choose_objects(wanted, planned.inventory, planned.survey, lives=lives, decisions=decisions)
    inputs = inputs_of(plan.published_spec, plan.lock, units, plan.splits)
    private, rules = private_store(to), Rules.of(plan.spec.deid, UidMap(plan.key))
    store = private.join(RELEASE)
    name = fingerprint([unit.name for unit in units])
    plans = store.join(name)
    done = _published(store, target, inputs)
    if done is not None:
        if own is not None:
            receipts = [parse_receipt(plans.read(receipt_path(unit.name))) for unit in units]
            keep_crosswalk(private, crosswalk_table(units, receipts, rules), own)
        return Outcome(to, done, len(units), len(units))
    _say_what_is_lost(plan.spec.sources, units, rules, progress)
    _forget_others(store, name)
    if devices is not None:
        plans.put(RULES, devices.packed)
    _write_plan(plans, plan.spec.model_dump_json(by_alias=True).encode(), units)
    deid = plan.spec.deid
    blanks = bool(
        deid.burned_in == "mask" or deid.outside_regions == "blank" or decisions.boxes or devices or plan.faces.removals
    )
    tasks = _tasks(plans, to, units, action=faults.action, blanks=blanks, words=words)
    receipts, resumed = _run(tasks, runner, progress, faults)
    runner.dismiss()
    withheld = sorted({word for receipt in receipts for word in receipt.withheld})
    store.put(WITHHELD_WORDS, "".join(f"{word}\n" for word in withheld).encode())
    if withheld:
        progress.say(f"labels: {counted(len(withheld), 'word')} withheld, listed in {store.url}/{WITHHELD_WORDS}")
    _wait_for_decisions(units, receipts, store, key=plan.key, wait=plan.spec.release.undecided == "wait")
    if own is not None:
        keep_crosswalk(private, crosswalk_table(units, receipts, rules), own)
    store.put(PUBLISHED, json.dumps({"inputs": inputs}).encode())  # a run killed after the manifest is known again
    done = publish_release(plan, receipts, planned.inventory, planned.survey, target, guard=guard)
    store.put(PUBLISHED, json.dumps({"inputs": inputs, "done": asdict(done)}).encode())
    return Outcome(to, done, len(units), resumed, faults.count)


def read_found(private: Store, text: TextOptions | None) -> FoundText:
    """Return what ``find-text`` found for a release; nothing where it did not run, or the spec does not use it."""
    if text is None or text.found is None or not private.exists(FOUND):
        return FoundText()
    return parse_found(private.read(FOUND))


def _own_decisions(private: Store) -> str | None:
    """Return where ``builder view`` wrote decisions for a release whose spec names no table; None if it did not."""
    return f"{private.url}/{DECISIONS}" if private.exists(DECISIONS) else None


def _say_what_is_lost(sources: tuple[AnySource, ...], units: Sequence[Unit], rules: Rules, progress: Progress) -> None:
    """Say before the first object is written what measurements will lose, so that the options can still be changed."""
    looked, lines = outlook(units, sources, rules)
    for line in lines:
        progress.say(f"by one object of each of {counted(looked, 'series')}: {line}")


def _wait_for_decisions(
    units: Sequence[Unit], receipts: Sequence[UnitReceipt], store: Store, *, key: Key, wait: bool
) -> None:
    """List the images that nobody decided about, and stop where the spec waits for that. Raises OutcomeError."""
    lost = [(name, *why) for receipt in receipts for name, why in receipt.failed.items()]
    failed = {name: detail for name, reason, detail in lost if reason == Reason.BURNED_IN}
    names = ("sop_instance_uid", "series_uid")
    rows = [pair for u in units for pair in zip(*(u.objects[n].to_pylist() for n in names), strict=True)]
    found = [(series, uid, failed[n]) for uid, series in rows if (n := key.name("object", uid)) in failed]
    store.put(UNDECIDED, undecided_table(found))
    if found and wait:
        raise OutcomeError(
            f"release: found {counted(len(found), 'image')} that may show text and that nobody decided about, expected "
            f"decisions; nothing is published. {store.url}/{UNDECIDED} lists them: look at each (builder view shows "
            "them after builder find-text), give the rectangles to blank or none, and name the table as "
            "release.decisions; or leave them out with release: {undecided: leave_out}"
        )


def _forget_others(store: Store, name: str) -> None:
    """Delete the receipts of other plans, whose objects this one may overwrite, before it writes any."""
    try:
        before = store.read(CURRENT_PLAN).decode()
    except FileNotFoundError:
        before = ""
    if before != name:
        for path in list(store.list()):
            if "/receipts/" in path:
                store.delete(path)
        store.put(CURRENT_PLAN, name.encode())


def _write_plan(plans: Store, spec: bytes, units: Sequence[Unit]) -> None:
    plans.put(SPEC, spec)
    for unit in units:
        if not plans.exists(unit_path(unit.name)):
            plans.put(unit_path(unit.name), unit.to_parquet())


def _tasks(
    plans: Store,
    to: str,
    units: Sequence[Unit],
    *,
    action: OnInternalError,
    blanks: bool,
    words: tuple[str, ...],
) -> list[Task]:
    """Return a task for each unit. Where pixels may be blanked, compressed ones are decoded in a process apart."""
    content, target = private_store(to).join(FOLDER).url, open_store(to).url
    return [
        Task(
            f"release-{unit.name}",
            release_unit,
            UnitArgument(plans.url, target, unit.name, action, content, words),
            memory=peak_bytes(unit.objects),
            deadly=blanks and encoded(unit.objects),
        )
        for unit in units
    ]


def _run(tasks: Sequence[Task], runner: Runner, progress: Progress, faults: Faults) -> tuple[list[UnitReceipt], int]:
    receipts, resumed = [], 0
    for outcome in progress.track(runner.run(tasks), stage="release", total=len(tasks)):
        faults.add(outcome.value.internal_errors)
        receipts.append(outcome.value.receipt)
        resumed += outcome.value.resumed
    return receipts, resumed


def _published(store: Store, target: Store, inputs: str) -> Done | None:
    """Return what is published in the folder, if it is from the same inputs and the run that wrote it ended.

    Raises
    ------
    LayoutError
        If the folder holds a release of other inputs. Whoever copied it would have a mixture.
    """
    if not target.exists(MANIFEST):
        return None
    try:
        found = json.loads(store.read(PUBLISHED))
    except FileNotFoundError:
        found = {}
    if found.get("inputs") != inputs:
        raise LayoutError(
            f"{target.url}: found a release of other inputs (spec, archive or program), expected a folder without one; "
            "choose a new folder: releases do not replace each other"
        )
    return Done(**{**found["done"], "unchanged": True}) if "done" in found else None
