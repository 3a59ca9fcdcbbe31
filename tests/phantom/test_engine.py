"""The engine's own readers find the answer key's lesions in the synthetic archive: place, value and volume."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from builder.imaging.parse import parse_instance
from builder.imaging.stacks.series import split_stacks
from builder.imaging.volume import assemble
from builder.labels.rtstruct import RtStruct
from builder.labels.seg import Seg
from builder.model.case import ValueDomain
from builder.planning.duplicates import find_duplicates, with_verdicts
from builder.protocols import Entry, ImageFacts, LabelObject
from builder.sources.folder import Folder
from builder.stages.index import index_partition


@pytest.fixture(scope="module")
def read(archive):
    """(volumes by series UID, label objects by study UID and modality, rows of the index)."""
    source = Folder(url=str(archive[0] / "archive"))
    table = index_partition(source, 0, tuple(source.list()))
    table = with_verdicts(table, find_duplicates([table], [source]))
    wanted = {uid for p in archive[2]["persons"] for v in p["visits"] for uid in v["series"].values()}
    groups, labels = defaultdict(list), defaultdict(list)
    rows = table.to_pylist()
    for index, row in enumerate(rows):
        if row["status"] == "instance" and row["series_uid"] in wanted:
            groups[row["series_uid"]].append(index)
        elif row["status"] == "instance" and row["modality"] in ("RTSTRUCT", "SEG"):
            labels[row["study_uid"], row["modality"]].append(fetch(source, row))
    volumes = {}
    for uid, indices in groups.items():
        (stack,) = split_stacks(table.take(indices))
        volumes[uid] = (assemble(stack, [fetch(source, rows[i]) for i in indices]), stack)
    return volumes, labels, rows


def fetch(source, row):
    return parse_instance(source.read(Entry(row["path"], row["size"], row["stamp"], row["member"])))


def series_of(truth):
    for person in truth["persons"]:
        for visit in person["visits"]:
            yield from ((visit, modality, uid) for modality, uid in visit["series"].items())


def lesions_on(visit, geometry):
    frame = geometry.frame_of_reference
    return next(f["lesions"] for f in visit["frames"] if f["frame_of_reference_uid"] == frame)


def inside(lesion, geometry, scale=1.0):
    world = geometry.to_world(np.indices(geometry.shape).reshape(3, -1).T) - np.array(lesion["centre_mm"])
    own = world @ np.array(lesion["axes"]).T / (scale * np.array(lesion["semi_axes_mm"]))
    return ((own**2).sum(axis=1) <= 1).reshape(geometry.shape)


def test_volumes_have_the_true_values_where_the_lesions_are(read, archive):
    checked = Counter()
    for visit, modality, uid in series_of(archive[2]):
        volume, _ = read[0][uid]
        if modality == "PT":
            assert volume.domain is ValueDomain.SUV_BW, volume.notes
        for lesion in lesions_on(visit, volume.geometry):
            core = inside(lesion, volume.geometry, 0.95)
            if modality == "MR" or core.sum() < 10:
                continue
            mean = float(volume.voxels[0][core].mean())
            noise = 20 * 4 / np.sqrt(core.sum()) + 0.5 if modality == "CT" else 0.08 * lesion["suv"]
            assert mean == pytest.approx(lesion["hounsfield" if modality == "CT" else "suv"], abs=noise)
            checked[modality] += 1
    assert checked["CT"] >= 10
    assert checked["PT"] >= 3


def test_contours_and_segments_become_the_true_masks(read, archive):
    volumes, labels, _ = read
    checked = Counter()
    for visit, modality, uid in series_of(archive[2]):
        volume, stack = volumes[uid]
        slices = {u: k for k, u in enumerate(stack.uids[0])}
        facts = ImageFacts(volume.geometry, uid, slices, modality)
        for kind in ("RTSTRUCT", "SEG"):
            for dataset in labels[visit["study_uid"], kind]:
                if f"{modality} {kind}" not in visit["labels"] or not refers_to(dataset, uid):
                    continue
                lesions = lesions_on(visit, volume.geometry)
                names = {f"lesion_{n}": x["roi" if kind == "RTSTRUCT" else "segment"] for n, x in enumerate(lesions)}
                patterns = {name: f"^{re.escape(label)}$" for name, label in names.items()}
                reader = RtStruct(roi=patterns) if kind == "RTSTRUCT" else Seg(segments=patterns)
                (mask,) = reader.read("lesion", [LabelObject(dataset)], facts)
                for segment in mask.segments:
                    lesion = lesions[int(segment.name.rpartition("_")[2])]
                    found, expected = mask.inside(segment), inside(lesion, volume.geometry)
                    # vertices lie on the surface: chords leave out a sliver of at most 0.1 % of the section
                    assert (found != expected).sum() <= max(2, 0.01 * expected.sum())
                    checked[kind] += 1
    assert checked["RTSTRUCT"] >= 10
    assert checked["SEG"] >= 5


def refers_to(dataset, series_uid):
    if dataset.Modality == "SEG":
        return dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == series_uid
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    return study.RTReferencedSeriesSequence[0].SeriesInstanceUID == series_uid


def test_the_index_accounts_for_every_file(read, archive):
    files = archive[2]["files"]
    states = Counter(row["status"] for row in read[2])
    assert sum(states.values()) == sum(files.values())
    assert states["duplicate"] == files["duplicate"]
    assert sum(states.values()) - states["instance"] - states["duplicate"] == files["not DICOM"]
    cut_off = [row for row in read[2] if row["status"] == "instance" and "cut off" in (row["detail"] or "")]
    assert len(cut_off) == files["truncated"]
