"""Read a case's labels on the image's grid with their evidence, prove them, and fuse them if the spec asks for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pydicom.dataset import Dataset

from builder.deid.gate import Gate
from builder.deid.uids import UidMap
from builder.errors import CaseError, Reason
from builder.headers.boundary import elements_as
from builder.labels import AnyLabel
from builder.labels.evidence import Observed, merge, observe, settle
from builder.labels.fusion import Consensus
from builder.labels.pictures import draw_labels
from builder.labels.proof import Body, Proof
from builder.model.case import Annotation, Boxes, Case, Landmarks, Mask, Reading, Volume
from builder.plan import CasePlan
from builder.protocols import ImageFacts, LabelObject
from builder.spec import DatasetSpec

CASE_FACTS = pa.schema(
    [
        ("measure_names", pa.list_(pa.string())),
        ("measure_values", pa.list_(pa.float64())),
        ("evidence_labels", pa.list_(pa.string())),
        ("evidence_tiers", pa.list_(pa.string())),
        ("evidence_readers", pa.list_(pa.string())),
        ("evidence_tools", pa.list_(pa.string())),
        ("evidence_times", pa.list_(pa.string())),
        ("reading_labels", pa.list_(pa.string())),
        ("reading_readers", pa.list_(pa.string())),
        ("reading_quantities", pa.list_(pa.string())),
        ("reading_values", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("findings", pa.list_(pa.string())),
    ]
)
"""Columns that every sample repeats from its case: measures and evidence of its labels, each reader's statements, codes
about its volume, and what is implausible about it."""


@dataclass(frozen=True)
class Labelled:
    """A case's annotations, and what each reader stated about the items a consensus fuses (by consensus name)."""

    annotations: tuple[Annotation, ...]
    readings: Mapping[str, tuple[Reading, ...]]


@dataclass(frozen=True)
class Reads:
    """How to read labels according to the spec; the same for every case.

    Parameters
    ----------
    required
        ``required``: a case must have all labels. ``optional``: missing labels become masks without a segment.
    """

    labels: Mapping[str, AnyLabel]
    consensus: Mapping[str, Consensus]
    required: str
    uids: UidMap

    def of(self, plan: CasePlan) -> "Reads":
        """Return how to read the labels that are drawn on the image of a plan.

        Labels without objects are those of the reference. Labels that a consensus fuses are all on one image.

        Raises
        ------
        CaseError
            LABEL_AMBIGUOUS if a consensus would fuse labels of several images.
        """
        found = dict(plan.labels_on)
        reference = None if plan.stack_key else plan.image
        homes: dict[str, str | None] = {
            label: found.get(label, reader.on or reference) for label, reader in self.labels.items()
        }
        for name, block in self.consensus.items():
            images = sorted({found[label] for label in block.labels if label in found})
            if len(images) > 1:
                detail = f"consensus {name}: found labels of the images {' and '.join(images)}, expected one image"
                raise CaseError(Reason.LABEL_AMBIGUOUS, f"{detail}: state labels.*.on")
            home = images[0] if images else reference
            homes |= dict.fromkeys((*block.labels, name), home)
        return replace(
            self,
            labels={label: reader for label, reader in self.labels.items() if homes[label] == plan.image},
            consensus={name: block for name, block in self.consensus.items() if homes[name] == plan.image},
        )


def annotate(
    objects: Mapping[str, Sequence[LabelObject]],
    volume: Volume,
    image: ImageFacts,
    reads: Reads,
    *,
    gate: Gate,
    clean: Callable[[LabelObject, AnyLabel], LabelObject],
) -> Labelled:
    """Read the labels of a case from its objects as the archive holds them.

    Parameters
    ----------
    gate
        Judges the tool names that the objects state.
    clean
        De-identifies an object.

    Raises
    ------
    CaseError
        With a label reason. LABEL_UNPROVEN comes with a picture of what failed.
    """
    body = Body(volume)
    found: list[Annotation] = []
    for name, reader in reads.labels.items():
        own = objects.get(name, ()) or ((LabelObject(b""),) if reader.OF_IMAGE else ())
        if not own:
            found.extend(reader.absent(name, image))
            continue
        with elements_as(Reason.LABEL_UNREADABLE):
            seen = _observed(own, gate, reads.uids)
            drawn = reader.read(name, [clean(item, reader) for item in own], image)
        found.extend(_proved(reader.proof, [settle(a, reader.evidence, seen) for a in drawn], volume, body))
    return _fused(found, volume, body, reads)


