"""The thread that gets the next step's input ready."""

import threading
import weakref

import pytest

from builder.errors import CaseError, Reason
from builder.stages.ahead import one_ahead


class Loaded:
    """Stands for a volume."""


def test_the_next_is_made_while_this_one_is_used_and_no_further() -> None:
    begun = [threading.Event() for _ in range(4)]
    steps = [lambda n=n: (begun[n].set(), n)[1] for n in range(4)]
    with one_ahead(steps, sizes=[1] * 4, most=1) as pending:
        for number, item in enumerate(pending):
            assert item.take() == number
            if number < 3:
                assert begun[number + 1].wait(10)  # nobody asked for it yet
            assert not any(event.is_set() for event in begun[number + 2 :])


def test_a_large_one_waits_until_it_is_asked_for() -> None:
    begun = threading.Event()
    with one_ahead([lambda: 0, lambda: begun.set()], sizes=[9, 9], most=8) as pending:
        assert next(pending).take() == 0
        assert not begun.wait(0.1)
        next(pending).take()
        assert begun.is_set()


def test_an_error_comes_with_its_own_step_and_spares_the_others() -> None:
    def fail() -> int:
        raise CaseError(Reason.UNREADABLE, "no")

    with one_ahead([lambda: 0, fail, lambda: 2], sizes=[1] * 3, most=1) as pending:
        assert next(pending).take() == 0
        with pytest.raises(CaseError):
            next(pending).take()
        assert next(pending).take() == 2


def test_what_was_taken_is_not_kept() -> None:
    with one_ahead([Loaded, Loaded], sizes=[1, 1], most=1) as pending:
        item = next(pending)
        loaded = item.take()
        gone = weakref.ref(loaded)
        del loaded
        assert gone() is None


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    with one_ahead([lambda: 0] * 5, sizes=[1] * 5, most=1) as pending:
        next(pending).take()
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
