"""Looking at a dataset in the browser: who may, what is shown, and what marks do to the next build."""

import gzip
import hashlib
import http.client
import io
import json
import socket
import struct
import threading
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import builder
from builder.library.view import open_view
from builder.library.view.server import PAGE
from builder.phantom import write_archive
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT
from tests.library.browser import CHROMIUM, browse, wait

PICTURE = "picture/0/image/0?plane=axial&window=lung&opacity="
SPEC = (ROOT / "specs" / "phantom.yaml").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an archive, a spec and the dataset of it."""
    top = tmp_path_factory.mktemp("view")
    write_archive(top / "phantom", patients=6, seed=20251121)
    report = "report: {groups: [sex, age_band, race, vendor, site, grade]}"
    small = SPEC.replace("per_case: 4", "per_case: 2").replace(report, "report: {groups: [sex], thumbnails: 0}")
    (top / "spec.yaml").write_text(small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(top / "spec.yaml", to=top / "set", parameters={"phantom": str(top / "phantom")})
    return top


@pytest.fixture
def server(made, tmp_path):
    """A server of the dataset that answers, with marks in a folder of its own."""
    opened = open_view(str(made / "set"), leave_out=tmp_path / "marks.txt")
    serving = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    yield opened
    opened.shutdown()
    serving.join()
    opened.server_close()


def ask(server, path, *, token=None, host=None, method="GET", body=None, **headers):
    """What the server answers: its status, its headers, and its content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    prefix = f"/{server.token if token is None else token}/"
    given = {"Host": host or f"127.0.0.1:{server.server_port}", **headers}
    connection.request(method, prefix + path if not path.startswith("/") else path, body=body, headers=given)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def said(server, path):
    status, _, data = ask(server, path)
    assert status == 200, data
    return json.loads(data)


def mark(server, name, marked=True, **headers):
    body = json.dumps({"name": name, "marked": marked})
    return ask(server, "api/mark", method="POST", body=body, **{"Content-Type": "application/json", **headers})