def case_facts(spec: DatasetSpec) -> pa.Schema:
    """Return the columns that samples repeat from their case: CASE_FACTS, and the grids of fields with one."""
    shapes = [pa.field(f"grid.{name}.shape", pa.list_(pa.int32())) for name in list(spec.image_fields)[1:]]
    affines = [pa.field(f"grid.{name}.affine", pa.list_(pa.float64())) for name in list(spec.image_fields)[1:]]
    return pa.schema([*CASE_FACTS, *shapes, *affines])


def facts_of(case: Case) -> dict[str, list[Any]]:
    """Return a case's values for the columns of ``case_facts``."""
    facts = _own_facts(case)
    for field, other in case.apart.items():
        for name, values in _own_facts(other).items():
            facts[name] = [*facts[name], *values]
        grid = other.volume.geometry
        facts[f"grid.{field}.shape"] = [*grid.shape]
        facts[f"grid.{field}.affine"] = [float(x) for x in grid.affine.ravel()]
    facts["notes"] = sorted(set(facts["notes"]))
    return facts


def _own_facts(case: Case) -> dict[str, list[Any]]:
    """Return the values for CASE_FACTS of what lies on one grid."""
    measures = measures_of(case)
    evidence = {a.name.partition("/")[0]: a.evidence for a in reversed(case.annotations) if not _is_blank(a)}
    said = [(label, r) for label in sorted(case.readings) for r in case.readings[label]]
    stated = [evidence[label] for label in sorted(evidence)]
    return {
        "measure_names": list(measures),
        "measure_values": list(measures.values()),
        "evidence_labels": sorted(evidence),
        "evidence_tiers": [e.tier for e in stated],
        "evidence_readers": ["+".join(e.readers) for e in stated],
        "evidence_tools": [e.tool for e in stated],
        "evidence_times": [e.time for e in stated],
        "reading_labels": [label for label, _ in said],
        "reading_readers": [r.reader for _, r in said],
        "reading_quantities": [r.quantity for _, r in said],
        "reading_values": [_text(r.value) for _, r in said],
        "notes": sorted(case.volume.notes),
        "findings": list(case.volume.findings),
    }


def _fused(found: list[Annotation], volume: Volume, body: Body, reads: Reads) -> Labelled:
    kept: list[Annotation] = list(found)
    readings = {}
    for name, consensus in reads.consensus.items():
        readings[name] = consensus.votes(found)
        fused = consensus.fuse(name, found, volume.geometry)
        kept.extend(_proved(consensus.proof, fused, volume, body))
        if not fused and consensus.fuses_masks(found):
            if reads.required == "required":
                detail = f"consensus {name}: found too few readers, expected {consensus.least}"
                raise CaseError(Reason.LABEL_MISSING, detail)
            kept.extend(consensus.blank(name, found))
    for consensus in reads.consensus.values():
        kept = list(consensus.remaining(kept))
    return Labelled(tuple(kept), {name: said for name, said in readings.items() if said})


def _proved(proof: Proof, drawn: Sequence[Annotation], volume: Volume, body: Body) -> tuple[Annotation, ...]:
    try:
        return proof.prove(drawn, volume, body=body)
    except CaseError as error:
        error.picture = draw_labels(volume, drawn)
        raise


def _observed(objects: Sequence[LabelObject], gate: Gate, uids: UidMap) -> Observed:
    datasets = [item.content for item in objects if isinstance(item.content, Dataset)]
    return merge([observe(d, map_uid=uids, clear=lambda text: gate.text("evidence_tools", text)) for d in datasets])


def measures_of(case: Case) -> dict[str, float]:
    """Return measures by ``<label>/<measure>``, and for masks ``<mask>/<segment>/volume_mm3`` on the final grid."""
    measures: dict[str, float] = {}
    for annotation in case.annotations:
        if isinstance(annotation, Mask | Boxes | Landmarks):
            measures.update({f"{annotation.name}/{name}": float(value) for name, value in annotation.measures.items()})
    for mask in case.masks:
        for segment in mask.segments:
            voxels = int(np.count_nonzero(mask.inside(segment)))
            measures[f"{mask.name}/{segment.name}/volume_mm3"] = round(voxels * mask.geometry.voxel_volume_mm3, 3)
    return dict(sorted(measures.items()))


def _is_blank(annotation: Annotation) -> bool:
    return isinstance(annotation, Mask) and not annotation.segments


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.9g}"
    return None if value is None else str(value)
