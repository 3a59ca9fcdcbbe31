"""Windows cover every voxel of a sample with what is there."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.reader import open_dataset
from builder.reader.windows import read_windows, window_starts

extents = st.tuples(*[st.integers(1, 14)] * 3)


@settings(max_examples=100, deadline=None)
@given(whole=extents, shape=extents, data=st.data())
def test_every_voxel_is_covered(whole: Any, shape: Any, data: st.DataObject) -> None:
    shape = tuple(min(n, m) for n, m in zip(shape, whole, strict=True))
    stride: Any = tuple(data.draw(st.integers(1, m)) for m in shape)
    seen = np.zeros(whole, int)
    starts = list(window_starts(whole, shape, stride=stride))
    assert len(set(starts)) == len(starts)
    for start in starts:
        box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        assert seen[box].shape == shape
        seen[box] += 1
    assert seen.min() >= 1


def test_windows_put_together_are_the_sample(volumes: Any) -> None:
    dataset = open_dataset(volumes.root)
    for position, sample in enumerate(volumes.samples):
        for stride in (None, (3, 4, 2)):
            found = {name: np.zeros_like(array) for name, array in sample.arrays.items()}
            for window in read_windows(dataset, position, (5, 6, 4), stride=stride):
                for name, array in window.arrays.items():
                    box = tuple(slice(a, a + n) for a, n in zip(window.start, array.shape[1:], strict=True))
                    found[name][(slice(None), *box)] = array
            for name, array in sample.arrays.items():
                np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(("shape", "stride"), [((2, 2, 2), (3, 1, 1)), ((9, 1, 1), (1, 1, 1)), ((1, 1, 1), (0, 1, 1))])
def test_gaps_are_refused(shape: Any, stride: Any) -> None:
    with pytest.raises(ValueError, match="expected them to fit and to meet"):
        list(window_starts((8, 8, 8), shape, stride=stride))
