"""What happens to the pixels of an image, by its header, the rules of devices, and what people decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset

from builder.deid import Deid
from builder.deid.pixels import PixelVerdict, Risk, judge_pixels, pixel_risk, stated_regions
from builder.errors import CaseError, Reason
from builder.release.decisions import regions_of
from builder.release.devices import Devices

RULES = "devices.json"
"""File of a plan with the rules of devices."""

STOPPING = (Risk.OVERLAY_IN_PIXELS, Risk.DOCUMENT)
"""What no rectangle mends."""


@dataclass(frozen=True)
class Triage:
    """Judges images. ``devices`` is None where the spec has no ``release.text``: then headers and decisions count."""

    deid: Deid
    devices: Devices | None = None

    def verdict(self, row: Mapping[str, Any], source: Dataset) -> PixelVerdict:
        """Return what to blank. A person's decision counts before every rule, unless it calls declared text none.

        Raises
        ------
        CaseError
            BURNED_IN if nothing tells that the image shows no text, or where it does.
        """
        boxes = row["boxes"]
        if boxes is not None:
            return self._decided(boxes, source)
        return judge_pixels(source, deid=self.deid) if self.devices is None else self._by_rule(self.devices, source)

    def _decided(self, boxes: Sequence[Sequence[int]], source: Dataset) -> PixelVerdict:
        risk = pixel_risk(source)
        if risk in STOPPING or (risk is Risk.DECLARED and not boxes):
            raise CaseError(
                Reason.BURNED_IN,
                f"found an image that {risk.value} and a decision without a rectangle for it, expected one",
            )
        return self._blanking(boxes, source)

    def _blanking(self, boxes: Sequence[Sequence[int]], source: Dataset) -> PixelVerdict:
        """Return the verdict of the header with rectangles beside its own; they take the place of its refusal."""
        try:
            stated = judge_pixels(source, deid=self.deid)
        except CaseError:
            stated = PixelVerdict()
        return replace(stated, blank=tuple(sorted({*stated.blank, *regions_of(boxes, size_of(source))}, key=str)))

    def _by_rule(self, devices: Devices, source: Dataset) -> PixelVerdict:
        rule, risk = devices.rule_for(source), pixel_risk(source)
        boxes = rule.boxes(size_of(source))
        if risk not in STOPPING and rule.action == "blank" and boxes:
            return self._blanking(boxes, source)
        if rule.action == "clean" and risk not in (*STOPPING, Risk.DECLARED):
            return self._blanking((), source)
        verdict = judge_pixels(source, deid=self.deid)
        return replace(verdict, regions=stated_regions(source)) if rule.action == "outside_regions" else verdict


def size_of(source: Dataset) -> tuple[int, int]:
    """Return the rows and columns that a header states; 0 where it states none."""
    return int(source.get("Rows") or 0), int(source.get("Columns") or 0)