def test_only_who_has_the_address_is_answered(server):
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32
    for token in ("", "x", server.token[:-1], server.token + "x"):
        assert ask(server, "api/dataset", token=token)[0] == 403
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert ask(server, "api/dataset", host=host or "0.0.0.0")[0] == 403
    assert ask(server, "api/dataset", host="[")[0] == 400
    assert ask(server, "//[")[0] == 403
    assert ask(server, "api/dataset", host="localhost:9000")[0] == 200, "through a tunnel"
    status, headers, page = ask(server, "")
    assert status == 200
    assert b"view.js" in page
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_page_that_is_closed_amid_an_answer_is_no_error(server, capsys):
    before = set(threading.enumerate())  # other servers of this process may keep connections open
    for _ in range(5):
        with socket.create_connection(server.server_address) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed at once
            asking.sendall(f"GET /{server.token}/niivue.js HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert ask(server, "api/dataset")[0] == 200
    new = [thread for thread in threading.enumerate() if thread not in before and "process_request" in thread.name]
    wait(lambda: not any(thread.is_alive() for thread in new), "the end of every connection")
    assert "Traceback" not in capsys.readouterr().err


def test_nothing_else_of_the_disk_is_read(server, made):
    secret = made / "spec.yaml"
    assert secret.is_file()
    paths = ["../spec.yaml", "..%2f..%2fspec.yaml", "%2e%2e/spec.yaml", "server.py", "niivue.js.gz", "page/view.js",
             "volume/0/..%2f..%2fspec.yaml/0", "volume/0/secret/0", "volume/-1/image/0", "volume/9999/image/0",
             "volume/0/image/7", "overlay/0/tumor", "api/sample/0/tumor", f"{PICTURE}x", f"{PICTURE}2",
             f"{PICTURE}1&plane=x", f"{PICTURE}1&window=x", str(secret)]  # fmt: skip
    for path in paths:
        status, _, data = ask(server, path)
        assert status in (400, 403, 404), (path, status)
        assert set(json.loads(data)) == {"error"}


def test_samples_are_chosen_by_the_language_of_expressions(server, made):
    dataset = builder.open_dataset(made / "set", uses="off")
    every = said(server, "api/samples")["positions"]
    assert sorted(every) == list(range(len(dataset)))
    cases = dataset.table["case_key"].to_pylist()
    single = said(server, "api/samples?per_case=1")["positions"]
    assert [cases[n] for n in single] == sorted(set(cases))
    where = "sex == 'F' and age_years >= 50"
    found = said(server, "api/samples?where=" + where.replace(" ", "%20").replace("'", "%27"))["positions"]
    assert sorted(found) == sorted(int(n) for n in dataset.where(where).rows) != []
    assert sorted(said(server, "api/samples?split=train")["positions"]) == list(dataset.split("train").rows)
    status, _, data = ask(server, "api/samples?where=sexx%20==%20%27F%27")
    assert status == 400
    assert "did you mean 'sex'" in json.loads(data)["error"]


def test_voxels_and_masks_are_those_of_the_reader(server, made):
    dataset = builder.open_dataset(made / "set", uses="off")
    position = said(server, "api/samples?where=foreground_voxels%20%3E%200")["positions"][0]
    item, about = dataset[position], said(server, f"api/sample/{position}/image")
    affine = np.diag([-1, -1, 1, 1]) @ item.geometry.affine[:, [2, 1, 0, 3]]
    for name, path in (("image", f"volume/{position}/image/0"), ("tumor", f"overlay/{position}/image")):
        status, headers, data = ask(server, path)
        assert (status, headers["Content-Encoding"]) == (200, None), "compressing took longer than all else"
        found = nibabel.Nifti1Image.from_bytes(data)
        expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(item[name][0].transpose(2, 1, 0), affine))
        assert np.array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
        assert np.allclose(np.diag(found.affine)[:3], expected.header.get_zooms())
    drawn = about["legend"]
    assert [(entry["name"], entry["voxels"]) for entry in drawn] == [("tumor", np.count_nonzero(item["tumor"]))]
    level = int(np.argmax(np.count_nonzero(item["tumor"][0], axis=(1, 2))))
    assert about["focus"][0] == level, "these patches run from the feet to the head"
    named = {fact["name"]: fact["value"] for fact in about["facts"]}
    assert named["sex"] == item.row["sex"]
    _, headers, data = ask(server, f"picture/{position}/image/0?plane=axial&window=brain&opacity=0")
    assert json.loads(headers["X-Limits"]) == [0, 80]
    shown = np.clip(
        item["image"][0, level].astype(float) / 80 * 255, 0, 255
    )  # as stored: LPS is as one faces the person
    assert np.abs(np.asarray(Image.open(io.BytesIO(data)))[..., 0] - shown).max() <= 1


def test_marks_are_written_kept_and_taken_back(server, made):
    row = builder.open_dataset(made / "set", uses="off").table.slice(0, 1).to_pylist()[0]
    case, person, place = row["case_key"], row["person_key"], server.marks.place
    assert mark(server, case)[0] == mark(server, person)[0] == 200
    assert sorted(json.loads(mark(server, case)[2])["marked"]) == sorted([case, person])
    place.write_bytes(place.read_bytes() + b"# by hand\n")
    again = open_view(str(made / "set"), leave_out=place)
    assert again.marks.names() == {case, person}
    again.server_close()
    assert mark(server, case, marked=False)[0] == 200
    assert [line for line in place.read_text().splitlines() if not line.startswith("#")] == [person]
    assert "# by hand" in place.read_text()
    before = place.read_bytes()
    for status, answer in (
        (403, mark(server, case, Origin="http://evil.example")),
        (400, mark(server, case, **{"Content-Type": "text/plain"})),
        (400, mark(server, "0" * 26)),
        (400, mark(server, "DOE^JANE")),
        (403, ask(server, "api/mark", token="x", method="POST", body="{}")),
        (400, ask(server, "api/mark", method="POST", body="[", **{"Content-Type": "application/json"})),
        (404, ask(server, "api/other", method="POST", body="{}", **{"Content-Type": "application/json"})),
    ):
        assert answer[0] == status, answer
    assert place.read_bytes() == before


