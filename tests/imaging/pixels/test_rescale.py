"""A rescale is used only if it is stated whole, with numbers that keep values apart (PS3.3 C.11.1.1)."""

from typing import Any

import pytest

from builder.decode.format import PixelFormat
from builder.errors import CaseError, Reason
from builder.imaging.pixels.rescale import Rescale, check_alike, linear_rescale, padding_range


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [("0", "-1024"), (0.0, 0.0), ("nan", "0"), ("1", "inf"), ("one", "0"), ("1", None), ("", "-1024")],
)
def test_a_rescale_of_no_use_is_refused(slope: Any, intercept: Any) -> None:
    with pytest.raises(CaseError) as caught:
        linear_rescale(slope, intercept, "HU")
    assert caught.value.reason is Reason.INCONSISTENT_PIXELS


def test_an_absent_rescale_is_none_and_a_stated_one_is_kept() -> None:
    absent, stated = linear_rescale(None, "", "US"), linear_rescale("-2", "-1024", " HU ")
    assert absent.same(Rescale())
    assert not absent.stated
    assert (absent.kind, stated.kind) == ("US", "HU")
    assert stated.same(Rescale(-2.0, -1024.0, stated=True))
    assert not stated.same(absent)


def test_images_without_a_rescale_join_only_those_that_rescale_nothing() -> None:
    silent, same, other = Rescale(), linear_rescale(1, 0, None), linear_rescale(1, -1024, "HU")
    for alike in ([], [silent, silent], [silent, same], [other, other], [same, other]):
        check_alike(alike)
    for unlike in ([silent, other], [other, same, silent]):
        with pytest.raises(CaseError, match="found 1 of"):
            check_alike(unlike)


@pytest.mark.parametrize(
    ("value", "limit", "signed", "found"),
    [(-2000, None, True, (-2000, -2000)), (-2000, -1000, True, (-2000, -1000)), (-1000, -2000, True, (-2000, -1000)),
     (63536, None, True, (-2000, -2000)), (-2000, None, False, (63536, 63536)), (None, -1000, True, None),
     ("", None, True, None)],
)  # fmt: skip
def test_padding_is_a_value_or_a_range_with_the_sign_of_the_pixels(
    value: Any, limit: Any, signed: bool, found: tuple[int, int] | None
) -> None:
    form = PixelFormat("1.2.840.10008.1.2.1", 4, 4, 1, 1, "MONOCHROME2", 0, 16, 16, 15, signed)
    assert padding_range(value, limit, form) == found
