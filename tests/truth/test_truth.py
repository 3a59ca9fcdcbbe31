"""More than a hundred drawn cases, the same ones every time; ``make truth`` draws many thousands anew."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.truth import campaign
from tests.truth.campaign import FAMILIES, FIRST, Found, batches, draw_case, faults, try_cases
from tests.truth.chooser import replayed
from tests.truth.found import FOUND
from tests.truth.images import Case
from tests.truth.oracle import planes

pytestmark = pytest.mark.filterwarnings("ignore")

CASES = {"images": 60, "times": 18, "contours": 22, "segments": 20, "files": 20}


@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_cases_are_right_or_refused(family: str, tmp_path: Path) -> None:
    archives = []

    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(batches(CASES[family], [family]))
    def draw(batch: tuple[str, list[Case]]) -> None:
        archives.append(batch[1])

    draw()
    assert try_cases(family, archives[-1], tmp_path / "batch") == []  # the first archive is the plainest


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_found_once_stays_mended(family: str, tmp_path: Path) -> None:
    mine = [(kind, choices) for kind, choices in FOUND if campaign.family_of(kind) == family]
    cases = [draw_case(kind, FIRST + n, replayed(choices)) for n, (kind, choices) in enumerate(mine)]
    assert try_cases(family, cases, tmp_path / "batch") == []


def published(case: Case) -> Found:
    """The right volume of a case, made from its files by the oracle."""
    known = planes(case.files)
    stack = [known[frame] for frame in case.right[0].channels[0]]
    affine = np.eye(4)
    step = stack[1].origin - stack[0].origin
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = step, stack[0].down, stack[0].along, stack[0].origin
    return Found(np.stack([plane.values for plane in stack])[None], affine[:3], "HU")


def judged(case: Case, found: Found) -> list[str]:
    return list(faults(case, campaign.Outcome([found], [found])))


def test_the_judge_sees_what_is_wrong() -> None:
    case = draw_case("order", FIRST, replayed(()))
    right = published(case)
    assert judged(case, right) == []
    voxels, affine = right.voxels, right.affine
    off = np.eye(4)
    off[:3, 3] = (0.0, 0.0, 1.0)
    wrong = {
        "one value": Found(
            np.where(np.arange(voxels.size).reshape(voxels.shape) == 7, 1.0, 0.0) + voxels, affine, "HU"
        ),
        "slices in reverse": Found(voxels[:, ::-1], affine, "HU"),
        "two slices swapped": Found(voxels[:, [1, 0, *range(2, voxels.shape[1])]], affine, "HU"),
        "a slice lost": Found(voxels[:, :-1], affine, "HU"),
        "transposed": Found(voxels.swapaxes(2, 3), affine, "HU"),
        "another place": Found(voxels, (off @ np.vstack([affine, [0, 0, 0, 1]]))[:3], "HU"),
        "twice the gap": Found(voxels, affine * np.array([2.0, 1.0, 1.0, 1.0]), "HU"),
        "two channels": Found(np.concatenate([voxels, voxels]), affine, "HU"),
        "SUV": Found(voxels, affine, "SUVbw"),
    }
    assert [name for name, found in wrong.items() if not judged(case, found)] == []
    nothing = list(faults(case, campaign.Outcome()))
    assert nothing == ["REFUSED though it is sound: {}"]
    lost = list(faults(case, campaign.Outcome([right], [])))
    assert lost[0].startswith("WAYS differ")


def test_the_judge_sees_a_wrong_label() -> None:
    case = draw_case("segments", FIRST, replayed(()))
    assert case.label is not None
    right = published(case)
    mask = case.label[0].copy()
    assert judged(case, replace_mask(right, mask)) == []
    mask[tuple(np.argwhere(mask)[0])] = False
    assert "label" in judged(case, replace_mask(right, mask))[0]
    assert "without its label" in judged(case, right)[0]


def replace_mask(found: Found, mask: np.ndarray) -> Found:
    return Found(found.voxels, found.affine, found.domain, mask)
