"""Looking: the time from the key for the next case to its picture on the screen, in Chromium without a window.

    python -m benchmarks.view DATASET [--cases 200] [--look 1.0] [--slices 5]

``--look`` is how many seconds a person looks at a case before the next key; the next pictures are made ready meanwhile.
Afterwards other slices of the last ``--slices`` cases are asked for, and then their volumes, which Chromium draws in
software, on the processors that the server needs, too; a graphics card is faster. Aim: 95 in a hundred cases within a
second, so that two seconds of three are left to look at each of 200 cases in ten minutes.
Needs Chromium; tornado comes with distributed.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from builder.library.view import open_view
from tests.library.browser import Page, browse

CLOCK = """
window.waits = [];
document.addEventListener("keydown", (event) => { window.pressed = event.timeStamp; }, true);
new MutationObserver(() => requestAnimationFrame(() => requestAnimationFrame(() => {
  window.waits.push(performance.now() - window.pressed);
}))).observe(document.body, { attributeFilter: ["data-shown"] });
"""
"""Notes in the page how long each case took, from the key, which may wait until the page is free to take it, up to the
second frame after the case was drawn."""


def main() -> None:
    """Print the first picture's time, the median, 95th percentile and longest of the others, and the pace of all."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset")
    options.add_argument("--cases", type=int, default=200)
    options.add_argument("--look", type=float, default=1.0)
    options.add_argument("--slices", type=int, default=5)
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        server = open_view(told.dataset, leave_out=Path(scratch) / "marks.txt")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browse(Path(scratch) / "profile") as page:
            page.size(1400, 900)
            began = time.perf_counter()
            page.call("Page.navigate", url=server.address)
            page.until("document.body && document.body.dataset.shown !== undefined")
            print(f"first picture {time.perf_counter() - began:.2f} s")
            page.evaluate(CLOCK)
            count = min(told.cases, page.evaluate("state.positions.length"))
            began = time.perf_counter()
            for number in range(1, count):
                time.sleep(told.look)
                page.press("n")
                page.until(f"window.waits.length === {number}")
                if number % 20 == 19 or number == count - 1:
                    waits = np.array(page.evaluate("window.waits")) / 1e3
                    p50, p95 = np.percentile(waits, (50, 95))
                    line = f"p50 {p50:.2f} s, p95 {p95:.2f} s, longest {waits.max():.2f} s"
                    each = (time.perf_counter() - began) / number
                    print(f"{number + 1} cases: {line}; with the looking {each:.2f} s a case", flush=True)
            for name in ("another slice", "the next slice", "the volume"):
                asked = [_asked(page, name, told.look) for _ in range(told.slices)] or [0.0]
                print(f"{name}: median {np.median(asked):.2f} s, longest {max(asked):.2f} s", flush=True)
        server.shutdown()


def _asked(page: Page, which: str, look: float) -> float:
    """Return how long it takes until more is drawn: of the case before, or another slice of the case in view."""
    if which != "the next slice":
        page.press("p")
        page.until("document.body.dataset.viewer === 'false' && document.body.dataset.slice === 'null'")
        time.sleep(look)
    began = time.perf_counter()
    if which == "the volume":
        page.evaluate("$('picture').click()")
        page.until("document.body.dataset.viewer === 'true'")
    else:
        page.press("ArrowUp")
        page.until("!state.moving && document.body.dataset.slice === String(state.slice)")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
