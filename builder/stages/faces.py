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
from builder.defacers.found import NOT_JUDGED, Seen
from builder.defacers.heads import Verdict
from builder.defacers.pictures import picture_of
from builder.defacers.removal import Removal
from builder.deid.pixels import shows_face
from builder.errors import Reason
from builder.imaging.stacks.options import VolumeOptions
from builder.model.case import ValueDomain, Volume
from builder.model.geometry import Geometry
from builder.model.parquet import parquet_bytes, read_parquet
from builder.plan import IMAGE_ROLE, CasePlan
from builder.sources import AnySource
from builder.stages.boundary import Faults, InternalError, OnInternalError, describe, fault_of_case
from builder.stages.fetch import fetch, pixels_of
from builder.stages.listed import bring
from builder.stages.prepare import kinds_of, plain_recipe, read_volume
from builder.storage import Store, checkpoint, open_store

VERSION = 2
"""Increased when the same images would be judged in another way for a reason that no defacer's VERSION covers."""

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
    seen = tuple(together(members, found, store))
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
class Part:
    """What was found in a stack, and the grid of the group that it lies on."""

    found: Defacing
    grid: Geometry


def _judged(one: Placed, table: pa.Table, argument: FacesArgument, faults: Faults) -> Part | str:
    """Return what a stack shows, or why nobody knows."""
    stacks = table.column("stack").to_pylist()
    rows = table.filter(pa.array([stack == one.stack for stack in stacks]))
    try:
        volume, told = _volume(rows, one, argument)
        placed = replace(volume.geometry, affine=np.reshape(one.matrix, (4, 4)) @ volume.geometry.affine)
        if volume.domain in _PICTURES:
            return Part(Defacing(Verdict.NO_HEAD), placed)
        return Part(find_face(replace(volume, geometry=placed), argument.defacer, told=told), placed)
    except Exception as error:  # noqa: BLE001 - the case boundary
        fault = fault_of_case(error, on_internal_error=faults.action)
        if fault.reason == Reason.INTERNAL_ERROR:
            faults.add([describe(error, one.stack)])
        return f"the images could not be read: {fault.detail}"


def _volume(rows: pa.Table, one: Placed, argument: FacesArgument) -> tuple[Volume, bool]:
    """Return a stack as a build reads it, and whether a header calls it one of the head. Raises CaseError."""
    rows = rows.add_column(0, "role", pa.array([IMAGE_ROLE] * rows.num_rows, pa.string()))
    recipe = plain_recipe(argument.volumes)
    objects = fetch(rows, argument.sources, argument.volumes)
    plan = CasePlan("", "", "", 0, 0, 0, 0, frames=one.frames)
    volume = read_volume(plan, objects, recipe, fill=pixels_of(objects.rows, argument.sources, recipe.uids))
    headers = (objects.first, *(objects.images or kinds_of(objects.rows)))
    return volume, any(shows_face(header) for header in headers)


def together(members: Sequence[Placed], found: Mapping[str, Part | str], store: Store) -> Iterator[Seen]:
    """Write what goes out of each stack, and a picture of each head.

    All lose the same cells, and no brain of any. What was found in a doubtful one goes out of that one alone.
    """
    sure = [part.found for part in found.values() if isinstance(part, Part) and not part.found.doubt]
    for one in members:
        part = found[one.stack]
        if isinstance(part, str):
            yield Seen(one.stack, one.series, NOT_JUDGED, part)
            continue
        own = part.found
        judged = [*sure, *([own] if own.doubt else [])]
        brain = united(other.brain for other in judged)
        cells = without(united(other.gone for other in judged), brain)
        gone = cells.within(part.grid)
        removal = ""
        if gone.any():
            made = Removal(cells, own.surface, np.reshape(one.matrix, (4, 4)))
            removal = made.digest
            store.put(removal_path(removal), made.to_bytes())
        lost = int((gone & brain.within(part.grid)).sum())
        seen = Seen(
            one.stack, one.series, own.verdict.value, own.doubt, removal, gone.size, int(gone.sum()), lost, own.figures
        )
        if seen.is_head and own.scene is not None:
            sink = io.BytesIO()
            Image.fromarray(picture_of(own.scene, cells)).save(sink, format="PNG")
            store.put(picture_path(one.stack), sink.getvalue())
        yield seen
