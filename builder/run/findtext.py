"""Search the images of a release for text before it is planned, on any runner, and keep what was found."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, environ
from typing import Any

import pyarrow as pa

from builder.errors import OutcomeError, SpecError, counted
from builder.model.canonical import fingerprint
from builder.model.tables import INSTANCES
from builder.pixeltext.engines import rapid, tesseract
from builder.pixeltext.finding import VERSION
from builder.planning.stated import refuse_stated
from builder.protocols import Progress
from builder.release.devices import read_devices
from builder.release.found import FOUND, SEARCH, TEXT, found_table
from builder.release.objects import Rows, released_images
from builder.release.searching import (
    IMAGES_A_TASK,
    SearchArgument,
    Searched,
    part_bytes,
    part_path,
    search_images,
)
from builder.release.triage import RULES
from builder.release.unit import encoded
from builder.run.clusters import Profile, load_cluster
from builder.run.journal import JournalProgress, keep_journal
from builder.run.lease import hold_lease
from builder.run.outcomes import internal_errors_line
from builder.run.pipeline import ask, noted_in, opened, plan_asked
from builder.run.progress import SilentProgress
from builder.run.release import check_folder
from builder.sources.contents import FOLDER
from builder.spec import DatasetSpec
from builder.stages.boundary import Faults, default_action
from builder.stages.graph import Runner, Task
from builder.stages.planned import SPEC
from builder.storage import Store, open_store, private_store


@dataclass(frozen=True)
class Search:
    """How to search: every image or those that no rule clears, with one engine or two."""

    everything: bool = False
    second_opinion: bool = False


@dataclass(frozen=True)
class Outcome:
    """What was searched and found."""

    table: str
    images: int
    with_text: int
    rectangles: int
    cleared: int
    failed: int
    resumed: int
    internal_errors: int = 0

    def facts(self) -> dict[str, Any]:
        """Return the outcome as JSON-able data."""
        return {
            "found": self.table, "images": self.images, "with_text": self.with_text, "rectangles": self.rectangles,
            "cleared_by_rules": self.cleared, "not_readable": self.failed, "tasks_already_done": self.resumed,
            "internal_errors": self.internal_errors,
        }  # fmt: skip

    def text(self) -> str:
        """Return the outcome for a person."""
        lines = [
            f"{self.table}: {counted(self.images, 'image')} searched, {self.with_text} with text in "
            f"{counted(self.rectangles, 'rectangle')}",
            f"  cleared by rules of devices: {self.cleared}",
        ]
        if self.failed:
            lines.append(f"  could not be read: {self.failed}; the release waits for a decision about them")
        return "\n".join(lines)


def find_text(
    spec: str | PathLike[str] | DatasetSpec,
    *,
    to: str | PathLike[str],
    search: Search = Search(),
    parameters: Mapping[str, str] | None = None,
    cluster: str | Profile = "serial",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Search the images that ``release`` would write, and write the table that it reads. A repeated call continues.

    The table lies in the private workspace beside ``to``. It holds rectangles and no text.

    Raises
    ------
    SpecError
        If the spec has no ``release.text.found``, or as ``release``.
    MissingExtra, ResourceError
        Without the extra ``text``, or Tesseract where a second opinion is wanted.
    """
    engines = [rapid().name, *([tesseract().name] if search.second_opinion else [])]
    profile = load_cluster(cluster) if isinstance(cluster, str) else cluster
    asked = ask(spec, str(to), parameters or {}, building=True)
    text = asked.spec.release.text
    if text is None or text.found is None:
        raise SpecError("release.text.found: found nothing, expected blank or queue, what happens to text in pixels")
    private = private_store(asked.to)
    check_folder(open_store(asked.to), private)
    devices, shown = read_devices(text.devices), progress or SilentProgress()
    with (
        hold_lease(private, say=shown.say) as lease,
        keep_journal(private, lease.counter, facts={"dataset": asked.spec.name, "cluster": profile.kind}) as journal,
        opened(profile, workers) as runner,
    ):
        noted = JournalProgress(shown, journal)
        faults = Faults(default_action(environ), noted_in(journal))
        refuse_stated(asked.spec.sources, what="the search for text in pixels")
        planned = plan_asked(asked, runner, noted, faults)
        if planned.refused:
            raise OutcomeError("\n  ".join(["find-text: " + "; ".join(planned.refused), *planned.hints()]))
        plan = planned.plan
        images_of = released_images(plan.cohort, planned.inventory, planned.survey)
        how = (VERSION, *engines, search.everything, devices.sha256)
        plans = private.join(f"{TEXT}/{fingerprint(*how)}")
        plans.put(SPEC, plan.spec.model_dump_json(by_alias=True).encode())
        plans.put(RULES, devices.packed)
        argument = SearchArgument(
            plans.url, "", search.everything, search.second_opinion, faults.action, private.join(FOLDER).url
        )
        tasks = _tasks(images_of.values(), plans, argument, how)
        done = _run(tasks, runner, noted, faults)
        runner.dismiss()
        lease.check()
        private.put(FOUND, found_table(image for one in done for image in one.images))
        private.put(SEARCH, json.dumps([[task.argument.plan, task.argument.part] for task in tasks]).encode())
    if faults.count:
        shown.say(internal_errors_line(faults.count, asked.to))
    return _outcome(f"{private.url}/{FOUND}", done, faults.count)


def _outcome(table: str, done: Sequence[Searched], internal_errors: int) -> Outcome:
    images = [image for one in done for image in one.images]
    return Outcome(
        table,
        len(images),
        sum(bool(image.found) for image in images),
        sum(len(image.found) for image in images),
        sum(one.cleared for one in done),
        sum(one.failed for one in done),
        sum(one.resumed for one in done),
        internal_errors,
    )


def _tasks(people: Iterable[Rows], plans: Store, argument: SearchArgument, how: tuple[object, ...]) -> list[Task]:
    """Write the images of each task, a few of one person, and return the tasks."""
    tasks = []
    for rows in people:
        ordered = sorted(rows, key=lambda row: (str(row["series_uid"]), str(row["sop_instance_uid"])))
        for start in range(0, len(ordered), IMAGES_A_TASK):
            table = pa.Table.from_pylist(ordered[start : start + IMAGES_A_TASK], schema=INSTANCES)
            names = ("sop_instance_uid", "header_sha256", "content_sha256", "size", "stamp")
            part = fingerprint(*how, [table.column(name).to_pylist() for name in names])
            if not plans.exists(part_path(part)):
                plans.put(part_path(part), part_bytes(table))
            tasks.append(
                Task(
                    f"text-{part}",
                    search_images,
                    replace(argument, part=part),
                    memory=16 * max(table.column("size").to_pylist(), default=0),
                    deadly=encoded(table),
                )
            )
    return tasks


def _run(tasks: Sequence[Task], runner: Runner, progress: Progress, faults: Faults) -> list[Searched]:
    done = []
    for outcome in progress.track(runner.run(tasks), stage="text", total=len(tasks)):
        faults.add(outcome.value.internal_errors)
        done.append(outcome.value)
    return done
