"""The command line: one command a stage; each parses its arguments and calls one function."""

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from builder.errors import BuilderError, MissingExtra, ResourceError, SpecError

OK, AT_FAULT, MISUSED = 0, 1, 2
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
DISK_ADVICE = "a write failed and nothing was published; make room or mend the disk, and run the same command again"

app = typer.Typer(
    name="builder",
    help="Build machine-learning datasets out of medical imaging archives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

bench = typer.Typer(help="Measure how fast this machine is.", no_args_is_help=True)
app.add_typer(bench, name="bench")

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The dataset's YAML spec.")]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or URL of a dataset.")]
Target = Annotated[str, typer.Option("--to", metavar="DATASET", help="Folder or URL the dataset is built in.")]
Params = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Fill ${NAME} in the spec's URLs; repeatable.")
]
Cluster = Annotated[
    str, typer.Option("--cluster", help="serial, local, tcp://HOST:PORT, tls://HOST:PORT, or a profile's YAML file.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Workers of a local cluster.")]
Machine = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines; progress becomes JSON lines on stderr.")
]


@app.command()
def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from builder.spec import DatasetSpec

    _print_json(DatasetSpec.model_json_schema(by_alias=True))


@app.command()
def validate(spec: SpecPath, as_json: Machine = False) -> None:
    """Check a spec: all faults at once, each with file:line:column and the nearest valid name."""
    from builder.specfile import load_spec

    loaded = load_spec(spec)
    if as_json:
        _print_json({"spec": str(spec), "valid": True, "name": loaded.name})
    else:
        typer.echo(f"{spec}: valid; dataset {loaded.name!r} from {len(loaded.sources)} source(s)")


@app.command()
def plan(
    spec: SpecPath,
    to: Target,
    param: Params = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    as_json: Machine = False,
) -> None:
    """Index, select the cohort, split and plan the shards; print what a build would do."""
    from builder.run.pipeline import plan as make_plan
    from builder.run.progress import open_progress

    with open_progress(_style(as_json)) as progress:
        outcome = make_plan(
            spec, to=to, parameters=_parameters(param), cluster=cluster, workers=workers, progress=progress
        )
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def build(
    spec: SpecPath,
    to: Target,
    param: Params = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    as_json: Machine = False,
) -> None:
    """Build and publish a dataset; started again it continues, unchanged it does nothing."""
    from builder.run.pipeline import build as run_build
    from builder.run.progress import open_progress

    with open_progress(_style(as_json)) as progress:
        outcome = run_build(
            spec, to=to, parameters=_parameters(param), cluster=cluster, workers=workers, progress=progress
        )
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def verify(dataset: Dataset, as_json: Machine = False) -> None:
    """Check every checksum and every total; exit 1 and name what is wrong."""
    from builder.run.progress import open_progress
    from builder.stages.verify import verify as run_verify

    with open_progress(_style(as_json)) as progress:
        findings = run_verify(dataset, progress=lambda items, total: progress.track(items, stage="verify", total=total))
    _present(findings.facts(), as_json, findings.text)
    if findings.faults:
        raise typer.Exit(AT_FAULT)


@app.command()
def submit(
    spec: SpecPath,
    to: Target,
    cluster: Annotated[str, typer.Option("--cluster", metavar="PROFILE", help="A profile's YAML file, or local.")],
    param: Params = None,
    as_json: Machine = False,
) -> None:
    """Hand a build to a cluster and return at once; status, logs, watch and cancel follow it from anywhere."""
    from builder.run.submit import submit as hand_over

    outcome = hand_over(spec, to=to, cluster=cluster, parameters=_parameters(param))
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def certs(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for ca.pem, cert.pem and key.pem.")],
    days: Annotated[int, typer.Option("--days", min=1, max=3650)] = 365,
    as_json: Machine = False,
) -> None:
    """Make certificates for mutual TLS in a cluster, and print the block for its profile."""
    from builder.run.certs import write_certificates

    outcome = write_certificates(to, days=days)
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def gc(
    dataset: Dataset,
    unreferenced: Annotated[
        str, typer.Option("--unreferenced", help="keep or delete what the published version does not refer to.")
    ] = "keep",
    as_json: Machine = False,
) -> None:
    """Remove what dead writers left; on request also older versions and shards only they refer to."""
    from builder.run.gc import collect

    outcome = collect(dataset, unreferenced=unreferenced)
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def status(dataset: Dataset, as_json: Machine = False) -> None:
    """What the last run of a dataset is doing, or how it ended; works from any machine that sees it."""
    from builder.run.journal import read_status

    outcome = read_status(dataset)
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def logs(dataset: Dataset, as_json: Machine = False) -> None:
    """Every event of the last run of a dataset."""
    from builder.run.journal import describe_event, read_events

    events = read_events(dataset)
    _present({"events": events}, as_json, lambda: "\n".join(map(describe_event, events)))


@app.command()
def watch(dataset: Dataset) -> None:
    """Follow the last run of a dataset until it ends."""
    from builder.run.journal import describe_event, follow

    for event in follow(dataset):
        typer.echo(describe_event(event))


