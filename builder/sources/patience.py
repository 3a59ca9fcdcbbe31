"""Ask a server again within a budget of time and tries, because one bad answer says nothing about an object."""

import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from builder.errors import IncompleteError, SourceError

Result = TypeVar("Result")

PATIENCE_S: Final = 180.0
"""Longest time to wait for one answer of a server that is busy, restarting or out of reach."""

BAD_ANSWERS: Final = 4
"""Most tries for one answer when the server answers, and each answer is bad."""

LONGEST_PAUSE_S: Final = 30.0
"""Longest pause that we choose ourselves; a server may ask for a longer one."""


class Fault(Exception):
    """One try failed.

    Parameters
    ----------
    found
        What was found and what was expected, without paths and UIDs.
    answered
        Whether the server answered, badly; otherwise it is busy or out of reach.
    retry_after
        Value of the header of that name: seconds, or a date.
    advice
        What the user can do about it.
    status
        Status of the HTTP answer, if that is what was wrong.
    """

    def __init__(
        self,
        found: str,
        *,
        answered: bool = True,
        retry_after: str | None = None,
        advice: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(found)
        self.found = found
        self.answered = answered
        self.retry_after = retry_after
        self.status = status
        self.advice = advice or (ADVICE_ANSWERED if answered else ADVICE_SILENT)


ADVICE_ANSWERED = "look at the server and at what lies between (proxy, load balancer, disk)"
ADVICE_SILENT = "check that the server runs and that this machine reaches it"
_WAITED = threading.local()
_ENDING = "nothing was published and what came whole is kept: run the same command again"


def persist(call: Callable[[], Result], *, source: str, host: str) -> Result:
    """Return what ``call`` returns, after as many tries as the budget allows.

    Raises
    ------
    IncompleteError
        When the server answers, and its answer was bad ``BAD_ANSWERS`` times.
    SourceError
        When the server was busy or out of reach for ``PATIENCE_S`` seconds, or asks to be left alone for longer.
    """
    began, paused, bad, attempt = time.monotonic() - _excused(), 0.0, 0, 0
    while True:
        attempt += 1
        try:
            return call()
        except Fault as error:
            fault = error
        bad += fault.answered
        pause = _pause(attempt, fault.retry_after)
        spent = max(paused, time.monotonic() - began - _excused())
        tried = f"{source} at {host}: {fault.found} (tried {attempt} times in {spent:.0f} s)"
        if bad >= BAD_ANSWERS:
            raise IncompleteError(f"{tried}; {fault.advice}; {_ENDING}", host=host, attempt=attempt) from None
        if spent + pause > PATIENCE_S:
            raise SourceError(f"{tried}; {fault.advice}; {_ENDING}", host=host, attempt=attempt) from None
        time.sleep(pause)
        paused += pause


def excuse(seconds: float) -> None:
    """Do not count time against a server that this thread waited before it asked, for a turn or for the night."""
    _WAITED.seconds = _excused() + seconds


def _excused() -> float:
    return getattr(_WAITED, "seconds", 0.0)


def _pause(attempt: int, retry_after: str | None) -> float:
    """Return the seconds to wait: 0.5, 1, 2, ... with jitter, and not less than the server asks for.

    The jitter keeps workers that met the same fault from asking again all at once. The pauses grow also when the server
    asks for none, so that the budget ends.
    """
    asked = _seconds(retry_after) or 0.0
    own = min(0.5 * 2.0 ** min(attempt - 1, 10), LONGEST_PAUSE_S)
    jitter = random.uniform(0.5, 1.0)
    return max(asked + 0.5 * jitter if asked else 0.0, own * jitter)


def _seconds(retry_after: str | None) -> float | None:
    """Parse Retry-After (RFC 9110 10.2.3): seconds, or a date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
