"""Images that may show text, and heads, in a browser: what waits, who may decide, and what becomes of decisions."""

import csv
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from builder.defacers.found import Seen, found_table, parse_decisions
from builder.errors import OutcomeError, SpecError
from builder.library.waiting import TextQueue, open_heads, open_queue, serve_queue
from builder.pixeltext.engines import Reading
from builder.run.findtext import find_text
from builder.run.release import release
from tests.endtoend.test_view import ask
from tests.endtoend.trees import KEY
from tests.library.browser import CHROMIUM, browse
from tests.release.test_decisions import SPEC
from tests.synthetic import ct_series

JSON = {"Content-Type": "application/json"}


class _Scripted:
    """An engine that sees text at one place of every picture whose first pixel is bright."""

    name = "scripted 1"

    def read(self, picture: np.ndarray) -> list[Reading]:
        return [Reading((40, 60, 40, 120), 0.9, 6)] if picture[0, 0] > 200 else []


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec and a search: two derived images with text, two without, and two that a rule clears."""
    top = tmp_path_factory.mktemp("queue")
    kinds = {"text": "DERIVED", "bare": "DERIVED", "clear": "ORIGINAL"}
    for number, (name, kind) in enumerate(kinds.items()):
        said = {"ImageType": [kind, "PRIMARY"]}
        made = ct_series(top / "archive" / name, slices=2, shape=(64, 80), patient_id=f"P{number}", attributes=said)
        for path in made.paths if name == "text" else ():
            image = dcmread(path)
            values = image.pixel_array.copy()
            values[:4, :4] = values.max() + 1000
            image.PixelData = values.tobytes()
            image.save_as(path)
    text = SPEC.format(archive=top / "archive", undecided="wait", decisions="")
    (top / "spec.yaml").write_text(text.replace("undecided: wait", "undecided: wait, text: {found: queue}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        patch.setattr("builder.run.findtext.rapid", _Scripted)
        patch.setattr("builder.release.searching.rapid", _Scripted)
        assert find_text(top / "spec.yaml", to=top / "out").with_text == 2
    faces = top / "out.private" / "faces"
    (faces / "pictures").mkdir(parents=True)
    seen = [
        Seen("kb", "1.2.4", "shows a face", "", "d" * 64, 1000, 50),
        Seen("ka", "1.2.3", "not judged", "it is broken"),
        Seen("kc", "1.2.5", "no head"),
    ]
    (faces / "found.csv").write_bytes(found_table(seen))
    (faces / "asked.json").write_text(json.dumps({"review": "doubtful", "decisions": str(faces / "decisions.csv")}))
    Image.new("RGB", (8, 6)).save(faces / "pictures" / "kb.png")
    return top


@pytest.fixture
def server(searched: Path):
    queue = open_queue(str(searched / "out"))
    assert queue is not None
    heads = open_heads(str(searched / "out"))
    assert heads is not None
    for place in (queue.place, heads.place):
        Path(place).unlink(missing_ok=True)
    opened = serve_queue(queue, heads)
    serving = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    yield opened
    opened.shutdown()
    serving.join()
    opened.server_close()


def post(server, path, document, **headers):
    return ask(server, path, method="POST", body=json.dumps(document), **{**JSON, **headers})


def listed(server):
    return json.loads(ask(server, "api/queue")[2])["series"]


def test_what_was_found_waits_with_its_rectangles(server) -> None:
    [series] = listed(server)
    assert [(one["why"], one["decided"], one["rows"], one["columns"]) for one in series] == [
        ("text was found", None, 64, 80)
    ] * 2
    assert [one["boxes"] for one in series] == [[[17, 33, 17, 63]]] * 2
    status, headers, data = ask(server, "picture/0/0/0")
    assert (status, headers["Content-Type"], Image.open(io.BytesIO(data)).size) == (200, "image/png", (80, 64))
    page = ask(server, "")[2].decode()
    assert "queue.js" in page
    assert "P0" not in ask(server, "api/queue")[2].decode()
    for path in ("picture/9/0/0", "picture/0/7/0", "picture/0/x/0", "../spec.yaml", "queue.py"):
        assert ask(server, path)[0] in (400, 404), path


def test_only_who_has_the_address_decides_and_only_what_makes_sense(server) -> None:
    queue = server.site.queue
    good = {"images": [0], "boxes": [[0, 5, 0, 5]]}
    for status, answer in (
        (403, ask(server, "api/decide", token="x", method="POST", body=json.dumps(good), **JSON)),
        (403, post(server, "api/decide", good, Origin="http://evil.example")),
        (404, post(server, "api/mark", good)),
        (400, post(server, "api/decide", {"images": [7], "boxes": []})),
        (400, post(server, "api/decide", {"images": [], "boxes": []})),
        (400, post(server, "api/decide", {"images": [True], "boxes": []})),
        (400, post(server, "api/decide", {"images": [0], "boxes": [[5, 5, 0, 9]]})),
        (400, post(server, "api/decide", {"images": [0], "boxes": [[0, 65, 0, 9]]})),
        (400, post(server, "api/decide", {"images": [0], "boxes": [["a"]]})),
        (400, post(server, "api/undo", {"images": ["0"]})),
        (400, post(server, "api/decide", good, **{"Content-Length": "999999"})),
        (403, ask(server, "api/head", token="x", method="POST", body='{"heads": [0], "decision": "keep"}', **JSON)),
        (400, post(server, "api/head", {"heads": [2], "decision": "keep"})),
        (400, post(server, "api/head", {"heads": [], "decision": "keep"})),
        (400, post(server, "api/head", {"heads": [True], "decision": "keep"})),
        (400, post(server, "api/head", {"heads": [0], "decision": "like"})),
    ):
        assert answer[0] == status, answer
    assert not Path(queue.place).exists()
    assert not Path(server.site.heads.place).exists()


def test_heads_are_shown_and_decided_about(server) -> None:
    def heads():
        return json.loads(ask(server, "api/queue")[2])["heads"]

    assert [(one["doubt"], one["waits"], one["decided"]) for one in heads()] == [
        ("it is broken", True, None),
        ("", False, None),
    ]
    assert ask(server, "head/1")[:1] == (200,)
    assert [ask(server, f"head/{number}")[0] for number in ("0", "2", "x")] == [400, 400, 400]
    assert "1.2.3" not in ask(server, "api/queue")[2].decode()
    queue = server.site.heads
    Path(queue.place).write_text("uid,decision\n1.2.4,refuse\n1.2.9,keep\n")  # by file: of a series
    assert [one["decided"] for one in heads()] == [None, "refuse"]
    assert queue.left == 1
    assert post(server, "api/head", {"heads": [0, 1], "decision": "accept"})[0] == 200
    assert queue.left == 0
    found = parse_decisions(Path(queue.place).read_bytes())
    assert found == {"1.2.4": "refuse", "1.2.9": "keep", "ka": "accept", "kb": "accept"}
    assert post(server, "api/head", {"heads": [1], "decision": ""})[0] == 200
    assert [one["decided"] for one in heads()] == ["accept", "refuse"]
    for line in ("1.2.4,perhaps", ",keep", "1.2.4"):
        with pytest.raises(SpecError, match="line 2: found no decision"):
            parse_decisions(f"uid,decision\n{line}\n".encode())


def test_decisions_are_written_taken_back_and_published(
    server, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    queue: TextQueue = server.site.queue
    with pytest.raises(OutcomeError, match="2 images that may show text"):
        release(searched / "spec.yaml", to=searched / "out")
    assert post(server, "api/decide", {"images": [0, 1], "boxes": [[1, 9, 2, 30], [20, 30, 0, 80]]})[0] == 200
    assert [one["decided"] for one in listed(server)[0]] == [[[1, 9, 2, 30], [20, 30, 0, 80]]] * 2
    assert post(server, "api/undo", {"images": [1]})[0] == 200
    assert [one["decided"] is None for one in listed(server)[0]] == [False, True]
    Path(queue.place).write_text(Path(queue.place).read_text() + "1.2.3,,,,\n")  # somebody else's line stays
    assert post(server, "api/decide", {"images": [1], "boxes": []})[0] == 200
    rows = list(csv.reader(Path(queue.place).read_text().splitlines()))
    assert ["1.2.3", "", "", "", ""] in rows
    assert [queue.images[1].uid, "", "", "", ""] in rows
    assert release(searched / "spec.yaml", to=searched / "out").done.objects == 6
    images = [dcmread(path) for path in (searched / "out").rglob("*.dcm")]
    touched = [image for image in images if "DCM:113101" in image.DeidentificationMethod]
    assert len(touched) == 1
    assert len(set(touched[0].pixel_array[20:30].ravel())) == 1
    assert len(set(touched[0].pixel_array[40:50].ravel())) > 1


def test_a_folder_without_a_search_has_no_queue(tmp_path: Path) -> None:
    assert open_queue(str(tmp_path)) is None
    assert open_queue("https://example.org/set") is None


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_sheets_and_decides(server, tmp_path: Path) -> None:
    with browse(tmp_path / "profile") as page:
        page.size(900, 600)
        page.call("Page.navigate", url=server.address)
        page.until("document.body && document.body.dataset.ready === '1'")
        assert page.evaluate("document.querySelectorAll('figure svg').length") == 2
        assert page.evaluate("document.querySelectorAll('svg rect').length") == 2
        page.evaluate("document.querySelector('svg ~ div button').click()")
        page.until("document.body.dataset.left === '1'")
        page.evaluate(
            "[...document.querySelectorAll('figure button')].find((b) => b.textContent === 'no text').click()"
        )
        page.until("document.body.dataset.left === '0'")
        assert [len(boxes) for boxes in server.site.queue.decided().values()] == [1, 0]
        assert page.evaluate("document.querySelectorAll('#heads figure').length") == 1
        page.evaluate("document.querySelector('#heads figure button').click()")
        page.until("document.body.dataset.heads === '0'")
        assert server.site.heads.decided() == {"ka": "accept"}
        assert page.told == []
