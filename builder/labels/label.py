"""What every label of a spec says beside how it is read: who stands behind it, and the proof it must pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from builder.labels.layers import Layout, blank_layer
from builder.labels.proof import Proof
from builder.model.case import Annotation, Tier
from builder.protocols import ImageFacts, ImageRow, LabelObject, Mentions, Selection


class Stated(BaseModel):
    """Evidence as the spec states it; what an object says of itself goes before it.

    Parameters
    ----------
    tier
        How strong the label is, see ``builder.model.case.EVIDENCE_TIERS``; None: what is usual for its form.
    readers
        Names or roles of who made it, as they may be published.
    tool
        What it was made with.
    time
        When it was made, as it may be published: a year, a phase of a study.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Tier | None = None
    readers: tuple[str, ...] = ()
    tool: str | None = None
    time: str | None = None


class Label(BaseModel, ABC):
    """A label reader: the options that all share, and the usual answers to what the engine asks.

    Parameters
    ----------
    evidence
        Who stands behind the label.
    proof
        Thresholds that a case's annotation must keep; the figures are measured without any.
    review
        URL of a table that ``builder review`` drew and a person filled in; the report tells its error rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    if TYPE_CHECKING:  # each reader declares them
        VERSION: ClassVar[int]
        kind: str
    TIER: ClassVar[Tier] = "single_reader"
    FUSED_BY: ClassVar[tuple[str, ...]] = ()
    SHARED_FILES: ClassVar[bool] = False

    evidence: Stated = Stated()
    proof: Proof = Proof()
    review: str | None = None

    @property
    def mask_channels(self) -> int:
        """None: the reader gives boxes, points or values."""
        return 0

    def mentions(self, content: bytes) -> Mentions:
        """Every image: the file was selected by its name, and holds one image's label."""
        return lambda image: True

    def cut(self, content: bytes, image: ImageRow, *, map_uid: Callable[[str], str]) -> bytes:
        """The file as it is."""
        return content

    def structures_of(self, name: str) -> tuple[str, ...] | None:
        """None: no names of ROIs or segments decide what it takes."""
        return None

    def absent(self, name: str, image: ImageFacts) -> tuple[Annotation, ...]:
        """Nothing: what has no fixed shape is simply not there."""
        return ()

    @property
    def tier(self) -> Tier:
        """The tier the spec states, else the usual one of this form."""
        return self.evidence.tier or self.TIER

    @abstractmethod
    def select(self, image: ImageRow, candidates: pa.Table) -> Selection:
        """See ``builder.protocols.LabelReader``."""

    @abstractmethod
    def read(self, name: str, objects: Sequence[LabelObject], image: ImageFacts) -> tuple[Annotation, ...]:
        """See ``builder.protocols.LabelReader``."""


class MaskLabel(Label):
    """A reader whose masks have a declared shape: one structure a channel, or one label map.

    Parameters
    ----------
    layout
        ``channels``: a channel a structure; ``map``: one channel of whole numbers.
    """

    FUSED_BY: ClassVar[tuple[str, ...]] = ("staple", "majority")

    layout: Layout = "channels"

    @property
    @abstractmethod
    def declared(self) -> tuple[str, ...]:
        """The structures the spec names, in the order of their channels."""

    @property
    def mask_channels(self) -> int:
        """A channel for each declared structure, or one label map."""
        return len(self.declared) if self.layout == "channels" else min(1, len(self.declared))

    def absent(self, name: str, image: ImageFacts) -> tuple[Annotation, ...]:
        """A mask as large as other cases', without a voxel and without a segment."""
        return (blank_layer(name, len(self.declared), image.geometry, layout=self.layout),)
