"""Sizes of the structures of each case and the limits that ``clip_percent`` gives it, in a task that writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import environ

from pydantic import PrivateAttr

from builder.deid import resolve_key
from builder.deid.gate import Gate
from builder.errors import CaseError, Reason
from builder.model.case import Case
from builder.model.keyed import Key
from builder.plan import ShardPlan
from builder.spec import DatasetSpec
from builder.stages.annotate import measures_of
from builder.stages.boundary import Faults, InternalError, describe, fault_of_case
from builder.stages.coming import coming
from builder.stages.gating import gates_of
from builder.stages.loading import finished_case, load_case, load_image, recipe_of
from builder.stages.opening import opened
from builder.stages.planned import load_plan
from builder.stages.shard import ShardArgument, convicted_in, planned_spec, read_file
from builder.storage import open_store
from builder.transforms.intensity import Intensity, place_of_percent


@dataclass(frozen=True)
class Measures:
    """What was measured of a case that can be used.

    Parameters
    ----------
    case_key
        Its name.
    sizes
        ``<label>/<structure>/volume_mm3`` on the final grid, among the other measures of its labels.
    limits
        Those of ``clip_percent``; None where the spec has none, or of several images.
    unit
        That of the limits, ``builder.model.case.ValueDomain``.
    """

    case_key: str
    sizes: Mapping[str, float]
    limits: tuple[float, float] | None = None
    unit: str = ""


@dataclass(frozen=True)
class Measured:
    """What a task tells the runner about the cases of a shard."""

    cases: tuple[Measures, ...]
    internal_errors: tuple[InternalError, ...] = ()


def measure_shard(argument: ShardArgument) -> Measured:
    """Do all the work of a shard up to its samples, and keep the measures alone. Cases that cannot be used lack."""
    store = open_store(argument.plan, directory_mode=0o700)
    spec = planned_spec(store, argument)
    errors: list[InternalError] = []
    faults = Faults(argument.on_internal_error, errors.append)
    found = opened(load_plan(store, argument.shard), spec, faults)
    convicted = {**convicted_in(store, argument.shard), **found.refused}
    key = resolve_key(spec.deid.patient_key, environ, read=read_file)
    gates = gates_of(spec, len(found.plan.cases))
    measured = []
    with coming(found.plan.objects, spec.sources) as wait:
        for number, (case, gate) in enumerate(zip(found.plan.cases, gates, strict=True)):
            wait(number)
            try:
                measured.append(_measured(found.plan, number, spec, key, gate, convicted))
            except Exception as error:  # noqa: BLE001 - the case boundary
                fault = fault_of_case(error, on_internal_error=faults.action)
                if fault.reason == Reason.INTERNAL_ERROR:
                    faults.add([describe(error, case.case_key)])
    return Measured(tuple(measured), tuple(errors))


def _measured(
    plan: ShardPlan, number: int, spec: DatasetSpec, key: Key, gate: Gate, convicted: Mapping[str, CaseError]
) -> Measures:
    recipe, case_plan = recipe_of(spec, key), plan.cases[number]
    steps = [*recipe.transforms]
    place = None if spec.cohort.images else place_of_percent(steps)
    if place is not None:
        steps[place] = noting = _Noting.model_validate(steps[place].model_dump())
    recipe = replace(recipe, transforms=tuple(steps))
    case, _ = finished_case(
        partial(load_case, plan, number, spec, recipe, gate, convicted),
        case_plan, spec, recipe, partial(load_image, plan, number, spec, recipe, gate, None),
    )  # fmt: skip
    sizes = measures_of(case)
    return Measures(case_plan.case_key, sizes) if place is None else Measures(case_plan.case_key, sizes, *noting.met[0])


class _Noting(Intensity):
    """The step of a spec, which also notes its limits of a case and the unit of its values."""

    _met: list[tuple[tuple[float, float], str]] = PrivateAttr(default_factory=list)

    @property
    def met(self) -> list[tuple[tuple[float, float], str]]:
        return self._met

    def __call__(self, case: Case) -> Case:
        self._met.append((self.limits(case), case.volume.domain.value))
        return super().__call__(case)
