"""What every source of a spec says beside where it is: the options that all share, and the usual answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from builder.model.origin import Origin
from builder.protocols import Entry


class Described(BaseModel, ABC):
    """A source whose tasks need no queue and which the index reads as far as the pixels.

    Parameters
    ----------
    site, country, collection
        Names of the site, the country and the collection the objects come from; columns of the dataset.
    origin
        The terms of everything it holds.
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
        """No queue."""
        return ""

    @property
    def reads_whole(self) -> bool:
        """No: an object's header and length say whether it is another one."""
        return False

    @abstractmethod
    def list(self) -> Iterator[Entry]:
        """See ``builder.protocols.Source``."""

    @abstractmethod
    def read(self, entry: Entry, *, start: int = 0, length: int | None = None) -> bytes:
        """See ``builder.protocols.Source``."""
