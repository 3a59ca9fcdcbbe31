"""What every transform shares: the usual answers to what the engine asks."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from builder.model.case import Case
from builder.protocols import Shape, Spacing


class Step(BaseModel, ABC):
    """A transform that depends on nothing but the voxels it is given and keeps their type; others override."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each transform declares them
        VERSION: ClassVar[int]
        kind: str

    @abstractmethod
    def __call__(self, case: Case) -> Case:
        """See ``builder.protocols.Transform``."""

    @property
    def fitted_on(self) -> str:
        """Nothing: the parameters stand in the spec."""
        return "nothing"

    @property
    def label_options(self) -> tuple[str, ...]:
        """None."""
        return ()

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Shape and spacing as they are."""
        return shape, spacing_mm

    def item_bytes(self, item: int) -> int:
        """As before."""
        return item

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Nothing beside input and output."""
        return 0
