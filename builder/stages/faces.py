"""Look for faces in the images that lie in the same place, in one task: what of each would go, with a picture of it."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from builder.defacers import DefacerBlock
from builder.defacers.cells import united, without
from builder.defacers.defacing import Defacing, find_face
from builder.defacers.found import Seen
from builder.defacers.heads import Verdict
from builder.defacers.pictures import picture_of
from builder.defacers.removal import Removal
from builder.deid.pixels import shows_face
from builder.errors import Reason
from builder.imaging.filed import assemble_filed, filed_parts, filed_rows, filed_stack, is_filed
from builder.imaging.parse import parse_instance
from builder.imaging.rows import dataset_of
from builder.imaging.stacks.axes import stacks_for
from builder.imaging.stacks.options import VolumeOptions, admit
from builder.imaging.volume import assemble
from builder.model.case import ValueDomain, Volume
from builder.model.geometry import Geometry
from builder.model.parquet import parquet_bytes, read_parquet
from builder.sources import AnySource
from builder.stages.boundary import Faults, InternalError, OnInternalError, describe, fault_of_case
from builder.stages.listed import Listed, bring, read_object
from builder.storage import Store, checkpoint, open_store

VERSION = 1
"""Increased when the same images would be judged in another way for a reason that no defacer's VERSION covers."""

NOT_JUDGED = "not judged"
"""Verdict on images that could not be read."""
_FACTS = b"face_group"
_PICTURES = (ValueDomain.RGB, ValueDomain.MIXED)


@dataclass(frozen=True)
class Placed:
    """A stack of a group: its keyed name, its series, where it lies, and the frames of an object that holds several.

    ``matrix`` has 16 numbers, row by row: from LPS mm of its own frame of reference to LPS mm of the group.
    """

    stack: str
    series: str
    matrix: tuple[float, ...]
    frames: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class FacesArgument:
    """Where the private store of faces is, and which group of images to look at and how."""

    store: str
    group: str
    sources: tuple[AnySource, ...]
    volumes: VolumeOptions
    defacer: DefacerBlock
    on_internal_error: OnInternalError = "exclude"


@dataclass(frozen=True)
class Looked:
    """What a task tells."""

    seen: tuple[Seen, ...]
    resumed: bool = False
    internal_errors: tuple[InternalError, ...] = ()


def group_bytes(rows: pa.Table, members: Sequence[Placed]) -> bytes:
    """Return a group as a file: rows of INSTANCES with their ``stack`` in front, and where each stack lies."""
    facts = json.dumps([asdict(one) for one in members]).encode()
    return parquet_bytes(rows.replace_schema_metadata({_FACTS: facts}), compression="lz4")


def group_path(group: str) -> str:
    """Return the path of a group in the store of faces."""
    return f"groups/{group}.parquet"


def looked_path(group: str) -> str:
    """Return the path of what was found in a group."""
    return f"looked/{group}.json"


def removal_path(digest: str) -> str:
    """Return the path of what goes out of an image."""
    return f"removals/{digest}"


def picture_path(stack: str) -> str:
    """Return the path of the picture of a head."""
    return f"pictures/{stack}.png"


def look_for_faces(argument: FacesArgument) -> Looked:
    """Look at the images of a group unless that is done already. It is safe to run this again."""
    store = open_store(argument.store, directory_mode=0o700)
    try:
        return Looked(parse_looked(store.read(looked_path(argument.group))), resumed=True)
    except FileNotFoundError:
        pass
    table = read_parquet(store.read(group_path(argument.group)))
    members = [_placed(fields) for fields in json.loads(table.schema.metadata[_FACTS])]
    bring(table, argument.sources)
    errors: list[InternalError] = []
    faults = Faults(argument.on_internal_error, errors.append)
    found = {one.stack: _judged(one, table, argument, faults) for one in members}
    seen = tuple(_together(members, found, store))
    checkpoint("faces.looked")
    if not errors:  # the fault may be mended before the next run
        store.put(looked_path(argument.group), json.dumps([asdict(one) for one in seen]).encode())
    return Looked(seen, internal_errors=tuple(errors))


def parse_looked(data: bytes) -> tuple[Seen, ...]:
    """Read what a task found."""
    return tuple(Seen(**fields) for fields in json.loads(data))


