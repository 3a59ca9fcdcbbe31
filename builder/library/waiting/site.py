"""What the page of what waits asks for, and what it may change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Any

from builder.library.view.server import Answer, Refused, as_json, number_in
from builder.library.waiting.heads import DECISIONS, HeadQueue
from builder.library.waiting.texts import TextQueue
from builder.release.decisions import Box

PAGE = Path(__file__).parent / "page"
FILES = {
    "": (str(PAGE / "index.html"), "text/html; charset=utf-8", ""),
    "queue.js": (str(PAGE / "queue.js"), "text/javascript; charset=utf-8", ""),
    "queue.css": (str(PAGE / "queue.css"), "text/css; charset=utf-8", ""),
}
MOST_BOXES = 500


@dataclass
class QueueSite:
    """The contact sheets of images that may show text, and the pictures of heads."""

    queue: TextQueue | None
    heads: HeadQueue | None = None
    files: Mapping[str, tuple[str, str, str]] = field(default_factory=lambda: FILES)
    most_posted: int = 1 << 18

    def get(self, words: list[str], asked: dict[str, str]) -> Answer:
        """Answer with the list of images by series, or with a picture."""
        match words:
            case ["api", "queue"]:
                return as_json(self._listed())
            case ["head", number] if self.heads is not None:
                return Answer(self.heads.picture(number_in(number)), "image/png")
            case ["picture", number, frame, view] if self.queue is not None:
                return Answer(self.queue.picture(number_in(number), number_in(frame), number_in(view)), "image/png")
        raise Refused(HTTPStatus.NOT_FOUND, "found nothing there")

    def _listed(self) -> dict[str, Any]:
        texts = {"series": [], "file": ""} if self.queue is None else self._texts(self.queue)
        heads = {"heads": [], "head_file": ""} if self.heads is None else self._heads(self.heads)
        return {**texts, **heads}

    def _heads(self, queue: HeadQueue) -> dict[str, Any]:
        decided = queue.decided()
        heads = [
            {
                "number": number, "verdict": one.verdict, "doubt": one.doubt, "waits": one.waits(queue.review),
                "voxels": one.voxels, "taken_out": one.taken_out, "brain_taken_out": one.brain_taken_out,
                "decided": decided.get(one.stack, decided.get(one.series)), "picture": queue.has_picture(one),
            }
            for number, one in enumerate(queue.heads)
        ]  # fmt: skip
        return {"heads": heads, "head_file": Path(queue.place).name}

    def _texts(self, queue: TextQueue) -> dict[str, Any]:
        decided = queue.decided()
        numbered = list(enumerate(queue.images))
        series = [
            [
                {
                    "number": number, "why": one.why, "boxes": one.boxes, "modality": one.row["modality"] or "",
                    "rows": one.row["rows"], "columns": one.row["columns"], "frames": one.row["number_of_frames"] or 1,
                    "decided": _of(decided, one.uid, str(one.row["series_uid"])),
                }
                for number, one in group
            ]
            for _, group in groupby(numbered, key=lambda pair: pair[1].row["series_uid"])
        ]  # fmt: skip
        return {"series": series, "file": Path(queue.place).name}

    def post(self, path: str, document: Any) -> Answer:
        """Decide about some images, or take a decision back."""
        queue, heads = self.queue, self.heads
        match path, document:
            case "api/head", {"heads": [*numbers], "decision": str(decision)} if heads is not None:
                if not numbers or not all(_whole(n) for n in numbers) or decision not in DECISIONS:
                    raise Refused(
                        HTTPStatus.BAD_REQUEST, "found no decision, expected heads and accept, refuse or keep"
                    )
                heads.decide(numbers, decision)
            case "api/decide", {"images": [*numbers], "boxes": [*boxes]} if queue is not None:
                rectangles = [self._box(box) for box in boxes]
                if not numbers or not all(_whole(n) for n in numbers) or len(rectangles) > MOST_BOXES:
                    raise Refused(HTTPStatus.BAD_REQUEST, "found no decision, expected images and rectangles")
                self._check_inside(queue, numbers, rectangles)
                queue.decide(numbers, rectangles)
            case "api/undo", {"images": [*numbers]} if queue is not None and all(_whole(n) for n in numbers):
                queue.take_back(numbers)
            case "api/decide" | "api/undo" | "api/head", _:
                raise Refused(HTTPStatus.BAD_REQUEST, "found no decision, expected images and rectangles in JSON")
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "found nothing there")
        return as_json(self._listed())

    def _box(self, box: Any) -> Box:
        match box:
            case [top, bottom, left, right] if all(_whole(n) for n in box) and 0 <= top < bottom and 0 <= left < right:
                return top, bottom, left, right
        raise Refused(HTTPStatus.BAD_REQUEST, "found no rectangle, expected four whole numbers, from before to")

    def _check_inside(self, queue: TextQueue, numbers: list[int], boxes: list[Box]) -> None:
        for number in numbers:
            row = queue.image(number).row
            if any(box[1] > (row["rows"] or 0) or box[3] > (row["columns"] or 0) for box in boxes):
                raise Refused(HTTPStatus.BAD_REQUEST, "found a rectangle outside an image, expected one inside")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of(decided: Mapping[str, tuple[Box, ...]], uid: str, series: str) -> list[Box] | None:
    """Return the rectangles of an image as a release would take them; None if nobody decided."""
    if uid not in decided and series not in decided:
        return None
    return sorted({*decided.get(uid, ()), *decided.get(series, ())})
