"""Commands on datasets that are published: find, compare, and report of their use."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from builder.cli.options import Dataset, Machine, Quiet, continuing, measures, named, present, style
from builder.errors import SpecError

Versioned = Annotated[str, typer.Argument(metavar="DATASET[@VERSION]", help="A dataset, or another version of it.")]


def catalog(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Datasets, or folders with datasets in them.")],
    modality: Annotated[list[str] | None, typer.Option("--modality", help="CT, MR, ...; repeatable: any of.")] = None,
    body_part: Annotated[list[str] | None, typer.Option("--body-part", help="As in the headers; repeatable.")] = None,
    license: Annotated[list[str] | None, typer.Option("--license", help="Of the set or a source; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="Label or structure; repeatable.")] = None,
    word: Annotated[list[str] | None, typer.Option("--word", help="In name, title or description: all of.")] = None,
    usage: Annotated[str | None, typer.Option("--usage", help="commercial: every licence allows it.")] = None,
    as_json: Machine = False,
) -> None:
    """Search datasets by what their catalogs say."""
    from builder.library.search import Wanted, search

    modalities, body_parts, labels, licenses, words = (
        tuple(values or ()) for values in (modality, body_part, label, license, word)
    )
    outcome = search(paths, Wanted(modalities, body_parts, labels, licenses, usage, words))
    present(outcome.facts(), as_json, outcome.text)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="DATASET, or DATASET@VERSION.")],
    b: Annotated[str, typer.Argument(metavar="B", help="DATASET, or DATASET@VERSION.")],
    as_json: Machine = False,
) -> None:
    """What two versions or datasets do not have in common."""
    from builder.library.diff import diff as compare

    outcome = compare(a, b)
    present(outcome.facts(), as_json, outcome.text)


def records(
    dataset: Versioned,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Machine = False,
) -> None:
    """Render the catalog page again with the log of use and the training runs reported since."""
    from builder.library.records import render_records

    outcome = render_records(dataset)
    present(outcome.facts(), as_json, outcome.text)
    if show:
        typer.launch(outcome.place)


def uses(
    dataset: Dataset,
    at: Annotated[str | None, typer.Option("--at", help="Where BUILDER_USES sent the log; else beside it.")] = None,
    as_json: Machine = False,
) -> None:
    """The log of use: read sessions by version and split."""
    from builder.library.uses import read_uses

    outcome = read_uses(dataset, at=at)
    present(outcome.facts(), as_json, outcome.text)


def record_training(
    dataset: Versioned,
    architecture: Annotated[str | None, typer.Option("--architecture", help="e.g. 'U-Net, 5 levels'.")] = None,
    loss: Annotated[str | None, typer.Option("--loss", help="e.g. 'Dice + cross-entropy'.")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="e.g. 'AdamW'.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="The first one.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Samples a step.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the split.")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", metavar="NAME=VALUE", help="A result.")] = None,
    evaluated_on: Annotated[str | None, typer.Option("--evaluated-on", metavar="SPLIT", help="Of the metrics.")] = None,
    code: Annotated[str | None, typer.Option("--code", metavar="URL", help="Of the very revision.")] = None,
    as_json: Machine = False,
) -> None:
    """Report the six parameters of a training run, and its results, back to the dataset."""
    from builder.library.training import record_training as keep

    six = {"architecture": architecture, "loss": loss, "optimizer": optimizer, "learning_rate": learning_rate,
           "batch_size": batch_size, "epochs": epochs}  # fmt: skip
    outcome = keep(dataset, {**six, "metrics": measures(metric), "evaluated_on": evaluated_on, "code": code})
    present(outcome.facts(), as_json, outcome.text)


def export(
    dataset: Dataset,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Folder for the files; the same export continues.")],
    form: Annotated[
        str,
        typer.Option(
            "--form",
            help="nifti, monai, nnunet (raw layout), nnunet_preprocessed, webdataset, mds, huggingface, bids, omezarr "
            "or dicomseg.",
        ),
    ],
    split: Annotated[str | None, typer.Option("--split", help="Samples of one split; all without it.")] = None,
    where: Annotated[str | None, typer.Option("--where", metavar="EXPRESSION", help="Samples that it matches.")] = None,
    missing: Annotated[
        str, typer.Option("--missing", metavar="refuse|fill", help="fill: also samples without an optional image.")
    ] = "refuse",
    label: Annotated[
        str | None, typer.Option("--label", help="The label, where there are several: monai, nnunet, dicomseg.")
    ] = None,
    number: Annotated[int, typer.Option("--number", min=1, max=999, help="nnU-Net's number of the dataset.")] = 1,
    patch: Annotated[
        tuple[int, int, int],
        typer.Option("--patch", metavar="S R C", help="nnunet_preprocessed: slices, rows, columns it will cut."),
    ] = (64, 128, 128),
    archive: Annotated[
        str | None,
        typer.Option("--archive", metavar="DIR", help="dicomseg: the DICOM files it was built from.", callback=named),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Samples at once; one a processor, at most 4.")
    ] = None,
    quiet: Quiet = False,
    as_json: Machine = False,
) -> None:
    """Export a dataset, or a part of it, to the files of other tools."""
    from builder.library.export import Options, Wanted
    from builder.library.export import export as write
    from builder.run.progress import open_progress

    with continuing("what was written stays"), open_progress(style(as_json, quiet)) as progress:

        def track(numbers: Iterable[int]) -> Iterable[int]:
            every = list(numbers)
            return progress.track(every, stage="export", total=len(every))

        outcome = write(
            dataset, to, form=form, wanted=Wanted(split, where, missing), environment=os.environ, track=track,
            options=Options(label, number, patch, archive, workers or min(4, os.cpu_count() or 1)),
        )  # fmt: skip
    present(outcome.facts(), as_json, outcome.text)


def view(
    dataset: Annotated[str, typer.Argument(metavar="DATASET|RELEASE", help="Folder or URL of either.", callback=named)],
    leave_out: Annotated[
        Path | None, typer.Option("--leave-out", metavar="FILE", help="The marks; beside the dataset without it.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="A free one without it.")] = 0,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Look at the samples in the browser, with masks, and mark those to leave out (cohort.leave_out of a spec).

    With the folder of a release that find-text searched: its images that may show text, to decide about each. With
    one whose plan searched for faces, until nothing waits: its heads.
    """
    from builder.library.view import open_view
    from builder.library.view.server import Loopback
    from builder.library.waiting import open_heads, open_queue, serve_queue

    queue, heads = open_queue(dataset), open_heads(dataset)
    server: Loopback
    if queue is not None or heads is not None:
        places = [one.place for one in (queue, heads) if one is not None]
        server, written = serve_queue(queue, heads, port=port), f"decisions go to {' and '.join(places)}"
    else:
        samples = open_view(dataset, leave_out=leave_out, port=port)
        server, written = samples, f"marks go to {samples.marks.place}"
    typer.echo(f"{server.address}\n{written}; Ctrl-C ends it")
    if show:
        typer.launch(server.address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def explain_reason(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="A reason, e.g. gapped; all without it.")] = None,
    as_json: Machine = False,
) -> None:
    """What the code of a reason means, and what to do about it."""
    from builder.library.reasons import all_reasons, explain_reason

    outcomes = all_reasons() if code is None else [explain_reason(code)]
    facts = {outcome.code: outcome.facts() for outcome in outcomes}
    present(facts, as_json, lambda: "\n".join(outcome.text for outcome in outcomes))


