"""The command line: one command for each stage. Each parses its arguments and calls one function."""

import errno
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from builder.cli import library, runs
from builder.cli.bench import bench
from builder.cli.federation import federate, site
from builder.cli.options import (
    Cluster,
    Dataset,
    Examined,
    Interrupted,
    Machine,
    Params,
    Quiet,
    Record,
    RecordDays,
    Replay,
    SpecPath,
    Strict,
    Target,
    Workers,
    continuing,
    filled,
    named,
    present,
    print_json,
    style,
)
from builder.errors import BuilderError, MissingExtra, ResourceError, SpecError, counted

OK, AT_FAULT, MISUSED, STOPPED = 0, 1, 2, 130
TRACEBACK = "BUILDER_TRACEBACK"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
DISK_ADVICE = "a write failed and nothing was published; make room or mend the disk, and run the same command again"

app = typer.Typer(
    name="builder",
    help="Build machine-learning datasets out of medical imaging archives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"builder {version('medical-dataset-builder')}")
        raise typer.Exit(OK)


@app.callback()
def about(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Build machine-learning datasets out of medical imaging archives."""
    if quiet:  # typed before the command, it holds for the command
        context.default_map = {name: {"quiet": True} for name in context.command.commands}  # type: ignore[attr-defined]


@app.command()
def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from builder.spec import DatasetSpec
    from builder.specfile.schema import described_schema

    print_json(described_schema(DatasetSpec))


@app.command()
def validate(spec: SpecPath, as_json: Machine = False) -> None:
    """Check a spec: all faults at once, each with file:line:column and the nearest valid name."""
    from builder.specfile import load_spec

    try:
        loaded = load_spec(spec)
    except SpecError as error:
        if not as_json:
            raise
        print_json({"spec": str(spec), "valid": False, "faults": list(error.faults)})
        raise typer.Exit(MISUSED) from None
    if as_json:
        print_json({"spec": str(spec), "valid": True, "name": loaded.name})
    else:
        typer.echo(f"{spec}: valid; dataset {loaded.name!r} from {counted(len(loaded.sources), 'source')}")


@app.command()
def plan(
    spec: SpecPath,
    to: Target,
    param: Params = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Index, select the cohort, split and plan the shards; print what a build would do; exit 1 if nothing."""
    from builder.run.pipeline import plan as make_plan
    from builder.run.progress import open_progress

    with continuing("nothing was published and what was read stays"), open_progress(style(as_json, quiet)) as progress:
        outcome = make_plan(spec, to=to, parameters=filled(param), cluster=cluster, workers=workers, progress=progress)
    present(outcome.facts(), as_json, outcome.text)
    if outcome.refused:
        raise typer.Exit(AT_FAULT)


@app.command()
def build(
    spec: SpecPath,
    to: Target,
    param: Params = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    strict: Strict = False,
    record: Record = None,
    replay: Replay = None,
    record_days: RecordDays = 30,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Build and publish a dataset; started again it continues, unchanged it does nothing."""
    from builder.run.pipeline import build as run_build
    from builder.run.progress import open_progress
    from builder.sources.recordings import recording

    with (
        continuing("nothing was published and finished shards stay"),
        recording(record=record, replay=replay, days=record_days),
        open_progress(style(as_json, quiet)) as progress,
    ):
        outcome = run_build(
            spec, to=to, parameters=filled(param), cluster=cluster, workers=workers, progress=progress,
            on_internal_error="stop" if strict else None,
        )  # fmt: skip
    present(outcome.facts(), as_json, outcome.text)


@app.command()
def verify(dataset: Dataset, quiet: Quiet = False, as_json: Machine = False) -> None:
    """Check every checksum and every total; exit 1 and name what is wrong."""
    from builder.library.verify import verify as run_verify
    from builder.run.progress import open_progress

    with open_progress(style(as_json, quiet)) as progress:
        findings = run_verify(dataset, progress=lambda items, total: progress.track(items, stage="verify", total=total))
    present(findings.facts(), as_json, findings.text)
    if findings.faults:
        raise typer.Exit(AT_FAULT)


@app.command()
def inspect(
    dataset: Dataset,
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="A sample, case or person key, or a source UID or PatientID.")
    ] = None,
    as_json: Machine = False,
) -> None:
    """What is in a dataset; with an ID: everything known about it."""
    from builder.library.inspect import inspect as look

    outcome = look(dataset, name, environment=os.environ)
    present(outcome.facts(), as_json, outcome.text)


@app.command()
def explain(
    dataset: Dataset,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A UID, PatientID or path of the archive, or a key of the dataset.")
    ],
    as_json: Machine = False,
) -> None:
    """Why an instance, series, study, patient or file is in, out or quarantined; works after a plan too."""
    from builder.library.explain import explain as why

    outcome = why(dataset, name, environment=os.environ)
    present(outcome.facts(), as_json, outcome.text)


@app.command()
def report(
    dataset: Dataset,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Machine = False,
) -> None:
    """Render the report of the published version again and print where it lies."""
    from builder.publishing.report import render_again

    place = render_again(dataset)
    present({"report": place}, as_json, lambda: place)
    if show:
        typer.launch(place)


@app.command()
def review(
    spec: SpecPath,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A label of kind report.")],
    to: Target,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The table to write, where the archive may be.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many cases to draw.")] = 100,
    split: Annotated[list[str] | None, typer.Option("--split", help="Draw from this split only; repeatable.")] = None,
    param: Params = None,
    as_json: Machine = False,
) -> None:
    """Draw cases of a published dataset for a person to read again; the filled table gives the label's error rate."""
    from builder.run.review import draw

    outcome = draw(spec, label, to=to, count=count, out=out, parameters=filled(param), splits=split or ())
    present(outcome.facts(), as_json, outcome.text)


@app.command()
def volumes(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of DICOM files.", callback=named)],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Folder for NIfTI files and verdicts.", callback=named)
    ],
    as_json: Machine = False,
) -> None:
    """Write the series of a folder as NIfTI files with a verdict each: the debugging tool.

    The files are not de-identified beyond dropping the headers; keep them where the archive may be.
    """
    from builder.library.volumes import verdict_lines, write_volumes

    table = write_volumes(path, to)
    present({"stacks": table.to_pylist()}, as_json, lambda: "\n".join(verdict_lines(table)))


@app.command()
def init(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Folder that holds an archive.", callback=named)],
    task: Annotated[
        str, typer.Option("--task", help="segmentation, classification, detection, multimodal or pretraining.")
    ] = "pretraining",
    cluster: Cluster = "serial",
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Print a commented spec to start from, written from a scan of an archive; a plan accepts it as it is."""
    from builder.library.starter import TASKS, starter_spec, starting_folders, starting_layout, written
    from builder.run.progress import open_progress
    from builder.run.scan import scan as look

    if task not in TASKS:
        raise SpecError(f"--task: found {task!r}, expected one of {', '.join(TASKS)}")
    with continuing("nothing was written"), open_progress(style(False, quiet)) as progress:
        outcome = look([path], cluster=cluster, workers=workers, progress=progress)
        layout, tables = starting_layout(outcome), outcome.tables
        folders: tuple[str, ...] = ("",)
        if layout:
            progress.say(f"no DICOM image was found: read again with layout: {written(layout)}")
            folders = starting_folders(outcome, path)
            places = [str(Path(path, folder)) for folder in folders]
            outcome = look(places, cluster=cluster, workers=workers, progress=progress, layout=layout)
            if len(folders) == 1:
                outcome = replace(outcome, tables=tables)  # once files are images, tables no longer name files
    text = starter_spec(outcome, str(Path(path).resolve()), task, layout=layout, folders=folders)  # type: ignore[arg-type]
    typer.echo(text, nl=False)


@app.command()
def scan(
    path: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders that hold an archive.", callback=named)],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a private page with a picture a group.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Keep the index there, for the next scan.")
    ] = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Say what an archive holds, before any spec exists: like series, labels, tables, formats, damaged files.

    The output quotes descriptions, structures and paths; keep it where the archive may be.
    """
    from builder.library.scan import text_of_scan
    from builder.run.progress import open_progress
    from builder.run.scan import scan as look

    with continuing("what was read stays with --keep"), open_progress(style(as_json, quiet)) as progress:
        outcome = look(path, cluster=cluster, workers=workers, progress=progress, page=html, keep=keep)
    present(outcome.facts(), as_json, lambda: text_of_scan(outcome))


@app.command()
def phantom(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the archive.")],
    patients: Annotated[int, typer.Option("--patients", min=1, max=100_000, help="Persons in it.")] = 24,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same archive.")] = 20251121,
    size: Annotated[str, typer.Option("--size", help="small, or realistic (512 x 512 x 150).")] = "small",
    sets: Annotated[
        int,
        typer.Option("--sets", min=0, max=2, help="Write brains and mammograms, of so many visits."),
    ] = 0,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Write small pictures with masks, boxes, classes and reports.")
    ] = False,
    heads: Annotated[
        bool, typer.Option("--heads", help="Write head CT, PET and MR whose faces and brains are known.")
    ] = False,
    as_json: Machine = False,
) -> None:
    """Write a synthetic archive for demos, tests and benchmarks."""
    from builder.phantom import write_archive, write_heads, write_pictures, write_sets

    if heads:
        shown = write_heads(to, patients=patients, seed=seed)
        present(shown.facts(), as_json, lambda: shown.text)
        return
    if pictures:
        drawn = write_pictures(to, patients=patients, seed=seed)
        present(drawn.facts(), as_json, lambda: drawn.text)
        return
    if sets:
        made = write_sets(to, patients=patients, visits=sets, seed=seed)
        present(made.facts(), as_json, lambda: made.text)
        return
    summary = write_archive(to, patients=patients, seed=seed, size=size)
    present(summary.facts(), as_json, lambda: summary.text)


@app.command()
def doctor(
    key: Annotated[
        str | None, typer.Option("--key", metavar="REFERENCE", help="As in deid.patient_key: '${env:BUILDER_KEY}'.")
    ] = None,
    to: Examined = None,
    cluster: Annotated[str | None, typer.Option("--cluster", help="A cluster, as builds name it.")] = None,
    as_json: Machine = False,
) -> None:
    """Check this machine, and the key, place and cluster that are named: what works, and what to do where not."""
    from builder.run.doctor import examine

    outcome = examine(environment=os.environ, key=key, to=to, cluster=cluster)
    present(outcome.facts(), as_json, outcome.text)
    if not outcome.healthy:
        raise typer.Exit(AT_FAULT)


for _command in (*runs.COMMANDS, *library.COMMANDS):
    app.command()(_command)
app.add_typer(bench, name="bench")
app.add_typer(site, name="site")
app.add_typer(federate, name="federate")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit.

    The exit code is 0 when it is done, 1 when the data or the build is at fault, 2 when the spec or the command line
    is, and 130 after Ctrl-C.
    """
    typed = list(arguments) if arguments is not None else sys.argv[1:]
    try:
        app(args=typed, standalone_mode=True, prog_name="builder")
    except (SpecError, MissingExtra) as error:
        _fail(error, MISUSED, typed)
    except Interrupted as error:
        _fail(error, STOPPED, typed)
    except BuilderError as error:
        _fail(error, AT_FAULT, typed)
    except OSError as error:
        if os.environ.get(TRACEBACK):
            raise
        _fail(_refused(error), AT_FAULT, typed)
    raise SystemExit(OK)


def _refused(error: OSError) -> ResourceError:
    """Turn what the operating system or the network did not allow into an error with advice."""
    what = error.strerror or str(error) or type(error).__name__
    if error.errno in DISK_ERRORS:
        return ResourceError(f"{what}: {DISK_ADVICE}")
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return ResourceError(
        f"{where}{what}, expected a place that is there and may be read or written; nothing was published: "
        f"mend it and run the same command again ({TRACEBACK}=1 shows where it happened)"
    )


def _fail(error: BuilderError, code: int, typed: Sequence[str]) -> NoReturn:
    """Say what is wrong: on stderr and, for machines, as a document on stdout."""
    if "--json" in typed:
        faults = list(error.faults) if isinstance(error, SpecError) else []
        print_json({"error": {"kind": type(error).__name__, "message": str(error), "faults": faults}})
        print(json.dumps({"message": f"error: {error}"}), file=sys.stderr)
    else:
        print(f"error: {error}", file=sys.stderr)
    raise SystemExit(code)
