"""Mutations of real files through ``build``: no crash, no hang, no memory without end, no lost bystander.

    python -m tests.mutations --count 20000 --corpus DIR [--seed N] [--out DIR]

Each of 40 bases is a small series, or a label object with its images. A batch is one archive of many copies of one
base, each with UIDs of its own and one mutation, and a sound series of another person. It is built in a child process
with limits on memory and processor time, and images go through ``builder volumes`` as well: both must come to the same
verdicts and voxels. What fails is halved until the copies at fault are found, whose files are kept.

A mutation may put an identifier where none may be published. The check for identifiers then stops the build, as it
must; such copies are counted as ``stopped_for_privacy``.
"""

import argparse
import copy
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from builder.errors import PrivacyError
from builder.stages.graph import Outcome, Task
from tests import synthetic
from tests.endtoend.test_label_forms import AIM
from tests.endtoend.trees import KEY

MEMORY = 2 * 2**30
SECONDS = 20
"""Of processor time: on a busy machine wall time says nothing. A copy alone may take so much."""
COPIES = 120
BYSTANDER = (3, 20, 24)
"""Shape of the sound series: no base has it."""


@dataclass(frozen=True)
class Base:
    """Files of one case: which of them are mutated, and the label that a spec reads of them."""

    name: str
    files: tuple[tuple[str, bytes], ...]
    mutated: tuple[int, ...]
    labels: str = ""


