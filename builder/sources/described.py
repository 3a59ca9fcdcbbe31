"""Define the base classes of sources: the options that all of them share, and their default answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from builder.errors import CaseError, IncompleteError, Reason
from builder.model.origin import Origin
from builder.protocols import Entry
from builder.sources.contents import Contents, contents_at
from builder.sources.politeness import Gate, Politeness
from builder.sources.recordings import Recording
from builder.sources.together import in_order

IN_FLIGHT: Final = 64 * 2**20
"""Most bytes of objects that are on their way at once, if a listing states their sizes."""


class Described(BaseModel, ABC):
    """A source that needs no queue and that the index reads up to the pixels, unless a subclass overrides this.

    Parameters
    ----------
    site, country, collection
        Names of the site, the country and the collection that the objects come from; they become columns of the
        dataset.
    origin
        The terms that apply to everything in the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each source declares them
        VERSION: ClassVar[int]
        kind: str

    site: str | None = None
    country: str | None = None
    collection: str | None = None
    origin: Origin = Origin()

    @property
    def lane(self) -> str:
        """Return no queue."""
        return ""

    @property
    def reads_whole(self) -> bool:
        """Return False: an object's header and length tell whether it has changed."""
        return False

    @property
    def most_missing(self) -> float:
        """Return the share of studies that may be left out because they did not come whole."""
        return 0.0

    @property
    def at_once(self) -> int:
        """Return how many objects it is good to ask for at once."""
        return 1

    def bring(self, entries: Sequence[Entry]) -> None:
        """Fetch objects that will be read, many at once, if they come from a server. Raises SourceError."""
        return

    def study_of(self, path: str) -> str:
        """Return what is left out together when the object at ``path`` does not come: its study, or the object."""
        return path

    def kept_in(self, url: str) -> Self:
        """Return the source with the folder in which it may keep objects. Sources that keep none ignore it."""
        return self

    def recorded_in(self, recording: Recording | None) -> Self:
        """Return the source with the recording that it makes or uses. Sources that need no server ignore it."""
        return self

    def strictly(self) -> Self:
        """Return the source so that whatever does not come whole stops the run."""
        return self

    def news(self, now: datetime) -> Sequence[str]:
        """Return what to tell a person before the source is read."""
        return ()

    @abstractmethod
    def list(self) -> Iterator[Entry]:
        """See ``builder.protocols.Source``."""

    @abstractmethod
    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """See ``builder.protocols.Source``."""


class Remote(Described):
    """A source whose objects come from a server, and are kept after their check.

    Parameters
    ----------
    missing
        What happens when the server does not give an object or a list whole after all tries. ``stop`` ends the run.
        ``exclude`` leaves the study out as ``source_incomplete``; the next run asks for it again.
    missing_at_most
        Largest share of the source's studies that may be left out so; above it the run stops.
    polite
        How much the server is asked, by all workers together.
    """

    missing: Literal["stop", "exclude"] = "stop"
    missing_at_most: float = Field(default=0.01, ge=0.0, le=1.0)
    polite: Politeness = Politeness()
    CONNECTIONS: ClassVar[int] = 4
    """Connections to one server where ``polite`` states none."""

    _content: str = PrivateAttr(default="")
    _recording: Recording | None = PrivateAttr(default=None)

    @property
    def most_missing(self) -> float:
        """Return ``missing_at_most``."""
        return self.missing_at_most

    @property
    def connections(self) -> int:
        """Return the number of connections to one server."""
        return self.polite.connections or self.CONNECTIONS

    @property
    def at_once(self) -> int:
        """Return a few more than the connections, so that these are used while answers are checked and kept."""
        return self.connections + min(self.connections, 8)

    def bring(self, entries: Sequence[Entry]) -> None:
        """Fetch and keep objects, many at once. One that cannot be had is left to who reads it. Raises SourceError."""
        largest = max((entry.size for entry in entries), default=0)
        width = max(1, min(self.at_once, IN_FLIGHT // max(1, largest)))
        for wanted in self._rounds(entries):
            for _ in in_order(self._bring_one, wanted, width=width):
                pass

    def _rounds(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """Yield what to ask for at once, one group after the other came."""
        yield entries

    def _bring_one(self, entry: Entry) -> None:
        with suppress(CaseError):
            self.read(entry, start=max(0, entry.size - 1), length=1)

    def study_of(self, path: str) -> str:
        """Return the study's UID, with which paths begin."""
        return path.partition("/")[0]

    def kept_in(self, url: str) -> Self:
        """Return the source with the folder in which it keeps objects."""
        kept = self.model_copy()
        kept._content = url
        return kept

    def recorded_in(self, recording: Recording | None) -> Self:
        """Return the source with the recording that it makes or uses."""
        kept = self.model_copy()
        kept._recording = recording
        return kept

    def strictly(self) -> Self:
        """Return the source with ``missing: stop``."""
        return self.model_copy(update={"missing": "stop"})

    def news(self, now: datetime) -> Sequence[str]:
        """Return that the build waits for the hours in which the server may be asked, if it does."""
        if not self.polite.opens_in(now) or (self._recording is not None and self._recording.replays):
            return ()
        return (f"{self.kind}: the server is asked at {self.polite.hours} ({self.polite.time_zone}); waiting",)

    def gate(self, server: str) -> Gate:
        """Return where requests to a server wait for their turn."""
        rules = self.polite
        if rules.connections is None:
            rules = rules.model_copy(update={"connections": self.connections})
        return Gate(server, rules, self._content, self._recording)

    def _queue(self, name: str) -> str:
        """Return the lane of a server, as wide as the server takes connections."""
        return f"{name}*{self.connections}"

    def _contents(self) -> Contents:
        return contents_at(self._content)

    def _left_out(self, error: IncompleteError) -> CaseError:
        """Return the reason for leaving out what did not come whole; raise ``error`` when the run must stop."""
        if self.missing == "stop":
            raise error
        found = str(error).partition(": ")[2].partition(" (tried")[0]  # without the host, which is not published
        return CaseError(Reason.SOURCE_INCOMPLETE, f"the source did not give it whole after all tries: {found}")
