"""Arguments that commands share, and how outcomes are printed."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.errors import BuilderError, SpecError


def named(parameter: typer.CallbackParam, value: Any) -> Any:
    """Return a place, or several, as they were typed. Raises SpecError for one that cannot be meant."""
    for place in value if isinstance(value, list) else [value]:
        if place is not None:
            _check_place(_typed_name(parameter), str(place))
    return value


def _check_place(option: str, place: str) -> None:
    if not place.strip():
        raise SpecError(
            f"{option}: found an empty place, expected a folder or URL; is the shell variable set that you meant?"
        )
    where = place if "://" in place or Path(place).is_absolute() else str(Path.cwd() / place)
    try:
        where.encode()
    except UnicodeEncodeError:
        raise SpecError(
            f"{option}: found {where!r}, which is not UTF-8, expected a name in UTF-8; rename it, or make a link to it "
            "that has such a name"
        ) from None


def _typed_name(parameter: typer.CallbackParam) -> str:
    """Return the option as it is typed, or the argument as the help calls it."""
    name = parameter.opts[0]
    return name if name.startswith("-") else name.upper()


SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The dataset's YAML spec.")]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Folder or URL of a dataset.", callback=named)]
Target = Annotated[
    str, typer.Option("--to", metavar="DATASET", help="Folder or URL the dataset is built in.", callback=named)
]
Examined = Annotated[
    str | None, typer.Option("--to", metavar="DATASET", help="Where builds will write.", callback=named)
]
Params = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Fill ${NAME} in the spec's URLs; repeatable.")
]
Cluster = Annotated[
    str, typer.Option("--cluster", help="serial, local, tcp://HOST:PORT, tls://HOST:PORT, or a profile's YAML file.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, max=10_000, help="Workers of a local cluster.")]
Record = Annotated[
    str | None,
    typer.Option("--record", metavar="DIR", help="Record what servers answer, for --replay.", callback=named),
]
Replay = Annotated[
    str | None,
    typer.Option("--replay", metavar="DIR", help="Take all answers from a recording; ask no server.", callback=named),
]
RecordDays = Annotated[int, typer.Option("--record-days", min=1, help="Days until the recording expires.")]
Machine = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines; progress becomes JSON lines on stderr.")
]


Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first internal error, with its traceback.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress: only the outcome, and what is wrong.")]


def style(as_json: bool, quiet: bool = False) -> str:
    """Return how to show progress."""
    return "silent" if quiet else "json" if as_json else "auto"


def present(facts: dict[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """Print an outcome, for machines or for a person."""
    if as_json:
        print_json(facts)
    else:
        typer.echo(text())


def print_json(document: Any) -> None:
    """Print a document with its keys in order."""
    typer.echo(json.dumps(document, indent=2, sort_keys=True))


class Interrupted(BuilderError):
    """Somebody pressed Ctrl-C."""


@contextmanager
def continuing(kept: str) -> Iterator[None]:
    """Turn Ctrl-C into a message that says what was kept, and that the same command continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {kept}: the same command continues") from None


def filled(pairs: Sequence[str] | None, *, option: str = "--param") -> dict[str, str]:
    """Return ``NAME=VALUE`` pairs as a mapping. Raises SpecError."""
    parameters: dict[str, str] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise SpecError(f"{option}: found {pair!r}, expected NAME=VALUE")
        if name in parameters:
            raise SpecError(f"{option}: found {name} twice, expected each name once")
        parameters[name] = value
    return parameters


def measures(pairs: Sequence[str] | None) -> dict[str, float]:
    """Return the ``NAME=NUMBER`` pairs of ``--metric``. Raises SpecError."""
    found = {}
    for name, value in filled(pairs, option="--metric").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise SpecError(f"--metric: found {name}={value}, expected a number after '='") from None
    return found
