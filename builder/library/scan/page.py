"""The private page of a scan, with one picture for each group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from builder.decode.format import pixel_format
from builder.errors import BuilderError, CaseError, Reason, ResourceError
from builder.imaging.filed import is_filed
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.stored import stored_values
from builder.labels.pictures import data_uri, draw_slice
from builder.library.scan.archive import Scan
from builder.library.scan.groups import Group
from builder.library.scan.words import lines
from builder.pages import template_environment
from builder.sources import AnySource
from builder.stages.boundary import fault_of_case
from builder.stages.graph import Runner, Task
from builder.stages.listed import Listed, read_object

MOST_PICTURES: Final = 500
OBJECT_BYTES: Final = 256 << 20
"""A larger object is not opened for its picture."""


@dataclass(frozen=True)
class PictureArgument:
    """One object to draw: the row of INSTANCES that says where it lies."""

    number: int
    row: dict[str, Any]
    sources: tuple[AnySource, ...]


def draw(argument: PictureArgument) -> tuple[int, str, str]:
    """Draw the middle frame of an object.

    Returns
    -------
    tuple
        Number of the group, the picture as a data URI, and what is wrong where there is none.
    """
    try:
        if argument.row["size"] > OBJECT_BYTES or is_filed(argument.row["format"]):
            return argument.number, "", "not drawn"
        dataset = parse_instance(read_object(Listed.of(argument.row), argument.sources))
        values = stored_values(dataset, pixel_format(dataset))
        plane = _plane(values)
        return argument.number, data_uri(draw_slice(plane, np.zeros(plane.shape, bool))), ""
    except CaseError as error:
        return argument.number, "", error.reason.value
    except BuilderError as error:
        return argument.number, "", type(error).__name__
    except Exception as error:  # noqa: BLE001 - the case boundary
        return argument.number, "", fault_of_case(error).reason.value


def pictures(scan: Scan, sources: Sequence[AnySource], *, runner: Runner) -> dict[int, tuple[str, str]]:
    """Draw one picture for each group, by the group's number, as tasks of their own: a decoder may kill its process."""
    wanted = _wanted(scan, tuple(sources))
    tasks = [Task(f"picture-{argument.number:05d}", draw, argument, deadly=True) for argument in wanted]
    drawn: dict[int, tuple[str, str]] = {}
    while tasks:
        try:
            for outcome in runner.run(tasks):
                number, uri, why = outcome.value
                drawn[number] = (uri, why)
        except ResourceError:  # the first one without an outcome killed its process; the others go on without it
            tasks = [task for task in tasks if task.argument.number not in drawn]
            drawn[tasks[0].argument.number] = ("", Reason.CRASHED.value)
        tasks = [task for task in tasks if task.argument.number not in drawn]
    return drawn


def page_of(scan: Scan, drawn: dict[int, tuple[str, str]]) -> str:
    """Render the page."""
    template = template_environment(Path(__file__).parent).get_template("page.html.jinja")
    groups = [(group.facts(), *drawn.get(n, ("", ""))) for n, group in enumerate(scan.groups)]
    return template.render(scan=scan.facts(), groups=groups, lines=list(lines(scan)))


def _wanted(scan: Scan, sources: tuple[AnySource, ...]) -> Iterator[PictureArgument]:
    by_chunk: dict[int, list[tuple[int, Group]]] = {}
    for number, group in enumerate(scan.groups[:MOST_PICTURES]):
        if group.example is not None:
            by_chunk.setdefault(group.example[0], []).append((number, group))
    columns = ["series_uid", "source", "path", "member", "size", "stamp", "format", "instance_number"]
    for chunk, wanted in sorted(by_chunk.items()):
        rows = scan.inventory.chunk(chunk, columns=columns).to_pylist()
        places: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            places.setdefault(row["series_uid"], []).append(row)
        for number, group in wanted:
            own = places.get(group.example[1] if group.example else "", [])
            own.sort(key=lambda row: (row["instance_number"] or 0, row["path"]))
            if own:
                yield PictureArgument(number, own[len(own) // 2], sources)


def _plane(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the middle frame of stored values as one grey plane; colours are averaged."""
    frames = values if values.ndim >= 3 else values[None]
    if values.ndim == 3 and values.shape[-1] in (3, 4) and values.shape[0] > 4:
        frames = values[None]
    frame = frames[len(frames) // 2]
    return np.asarray(frame.mean(axis=-1) if frame.ndim == 3 else frame, np.float32)
