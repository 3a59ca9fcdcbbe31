"""A scan in words: what a terminal shows."""

from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from builder.errors import counted
from builder.library.scan.archive import PRIVATE, Scan
from builder.library.scan.beside import Objects, Table
from builder.library.scan.groups import Group
from builder.library.scan.images import image_lines
from builder.library.scan.masks import mask_lines

MOST_SHOWN: Final = 60
"""Groups that a terminal shows; --json and --html have all of them."""

MOST_STRUCTURES: Final = 20
WIDTH: Final = 160


def text_of_scan(scan: Scan) -> str:
    """Return the scan as a terminal shows it."""
    sink = StringIO()
    console = Console(file=sink, width=WIDTH, highlight=False, color_system=None)
    counts = (
        f"{counted(scan.persons, 'person')}, {counted(scan.studies, 'study', 'studies')}, {scan.series} image series"
    )
    console.print(PRIVATE)
    absent = f" and {scan.named_only} that are named and not there" if scan.named_only else ""
    console.print(f"{counted(scan.files, 'file')}{absent}, {counts}")
    if scan.groups:
        console.print("\nlike series, largest group first")
        console.print(_grid(scan.groups[:MOST_SHOWN]))
    rest = scan.groups[MOST_SHOWN:]
    if rest:
        series = sum(len(group.series) for group in rest)
        console.print(f"and {counted(len(rest), 'more group')} with {series} series: --json and --html show all")
    table = [line.rstrip() for line in sink.getvalue().splitlines()]
    return "\n".join([*table, *lines(scan)])


def lines(scan: Scan) -> Iterator[str]:
    """Yield what there is beside the groups, line by line."""
    yield from _left_out(scan)
    if scan.objects:
        yield from ("", "objects that are no images")
    for objects in scan.objects:
        yield from _object_lines(objects)
    if scan.tables:
        yield from ("", "tables")
    for table in scan.tables:
        yield from _table_lines(table)
    yield from ("", "files by format")
    yield "  " + ", ".join(f"{form} {count}" for form, count in scan.formats.items())
    yield from (f"  {line}" for line in scan.unread)
    if scan.image_files:
        yield from ("", "image files that are not DICOM")
        yield from image_lines(scan.image_files, scan.layout)
        yield from mask_lines(scan.masks)
    for title, entries in (("set aside", scan.damaged), ("duplicates", scan.duplicates)):
        if entries:
            yield from ("", title)
        for one in entries:
            detail = f" ({one['detail']})" if one["detail"] else ""
            yield f"  {one['files']} {one['format']}: {one['reason']}, such as {one['example']}{detail}"


def _left_out(scan: Scan) -> Iterator[str]:
    if scan.excluded or scan.text_risks:
        yield from ("", "left out by default")
    for one in scan.excluded:
        switch = f"; {one['switch']} lets them in" if one["switch"] else ""
        named = ", ".join(dict.fromkeys([one["verdict"], one["reason"]]))
        yield f"  {counted(one['stacks'], 'stack')}: {named}{switch}"
    for why, count in scan.text_risks.items():
        yield f"  {count} series whose pixels may show text: {why}"


def _object_lines(objects: Objects) -> Iterator[str]:
    yield f"  {objects.modality}: {objects.objects}, of which {objects.linked} refer to series that are here"
    if objects.names:
        shown = ", ".join(f"{name} {count}" for name, count in objects.names.most_common(MOST_STRUCTURES))
        more = len(objects.names) - MOST_STRUCTURES
        yield f"    names: {shown}" + (f" and {more} more" if more > 0 else "")


def _table_lines(table: Table) -> Iterator[str]:
    if table.problem:
        yield f"  {table.path}: {table.problem}"
        return
    yield f"  {table.path}: {counted(table.rows, 'row')}; columns {', '.join(table.headings)}"
    for heading, (fact, count, distinct) in table.shared.items():
        yield f"    {heading}: {count} of {distinct} values name a {fact} of the images"
    for heading, (here, outside, distinct) in table.paths.items():
        if outside and not here:
            yield (
                f"    {heading}: {outside} of {distinct} values are paths that lead out of this folder; "
                "scan the folder that holds both"
            )


def _grid(groups: Sequence[Group]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("kind", "description", "vendor"):
        grid.add_column(heading, overflow="fold", max_width=44)
    for heading in ("persons", "studies", "series", "usable"):
        grid.add_column(heading, justify="right")
    for heading in ("matrix", "slices", "spacing mm", "years"):
        grid.add_column(heading, overflow="fold")
    for group in groups:
        kind = group.kind
        named = dict.fromkeys(kind.get(n, "") for n in ("modality", "series_type", "plane", "phase", "image", "format"))
        texts = dict.fromkeys(filter(None, (kind.get("description", ""), kind.get("protocol", ""))))
        matrix = ", ".join(f"{r}x{c}" for (r, c), _ in group.matrices.most_common(2))
        cells = (
            " ".join(name for name in named if name not in ("", "unknown")),
            " / ".join(texts), kind.get("vendor", ""), str(len(group.persons)),
            str(len(group.studies)), str(len(group.series)), f"{group.usable} of {group.stacks}",
            matrix + (" ..." if len(group.matrices) > 2 else ""), _span(group.slices.pair()),
            " x ".join(filter(None, (_span(group.spacing_slice_mm.pair()), _span(group.spacing_row_mm.pair())))),
            _span(group.years.pair()),
        )  # fmt: skip
        grid.add_row(*map(escape, cells))
    return grid


def _span(pair: Sequence[float] | None) -> str:
    if pair is None:
        return ""
    least, most = (f"{value:.4g}" for value in pair)
    return least if least == most else f"{least}-{most}"
