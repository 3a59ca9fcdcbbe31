"""Commands on runs: hand one to a cluster, follow it, stop it, and tidy up after it."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cli.options import Dataset, Machine, Params, SpecPath, Target, filled, present


def submit(
    spec: SpecPath,
    to: Target,
    cluster: Annotated[str, typer.Option("--cluster", metavar="PROFILE", help="A profile's YAML file, or local.")],
    param: Params = None,
    as_json: Machine = False,
) -> None:
    """Hand a build to a cluster and return at once; status, logs, watch and cancel follow it from anywhere."""
    from builder.run.submit import submit as hand_over

    outcome = hand_over(spec, to=to, cluster=cluster, parameters=filled(param))
    present(outcome.facts(), as_json, outcome.text)


def certs(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for ca.pem, cert.pem and key.pem.")],
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long they are valid.")] = 365,
    as_json: Machine = False,
) -> None:
    """Make certificates for mutual TLS in a cluster, and print the block for its profile."""
    from builder.run.certs import write_certificates

    outcome = write_certificates(to, days=days)
    present(outcome.facts(), as_json, outcome.text)


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
    present(outcome.facts(), as_json, outcome.text)


def status(dataset: Dataset, as_json: Machine = False) -> None:
    """What the last run of a dataset is doing, or how it ended; works from any machine that sees it."""
    from builder.run.journal import read_status

    outcome = read_status(dataset)
    present(outcome.facts(), as_json, outcome.text)


def logs(dataset: Dataset, as_json: Machine = False) -> None:
    """Every event of the last run of a dataset."""
    from builder.run.journal import describe_event, read_events

    events = read_events(dataset)
    present({"events": events}, as_json, lambda: "\n".join(map(describe_event, events)))


def watch(dataset: Dataset) -> None:
    """Follow the last run of a dataset until it ends; wait first if its build was just submitted."""
    from builder.run.journal import describe_event, follow
    from builder.run.submit import wait_for_start

    wait_for_start(dataset, say=typer.echo)
    for event in follow(dataset):
        typer.echo(describe_event(event))


def cancel(dataset: Dataset, as_json: Machine = False) -> None:
    """Ask the last run of a dataset to stop; what it finished stays, the same build command continues."""
    from builder.run.journal import ask_to_cancel

    run = ask_to_cancel(dataset)
    present({"run": run}, as_json, lambda: f"{dataset}: asked run {run} to stop")


COMMANDS = (submit, certs, gc, status, logs, watch, cancel)
