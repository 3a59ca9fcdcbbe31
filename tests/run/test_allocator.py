"""What is given back to the system, seen from outside in a process of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the resident size is read from /proc")

SCRIPT = """
import threading
from builder.kernels.buffers import borrow
from builder.run.allocator import give_back, keep_one_heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

keep_one_heap()
before = resident()
kept = borrow((64 << 20,), "uint8")
kept[...] = 1
lists = []
def work():
    lists.extend([bytes(900) for _ in range(60_000)])
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
del kept
last = lists.pop()
lists.clear()
held = resident() - before
give_back()
print(held, resident() - before)
"""


def test_free_memory_goes_back_whoever_asked_for_it() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
    held, left = (int(number) for number in out.split())
    assert held > 100  # 64 MiB of an array that is kept, and 200 MB of small objects in part
    assert left < 30
