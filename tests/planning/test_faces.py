"""Which images lie in one place, so that they lose one mask."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from builder.cohort import Cohort
from builder.planning.faces import Stack, groups_of

SHIFT = (1.0, 0.0, 0.0, 4.0, 0.0, 1.0, 0.0, -7.0, 0.0, 0.0, 1.0, 2.5, 0.0, 0.0, 0.0, 1.0)


def stack(name: str, frame: str | None, study: str = "s1", modality: str = "MR") -> Stack:
    return Stack(name, "p", study, frame, modality, 0, f"1.2.{name}", (0,), None)


def used(*cases: Mapping[str, tuple[str, tuple[float, ...]]]) -> pa.Table:
    rows = []
    for case in cases:
        (_, (reference, _)), *others = case.items()
        partners = [{"image": image, "stack_key": key, "matrix": list(matrix)} for image, (key, matrix) in others]
        rows.append({"included": True, "stack_key": reference, "partners": partners})
    return pa.Table.from_pylist(rows)


def cohort(**aligned: str) -> Cohort:
    images = {name: {"select": f"modality == '{name}'", "aligned": how} for name, how in aligned.items()}
    return Cohort.model_validate({"images": images})


def groups(stacks: list[Stack], table: pa.Table, options: Cohort) -> list[dict[str, tuple[float, ...]]]:
    found = groups_of({one.stack_key: one for one in stacks}, table, options)
    return sorted(({one.stack: one.matrix for one in group} for group in found), key=lambda one: sorted(one))


EYE = tuple(np.eye(4).ravel())


def test_images_of_one_frame_and_study_lie_in_one_place() -> None:
    stacks = [stack("a", "f"), stack("b", "f", modality="PT"), stack("c", "f", study="s2"), stack("d", None)]
    stacks += [stack("e", None), stack("x", "f", modality="US")]
    assert groups(stacks, used(), Cohort(image="True")) == [{"a": EYE, "b": EYE}, {"c": EYE}, {"d": EYE}, {"e": EYE}]


def test_a_registration_brings_every_image_of_its_frame() -> None:
    stacks = [stack("ref", "f"), stack("moved", "g"), stack("beside", "g", modality="CT")]
    table = used({"ct": ("ref", ()), "mr": ("moved", SHIFT)})
    (found,) = groups(stacks, table, cohort(ct="frame", mr="registration"))
    assert found == {"ref": EYE, "moved": SHIFT, "beside": SHIFT}


def test_images_on_one_grid_or_assumed_aligned_lie_in_one_place_and_others_do_not() -> None:
    stacks = [stack("ref", "f"), stack("grid", None), stack("guess", "h"), stack("own", "i"), stack("late", "f", "s2")]
    names: dict[str, tuple[str, tuple[float, ...]]] = {
        "ct": ("ref", ()),
        "a": ("grid", ()),
        "b": ("guess", ()),
        "c": ("own", ()),
        "d": ("late", ()),
    }
    options = cohort(ct="frame", a="grid", b="assumed", c="none", d="frame")
    assert groups(stacks, used(names), options) == [
        {"grid": EYE, "guess": EYE, "late": EYE, "ref": EYE},
        {"own": EYE},
    ]


def test_an_image_that_a_registrar_will_place_is_judged_for_itself() -> None:
    options = Cohort.model_validate(
        {
            "images": {
                "ct": {"select": "modality == 'CT'"},
                "mr": {"select": "modality == 'MR'", "aligned": "registration", "registrar": {"kind": "rigid"}},
            }
        }
    )
    table = used({"ct": ("ref", ()), "mr": ("own", ())})
    assert groups([stack("ref", "f"), stack("own", "g")], table, options) == [{"own": EYE}, {"ref": EYE}]
