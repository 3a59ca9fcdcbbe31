"""Chunks wait for the thread that writes them, but not many: what waits is memory, and the plan counts it."""

import contextlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.shards import CODECS, MOST_WAITING, streams
from builder.shards.streams import Streams


@pytest.mark.parametrize(("size", "most"), [(1 << 20, MOST_WAITING), (1 << 16, 16)])
def test_few_arrays_wait_for_a_slow_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    started, go = threading.Semaphore(0), threading.Semaphore(0)

    def slow(array: Any, codec: Any) -> bytes:
        started.release()
        go.acquire()
        return bytes(array[:1])

    monkeypatch.setattr(streams, "encode_chunk", slow)
    added: list[int] = []
    with contextlib.ExitStack() as stack:
        written = Streams(tmp_path, stack)

        def add() -> None:
            for number in range(most + 4):
                written.append("image", np.full(size, number, np.uint8), CODECS["fast"], chunk=None)
                added.append(number)

        thread = threading.Thread(target=add)
        thread.start()
        assert started.acquire(timeout=30)
        for more in range(4):
            _until(lambda held=most + more: len(added) >= held)
            thread.join(0.05)
            assert len(added) == most + more, "an array more is waited with until one of those before it is written"
            go.release()
        for _ in range(most):
            go.release()
        thread.join(30)
        written.drain()
        assert written.streams["image"].position == most + 4
    assert added == list(range(most + 4))


def _until(done: Any) -> None:
    for _ in range(3000):
        if done():
            return
        threading.Event().wait(0.01)
    raise AssertionError("found no end of waiting after 30 s")
