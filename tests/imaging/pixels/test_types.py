"""The number type that headers promise holds every value that can be stored, and is the narrowest one."""

import numpy as np
import pytest

from builder.imaging.pixels.types import Projected, narrowest


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [(0, 255, "uint8"), (0, 256, "int16"), (-1, 255, "int16"), (-(2**15), 2**15 - 1, "int16"), (0, 2**15, "uint16"),
     (0, 2**16 - 1, "uint16")],
)  # fmt: skip
def test_the_narrowest_type_that_holds_a_range_is_chosen(low: int, high: int, name: str) -> None:
    assert narrowest(low, high) == Projected(name, sure=True)
    assert np.iinfo(name).min <= low <= high <= np.iinfo(name).max


@pytest.mark.parametrize(("low", "high"), [(-(2**15) - 1, 0), (-1, 2**15), (0, 2**16)])
def test_a_range_that_no_type_holds_is_stored_in_int16_if_its_values_allow(low: int, high: int) -> None:
    assert narrowest(low, high) == Projected("int16", sure=False)
