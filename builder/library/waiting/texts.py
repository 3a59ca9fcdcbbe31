"""The images of a release that wait for a person, with what was found in them, and what the person decides."""

import csv
import io
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from builder.decode.format import pixel_format
from builder.errors import CaseError, SpecError
from builder.imaging.parse import parse_instance
from builder.model.parquet import read_parquet
from builder.model.tables import INSTANCES
from builder.pixeltext.views import views_of
from builder.release.decisions import COLUMNS, UNDECIDED, Box, read_decisions
from builder.release.found import DECISIONS, FOUND, SEARCH, FoundText, parse_found
from builder.release.searching import frames_of, part_path, window_of
from builder.sources.contents import FOLDER
from builder.spec import DatasetSpec, keeping
from builder.stages.listed import Listed, bring, read_object
from builder.stages.planned import SPEC
from builder.storage import Store, open_store


@dataclass(frozen=True)
class Waiting:
    """One image that a person looks at."""

    row: Mapping[str, Any]
    why: str
    boxes: tuple[Box, ...]
    """What was found."""

    @property
    def uid(self) -> str:
        """Its SOP Instance UID."""
        return str(self.row["sop_instance_uid"])


def open_queue(folder: str) -> "TextQueue | None":
    """Return the queue of a release, or of one that is to be; None if nothing was searched for it."""
    if urlsplit(folder).scheme in ("http", "https"):
        return None  # datasets are read from there; a release has its private workspace beside it
    private = open_store(open_store(folder).url + ".private", directory_mode=0o700)
    try:
        parts = [(str(plan), str(part)) for plan, part in json.loads(private.read(SEARCH))]
    except FileNotFoundError:
        return None
    return TextQueue(private, tuple(parts)) if parts else None


@dataclass(frozen=True)
class TextQueue:
    """What waits, and the table of decisions. Each decision reads the table again and replaces it whole."""

    private: Store
    parts: tuple[tuple[str, str], ...]
    """Of the last search: the store of its plan, and the name of a part."""
    _changing: Any = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def spec(self) -> DatasetSpec:
        """The spec of the search, with its locations filled in."""
        plan = open_store(self.parts[0][0])
        return keeping(DatasetSpec.model_validate_json(plan.read(SPEC)), self.private.join(FOLDER).url)

    @property
    def place(self) -> str:
        """Where decisions go: to the table that the spec names, or into the private workspace."""
        return self.spec.release.decisions or f"{self.private.url}/{DECISIONS}"

    @cached_property
    def images(self) -> tuple[Waiting, ...]:
        """The images that wait, by series: those with text, in doubt or unread, as the spec asks."""
        found, undecided = self._found(), self._undecided()
        waiting = []
        for plan, part in self.parts:
            for row in read_parquet(open_store(plan).read(part_path(part))).to_pylist():
                uid = row["sop_instance_uid"]
                boxes = found.boxes.get(uid)
                why = undecided.get(uid) or self._why(found, uid, boxes)
                if why:
                    waiting.append(Waiting(row, why, boxes or ()))
        return tuple(sorted(waiting, key=lambda one: (str(one.row["series_uid"]), one.uid)))

    def _found(self) -> FoundText:
        try:
            return parse_found(self.private.read(FOUND))
        except FileNotFoundError:
            return FoundText()

    def _undecided(self) -> dict[str, str]:
        """Return why a release waits for images, by UID; none before it ran."""
        try:
            text = self.private.read(f"release/{UNDECIDED}").decode()
        except FileNotFoundError:
            return {}
        return {row["uid"]: row["why"] for row in csv.DictReader(io.StringIO(text, newline=""))}

    def _why(self, found: FoundText, uid: str, boxes: tuple[Box, ...] | None) -> str:
        text = self.spec.release.text
        if text is None or boxes is None:
            return ""
        if boxes:
            return "text was found" if text.found == "queue" else ""
        return found.images[uid].why if text.nothing_found == "queue" else ""

    def decided(self) -> dict[str, tuple[Box, ...]]:
        """Return what was decided about single images and series, by UID."""
        try:
            return dict(read_decisions(self.place).boxes)
        except SpecError:
            if table_at(self.place) is None:
                return {}
            raise

    def decide(self, numbers: Sequence[int], boxes: Sequence[Box]) -> None:
        """Decide that rectangles of some images are blanked, or, without any, that they show no text."""
        lines: list[list[object]] = [[*box] for box in sorted(set(boxes))]
        lines = lines or [["", "", "", ""]]
        self._write(numbers, lines)

    def take_back(self, numbers: Sequence[int]) -> None:
        """Forget what was decided about some images."""
        self._write(numbers, [])

    def _write(self, numbers: Sequence[int], lines: Sequence[Sequence[object]]) -> None:
        uids = [self.image(number).uid for number in numbers]
        with self._changing:
            before = list(csv.reader(io.StringIO((table_at(self.place) or b"").decode("utf-8-sig"), newline="")))[1:]
            sink = io.StringIO(newline="")
            writer = csv.writer(sink, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(row for row in before if row and row[0].strip() not in uids)
            writer.writerows([uid, *line] for uid in uids for line in lines)
            store, name = apart(self.place)
            store.put(name, sink.getvalue().encode())

    def image(self, number: int) -> Waiting:
        """Return an image of the queue. Raises SpecError for a number that it does not have."""
        if not 0 <= number < len(self.images):
            raise SpecError("view: found an image that does not wait, expected one of the list")
        return self.images[number]

    def picture(self, number: int, frame: int, view: int) -> bytes:
        """Return a frame as PNG, in one of the views that were searched.

        Raises
        ------
        SpecError
            If there is no such frame, or the pixels cannot be decoded.
        """
        row = self.image(number).row
        try:
            bring(_as_table(row), self.spec.sources)
            source = parse_instance(read_object(Listed.of(row), self.spec.sources))
            frames = frames_of(source)
            window = window_of(source) if pixel_format(source).samples == 1 else None
        except CaseError as error:
            raise SpecError(f"view: the pixels cannot be shown: {error.detail}") from None
        if not 0 <= frame < len(frames):
            raise SpecError("view: found a frame that the image does not have, expected one of it")
        views: list[NDArray[np.uint8]] = list(views_of(frames[frame], window=window))
        sink = io.BytesIO()
        Image.fromarray(views[view % len(views)]).save(sink, format="PNG", compress_level=1)
        return sink.getvalue()


def _as_table(row: Mapping[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([dict(row)], schema=INSTANCES)


def table_at(url: str) -> bytes | None:
    """Return a table of decisions, or None if there is none yet."""
    store, name = apart(url)
    try:
        return store.read(name)
    except FileNotFoundError:
        return None


def apart(url: str) -> tuple[Store, str]:
    """Return the folder of a place, and the name in it."""
    if "://" in url:
        folder, _, name = url.rpartition("/")
        return open_store(folder), name
    path = Path(url).absolute()
    return open_store(str(path.parent), directory_mode=0o700), path.name
