"""Look for faces in the images of the cohort, in tasks, before shards or released objects are planned."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from builder.cohort import Cohort, bare_image
from builder.decode.format import NATIVE
from builder.defacers.found import FoundFaces, Seen, decisions_table, found_table, parse_decisions, parse_found
from builder.deid import Deid
from builder.errors import SpecError, counted
from builder.model.canonical import fingerprint
from builder.model.tables import INSTANCES, used_rows
from builder.planning.inputs import PlanInputs
from builder.planning.members import members
from builder.planning.rows import Placed as Place
from builder.planning.rows import rows_of
from builder.plugins import distribution_of
from builder.protocols import Progress
from builder.stages.boundary import Faults
from builder.stages.faces import (
    VERSION,
    FacesArgument,
    Placed,
    group_bytes,
    group_path,
    look_for_faces,
    looked_path,
    picture_path,
    removal_path,
)
from builder.stages.graph import Runner, Task
from builder.storage import Store, read_at

FACES = "faces"
"""Folder of a private workspace with the faces that were found."""
TABLE = "found.csv"
DECISIONS = "decisions.csv"
"""Where ``builder view`` writes decisions if the spec names no table of its own."""
ASKED = "asked.json"
"""How the last plan wanted to go by the table: ``faces``, ``review`` and the place of decisions."""
WITH_FACES = ("CT", "MR", "PT", "", None)
"""Modalities whose images may show a face; an image file may state none."""
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Stack:
    """What the search needs of a row of the cohort; columns as in SERIES and STACKS."""

    stack_key: str
    person_key: str
    study_key: str
    frame_of_reference_key: str | None
    modality: str | None
    chunk: int
    series_uid: str
    holders: Sequence[int]
    frame_lists: Sequence[Sequence[int]] | None

    @property
    def node(self) -> tuple[str, str, str]:
        """Images with the same lie in the same place: a frame of reference of one study, or the image alone."""
        return self.person_key, self.study_key, self.frame_of_reference_key or self.stack_key


def find_faces(inputs: PlanInputs, cohort: pa.Table, runner: Runner, faults: Faults) -> FoundFaces:
    """Search the images that cases use, write the table of what was found, and read what people decided.

    Images that were searched before, alone or with the same others, are not read again. What is left of others goes.

    Raises
    ------
    SpecError
        If a line of the table of decisions is none.
    """
    spec, store = inputs.spec, inputs.private.join(FACES)
    if spec.deid.faces == "keep":
        return FoundFaces()
    tasks = _tasks(inputs, used_rows(cohort), store, faults)
    seen: list[Seen] = []
    for outcome in inputs.progress.track(runner.run(tasks), stage="faces", total=len(tasks)):
        faults.add(outcome.value.internal_errors)
        seen += outcome.value.seen
    store.put(TABLE, found_table(seen))
    place = decisions_place(spec.deid, store)
    asked = {"faces": spec.deid.faces, "review": spec.deid.face_review, "decisions": place}
    store.put(ASKED, json.dumps(asked).encode())
    _forget_others(store, [task.argument.group for task in tasks], seen)
    found = read_faces(store, spec.deid)
    _tell(found, inputs.progress)
    return found


def decisions_place(deid: Deid, store: Store) -> str:
    """Return where decisions are: the table that the spec names, or one in the private workspace."""
    return deid.face_decisions or f"{store.url}/{DECISIONS}"


def read_faces(store: Store, deid: Deid) -> FoundFaces:
    """Read the table of what was found, what goes, and what people decided."""
    seen = parse_found(store.read(TABLE))
    try:
        decisions = parse_decisions(read_at(decisions_place(deid, store)))
    except (FileNotFoundError, IsADirectoryError):
        if deid.face_decisions:
            raise SpecError(
                "deid.face_decisions: found no file there, expected a table of decisions; check the path"
            ) from None
        decisions = {}
    found = FoundFaces(seen, decisions, {}, deid.faces, deid.face_review)
    wanted = {one.removal for one in seen.values() if one.removal and found.of(one.stack) == one.removal}
    removals = {digest: store.read(removal_path(digest)) for digest in sorted(wanted)}
    return FoundFaces(seen, decisions, removals, deid.faces, deid.face_review)


def _tell(found: FoundFaces, progress: Progress) -> None:
    said = [(one, found.of(stack)) for stack, one in found.seen.items()]
    heads = sum(one.is_head for one, _ in said)
    gone = sum(bool(one.removal) and outcome == one.removal for one, outcome in said)
    doubtful = sum(bool(one.doubt) for one, _ in said)
    progress.say(
        f"faces: {counted(len(said), 'image')} searched, {heads} of heads, {gone} of which lose a face; "
        f"{doubtful} doubtful, {found.waiting} wait for a decision"
    )


def _tasks(inputs: PlanInputs, used: pa.Table, store: Store, faults: Faults) -> list[Task]:
    """Write the groups that are not there yet, and return a task for each."""
    spec = inputs.spec
    stacks = {stack.stack_key: stack for stack in rows_of(used, Stack)}
    groups = [*groups_of(stacks, used, spec.cohort)]
    rows = _rows(inputs, [stacks[one.stack] for group in groups for one in group])
    method = spec.deid.defacer
    how = (VERSION, method.VERSION, distribution_of(method), method.model_dump(mode="json"))
    options = spec.volumes.model_dump(mode="json")
    lane = min((source.lane for source in spec.sources if source.lane), default="")
    names = ("sop_instance_uid", "header_sha256", "content_sha256", "size", "stamp")
    tasks = []
    for group in groups:
        table = pa.concat_tables([rows[one.stack] for one in group]).combine_chunks()
        known = [table.column(name).to_pylist() for name in names]
        placed = [[one.stack, list(one.matrix), [list(own) for own in one.frames]] for one in group]
        name = fingerprint(*how, options, placed, known)
        if not store.exists(group_path(name)):
            store.put(group_path(name), group_bytes(table, group))
        argument = FacesArgument(store.url, name, spec.sources, spec.volumes, method, faults.action)
        sizes = [sum(rows[one.stack].column("size").to_pylist()) for one in group]
        syntaxes = zip(*(table.column(c).to_pylist() for c in ("format", "transfer_syntax_uid")), strict=True)
        deadly = any(form == "dicom" and syntax not in NATIVE for form, syntax in syntaxes)
        task = Task(
            f"faces-{name}", look_for_faces, argument, lane=lane, memory=6 * max(sizes, default=0), deadly=deadly
        )
        tasks.append(task)
    return tasks


def _rows(inputs: PlanInputs, stacks: Sequence[Stack]) -> dict[str, pa.Table]:
    """Return the rows of INSTANCES of each stack, with its keyed name in front."""
    wanted: dict[int, list[tuple[int, Place]]] = {}
    for number, stack in enumerate(stacks):
        place = Place(stack.chunk, stack.series_uid, stack.holders, None)
        wanted.setdefault(stack.chunk, []).append((number, place))
    found = {}
    for chunk, held in sorted(wanted.items()):
        for number, table in members(inputs.inventory, inputs.survey, chunk=chunk, wanted=held):
            name = stacks[number].stack_key
            table = table.select(INSTANCES.names)
            found[name] = table.add_column(0, "stack", pa.array([name] * table.num_rows, pa.string()))
    return found


def groups_of(stacks: Mapping[str, Stack], used: pa.Table, cohort: Cohort) -> Iterator[tuple[Placed, ...]]:
    """Yield the images that lie in the same place, those of a case that a registration places there among them."""
    nodes: dict[tuple[str, str, str], list[Stack]] = defaultdict(list)
    for stack in stacks.values():
        if stack.modality in WITH_FACES:
            nodes[stack.node].append(stack)
    ways: dict[tuple[str, str, str], list[tuple[tuple[str, str, str], _Matrix]]] = defaultdict(list)
    moved = set()
    for home, other, matrix in _registered(stacks, used, cohort):
        if home.node != other.node:
            ways[home.node].append((other.node, matrix))
            ways[other.node].append((home.node, np.asarray(np.linalg.inv(matrix), np.float64)))
            moved.add(other.node)
    placed: dict[tuple[str, str, str], _Matrix] = {}
    for start in sorted(nodes, key=lambda node: (node in moved, node)):
        if start in placed:
            continue
        group, waiting = [], [(start, np.eye(4))]
        while waiting:
            node, matrix = waiting.pop(0)
            if node not in placed:
                placed[node] = matrix
                group.append(node)
                waiting += [(to, matrix @ way) for to, way in sorted(ways[node], key=lambda pair: pair[0])]
        found = [_placed(stack, placed[node]) for node in group for stack in nodes.get(node, ())]
        yield tuple(sorted(found, key=lambda one: one.stack))


def _placed(stack: Stack, matrix: _Matrix) -> Placed:
    frames = tuple(tuple(own) for own in stack.frame_lists or ())
    return Placed(stack.stack_key, stack.series_uid, tuple(float(n) for n in matrix.reshape(-1)), frames)


def _registered(stacks: Mapping[str, Stack], used: pa.Table, cohort: Cohort) -> Iterator[tuple[Stack, Stack, _Matrix]]:
    """Yield pairs of images of a case with the matrix from the frame of the second to that of the first.

    An image that a registrar places while it is built lies nowhere yet, and is judged for itself.
    """
    if not cohort.images:
        return
    members_of = cohort.members
    for row in used.filter(used["included"]).select(["stack_key", "partners"]).to_pylist():
        names = {cohort.reference: row["stack_key"], **{p["image"]: p["stack_key"] for p in row["partners"]}}
        for partner in row["partners"]:
            name = partner["image"]
            visit = name.rpartition(".")[0]
            lead = next(own for own in names if own.rpartition(".")[0] == visit)
            options = members_of[name]
            reference, other = stacks[row["stack_key"]], stacks[partner["stack_key"]]
            same = reference.frame_of_reference_key == other.frame_of_reference_key is not None
            if options.registrar is not None or (lead != name and members_of[lead].registrar is not None):
                continue
            if partner["matrix"]:
                yield reference, other, np.reshape(partner["matrix"], (4, 4))
            elif same:
                yield reference, other, np.eye(4)
            elif cohort.images[bare_image(name)].aligned in ("grid", "assumed"):
                home = stacks[names[lead]] if lead != name else reference
                yield home, other, np.eye(4)


def forget_decisions(store: Store) -> None:
    """Leave in the private table of decisions what is about images that were searched last."""
    if store.exists(TABLE) and store.exists(DECISIONS):
        known = {name for one in parse_found(store.read(TABLE)).values() for name in (one.stack, one.series)}
        decided = parse_decisions(store.read(DECISIONS))
        store.put(DECISIONS, decisions_table([pair for pair in decided.items() if pair[0] in known], {}))


def _forget_others(store: Store, groups: Sequence[str], seen: Sequence[Seen]) -> None:
    """Delete what other plans left: pictures and masks of heads that nobody uses any more."""
    kept = {path(name) for name in groups for path in (group_path, looked_path)}
    kept |= {removal_path(one.removal) for one in seen if one.removal} | {picture_path(one.stack) for one in seen}
    for path in list(store.list()):
        if "/" in path and path not in kept:
            store.delete(path)
