"""Commands that measure this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from builder.cli.options import Dataset, Machine, Params, SpecPath, filled, present

bench = typer.Typer(help="Measure how fast this machine is.", no_args_is_help=True)


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
    present(record.facts(), as_json, lambda: record.text(before))


@bench.command("build")
def bench_build(
    spec: SpecPath,
    param: Params = None,
    workers: Annotated[str, typer.Option("--workers", help="Numbers of workers to try; 0 is serial.")] = "0,1,2",
    folder: Annotated[Path | None, typer.Option("--in", metavar="DIR", help="Folder the datasets grow in.")] = None,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="FILE", help="Keep the record as JSON.")] = None,
    compare: Annotated[Path | None, typer.Option("--compare", metavar="FILE", help="A record kept before.")] = None,
    as_json: Machine = False,
) -> None:
    """How fast a spec is built: stages and steps, processor time a case, overhead and scaling over workers.

    Every number of workers builds the dataset anew, in a folder that is removed again.
    """
    from builder.reader.bench import parse_numbers
    from builder.run.bench import measure_building, rates_of

    counts = parse_numbers(workers, name="--workers")
    before = rates_of(compare) if compare is not None else None
    record = measure_building(spec, parameters=filled(param), workers=counts, folder=folder)
    if keep is not None:
        keep.write_text(json.dumps(record.facts(), indent=1, sort_keys=True) + "\n")
    present(record.facts(), as_json, lambda: record.text(before))
