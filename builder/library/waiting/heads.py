"""The heads that were searched for faces before a build or a release, and what a person decides about them."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from builder.defacers.found import ACCEPT, KEEP, REFUSE, Seen, decisions_table, parse_decisions, parse_found
from builder.errors import SpecError
from builder.library.waiting.texts import apart, table_at
from builder.model.layout import CURRENT
from builder.planning.faces import ASKED, FACES, TABLE
from builder.stages.faces import picture_path
from builder.storage import Store, open_store

DECISIONS = (ACCEPT, REFUSE, KEEP, "")
"""What may be decided; "" takes it back."""


@dataclass(frozen=True)
class HeadQueue:
    """The heads, and the table of decisions. Each decision reads the table again and replaces it whole."""

    store: Store
    place: str
    review: str
    _changing: Any = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def heads(self) -> tuple[Seen, ...]:
        """What was found, doubtful images first."""
        seen = parse_found(self.store.read(TABLE)).values()
        return tuple(sorted((one for one in seen if one.is_head), key=lambda one: (not one.doubt, one.stack)))

    def decided(self) -> dict[str, str]:
        """Return what was decided, by stack or series."""
        data = table_at(self.place)
        return {} if data is None else parse_decisions(data)

    @property
    def left(self) -> int:
        """Heads that a build or release waits for."""
        decided = self.decided()
        return sum(one.waits(self.review) and not decided.keys() & {one.stack, one.series} for one in self.heads)

    def decide(self, numbers: Sequence[int], decision: str) -> None:
        """Decide about some heads, each of which the table then names by its stack."""
        changed = dict.fromkeys((self.head(number).stack for number in numbers), decision)
        with self._changing:
            before = self.decided()
            store, name = apart(self.place)
            store.put(name, decisions_table(list(before.items()), changed))

    def head(self, number: int) -> Seen:
        """Return a head of the queue. Raises SpecError for a number that it does not have."""
        if not 0 <= number < len(self.heads):
            raise SpecError("view: found a head that is not in the list, expected one of it")
        return self.heads[number]

    def has_picture(self, one: Seen) -> bool:
        """Return whether a head could be drawn."""
        return self.store.exists(picture_path(one.stack))

    def picture(self, number: int) -> bytes:
        """Return the picture of a head as PNG. Raises SpecError if it has none."""
        try:
            return self.store.read(picture_path(self.head(number).stack))
        except FileNotFoundError:
            raise SpecError("view: the images of this head could not be read, so that it has no picture") from None


def open_heads(folder: str) -> HeadQueue | None:
    """Return the heads of a release or dataset, or of one that is to be.

    None if nothing was searched for it, or if it is a dataset that is published and none of its heads waits.
    """
    if urlsplit(folder).scheme in ("http", "https"):
        return None
    store = open_store(open_store(folder).url + ".private", directory_mode=0o700).join(FACES)
    try:
        asked = json.loads(store.read(ASKED))
    except FileNotFoundError:
        return None
    queue = HeadQueue(store, asked["decisions"], asked["review"])
    shown = queue.left or not open_store(folder).exists(CURRENT)
    return queue if queue.heads and shown else None
