"""The base class of registrars, with default answers to what the engine asks."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from builder.model.case import Volume
from builder.protocols import Registered, Shape


class RegistrarBlock(BaseModel, ABC):
    """A registrar that needs no further memory and no library whose version decides its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each registrar declares these itself
        VERSION: ClassVar[int]
        kind: str

    @abstractmethod
    def __call__(self, fixed: Volume, moving: Volume) -> Registered:
        """Find how the moving image lies on the fixed one. See ``builder.protocols.Registrar``."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Return none, because the result depends on this code alone."""
        return ()

    def scratch_bytes(self, fixed: Shape, moving: Shape) -> int:
        """Return 0, because nothing is needed besides the two images."""
        return 0
