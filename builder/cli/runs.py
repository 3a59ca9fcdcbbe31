"""Commands on runs: hand one to a cluster, follow it, stop it, and tidy up after it."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from builder.cli.options import (
    Cluster,
    Dataset,
    Machine,
    Params,
    Quiet,
    SpecPath,
    Strict,
    Target,
    Workers,
    continuing,
    filled,
    named,
    present,
    style,
)
from builder.errors import SpecError


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


def release(
    spec: SpecPath,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="New or empty folder, or URL, of the release.")],
    param: Params = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    strict: Strict = False,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Write the cohort and its labels as de-identified DICOM; started again it continues, unchanged it does nothing."""
    from builder.run.progress import open_progress
    from builder.run.release import release as write_release

    with (
        continuing("nothing was published and what is written stays"),
        open_progress(style(as_json, quiet)) as progress,
    ):
        outcome = write_release(
            spec, to=to, parameters=filled(param), cluster=cluster, workers=workers, progress=progress,
            on_internal_error="stop" if strict else None,
        )  # fmt: skip
    present(outcome.facts(), as_json, outcome.text)


ReleaseFolder = Annotated[str, typer.Argument(metavar="DIR", help="Folder or URL of a release.", callback=named)]


def crosswalk(
    folder: ReleaseFolder,
    file: Annotated[
        str,
        typer.Option("--file", metavar="FILE", help="Names of release or archive, one a line; - reads standard input."),
    ],
    key: Annotated[
        str, typer.Option("--key", metavar="REFERENCE", help="Where the key of the crosswalk is, as in the spec.")
    ] = "${env:BUILDER_CROSSWALK_KEY}",
    as_json: Machine = False,
) -> None:
    """Lead from names of a release to the archive's, or back; exit 1 if a name is not found.

    The output holds identifiers; keep it where the archive may be. Names are never taken from the command line, which
    every process of this machine can read.
    """
    from builder.run.crosswalk import look_up

    outcome = look_up(folder, listed(file), key=key)
    present(outcome.facts(), as_json, outcome.text)
    if outcome.not_found:
        typer.echo("not found, counted from 1: " + ", ".join(map(str, outcome.not_found)), err=True)
        raise typer.Exit(1)


def forget_crosswalk(folder: ReleaseFolder, as_json: Machine = False) -> None:
    """Destroy all that leads back in the private folder of a release, for good; says what it cannot promise."""
    from datetime import UTC, datetime

    from builder.run.crosswalk import forget

    outcome = forget(folder, today=datetime.now(UTC).date(), say=lambda line: typer.echo(line, err=True))
    present(outcome.facts(), as_json, outcome.text)


def find_text(
    spec: SpecPath,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Folder or URL of the release that is to be.")],
    everything: Annotated[bool, typer.Option("--all", help="Search images that rules of devices clear, too.")] = False,
    second_opinion: Annotated[bool, typer.Option("--second-opinion", help="Let Tesseract read, too.")] = False,
    param: Params = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Search the pixels of a release for text before it is written; the private table it writes is what release reads.

    Needs the extra text. Started again it continues.
    """
    from builder.run.findtext import Search
    from builder.run.findtext import find_text as search
    from builder.run.progress import open_progress

    with continuing("what is searched stays"), open_progress(style(as_json, quiet)) as progress:
        outcome = search(
            spec, to=to, search=Search(everything, second_opinion), parameters=filled(param), cluster=cluster,
            workers=workers, progress=progress,
        )  # fmt: skip
    present(outcome.facts(), as_json, outcome.text)


def import_ctp_pixels(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A script of CTP's DicomPixelAnonymizer.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The table of rules to write.", callback=named)],
    as_json: Machine = False,
) -> None:
    """Turn a CTP pixel script into a table for release.text.devices, and list what of it has no equivalent."""
    from builder.run.devices import import_script

    outcome = import_script(script, out)
    present(outcome.facts(), as_json, outcome.text)


def import_ctp(
    script: Annotated[Path, typer.Argument(metavar="SCRIPT", help="A script of CTP's DicomAnonymizer (XML).")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The blocks of a spec to write.", callback=named)],
    as_json: Machine = False,
) -> None:
    """Turn a CTP anonymizer script into the blocks deid and release of a spec, and list what has no equivalent."""
    from builder.run.ctp import import_anonymizer

    outcome = import_anonymizer(script, out)
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


def withdraw(
    dataset: Dataset,
    reason: Annotated[str, typer.Option("--reason", help="consent, request, minor, error, law or other; published.")],
    person: Annotated[
        list[str] | None, typer.Option("--person", metavar="KEYED_NAME", help="A person's keyed name; repeatable.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="PatientIDs or keyed names, one a line; - reads standard input."),
    ] = None,
    old: Annotated[
        str, typer.Option("--old", help="What becomes of older versions: now, 'after N days' or keep.")
    ] = "now",
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="PLACE",
            callback=named,
            help="A recording, cache, release, export, file of marks or folder that may hold the person; repeatable.",
        ),
    ] = None,
    cluster: Cluster = "serial",
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Take a person out of a published dataset for good: new version, tombstone, certificate; exit 1 if still found."""
    from builder.run.progress import open_progress
    from builder.run.withdraw import withdraw as take_out
    from builder.run.withdrawals import parse_policy

    policy, people = parse_policy(reason, old, also or ()), [*keyed_only(person), *listed(file)]
    if not people:
        raise SpecError("withdraw: found nobody to take out, expected --person KEYED_NAME or --file FILE")
    with continuing("what is done stays done"), open_progress(style(as_json, quiet)) as progress:
        outcome = take_out(dataset, people=people, policy=policy, cluster=cluster, workers=workers, progress=progress)
    present(outcome.facts(), as_json, outcome.text)
    if outcome.certificate is not None and not outcome.certificate["absent"]:
        raise typer.Exit(1)


def keyed_only(names: Sequence[str] | None) -> Sequence[str]:
    """Return the names of ``--person``. Raises SpecError for what may be a PatientID, which others could see there."""
    for name in names or ():
        if re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", name) is None:
            raise SpecError(
                "--person: found what is no keyed name (not shown), expected 26 letters and digits as in person_key; "
                "give PatientIDs by --file, because every process of this machine can read a command line"
            )
    return names or ()


def listed(file: str | None) -> list[str]:
    """Return the lines of a file, or of standard input. Raises SpecError."""
    if file is None:
        return []
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--file: found no text to read ({type(error).__name__}), expected one id a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


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


COMMANDS = (
    submit,
    release,
    crosswalk,
    forget_crosswalk,
    find_text,
    import_ctp,
    import_ctp_pixels,
    certs,
    gc,
    withdraw,
    status,
    logs,
    watch,
    cancel,
)
