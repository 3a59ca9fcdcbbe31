"""What every label of a spec says beside how it is read: who stands behind it, and the proof it must pass."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from builder.labels.proof import Proof
from builder.model.case import Tier


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


class Label(BaseModel):
    """A label reader's common options; readers subclass it.

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
    TIER: ClassVar[Tier] = "single_reader"

    evidence: Stated = Stated()
    proof: Proof = Proof()
    review: str | None = None

    @property
    def tier(self) -> Tier:
        """The tier the spec states, else the usual one of this form."""
        return self.evidence.tier or self.TIER