def test_a_build_takes_the_file_and_moves_nobody(server, made, monkeypatch):
    first = (made / "set" / "CURRENT").read_text().split()[0]
    before = pq.read_table(made / "set" / "versions" / first / "splits.parquet").to_pylist()
    gone = next(row["person_key"] for row in before if row["split"] == "train")
    assert mark(server, gone)[0] == 200
    text = (made / "spec.yaml").read_text().replace("cohort:\n", f"cohort:\n  leave_out: {server.marks.place}\n")
    spec = made / "left.yaml"
    spec.write_text(text)
    monkeypatch.setenv("BUILDER_KEY", KEY)
    done = build(spec, to=made / "set", parameters={"phantom": str(made / "phantom")})
    folder = made / "set" / "versions" / done.published.version
    after = {row["person_key"]: row["split"] for row in pq.read_table(folder / "splits.parquet").to_pylist()}
    assert after == {row["person_key"]: row["split"] for row in before if row["person_key"] != gone}
    assert gone not in pq.read_table(folder / "index.parquet")["person_key"].to_pylist()
    left = pq.read_table(folder / "exclusions.parquet", filters=[("reason", "==", "left_out")]).to_pylist()
    assert [(row["person_key"], row["stage"], row["rule"]) for row in left] == [(gone, "cohort", "leave_out")]
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["lock"]["leave_out"] == hashlib.sha256(server.marks.place.read_bytes()).hexdigest()
    assert manifest["spec"]["cohort"]["leave_out"] == "(withheld)"
    report = json.loads((folder / "report" / "report.json").read_text())
    rules = [row for box in report["flow"]["boxes"] for row in box["left"] if row["rule"] == "leave_out"]
    assert [(row["reason"], row["things"], row["persons"]) for row in rules] == [("left_out", 1, 1)]


def test_the_kept_viewer_is_the_published_one():
    stated = json.loads((PAGE / "niivue.json").read_text())
    data = (PAGE / "niivue.js.gz").read_bytes()
    assert hashlib.sha256(data).hexdigest() == stated["gzip_sha256"]
    assert hashlib.sha256(gzip.decompress(data)).hexdigest() == stated["sha256"]
    assert len(data) < 1 << 20
    licences = (PAGE / "LICENSES.txt").read_text()
    assert f"@niivue/niivue {stated['version']} ({stated['license']})" in licences
    assert "Copyright (c) 2021, Niivue" in licences


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_and_marks(server, tmp_path: Path):
    with browse(tmp_path / "profile") as page:
        page.size(900, 600)
        page.call("Page.navigate", url=server.address)
        page.until("document.body && document.body.dataset.shown !== undefined")
        first = int(page.evaluate("document.body.dataset.shown"))
        stage = page.picture()[80:560, 40:500].astype(int)
        assert len(np.unique(stage.reshape(-1, 3), axis=0)) > 50, "grey values"
        yellow = (stage[..., 0] - stage[..., 2] > 60).sum()
        assert yellow > 200, "a mask"
        page.evaluate("window.before = $('picture').src")
        page.press("m")
        page.until("document.getElementById('opacity').value === '0' && $('picture').src !== window.before")
        bare = page.picture()[80:560, 40:500].astype(int)
        assert (bare[..., 0] - bare[..., 2] > 60).sum() < yellow / 10
        page.press("n")
        page.until(f"document.body.dataset.shown !== '{first}'")
        page.press("x")
        page.until("document.getElementById('stage').classList.contains('marked')")
        assert page.picture()[300, 2].tolist() == [0xB3, 0x26, 0x1E], "a red frame around the image"
        second = int(page.evaluate("document.body.dataset.shown"))
        assert server.marks.names() == {server.samples.dataset[second].row["case_key"]}
        assert page.told == []
