"""The base class of extracts."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import BaseModel, ConfigDict

from builder.protocols import Extracted, Outside

SIZE_LIMIT: Final = 512 * 2**20
"""Bytes of what one extract may read, and of the table it makes of that."""


class ExtractBlock(BaseModel, ABC):
    """A block of a spec that says where a clinical table is taken from."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    if TYPE_CHECKING:  # each extract declares these itself
        VERSION: ClassVar[int]
        kind: str

    @property
    @abstractmethod
    def title(self) -> str:
        """What messages call it. It holds no secret, no path and nothing of a query."""

    @abstractmethod
    def take(self, outside: Outside) -> Extracted:
        """Return the table. See ``builder.protocols.Extract``."""
