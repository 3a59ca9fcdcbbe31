"""One bad answer says nothing: a server is asked again, as it asks for, and not for ever."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from builder.errors import IncompleteError, SourceError
from builder.sources.patience import BAD_ANSWERS, PATIENCE_S, Fault, persist
from tests.sources.quick import no_pauses


def ask(*faults: Fault) -> str:
    left = list(faults)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "whole"

    return persist(call, source="dicomweb", host="pacs.example")


def busy(after: str | None = None) -> Fault:
    return Fault("status 503", answered=False, retry_after=after)


def test_a_fault_that_passes_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = no_pauses(monkeypatch)
    assert ask(Fault("half a body"), busy(), Fault("empty"), Fault("html")) == "whole"
    assert len(clock.pauses) == 4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_server_says_when(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    clock = no_pauses(monkeypatch)
    later = format_datetime(datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=41), usegmt=True)
    assert ask(busy("40" if form == "seconds" else later)) == "whole"
    assert 39 <= clock.pauses[0] <= 42


def test_a_restart_of_30_seconds_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = no_pauses(monkeypatch)

    def call() -> str:
        if clock.monotonic() < 30:
            raise Fault("no answer", answered=False)
        return "whole"

    assert persist(call, source="dimse", host="pacs.example:104") == "whole"


def test_bad_answers_end_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    with pytest.raises(IncompleteError, match=r"dicomweb at pacs.example: half a body \(tried 4 times .*run the same"):
        ask(*[Fault("half a body")] * BAD_ANSWERS)


def test_a_server_that_stays_away_is_not_a_fault_of_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = no_pauses(monkeypatch)
    with pytest.raises(SourceError) as caught:
        ask(*[busy()] * 999)
    assert not isinstance(caught.value, IncompleteError)
    assert PATIENCE_S - 31 < sum(clock.pauses) <= PATIENCE_S
    with pytest.raises(SourceError, match="tried 1 times"):
        ask(busy("86400"))


@pytest.mark.parametrize("after", ["0", "-5", "soon", "Sat, 01 Jan 2000 00:00:00 GMT"])
def test_a_server_that_asks_for_no_pause_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    clock = no_pauses(monkeypatch)
    with pytest.raises(SourceError):
        ask(*[busy(after)] * 999)
    assert len(clock.pauses) < 20


def test_workers_do_not_ask_again_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = no_pauses(monkeypatch)
    for _ in range(20):
        ask(busy())
    assert len(set(clock.pauses)) > 10
