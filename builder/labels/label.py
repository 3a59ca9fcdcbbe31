"""Options that every label of a spec has, however it is read: its evidence and the proof it must pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from builder.labels.layers import Layout, blank_layer
from builder.labels.proof import Proof
from builder.model.case import Annotation, Scalar, Tier
from builder.model.linking import ImageRow, Mentions, Selection
from builder.protocols import ImageFacts, LabelObject


class Stated(BaseModel):
    """Evidence as stated in the spec. What an object says about itself takes precedence.

    Parameters
    ----------
    tier
        How strong the label is; see ``builder.model.case.EVIDENCE_TIERS``. None takes the usual tier of its form.
    readers
        Names or roles of the readers, in a form that may be published.
    tool
        The tool that made the label.
    time
        When the label was made, in a form that may be published: a year, or a phase of a study.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Tier | None = None
    readers: tuple[str, ...] = ()
    tool: str | None = None
    time: str | None = None


class Label(BaseModel, ABC):
    """Base of the label readers: the shared options, and default answers to what the engine asks.

    Parameters
    ----------
    evidence
        Who made the label, with what and when.
    proof
        Thresholds that a case's annotation must meet. The figures are measured even without thresholds.
    on
        With ``cohort.images``: the image that the label is drawn on. None takes the image that its objects refer to.
    review
        URL of a table that ``builder review`` drew and a person filled in. The report states its error rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each reader declares them
        VERSION: ClassVar[int]
        kind: str
    TIER: ClassVar[Tier] = "single_reader"
    OF_IMAGE: ClassVar[bool] = False
    FUSED_BY: ClassVar[tuple[str, ...]] = ()
    SHARED_FILES: ClassVar[bool] = False

    evidence: Stated = Stated()
    proof: Proof = Proof()
    on: str | None = None
    review: str | None = None

    @property
    def mask_channels(self) -> int:
        """Return 0, because most readers give boxes, points or values and no mask."""
        return 0

    def mentions(self, content: bytes) -> Mentions:
        """Return a test that accepts every image, because a file selected by its name holds the label of one image."""
        return lambda image: True

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """Return the file unchanged."""
        return content

    def structures_of(self, name: str) -> tuple[str, ...] | None:
        """Return None, because most readers do not choose by names of ROIs or segments."""
        return None

    def class_fields(self, name: str) -> tuple[pa.Field, ...]:
        """Return nothing, because most readers give no classes that are known before an image is read."""
        return ()

    def planned_classes(self, contents: Sequence[bytes], image: ImageRow) -> tuple[Scalar, ...]:
        """Return nothing; see ``class_fields``."""
        return ()

    def absent(self, name: str, image: ImageFacts) -> tuple[Annotation, ...]:
        """Return nothing, because only annotations of a fixed shape need a blank one."""
        return ()

    @property
    def tier(self) -> Tier:
        """The tier that the spec states, else the usual tier of this form."""
        return self.evidence.tier or self.TIER

    @abstractmethod
    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """Select the objects of an image; see ``builder.protocols.LabelReader``."""

    @abstractmethod
    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """Read the annotations of an image; see ``builder.protocols.LabelReader``."""


class MaskLabel(Label):
    """Base of the readers whose masks have a declared shape: one channel per structure, or one label map.

    Parameters
    ----------
    layout
        ``channels``: one channel per structure. ``map``: a single channel of whole numbers.
    """

    FUSED_BY: ClassVar[tuple[str, ...]] = ("staple", "majority")

    layout: Layout = "channels"

    @property
    @abstractmethod
    def declared(self) -> tuple[str, ...]:
        """The structures that the spec names, in the order of their channels."""

    @property
    def mask_channels(self) -> int:
        """Return one channel per declared structure, or one for a label map."""
        return len(self.declared) if self.layout == "channels" else min(1, len(self.declared))

    def absent(self, name: str, image: ImageFacts) -> tuple[Annotation, ...]:
        """Return a mask of the same shape as other cases', without voxels or segments."""
        return (blank_layer(name, len(self.declared), image.geometry, layout=self.layout),)