@dataclass
class Result:
    """What became of a batch."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: int = 0


# --- mutations -------------------------------------------------------------------------------------------------------

TEXTS = (
    *(b"1,5", b"nan", b"inf", b"1e400", b"-1", b"0", b"", b" ", b"\\", b"1\\2", b"1\\2\\3\\4\\5\\6\\7", b"\0\0"),
    *(b"9" * 40, b"99999999999", b"-2147483649", b"\xff\xfe\xfd", b"\x1b$B", b"1.2.3.4", b"a" * 5000, b"2.5"),
)
NUMBERS = (b"\0\0", b"\xff\xff", b"\x01\0", b"\0\x80", b"\0", b"\1\2\3", b"\0\0\xc0\x7f", b"\xff" * 8, b"\0" * 8, b"")
UIDS = re.compile(rb"2\.25\.[0-9]{20,}|[12](?:\.(?:0|[1-9][0-9]*)){4,}")
LENGTHS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\0\0", b"\x01\0\0\0")
VRS = ("US", "SS", "DS", "IS", "FD", "FL", "UN", "SQ", "OB", "OW", "LO", "UI", "PN", "AT", "UT", "DA", "TM", "CS", "XX")
SYNTAXES = (
    *("", ".1", ".2", ".1.99", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".5", ".4.100"),
)


def mutate(data: bytes, draw: random.Random, *, dicom: bool) -> bytes:
    """One mutation of a file: of its structure, or of its bytes."""
    if dicom and draw.random() < 0.5:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return _structure(data, draw)
            except Exception:  # noqa: BLE001 - pydicom cannot write everything: then it is bytes
                pass
    return _bytes(data, draw)


def _bytes(data: bytes, draw: random.Random) -> bytes:
    """Bytes changed, removed, repeated or cut; most of them in the header, where lengths and numbers are."""
    out = bytearray(data)
    reach = len(out) if draw.random() < 0.4 else min(len(out), 6000)
    at = draw.randrange(max(1, reach))
    length = min(1 << draw.randrange(12), max(1, len(out) - at))
    kind = draw.randrange(9)
    if kind == 0:
        out[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        out[at : at + length] = draw.randbytes(length)
    elif kind == 2:
        out[at : at + length] = bytes(length)
    elif kind == 3:
        del out[at:]
    elif kind == 4:
        del out[at : at + length]
    elif kind == 5:
        out[at:at] = draw.randbytes(length)
    elif kind == 6:
        out[at:at] = out[at : at + length]
    elif kind == 7:
        out[at : at + 4] = draw.choice(LENGTHS)
    else:
        other = draw.randrange(max(1, reach))
        out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
    return bytes(out)


def _structure(data: bytes, draw: random.Random) -> bytes:
    """An element, item or transfer syntax changed."""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if draw.random() < 0.05:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" + draw.choice(SYNTAXES)
        return _written(dataset, data)
    level = dataset
    while True:
        tags = [tag for tag in level.keys() if tag != 0x7FE00010 or draw.random() < 0.3]  # noqa: SIM118
        nested = [tag for tag in tags if getattr(level.get_item(tag), "VR", "") == "SQ"]
        if not nested or draw.random() < 0.4:
            break
        items = level[draw.choice(nested)].value
        if not items:
            break
        if draw.random() < 0.25:
            _items(items, draw)
            return _written(dataset, data)
        level = draw.choice(list(items))
    if not tags:
        raise ValueError
    _element(level, draw.choice(tags), draw)
    return _written(dataset, data)


def _items(items: Items, draw: random.Random) -> None:
    kind = draw.randrange(4)
    if kind == 0:
        del items[draw.randrange(len(items))]
    elif kind == 1:
        items.append(copy.deepcopy(draw.choice(list(items))))
    elif kind == 2:
        items.append(Dataset())
    else:
        items[draw.randrange(len(items))] = Dataset()


def _element(level: Dataset, tag: Any, draw: random.Random) -> None:
    raw = level.get_item(tag)
    kind = draw.randrange(6)
    if kind == 0:
        del level[tag]
        return
    value = raw.value if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) else b""
    vr = raw.VR
    if kind == 1:
        vr = draw.choice(VRS)
    elif kind == 2:
        value = b""
    elif kind == 3:
        value = draw.choice(TEXTS)
    elif kind == 4:
        value = draw.choice(NUMBERS)
    else:
        others = [t for t in level.keys() if t != 0x7FE00010 and t.group != 0x0010]  # noqa: SIM118
        other = level.get_item(draw.choice(others))
        value = other.value if isinstance(other.value, bytes) else value + value
    implicit, little = level.original_encoding
    level._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, bool(implicit), little is not False)


def _written(dataset: Dataset, data: bytes) -> bytes:
    out = io.BytesIO()
    implicit, little = dataset.original_encoding
    dataset.save_as(out, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    return out.getvalue()


# --- bases -----------------------------------------------------------------------------------------------------------


def bases(corpus: Path) -> Iterator[Base]:
    """40 files: images of many encodings and makers, and label objects with their images."""
    geometry, odd, segmentation, sts = (_unpacked(corpus, n) for n in ("geometry", "odd", "segmentation", "sts"))
    dicom2nifti = geometry / "d2n_awkward"
    for folder in (
        *(dicom2nifti / "generic" / f"compressed_{name}" / "001" for name in ("rle", "j2k", "jpeg")),
        *(dicom2nifti / "ge" / "fmri" / name for name in ("001", "001_implicit")),
        dicom2nifti / "philips_enhanced" / "anatomical" / "001",
        geometry / "enhanced_mr" / "Siemens" / "XA10",
        geometry / "mosaic_siemens",
        geometry / "toshiba_mr_adc",
        geometry / "ct_ge_tilt18",
        sts / "sts001_raw",
    ):
        yield _folder(folder, most=1 if "enhanced" in str(folder) or "mosaic" in str(folder) else 4)
    single, multi = (odd / "encapsulated_fragments" / f"{name}-frame" for name in ("single", "multi"))
    singles = odd / "odd_singles" / "orthanc"
    for path in (
        *(single / f"CT1_UNC.{name}_jpeg_ls.80.dcm" for name in ("not_fragmented_bot", "fragmented_no_bot")),
        *(multi / f"CT0012.fragmented_no_bot_jpeg_{name}.dcm" for name in ("baseline.51", "lossless.70")),
        multi / "CT0012.not_fragmented_no_bot_rle.dcm",
        *(odd / "one_image_9_transfer_syntaxes" / "dicom" / f"{n}.dcm" for n in (1, 5, 9)),
        *sorted(singles.parent.rglob("emri_small_jpeg_ls_lossless.dcm"))[:1],
        *(singles / "TransferSyntaxes" / f"1.2.840.10008.1.2{n}.dcm" for n in (".4.91", ".1.99", ".4.51")),
        odd / "xray_mammo" / "CR-ModalitySequenceLUT.dcm",
        segmentation / "highdicom_seg_sr" / "sm_image_jpegls.dcm",
    ):
        yield Base(path.stem, (("image.dcm", path.read_bytes()),), (0,))
    for encoding in ("big_endian", "jpegls"):
        made = synthetic.ct_series(slices=4, shape=(16, 16), encoding=encoding)
        yield _made(f"synthetic {encoding}", made.images)
    yield _made("synthetic pet", synthetic.pt_series(slices=4, shape=(16, 16)).images)
    yield from _labelled(segmentation, sts)


def _labelled(segmentation: Path, sts: Path) -> Iterator[Base]:
    made = synthetic.ct_series(slices=5, shape=(24, 24))
    boxes = synthetic.box_contours(made.geometry, (1, 4, 4), (4, 15, 15))
    structures = synthetic.rtstruct(made, {"GTV": boxes})
    yield _made("synthetic rtstruct", (*made.images, structures), labels="{kind: rtstruct, roi: {GTV: GTV}}")
    mask = made.voxels > 0
    segments = synthetic.seg(made, {"GTV": mask})
    yield _made("synthetic seg", (*made.images, segments), labels="{kind: seg, segments: {GTV: GTV}}")
    qiicr = segmentation / "dcmqi_seg_sr_pm" / "segmentations"
    for name, wanted in (
        ("liver", "{a: '.'}"), ("partial_overlaps", "{a: GREEN, b: ORANGE}"), ("sparse-labelmap-ppv5", "{a: '.'}"),
    ):  # fmt: skip
        files = [*sorted((qiicr / "ct-3slice").glob("*.dcm")), qiicr / f"{name}.dcm"]
        yield _files(name, files, labels=f"{{kind: seg, segments: {wanted}}}")
    rtutils = segmentation / "rtutils_ct_rtstruct" / "mock_data"
    files = [rtutils / "ct_1.dcm", rtutils / "ct_2.dcm", rtutils / "rt.dcm"]
    yield _files("rtutils", files, labels="{kind: rtstruct, roi: {a: '.'}}")
    highdicom = segmentation / "highdicom_seg_sr"
    for name in ("seg_image_ct_binary_single_frame", "seg_image_ct_true_fractional"):
        files = [highdicom / "ct_image.dcm", highdicom / f"{name}.dcm"]
        yield _files(name, files, labels="{kind: seg, segments: {a: '.'}}")
    images = sorted(p for p in (sts / "sts001_raw").rglob("*.dcm"))
    structure = next(p for p in images if pydicom.dcmread(p, stop_before_pixels=True).Modality == "RTSTRUCT")
    planes = [p for p in images if p != structure][:4]
    yield _files("sts001 rtstruct", [*planes, structure], labels="{kind: rtstruct, roi: {a: '.'}}")
    yield from _mask_files(made, mask)
    pictures = tuple((f"{n}.dcm", synthetic.to_bytes(image)) for n, image in enumerate(made.images))
    markup = AIM.format(uid=made.images[2].SOPInstanceUID).encode()
    label = "{kind: aim, match: '{parent}/aim.xml'}"
    yield Base("aim.xml", (*pictures, ("aim.xml", markup)), (len(pictures),), label)


def _mask_files(made: synthetic.Stack, mask: Any) -> Iterator[Base]:
    import nibabel
    import numpy as np
    import SimpleITK

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ made.geometry.affine[:, [2, 1, 0, 3]]
    picture = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    slices, rows, columns = made.geometry.spacing_mm
    picture.SetSpacing((columns, rows, slices))
    picture.SetOrigin(tuple(float(v) for v in made.geometry.affine[:3, 3]))
    for suffix in ("nii", "nii.gz", "nrrd", "mha"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"mask.{suffix}"
            if suffix.startswith("nii"):
                nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8).transpose(2, 1, 0), affine), path)
            else:
                SimpleITK.WriteImage(picture, str(path), useCompression=suffix == "nrrd")
            content = path.read_bytes()
        images = [(f"{n}.dcm", synthetic.to_bytes(image)) for n, image in enumerate(made.images)]
        label = f"{{kind: mask, match: '{{parent}}/mask.{suffix}', values: {{1: a}}}}"
        yield Base(f"mask.{suffix}", (*images, (f"mask.{suffix}", content)), (len(images),), label)


def _folder(folder: Path, *, most: int) -> Base:
    paths = sorted(p for p in folder.rglob("*.dcm") if pydicom.dcmread(p, stop_before_pixels=True).get("Rows"))[:most]
    return _files("/".join(folder.parts[-3:]), paths)


def _files(name: str, paths: Sequence[Path], labels: str = "") -> Base:
    files = tuple((f"{n}.dcm", path.read_bytes()) for n, path in enumerate(paths))
    return Base(name, files, (len(files) - 1,) if labels else tuple(range(len(files))), labels)


def _made(name: str, datasets: Sequence[Dataset], labels: str = "") -> Base:
    files = tuple((f"{n}.dcm", synthetic.to_bytes(d)) for n, d in enumerate(datasets))
    return Base(name, files, (len(files) - 1,) if labels else tuple(range(len(files))), labels)


def _unpacked(corpus: Path, archive: str) -> Path:
    return next(p for p in sorted(corpus.glob(f"{archive}*")) if p.is_dir())


# --- batches ---------------------------------------------------------------------------------------------------------


def copies(base: Base, numbers: Iterable[int], seed: int) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Folder and files of mutated copies; a number and a seed give the same copy every time."""
    stated = (uid for _, data in base.files for uid in UIDS.findall(data))
    uids = sorted(set(stated), key=lambda uid: (len(uid), uid))
    for number in numbers:
        draw = random.Random(f"{seed}/{base.name}/{number}")
        files = [(name, _renamed(data, uids, number)) for name, data in base.files]
        place = draw.choice(base.mutated)
        name, data = files[place]
        files[place] = (name, mutate(data, draw, dicom=name.endswith(".dcm")))
        yield f"copy{number:06d}", files


