"""The base class of transforms, with default answers to what the engine asks."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from builder.model.case import Case
from builder.protocols import Shape, Spacing


class Step(BaseModel, ABC):
    """A transform that depends only on the voxels it is given and keeps their type. Other transforms override this."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each transform declares these itself
        VERSION: ClassVar[int]
        kind: str

    @abstractmethod
    def __call__(self, case: Case) -> Case:
        """Transform the case. See ``builder.protocols.Transform``."""

    @property
    def fitted_on(self) -> str:
        """Whose values the parameters were fitted on. Nothing, because all parameters are in the spec."""
        return "nothing"

    @property
    def libraries(self) -> tuple[str, ...]:
        """Return none, because the result depends on this code alone."""
        return ()

    @property
    def label_options(self) -> tuple[str, ...]:
        """Return no options, because no option names a label."""
        return ()

    def projected(self, shape: Shape, spacing_mm: Spacing) -> tuple[Shape, Spacing]:
        """Return shape and spacing unchanged."""
        return shape, spacing_mm

    def item_bytes(self, item: int) -> int:
        """Return the same number of bytes per voxel as before."""
        return item

    def scratch_bytes(self, before: Shape, after: Shape, *, item: int) -> int:
        """Return 0, because nothing is needed besides input and output."""
        return 0
