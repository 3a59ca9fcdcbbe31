"""Release the sarcoma cohort and give it to dcm2niix, Orthanc and niivue (``make release-taken``)."""

import argparse
import contextlib
import functools
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel
from pydicom import dcmread

from builder.library import view
from builder.run.release import release
from tests.library.browser import browse
from tests.sources.servers import orthanc

SPEC = """
name: taken
license: CC-BY-3.0
sources: [{{kind: folder, url: "{archive}"}}]
deid: {{patient_key: "${{env:BUILDER_KEY}}", faces: remove}}
samples: {{kind: volumes}}
splits: {{ratios: {{train: 1.0}}}}
leaks: {{pixels: "off"}}
report: {{thumbnails: 0}}
"""
PAGE = """<!doctype html><link rel="icon" href="data:,">
<canvas id="c" width="400" height="400"></canvas><script src="niivue.js"></script><script>
const viewer = new niivue.Niivue({ show3Dcrosshair: false });
const ready = viewer.attachTo("c");
async function show(name) {
  await ready;
  await viewer.loadVolumes([{ url: name }]);
  return JSON.stringify(Array.from(viewer.volumes[0].dimsRAS).slice(1, 4));
}
</script>"""


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def converted(series: dict[Path, int], folder: Path) -> list[Path]:
    """Convert every image series with dcm2niix; print what it says that is no line of success."""
    program = Path(sys.executable).with_name("dcm2niix")
    said: Counter[str] = Counter()
    lost = 0
    for number, (place, slices) in enumerate(sorted(series.items())):
        command = [str(program), "-o", str(folder), "-f", f"{number:03d}", "-z", "n", "-b", "n", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = [nibabel.load(path) for path in folder.glob(f"{number:03d}*.nii")]
        lost += done.returncode != 0 or slices != sum(image.shape[2] for image in files)
        lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        said.update(line.split(":")[0] for line in lines if line.startswith(("Warning", "Error")))
    found = sorted(folder.glob("*.nii"))
    print(f"dcm2niix: {len(series)} series, {len(found)} files, {lost} failed or lost slices; {dict(said)}", flush=True)
    return found


def imported(objects: list[Path], folder: Path) -> None:
    """Send every object to Orthanc and compare its counts."""
    files = {path.name: path.read_bytes() for path in objects}
    with orthanc(folder, files, move_to=1) as server:
        root = server.url.removesuffix("/dicom-web")
        with urllib.request.urlopen(f"{root}/statistics") as answer:
            counts = json.load(answer)
    held = {name: counts[f"Count{name}"] for name in ("Patients", "Studies", "Series", "Instances")}
    errors = [line for line in (folder / "log").read_text(errors="replace").splitlines() if line.startswith("E")]
    print(f"Orthanc: {len(objects)} objects sent, {held}, {len(errors)} errors in its log", flush=True)


def shown(images: list[Path], folder: Path) -> None:
    """Load every image in niivue and compare its shape with nibabel's."""
    home = Path(view.__file__).parent / "page"
    (folder / "niivue.js").write_bytes(gzip.decompress((home / "niivue.js.gz").read_bytes()))
    (folder / "index.html").write_text(PAGE)
    wrong = 0
    with served(folder) as address, tempfile.TemporaryDirectory() as profile, browse(Path(profile)) as page:
        page.call("Page.navigate", url=f"{address}/index.html")
        page.until("document.readyState === 'complete' && typeof show === 'function'")
        for path in images:
            name = f"loaded_{path.stem}"
            page.evaluate(f"show('{path.name}').then((said) => {{ window.{name} = said; }}); 0")
            page.until(f"window.{name} !== undefined")
            shape = json.loads(page.evaluate(f"window.{name}"))
            wrong += sorted(shape) != sorted(nibabel.load(path).shape[:3])
        print(f"niivue: {len(images)} images shown, {wrong} of another shape; it said {page.told}", flush=True)


def main() -> None:
    """Release, and let three programs take it."""
    parser = argparse.ArgumentParser(prog="python -m tests.release.taken", description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="folder sts_cohort of the corpus")
    os.environ["BUILDER_KEY"] = random.Random(1).randbytes(32).hex()
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        (top / "spec.yaml").write_text(SPEC.format(archive=archive))
        print(release(top / "spec.yaml", to=top / "out").text(), flush=True)
        objects = sorted((top / "out" / "dicom").rglob("*.dcm"))
        series: Counter[Path] = Counter()
        for path in objects:
            if dcmread(path, specific_tags=["Modality"]).Modality in ("CT", "MR", "PT"):
                series[path.parent] += 1
        (top / "nifti").mkdir()
        images = converted(dict(series), top / "nifti")
        imported(objects, top / "orthanc")
        shown(images, top / "nifti")


if __name__ == "__main__":
    main()
