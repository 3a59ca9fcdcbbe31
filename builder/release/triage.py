"""What happens to the pixels of an image, by its header, the rules of devices, and what people decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset

from builder.deid import Deid
from builder.deid.pixels import PixelVerdict, Risk, judge_pixels, pixel_risk, stated_regions
from builder.errors import CaseError, Reason
from builder.release.decisions import regions_of
from builder.release.devices import Devices, Rule
from builder.spec.blocks import TextOptions

RULES = "devices.json"
"""File of a plan with the rules of devices."""

STOPPING = (Risk.OVERLAY_IN_PIXELS, Risk.DOCUMENT)
"""What no rectangle mends."""


@dataclass(frozen=True)
class Triage:
    """Judges images. ``devices`` and ``text`` are None without ``release.text``: then headers and decisions count."""

    deid: Deid
    devices: Devices | None = None
    text: TextOptions | None = None

    def verdict(self, row: Mapping[str, Any], source: Dataset) -> PixelVerdict:
        """Return what to blank. A person's decision counts before every rule, unless it calls declared text none.

        What a rule says is text is blanked all the same: who decided saw the image without it.

        Raises
        ------
        CaseError
            BURNED_IN if nothing tells that the image shows no text, or where it does.
        """
        rule = self.devices.rule_for(source) if self.devices is not None else Rule("look")
        if row["boxes"] is not None:
            return _outside(rule, self._decided([*row["boxes"], *rule.boxes(size_of(source))], source), source)
        if self.devices is None or self.text is None:
            return judge_pixels(source, deid=self.deid)
        if row["found"] is not None and self.text.found is not None:
            return self._searched(rule, row["found"], source)
        return self._by_rule(rule, source)

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

    def _by_rule(self, rule: Rule, source: Dataset) -> PixelVerdict:
        """Judge an image that nobody searched."""
        risk, boxes = pixel_risk(source), rule.boxes(size_of(source))
        if risk not in STOPPING and rule.action == "blank" and boxes:
            return self._blanking(boxes, source)
        if rule.action == "clean" and risk not in (*STOPPING, Risk.DECLARED):
            return self._blanking((), source)
        verdict = judge_pixels(source, deid=self.deid)
        vouched = str(source.get("Modality") or "") in self.deid.reviewed or "pixels_blanked" in verdict.notes
        if self.text is not None and self.text.found is not None and not vouched:
            raise CaseError(
                Reason.BURNED_IN,
                "found an image that no rule clears and that was not searched, expected one that was: run builder "
                "find-text, or decide about it",
            )
        return _outside(rule, verdict, source)

    def _searched(self, rule: Rule, found: Sequence[Sequence[int]], source: Dataset) -> PixelVerdict:
        """Judge an image by the rectangles that were found in it; none of them where nothing was."""
        risk, boxes = pixel_risk(source), rule.boxes(size_of(source))
        if risk in STOPPING:
            return judge_pixels(source, deid=self.deid)  # which refuses it
        if self.text is None or (found and self.text.found == "queue"):
            raise CaseError(Reason.BURNED_IN, "found text in the pixels, expected a decision about it")
        if not found and waits(risk, self.text) and not boxes:
            self._check_vouched(source, risk)
        return _outside(rule, self._blanking([*boxes, *found], source), source)

    def _check_vouched(self, source: Dataset, risk: Risk | None) -> None:
        """Let an image through in which nothing was found if the spec vouches for it. Raises CaseError otherwise."""
        try:
            judge_pixels(source, deid=self.deid)
        except CaseError:
            why = risk.value if risk else "may show text"
            raise CaseError(
                Reason.BURNED_IN, f"found an image that {why} and no text in it, expected a person's look"
            ) from None


def _outside(rule: Rule, verdict: PixelVerdict, source: Dataset) -> PixelVerdict:
    return replace(verdict, regions=stated_regions(source)) if rule.action == "outside_regions" else verdict


def waits(risk: Risk | None, text: TextOptions) -> bool:
    """Return whether a person looks at an image in which nothing was found."""
    return risk is Risk.DECLARED or (risk is not None and text.nothing_found == "queue")


def size_of(source: Dataset) -> tuple[int, int]:
    """Return the rows and columns that a header states; 0 where it states none."""
    return int(source.get("Rows") or 0), int(source.get("Columns") or 0)
