"""Find images that the archive holds twice, as DICOM and as another file, and leave one of them out as a duplicate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from builder.errors import counted
from builder.model.canonical import fingerprint
from builder.model.parquet import parquet_bytes
from builder.plan import IMAGE_ROLE
from builder.planning.inventory import Inventory, Survey
from builder.planning.members import members
from builder.planning.rows import Placed, rows_of
from builder.protocols import Progress
from builder.sources import layout_in
from builder.spec import DatasetSpec
from builder.stages.graph import Runner, Task
from builder.stages.twin import TWINS, Signature, TwinArgument, parse_signature, run_twin

ALIKE_SPACING = 0.01
"""Largest relative difference of the spacing of two images that are compared."""


@dataclass(frozen=True)
class Image:
    """What is compared of a stack before its voxels are read; columns as in STACKS."""

    series_uid: str
    stack: int
    chunk: int
    format: str
    slices: int
    rows: int
    columns: int
    spacing_slice_mm: float | None
    spacing_row_mm: float | None
    spacing_column_mm: float | None
    holders: Sequence[int]
    frame_lists: Sequence[Sequence[int]] | None

    @property
    def spacing(self) -> list[float]:
        """Return the spacing along the axes, the shortest axis in voxels first."""
        counts = (self.slices, self.rows, self.columns)
        spacing = (self.spacing_slice_mm, self.spacing_row_mm, self.spacing_column_mm)
        return [mm for _, mm in sorted((count, mm or 0.0) for count, mm in zip(counts, spacing, strict=True))]


def leave_out_twins(
    inventory: Inventory, survey: Survey, spec: DatasetSpec, *, runner: Runner, progress: Progress
) -> Survey:
    """Compare images of one grid that are DICOM with those that are not, and mark one of each pair as a duplicate.

    ``cohort.twins`` says which. Only images whose grid occurs in both kinds are read, and each of them once.
    """
    if spec.cohort.twins == "keep" or not any(map(layout_in, spec.sources)):
        return survey
    stacks = survey.stacks()
    usable = pc.and_(pc.is_null(stacks["usable_reason"]), pc.is_valid(stacks["orientation"]))
    images = rows_of(stacks.filter(usable), Image)
    pairs = _candidates(images)
    wanted = sorted({n for pair in pairs for n in pair})
    if not wanted:
        return survey
    arguments = _arguments(inventory, survey, spec, images, wanted)
    lane = min((source.lane for source in spec.sources if source.lane), default="")
    tasks = [Task(f"twin-{n:05d}", run_twin, argument, lane=lane) for n, argument in arguments.items()]
    for _ in progress.track(runner.run(tasks), stage="twins", total=len(tasks)):
        pass
    signatures = {n: parse_signature(inventory.store.read(a.signature)) for n, a in arguments.items()}
    found = {}
    for dicom, other in pairs:
        if _are_twins(signatures.get(dicom), signatures.get(other)):
            left, kept = (other, dicom) if spec.cohort.twins == "dicom" else (dicom, other)
            name = (images[left].series_uid, images[left].stack)
            found[name] = f"the same image is used as {images[kept].format} (cohort.twins)"
    if found:
        progress.say(
            f"twins: {counted(len(found), 'image is', 'images are')} in the archive as DICOM and as another file; "
            f"{'the DICOM is' if spec.cohort.twins == 'dicom' else 'the other files are'} used (cohort.twins)"
        )
    return replace(survey, twins=found)


def _are_twins(one: Signature | None, other: Signature | None) -> bool:
    return one is not None and other is not None and one.is_twin_of(other)


def _candidates(images: Sequence[Image]) -> list[tuple[int, int]]:
    """Return pairs of a DICOM image and another file on grids of one size, whatever the order of their axes."""
    by_size: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
    for n, image in enumerate(images):
        size = tuple(sorted((image.slices, image.rows, image.columns)))
        by_size.setdefault(size, ([], []))[int(image.format != "dicom")].append(n)
    return [
        (dicom, other)
        for dicoms, others in by_size.values()
        for dicom in dicoms
        for other in others
        if np.allclose(images[dicom].spacing, images[other].spacing, rtol=ALIKE_SPACING)
    ]


def _arguments(
    inventory: Inventory, survey: Survey, spec: DatasetSpec, images: Sequence[Image], wanted: Sequence[int]
) -> dict[int, TwinArgument]:
    """Store the rows of the wanted images, and return what their tasks need."""
    by_chunk: dict[int, list[tuple[int, Placed]]] = {}
    for n in wanted:
        place = Placed(images[n].chunk, images[n].series_uid, images[n].holders, None)
        by_chunk.setdefault(place.chunk, []).append((n, place))
    options = spec.volumes.model_dump(mode="json")
    arguments = {}
    for chunk, held in sorted(by_chunk.items()):
        for n, rows in members(inventory, survey, chunk=chunk, wanted=held):
            frames = images[n].frame_lists or ()
            known = rows.select(["sop_instance_uid", "header_sha256", "content_sha256", "size"]).to_pylist()
            name = f"{TWINS}/{fingerprint(known, frames, options)}"
            rows = rows.add_column(0, "role", [[IMAGE_ROLE] * rows.num_rows])
            inventory.store.put(f"{name}.parquet", parquet_bytes(rows, compression="lz4"))
            arguments[n] = TwinArgument(
                store=inventory.store.url, rows=f"{name}.parquet", signature=f"{name}.json",
                frames=tuple(tuple(f) for f in frames), sources=tuple(spec.sources), volumes=spec.volumes,
            )  # fmt: skip
    return arguments
