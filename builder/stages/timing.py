"""Time the steps of building one case, for ``builder bench build``."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from os import environ

from builder.deid import resolve_key
from builder.errors import CaseError
from builder.patches import cut, describe_fields
from builder.stages.boundary import Faults
from builder.stages.gating import cleared, gate_of
from builder.stages.loading import image_field, load_case, load_image, recipe_of, transformed_set
from builder.stages.opening import opened
from builder.stages.planned import load_plan
from builder.stages.shard import ShardArgument, planned_spec, read_file, shard_writer
from builder.storage import open_store


@dataclass(frozen=True)
class Steps:
    """Seconds that each step of some cases took, run in sequence, and the bytes they processed."""

    cases: int = 0
    load_s: float = 0.0
    transform_s: float = 0.0
    write_s: float = 0.0
    input_bytes: int = 0
    output_bytes: int = 0

    def __add__(self, other: "Steps") -> "Steps":
        return Steps(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def megabytes_per_s(self) -> dict[str, float]:
        """Return 10^6 bytes per second by step: stored bytes for loading, bytes of the result for the others."""
        pairs = (("load", self.input_bytes, self.load_s), ("transform", self.output_bytes, self.transform_s))
        steps = (*pairs, ("write", self.output_bytes, self.write_s))
        return {name: size / seconds / 1e6 for name, size, seconds in steps if seconds > 0}


def measure_case(argument: ShardArgument, clock: Callable[[], float]) -> Steps:
    """Time the steps of the first case of a planned shard by building it alone in ``argument.dataset``."""
    store = open_store(argument.plan, directory_mode=0o700)
    spec = planned_spec(store, argument)
    found = opened(load_plan(store, argument.shard), spec, Faults())
    plan = found.plan
    key = resolve_key(spec.deid.patient_key, environ, read=read_file)
    recipe, gate, marks = recipe_of(spec, key), gate_of(spec), [clock()]
    with shard_writer(plan, spec, open_store(argument.dataset)) as writer:
        try:
            loaded = [load_case(plan, 0, spec, recipe, gate, found.refused)]
            marks.append(clock())
            other = partial(load_image, plan, 0, spec, recipe, gate, None)
            case = transformed_set(loaded.pop, plan.cases[0], spec, recipe, other)
            size = case.volume.voxels.nbytes + sum(mask.voxels.nbytes for mask in case.masks)
            marks.append(clock())
            samples = cut(case, spec.samples, key=key, seed=spec.seed, image=image_field(spec))
            described = describe_fields(case, image=image_field(spec))
            writer.add_case(cleared(samples, case, gate), described=described)
        except CaseError:
            return Steps()
        writer.finish()
    marks.append(clock())
    load, transform, write = (after - before for before, after in pairwise(marks))
    return Steps(1, load, transform, write, plan.cases[0].input_bytes, size)
