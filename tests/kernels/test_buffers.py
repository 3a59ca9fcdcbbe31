"""Memory that is used again: never while anybody sees it, and never more of it than there has to be."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.kernels import buffers
from builder.kernels.buffers import LARGEST, MOST, SMALLEST, borrow, let_go


@pytest.fixture(autouse=True)
def nothing_kept():
    let_go()
    yield
    let_go()


def address(array):
    return array.__array_interface__["data"][0]


def kept():
    return [piece.size for piece in buffers._idle]


def test_an_array_is_like_any_other():
    array = borrow((3, 700, 1100), np.int16)
    assert (array.shape, array.dtype) == ((3, 700, 1100), np.int16)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned
    array[...] = 7
    assert int(array.sum()) == 7 * array.size


def test_memory_comes_back_when_the_last_view_is_gone():
    array = borrow((SMALLEST,), np.uint8)
    place, view = address(array), array[5:].view(np.int8).reshape(-1)[::2]
    memory = memoryview(array)[9:]
    del array
    gc.collect()
    assert kept() == []
    del view
    assert kept() == []
    memory.release()
    assert kept() == [SMALLEST]
    assert address(borrow((SMALLEST // 4,), np.float32)) == place
    assert kept() == [SMALLEST]


def test_a_piece_serves_what_is_a_little_smaller_and_is_let_go_for_anything_else():
    del_me = borrow((5 * SMALLEST // 4,), np.uint8)
    place = address(del_me)
    del del_me
    little = borrow((SMALLEST,), np.uint8)
    assert address(little) == place
    assert little.size == SMALLEST
    del little
    assert kept() == [5 * SMALLEST // 4]
    larger = borrow((5 * SMALLEST // 4 + 1,), np.uint8)
    assert kept() == []
    del larger
    borrow((SMALLEST,), np.uint8)  # too loose a fit for the piece before
    assert kept() == [SMALLEST]


def test_of_several_pieces_one_is_taken_and_the_others_are_let_go():
    several = [borrow((SMALLEST * n,), np.uint8) for n in (1, 2, 4)]
    places = [address(array) for array in several]
    del several
    gc.collect()
    assert len(kept()) == 3
    taken = borrow((SMALLEST * 2,), np.uint8)
    assert address(taken) == places[1]
    assert kept() == []


def test_small_and_huge_arrays_are_not_kept():
    borrow((SMALLEST - 1,), np.uint8)
    assert kept() == []
    borrow((LARGEST + 1,), np.uint8)  # pages that are never touched
    assert kept() == []


def test_a_few_pieces_are_kept_at_most():
    several = [borrow((SMALLEST + n,), np.uint8) for n in range(MOST + 2)]
    del several
    gc.collect()
    assert len(kept()) == MOST


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30))
def test_no_two_arrays_share_memory(steps):
    """Arrays of several sizes come and go in any order; each keeps the number that was written into all of it."""
    held = {}
    for number, (slot, size) in enumerate(steps):
        held.pop(slot, None)
        array = borrow((SMALLEST // 2 + size * 200_000,), np.int16)
        array[...] = number
        held[slot] = (array, number)
        assert all((other == value).all() for other, value in held.values())


def test_threads_get_memory_of_their_own():
    wrong = []

    def work(number):
        for step in range(40):
            array = borrow((SMALLEST + 64 * (step % 3),), np.uint8)
            array[...] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(kept()) <= MOST