def _renamed(data: bytes, uids: Sequence[bytes], number: int) -> bytes:
    """The file with UIDs of its own, of the same lengths; those of the standard stay."""
    for uid in reversed(uids):
        if not uid.startswith(b"1.2.840.10008.") and len(uid) > 20:
            digits = int.from_bytes(hashlib.sha256(uid + b"/%d" % number).digest(), "big")
            data = data.replace(uid, f"2.25.1{digits}".encode()[: len(uid)])
    return data


class InProcess:
    """Runs every task in this process: a crash of a decoder is then a crash of the batch, and noticed."""

    kind = "in process"
    width = 1

    @contextmanager
    def open(self, workers: int | None) -> Iterator["InProcess"]:
        yield self

    def dismiss(self) -> None:
        return

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        for task in tasks:
            yield Outcome(task, task.function(task.argument))


def run_batch(base: Base, numbers: Sequence[int], seed: int, folder: Path) -> Result:
    """Build one batch in a child with limits."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    limit = SECONDS * (2 if len(numbers) == 1 else 3 + len(numbers) // 5)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            _child(base, numbers, seed, folder)
            code = 0
        except PrivacyError:
            (folder / "privacy").touch()
        except BaseException:  # noqa: BLE001 - to be told
            (folder / "crash.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    result = Result(seconds=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss * 1024)
    if (folder / "result.json").exists():
        found = json.loads((folder / "result.json").read_text())
        result.ends.update(found["ends"])
        result.faults += found["faults"]
    if (folder / "privacy").exists():
        if len(numbers) > 1:
            result.faults.append("the check for identifiers stopped the batch")
        result.ends["stopped_for_privacy"] += 1
    elif status != 0:
        killed = os.WIFSIGNALED(status)
        how = f"signal {signal.Signals(os.WTERMSIG(status)).name}" if killed else "exception"
        text = (folder / "crash.txt").read_text() if (folder / "crash.txt").exists() else ""
        result.faults.append(f"{how}\n{text}")
    if result.memory > MEMORY:
        result.faults.append(f"memory: {result.memory} bytes")
    if len(numbers) == 1 and result.seconds > SECONDS:
        result.faults.append(f"hang: {result.seconds:.0f} s")
    return result


def _child(base: Base, numbers: Sequence[int], seed: int, folder: Path) -> None:
    """Write the archive, build it, and note what became of every copy."""
    import pyarrow.parquet as pq

    from builder.reader import open_dataset
    from builder.run.journal import read_events
    from builder.run.pipeline import build
    from tests.endtoend.test_both_ways import SPEC, by_volumes, digest, volumes_block

    os.environ["BUILDER_KEY"] = KEY
    tree, to = folder / "tree", folder / "dataset"
    for name, files in copies(base, numbers, seed):
        (tree / name).mkdir(parents=True)
        for file, data in files:
            (tree / name / file).write_bytes(data)
    synthetic.ct_series(tree / "sound", patient_id="SOUND1", slices=BYSTANDER[0], shape=BYSTANDER[1:])
    labels = f"labels: {{found: {base.labels}}}\ncohort: {{labels: optional}}\n" if base.labels else ""
    leaks = "leaks: {pixels: exact}\n"  # the search for near copies takes longer than all the rest
    (folder / "spec.yaml").write_text(SPEC + volumes_block() + labels + leaks)
    build(
        folder / "spec.yaml", to=to, parameters={"tree": str(tree)}, cluster=InProcess(),
        on_internal_error="exclude",
    )  # fmt: skip
    ends: Counter[str] = Counter()
    faults = [f"internal error\n{e['trace']}" for e in read_events(str(to)) if e["event"] == "internal_error"]
    ways: Counter[tuple[str, str]] = Counter()
    lost = True
    for sample in open_dataset(to):
        image = sample.arrays["image"]
        lost &= tuple(image.shape[1:]) != BYSTANDER
        ways["volume", digest(image)] += 1
        ends["published"] += 1
    if lost:
        faults.append("the bystander is lost")
    (table,) = to.rglob("exclusions.parquet")
    for row in pq.read_table(table).to_pylist():
        ends[row["reason"]] += 1
        if row["level"] in ("case", "series"):
            ways["refused", row["reason"]] += 1
    if not base.labels:
        theirs = by_volumes(tree, folder / "volumes")
        if theirs != ways:
            faults.append(f"the ways differ: build {ways - theirs}, volumes {theirs - ways}")
    (folder / "result.json").write_text(json.dumps({"ends": ends, "faults": faults}))


def _load(folder: Path) -> None:
    """Build once in this process, so that every child finds modules, compiled loops and templates loaded.

    zarr and pyarrow start their threads anew in a forked process.
    """
    made = synthetic.ct_series(slices=4, shape=(16, 16), encoding="jpegls")
    segments = synthetic.seg(made, {"a": made.voxels > 0})
    labelled = _made("to load", (*made.images, segments), labels="{kind: seg, segments: {a: a}}")
    for number, base in enumerate((_made("to load", made.images), labelled)):
        place = folder / f"load{number}"  # a folder of its own, because listings are kept in memory
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        _child(base, range(5), 0, place)


def main() -> int:
    """Run a campaign; exit 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the unpacked archives")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "builder-mutations")
    parser.add_argument("--only", default="", help="bases whose names hold this")
    parser.add_argument("--copies", type=int, default=COPIES, help="copies of a base in one archive")
    parser.add_argument("--part", default="0/1", help="K/N: every Nth base from the Kth, for several processes")
    parser.add_argument("--start", type=int, default=0, help="number of the first copy of each base")
    options = parser.parse_args()
    _load(options.out)
    part, parts = (int(number) for number in options.part.split("/"))
    chosen = [base for base in bases(options.corpus) if options.only in base.name][part::parts]
    each = -(-options.count // (len(chosen) * parts))
    failed = 0
    for first in range(options.start, options.start + each, options.copies):
        for base in chosen:
            numbers = range(first, min(first + options.copies, options.start + each))
            failed += campaign_batch(base, numbers, options.seed, options.out)
    return int(failed > 0)


def campaign_batch(base: Base, numbers: Sequence[int], seed: int, out: Path) -> int:
    """Run a batch, name the copies at fault, and append what was found to the log; returns how many failed."""
    result = run_batch(base, numbers, seed, out / "batch")
    facts = {"base": base.name, "first": numbers[0], "copies": len(numbers), "seconds": round(result.seconds, 1)}
    if not result.faults:
        _log(out, {**facts, "memory": result.memory, "ends": dict(result.ends)})
        return 0
    if len(numbers) == 1:
        kept = out / "kept" / f"{base.name.replace('/', '_')}-{numbers[0]}"
        shutil.copytree(out / "batch" / "tree", kept, dirs_exist_ok=True)
        _log(out, {**facts, "memory": result.memory, "ends": dict(result.ends), "faults": result.faults})
        return 1
    middle = len(numbers) // 2
    failed = sum(campaign_batch(base, half, seed, out) for half in (numbers[:middle], numbers[middle:]))
    if not failed and not any("identifiers" in fault for fault in result.faults):
        _log(out, {**facts, "together": True, "faults": result.faults})
        failed = 1
    return failed


def _log(out: Path, entry: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