def _placed(fields: Mapping[str, Any]) -> Placed:
    frames = tuple(tuple(own) for own in fields["frames"])
    return Placed(fields["stack"], fields["series"], tuple(fields["matrix"]), frames)


@dataclass(frozen=True, eq=False)
class _Part:
    """What was found in one volume of a stack, and the grid of the group that it lies on."""

    found: Defacing
    grid: Geometry


def _judged(one: Placed, table: pa.Table, argument: FacesArgument, faults: Faults) -> list[_Part] | str:
    """Return what the volumes of a stack show, or why nobody knows."""
    stacks = table.column("stack").to_pylist()
    rows = table.filter(pa.array([stack == one.stack for stack in stacks]))
    matrix = np.reshape(one.matrix, (4, 4))
    try:
        parts = []
        for volume, told in _volumes(rows, one, argument):
            placed = replace(volume.geometry, affine=matrix @ volume.geometry.affine)
            found = Defacing(Verdict.NO_HEAD)
            if volume.domain not in _PICTURES:
                found = find_face(replace(volume, geometry=placed), argument.defacer, told=told)
            parts.append(_Part(found, placed))
        return parts
    except Exception as error:  # noqa: BLE001 - the case boundary
        fault = fault_of_case(error, on_internal_error=faults.action)
        if fault.reason == Reason.INTERNAL_ERROR:
            faults.add([describe(error, one.stack)])
        return f"the images could not be read: {fault.detail}"


def _volumes(rows: pa.Table, one: Placed, argument: FacesArgument) -> Iterator[tuple[Volume, bool]]:
    """Yield each volume that the objects of a stack hold, and whether a header calls it one of the head."""
    listed = [Listed.of(row) for row in rows.to_pylist()]
    if is_filed(listed[0].format):
        files = tuple(read_object(place, argument.sources) for place in listed)
        own = filed_rows(rows)
        number = one.frames[0][0] if one.frames else 0
        stack = filed_parts(filed_stack(own), argument.volumes)[number][0]
        (facts,) = (row for row in own if row.file_facts is not None)
        told = shows_face(dataset_of(rows.slice(0, 1).to_pylist()[0]))
        point = number if one.frames else None
        yield assemble_filed(stack, files, facts, argument.volumes, part=point, number_type=""), told
        return
    datasets = [parse_instance(read_object(place, argument.sources)) for place in listed]
    told = any(shows_face(dataset) for dataset in datasets)
    for stack in stacks_for(rows, argument.volumes):
        for part in admit(stack, argument.volumes):
            yield assemble(part, datasets, argument.volumes), told


def _together(members: Sequence[Placed], found: Mapping[str, list[_Part] | str], store: Store) -> Iterator[Seen]:
    """Write what goes out of each stack, and a picture of each head. All lose the same cells, and no brain of any."""
    parts = [part for own in found.values() if not isinstance(own, str) for part in own]
    brain = united(part.found.brain for part in parts)
    cells = without(united(part.found.gone for part in parts), brain)
    for one in members:
        own = found[one.stack]
        if isinstance(own, str):
            yield Seen(one.stack, one.series, NOT_JUDGED, own)
            continue
        gone = [cells.within(part.grid) for part in own]
        taken = sum(int(mask.sum()) for mask in gone)
        lost = sum(int((mask & brain.within(part.grid)).sum()) for mask, part in zip(gone, own, strict=True))
        removal = ""
        if taken:
            made = Removal(cells, united(part.found.surface for part in own), np.reshape(one.matrix, (4, 4)))
            removal = made.digest
            store.put(removal_path(removal), made.to_bytes())
        lead = next((p for p in own if p.found.verdict == Verdict.FACE), own[0])
        seen = Seen(
            one.stack, one.series, lead.found.verdict.value,
            next((part.found.doubt for part in own if part.found.doubt), ""),
            removal, sum(mask.size for mask in gone), taken, lost, lead.found.figures,
        )  # fmt: skip
        if seen.is_head and lead.found.scene is not None:
            sink = io.BytesIO()
            Image.fromarray(picture_of(lead.found.scene, cells)).save(sink, format="PNG")
            store.put(picture_path(one.stack), sink.getvalue())
        yield seen
