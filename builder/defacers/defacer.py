"""The base class of defacers, with default answers to what the engine asks."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from builder.defacers.cells import Bools
from builder.defacers.heads import Head, Scene


class DefacerBlock(BaseModel, ABC):
    """A defacer chooses the cells of a head that are taken out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each defacer declares these itself
        VERSION: ClassVar[int]
        kind: str

    @abstractmethod
    def __call__(self, scene: Scene, head: Head, brain: Bools) -> Bools:
        """Return (z, y, x) bool on the box of the scene: the cells to take out.

        ``brain`` holds the cells that stay whatever is returned, and so does every cell of a label.
        """
