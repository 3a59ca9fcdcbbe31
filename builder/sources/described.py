"""Define the base class of sources: the options that all of them share, and their default answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from builder.model.origin import Origin
from builder.protocols import Entry


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

    @abstractmethod
    def list(self) -> Iterator[Entry]:
        """See ``builder.protocols.Source``."""

    @abstractmethod
    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """See ``builder.protocols.Source``."""