def audit(
    place: Annotated[Path, typer.Argument(metavar="TABLE|FOLDER", help="A table, datalist or folder with splits.")],
    person_of: Annotated[
        str | None,
        typer.Option("--person-of", metavar="REGEX", help="Its first group is the person in a path."),
    ] = None,
    pixels: Annotated[str, typer.Option("--pixels", help="near, exact or off: how images are compared.")] = "near",
    page: Annotated[Path | None, typer.Option("--page", metavar="FILE", help="Write one HTML page there.")] = None,
    names: Annotated[bool, typer.Option("--names", help="Quote paths and persons of the data.")] = False,
    as_json: Machine = False,
) -> None:
    """Audit a split that somebody else made, without a spec: what lies in several splits; exit 1 if anything does."""
    from builder.library.audit import audit as examine

    if pixels not in ("near", "exact", "off"):
        raise SpecError(f"--pixels: found {pixels!r}, expected near, exact or off")
    outcome = examine(place, person=person_of, pixels=pixels)
    if page is not None:
        page.write_text(outcome.page(names=names), "utf-8")
    present(outcome.facts(names=names), as_json, lambda: outcome.text(names=names))
    if outcome.leaks:
        raise typer.Exit(1)


COMMANDS = (audit, catalog, diff, records, uses, record_training, export, view, explain_reason)