@app.command()
def cancel(dataset: Dataset, as_json: Machine = False) -> None:
    """Ask the last run of a dataset to stop; what it finished stays, the same build command continues."""
    from builder.run.journal import ask_to_cancel

    run = ask_to_cancel(dataset)
    _present({"run": run}, as_json, lambda: f"{dataset}: asked run {run} to stop")


@app.command()
def inspect(
    dataset: Dataset,
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="A sample, case or person key, or a source UID or PatientID.")
    ] = None,
    as_json: Machine = False,
) -> None:
    """What is in a dataset; with an ID: everything known about it."""
    from builder.stages.inspect import inspect as look

    outcome = look(dataset, name, environment=os.environ)
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def explain(
    dataset: Dataset,
    name: Annotated[str, typer.Argument(metavar="UID", help="An instance, series, study or patient of the archive.")],
    as_json: Machine = False,
) -> None:
    """Why an instance, series, study or patient is in, out or quarantined."""
    from builder.stages.inspect import explain as why

    outcome = why(dataset, name, environment=os.environ)
    _present(outcome.facts(), as_json, outcome.text)


@app.command()
def report(
    dataset: Dataset,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Machine = False,
) -> None:
    """Render the report of the published version again and print where it lies."""
    from builder.stages.report import render_again

    place = render_again(dataset)
    _present({"report": place}, as_json, lambda: place)
    if show:
        typer.launch(place)


@app.command()
def volumes(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of DICOM files.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for NIfTI files and verdicts.")],
    as_json: Machine = False,
) -> None:
    """Write the series of a folder as NIfTI files with a verdict each: the debugging tool.

    The files are not de-identified beyond dropping the headers; keep them where the archive may be.
    """
    from builder.stages.volumes import verdict_lines, write_volumes

    table = write_volumes(path, to)
    _present({"stacks": table.to_pylist()}, as_json, lambda: "\n".join(verdict_lines(table)))


@app.command()
def phantom(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the archive.")],
    patients: Annotated[int, typer.Option("--patients", min=1, max=100_000)] = 24,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 20251121,
    size: Annotated[str, typer.Option("--size", help="small, or realistic (512 x 512 x 150).")] = "small",
    as_json: Machine = False,
) -> None:
    """Write a synthetic archive for demos, tests and benchmarks."""
    from builder.phantom import write_archive

    summary = write_archive(to, patients=patients, seed=seed, size=size)
    _present(summary.facts(), as_json, lambda: summary.text)


@bench.command("read")
def bench_read(
    dataset: Dataset,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples a batch.")] = 16,
    threads: Annotated[str, typer.Option("--threads", help="Numbers of threads to try.")] = "0,1,2,4",
    loaders: Annotated[str, typer.Option("--loader-workers", help="Numbers of DataLoader processes to try.")] = "",
    crop: Annotated[str, typer.Option("--crop", help="Read random boxes: slices,rows,columns.")] = "",
    cache: Annotated[str | None, typer.Option("--cache", help="Folder for copies of remote objects.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Time a line takes.")] = 3.0,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="FILE", help="Keep the record as JSON.")] = None,
    compare: Annotated[Path | None, typer.Option("--compare", metavar="FILE", help="A record kept before.")] = None,
    as_json: Machine = False,
) -> None:
    """How fast a dataset is read: rates and times a batch, cold and warm, with and without checksums."""
    from builder.reader.bench import Options, measure_reading, parse_numbers, rates_of

    s, r, c = parse_numbers(crop, name="--crop", count=3) if crop else (0, 0, 0)
    options = Options(
        batch_size=batch,
        threads=parse_numbers(threads, name="--threads"),
        loader_workers=parse_numbers(loaders, name="--loader-workers"),
        crop=(s, r, c) if crop else None,
        cache=cache,
        seconds=seconds,
    )
    before = rates_of(compare) if compare is not None else None
    record = measure_reading(dataset, options)
    if keep is not None:
        keep.write_text(json.dumps(record.facts(), indent=1, sort_keys=True) + "\n")
    _present(record.facts(), as_json, lambda: record.text(before))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 the data or build is at fault, 2 the spec or command line is."""
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except SpecError as error:
        _fail(error, MISUSED)
    except MissingExtra as error:
        _fail(error, MISUSED)
    except BuilderError as error:
        _fail(error, AT_FAULT)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        _fail(ResourceError(f"{os.strerror(error.errno)}: {DISK_ADVICE}"), AT_FAULT)
    raise SystemExit(OK)


def _fail(error: BuilderError, code: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(code)


def _style(as_json: bool) -> str:
    return "json" if as_json else "auto"


def _present(facts: dict[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    if as_json:
        _print_json(facts)
    else:
        typer.echo(text())


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


def _parameters(pairs: Sequence[str] | None) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise SpecError(f"--param: found {pair!r}, expected NAME=VALUE")
        parameters[name] = value
    return parameters
