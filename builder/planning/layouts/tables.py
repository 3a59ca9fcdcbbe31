"""Layouts that a spec states: a pattern of paths, and a table with a column of paths."""

import posixpath
from collections.abc import Iterator, Sequence

from builder.errors import SpecError
from builder.model.places import stem_of
from builder.planning.layouts.names import Documents, Named, split_of
from builder.planning.layouts.sidecars import header_columns
from builder.sources.layout import FIELDS, Layout, fits_of


class Pattern:
    """Paths whose parts say who and what an image is."""

    def __init__(self, layout: Layout, documents: Documents, images: Sequence[str]) -> None:
        assert layout.pattern is not None
        self.fits = fits_of(layout.pattern, images)
        self.documents = documents

    def name(self, place: str) -> Named | str | None:
        """See ``names.Reading``."""
        if place not in self.fits:
            return None
        found = self.fits[place].fields()
        return Named(
            patient=found["patient"], visit=found.get("visit", ""), image=found.get("image", "image"),
            case=found.get("case", ""), split=split_of(found.get("split", "")),
            columns=_beside(place, self.documents), fields={n: v for n, v in found.items() if n not in FIELDS},
        )  # fmt: skip

    def promised(self) -> Iterator[str]:
        """Yield nothing."""
        return iter(())


class Table:
    """A table with a row per case and columns of paths, which are relative to the table's folder."""

    def __init__(self, layout: Layout, documents: Documents) -> None:
        assert layout.table is not None
        self.documents = documents
        place = posixpath.normpath(layout.table)
        if place not in documents.places:
            raise SpecError("layout.table: found no file of this name below the source's folder, expected a table")
        sheet = documents.table(place)
        self.folder = posixpath.dirname(place)
        self.named: dict[str, Named | str] = {}
        columns = (layout.patient, layout.visit, layout.case, layout.split, *layout.path, *layout.labels)
        missing = sorted({*filter(None, columns)} - {*sheet.headings})
        if missing:
            raise SpecError(
                f"layout.table: found no column {', '.join(missing)}, expected some of {', '.join(sheet.headings)}"
            )
        for _, cells in sheet.texts():
            self._add(dict(zip(sheet.headings, cells, strict=True)), layout)

    def name(self, place: str) -> Named | str | None:
        """See ``names.Reading``."""
        return self.named.get(place)

    def promised(self) -> Iterator[str]:
        """Yield the images that the table lists."""
        yield from self.named

    def _add(self, row: dict[str, str], layout: Layout) -> None:
        paths = {name: self._place(cell) for name, cell in row.items() if cell}
        for column in layout.path:
            if not row[column]:
                continue
            place = paths[column]
            if not row[layout.patient]:
                self.named[place] = "its row of the table names no patient"
                continue
            found = Named(
                patient=row[layout.patient], visit=row[layout.visit] if layout.visit else "",
                image=column if len(layout.path) > 1 else "image", case=row[layout.case] if layout.case else "",
                split=split_of(row[layout.split]) if layout.split else "", columns=_beside(place, self.documents),
                fields=_label_fields(layout, paths),
            )  # fmt: skip
            before = self.named.get(place)
            if before is not None and before != found:
                self.named[place] = "several rows of the table name it and disagree"
            else:
                self.named[place] = found

    def _place(self, stated: str) -> str:
        return posixpath.normpath(posixpath.join(self.folder, stated.replace("\\", "/")))


def _label_fields(layout: Layout, paths: dict[str, str]) -> dict[str, str]:
    """Return the fields of patterns that stand for the paths of labels."""
    found = {f"label.{name}": paths[name] for name in layout.labels if name in paths}
    first = layout.labels[0] if layout.labels else ""
    return found | ({"label": paths[first]} if first in paths else {})


def _beside(place: str, documents: Documents) -> dict[str, object]:
    """Return the columns of the JSON file beside an image."""
    beside = posixpath.join(posixpath.dirname(place), f"{stem_of(place)}.json")
    return header_columns(documents.mapping(beside)) if beside in documents.places else {}
