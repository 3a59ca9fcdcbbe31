"""DICOM SEG: dcmqi's NRRD keys voxel for voxel, highdicom as oracle, segmentations that land on their series."""

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pyarrow as pa
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydantic import ValidationError
from pydicom.dataset import Dataset

from builder.errors import CaseError, Reason
from builder.labels.frames import describe_frames, own_grid
from builder.labels.seg import Seg, describe_segments
from builder.model.case import Mask
from builder.model.geometry import Geometry
from builder.model.linking import How, ImageRow
from builder.model.tables import INSTANCES
from builder.protocols import ImageFacts, LabelObject
from tests import synthetic
from tests.contracts.label_reader import LabelReaderContract
from tests.labels.images import dice, facts_of, image_facts


def read(dataset: Dataset, image: ImageFacts, **options: Any) -> Mask:
    reader = Seg(**{"segments": {"any": "."}, **options})
    (mask,) = reader.read("s", [LabelObject(dataset)], image)
    assert isinstance(mask, Mask)
    return mask


def own_facts(dataset: Dataset) -> ImageFacts:
    """An image on the segmentation's own grid."""
    frames = describe_frames(dataset, set(range(1, 2**16)))
    anywhere = Geometry((1, *frames.shape), np.eye(4)[:, [2, 1, 0, 3]])
    geometry, _ = own_grid(frames, anywhere)
    return ImageFacts(Geometry(geometry.shape, geometry.affine, str(dataset.FrameOfReferenceUID)), "", {})


class TestSegContract(LabelReaderContract):
    options = {"kind": "seg", "segments": {"tumor": "(?i)gtv"}}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        made = synthetic.ct_series()
        return ImageFacts(made.geometry, made.series_uid, {str(i.SOPInstanceUID): n for n, i in enumerate(made.images)})

    @pytest.fixture
    def objects(self, image: ImageFacts) -> list[LabelObject]:
        made = synthetic.ct_series()
        mask = np.zeros(made.geometry.shape, bool)
        mask[2:5, 4:20, 5:9] = True
        return [LabelObject(synthetic.seg(made, {"GTV": mask}), "seg.dcm")]


class TestAnswerKeysOfDcmqi:
    @pytest.fixture
    def folder(self, corpus: Any) -> Path:
        return Path(corpus("segmentation")) / "dcmqi_seg_sr_pm" / "segmentations"

    def key(self, path: Path) -> NDArray[Any]:
        return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))

    def test_liver_on_its_ct(self, folder: Path) -> None:
        mask = read(
            pydicom.dcmread(folder / "liver.dcm"), image_facts(folder / "ct-3slice"), codes={"any": "SRT:T-62000"}
        )
        assert np.array_equal(mask.voxels[0], self.key(folder / "liver_seg.nrrd"))
        assert mask.measures["resampled"] == 0
        assert mask.segments[0].type is not None
        assert mask.segments[0].type.meaning == "Liver"

    def test_five_overlapping_segments(self, folder: Path) -> None:
        names = {"green": "GREEN", "orange": "ORANGE", "purple": "PURPLE", "light": "LIGHT", "dark": "DARK"}
        mask = read(pydicom.dcmread(folder / "partial_overlaps.dcm"), image_facts(folder / "ct-3slice"), segments=names)
        keys = {1: 1, 2: 2, 3: 3, 4: 1, 5: 1}  # segment number to file that holds it
        for number, (channel, file) in enumerate(zip(mask.voxels, keys.values(), strict=True), 1):
            assert np.array_equal(channel > 0, self.key(folder / f"partial_overlaps-{file}.nrrd") == number)
        assert mask.measures["overlap_voxels"] > 0

    @pytest.mark.parametrize("padding", ["noppv", "ppv5"])
    def test_sparse_label_map(self, folder: Path, padding: str) -> None:
        dataset = pydicom.dcmread(folder / f"sparse-labelmap-{padding}.dcm")
        mask = read(dataset, image_facts(folder / "24x38x3" / "image"))
        assert np.array_equal(mask.voxels[0], self.key(folder / f"sparse_labelmap_{padding}_seg.nrrd") == 1)
        assert [s.label for s in describe_segments(dataset)] == ["Liver"]

    @pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
    def test_frames_of_odd_bit_length(self, folder: Path, size: str) -> None:
        mask = read(pydicom.dcmread(folder / size / "seg" / "label.seg"), image_facts(folder / size / "image"))
        key = self.key(folder / size / "nrrd" / "label.nrrd")
        assert np.array_equal(mask.voxels[0], key)
        assert key.any()


class TestSegmentationsLand:
    def test_qin_head_and_neck_pet(self, corpus: Any) -> None:
        folder = corpus("segmentation") / "qin_hn_0024_pet_seg"
        dataset = pydicom.dcmread(next((folder / "SEG").rglob("*.dcm")))
        image = image_facts(folder / "PET")
        names = {f"s{n}": f"^{s.SegmentLabel}$" for n, s in enumerate(dataset.SegmentSequence)}
        mask = read(dataset, image, segments=names)
        assert mask.measures["resampled"] == 0
        truth = dataset.pixel_array
        for channel, segment in zip(mask.voxels, (1, 2), strict=True):
            numbers = [
                g.SegmentIdentificationSequence[0].ReferencedSegmentNumber
                for g in dataset.PerFrameFunctionalGroupsSequence
            ]
            assert channel.sum() == truth[np.array(numbers) == segment].sum() > 0
        for group, frame in zip(dataset.PerFrameFunctionalGroupsSequence, truth, strict=True):
            uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            assert np.array_equal(mask.voxels[segment - 1, image.uid_to_slice[uid]], frame)

    def test_qin_prostate_overlapping_segments_on_oblique_slices(self, corpus: Any) -> None:
        folder = corpus("segmentation") / "qin_prostate_adc_seg"
        dataset = pydicom.dcmread(next((folder / "seg").glob("*.dcm")))
        image = image_facts(folder / "ADC")
        names = {f"s{s.SegmentNumber}": f"^{s.SegmentLabel}$" for s in dataset.SegmentSequence}
        mask = read(dataset, image, segments=names)
        assert mask.measures["resampled"] == 0
        volume = highdicom.seg.Segmentation.from_dataset(dataset).get_volume()
        for channel in range(4):
            for index in np.argwhere(volume.array[..., channel])[::97]:
                world = volume.map_indices_to_reference(index[None])
                there = np.round(image.geometry.to_voxel(world)[0]).astype(int)
                assert mask.voxels[(channel, *there)]
            assert mask.voxels[channel].sum() == volume.array[..., channel].sum() > 0

    def test_fractional_by_frame_of_reference_alone(self, corpus: Any) -> None:
        folder = corpus("segmentation") / "ucsf_br06_dce4d"
        dataset = pydicom.dcmread(next((folder / "seg_fractional").glob("*.dcm")))
        headers = {}
        for path in sorted((folder / "image").glob("*")):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            headers.setdefault(tuple(header.ImagePositionPatient), header)
        image = facts_of(list(headers.values()))
        assert len(headers) == 60
        row = dict.fromkeys(INSTANCES.names) | {
            "sop_class_uid": str(dataset.SOPClassUID),
            "frame_of_reference_uid": str(dataset.FrameOfReferenceUID),
            "referenced_sop_uids": ["1.2.3"],
            "referenced_series_uids": ["1.2"],
        }
        facts = ImageRow(image.series_uid, "", image.geometry.frame_of_reference, frozenset(image.uid_to_slice))
        chosen = Seg(segments={"a": "."}).select(facts, pa.Table.from_pylist([row], schema=INSTANCES))
        assert (chosen.rows, chosen.how) == ((0,), How.FRAME_OF_REFERENCE)
        assert "ReferencedSeriesSequence" not in dataset
        mask = read(dataset, image, fractional="keep")
        assert mask.fractional
        assert mask.measures["resampled"] == 0
        assert mask.voxels.sum(dtype=np.int64) == dataset.pixel_array.sum(dtype=np.int64) > 0
        half = read(dataset, image)
        assert not half.fractional
        assert half.voxels.sum() == (dataset.pixel_array >= 128).sum()

    def test_highdicom_reads_the_same_voxels_of_its_own_examples(self, corpus: Any) -> None:
        paths = sorted((corpus("segmentation") / "highdicom_seg_sr").glob("seg_image_ct_*.dcm"))
        assert len(paths) == 5
        for path in paths:
            dataset = pydicom.dcmread(path)
            segmentation = highdicom.seg.Segmentation.from_dataset(dataset)
            volume = segmentation.get_volume(rescale_fractional=False)
            affine = np.eye(4)
            affine[:] = volume.affine[:, :]
            geometry = Geometry(volume.spatial_shape, affine, str(dataset.FrameOfReferenceUID))
            names = {f"s{s.SegmentNumber}": "." for s in dataset.SegmentSequence}
            wanted = {n: f"^{s.SegmentLabel}$" for n, s in zip(names, dataset.SegmentSequence, strict=True)}
            mask = read(dataset, ImageFacts(geometry, "", {}), segments=wanted, fractional="keep")
            # a field of shares holds them for every kind of object, wholly inside being 255
            top = 1 if dataset.SegmentationType == "FRACTIONAL" else 255
            assert np.array_equal(np.moveaxis(mask.voxels, 0, -1), volume.array * top), path.name
            assert mask.fractional
            half = read(dataset, ImageFacts(geometry, "", {}), segments=wanted)
            assert not half.fractional
            assert np.array_equal(half.voxels > 0, mask.voxels >= 128)
            assert half.voxels.max() == 1

    def test_the_segmentation_of_the_sr_example_stands_on_its_own_grid(self, corpus: Any) -> None:
        dataset = pydicom.dcmread(corpus("segmentation") / "dcmqi_seg_sr_pm" / "sr-example" / "seg.dcm")
        mask = read(dataset, own_facts(dataset))
        assert mask.voxels.sum() == dataset.pixel_array.sum()


class TestGridsAndRefusals:
    def made(self) -> tuple[synthetic.Stack, Dataset, NDArray[np.bool_]]:
        made = synthetic.ct_series(orientation=synthetic.OBLIQUE)
        mask = np.zeros(made.geometry.shape, bool)
        mask[2:6, 8:20, 10:25] = True
        return made, synthetic.seg(made, {"GTV": mask}), mask

    def test_empty_frames_are_omitted_and_come_back_empty(self) -> None:
        made, dataset, mask = self.made()
        assert dataset.NumberOfFrames == 4
        found = read(dataset, ImageFacts(made.geometry, "", {}))
        assert np.array_equal(found.voxels[0], mask)
        assert found.measures["any/voxel_volume_mm3"] == pytest.approx(mask.sum() * 3.0)

    def test_an_image_with_turned_axes_takes_the_same_voxels(self) -> None:
        made, dataset, mask = self.made()
        affine = made.geometry.affine.copy()
        affine[:3, 3] += affine[:3, 0] * 7
        affine[:3, 0] *= -1
        turned = Geometry((32, 8, 32), affine[:, [1, 0, 2, 3]], made.geometry.frame_of_reference)
        found = read(dataset, ImageFacts(turned, "", {}))
        assert found.measures["resampled"] == 0
        assert np.array_equal(found.voxels[0], mask[::-1].transpose(1, 0, 2))

    def test_another_grid_is_resampled_on_record_or_refused(self) -> None:
        made, dataset, mask = self.made()
        affine = made.geometry.affine.copy()
        affine[:3, :3] = affine[:3, :3] * [0.5, 0.8, 0.8]
        fine = ImageFacts(Geometry((15, 39, 39), affine, made.geometry.frame_of_reference), "", {})
        found = read(dataset, fine)
        assert found.measures["resampled"] == 1
        assert found.measures["any/own_grid_volume_mm3"] == pytest.approx(mask.sum() * 3.0)
        assert found.measures["any/voxel_volume_mm3"] == pytest.approx(mask.sum() * 3.0, rel=0.2)
        back = made.geometry.to_voxel(fine.geometry.to_world(np.argwhere(found.voxels[0])))
        # half-way between two voxels either is the nearest
        nearest = [tuple(np.floor(back + 0.5 + slack).astype(int).T) for slack in (-1e-9, 1e-9)]
        assert (mask[nearest[0]] | mask[nearest[1]]).all()
        with pytest.raises(CaseError) as caught:
            read(dataset, fine, off_grid="refuse")
        assert caught.value.reason is Reason.LABEL_OFF_GRID

    def test_source_instances_decide_where_slices_jitter(self) -> None:
        made, dataset, mask = self.made()
        affine = made.geometry.affine.copy()
        affine[:3, 0] *= 1.04  # positions drift up to 0.2 slices from an even grid
        geometry = Geometry(made.geometry.shape, affine, made.geometry.frame_of_reference)
        uids = {str(i.SOPInstanceUID): n for n, i in enumerate(made.images)}
        assert read(dataset, ImageFacts(geometry, "", {})).measures["resampled"] == 1
        by_source = read(dataset, ImageFacts(geometry, "", uids))
        assert by_source.measures["resampled"] == 0
        assert np.array_equal(by_source.voxels[0], mask)

    def test_a_declared_segment_without_frames_is_a_segment_without_voxels(self) -> None:
        made, _, mask = self.made()
        dataset = synthetic.seg(made, {"GTV": mask, "node": np.flip(mask, 0)})
        keep = [i for i, g in enumerate(dataset.PerFrameFunctionalGroupsSequence)
                if g.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1]  # fmt: skip
        size = 32 * 32 // 8
        dataset.PixelData = b"".join(dataset.PixelData[i * size : (i + 1) * size] for i in keep)
        dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[i] for i in keep]
        dataset.NumberOfFrames = len(keep)
        found = read(dataset, ImageFacts(made.geometry, "", {}), segments={"t": "GTV", "n": "node", "liver": "liver"})
        assert [s.name for s in found.segments] == ["t", "n"]
        assert found.voxels.shape[0] == 3
        assert dice(found.voxels[0] > 0, mask) == 1
        assert not found.voxels[1].any()

    def test_tiled_projection_and_foreign_frames_are_refused(self, corpus: Any) -> None:
        folder = corpus("segmentation") / "highdicom_seg_sr"
        image = ImageFacts(Geometry((2, 10, 10), np.eye(4)), "", {})
        for name in ("seg_image_sm_dots_tiled_full", "seg_image_sm_control_labelmap", "seg_image_cr_binary"):
            with pytest.raises(CaseError) as caught:
                read(pydicom.dcmread(folder / f"{name}.dcm"), image)
            assert caught.value.reason is Reason.LABEL_UNREADABLE, name
        _, dataset, _ = self.made()
        with pytest.raises(CaseError) as caught:
            read(dataset, ImageFacts(Geometry((2, 32, 32), np.eye(4), "1.2.3"), "", {}))
        assert caught.value.reason is Reason.LABEL_GEOMETRY

    def test_another_segmentation_of_the_image_does_not_make_it_ambiguous(self) -> None:
        made, dataset, mask = self.made()
        other = synthetic.seg(made, {"heart": ~mask}, name="other")
        for item in other.SegmentSequence:
            item.SegmentAlgorithmType = "AUTOMATIC"
        objects = [LabelObject(other), LabelObject(dataset)]
        image = ImageFacts(made.geometry, "", {})
        (found,) = Seg(segments={"a": "GTV"}).read("s", objects, image)
        assert np.array_equal(found.voxels[0], mask)
        assert found.evidence.tier == "single_reader"
        assert Seg(segments={"a": "heart"}).read("s", objects, image)[0].evidence.tier == "machine"

    def test_short_pixels_and_two_objects_are_refused(self) -> None:
        made, dataset, _ = self.made()
        image = ImageFacts(made.geometry, "", {})
        with pytest.raises(CaseError) as caught:
            Seg(segments={"a": "."}).read("s", [LabelObject(dataset)] * 2, image)
        assert caught.value.reason is Reason.LABEL_AMBIGUOUS
        dataset.PixelData = dataset.PixelData[:-10]
        with pytest.raises(CaseError, match="bytes of pixels"):
            read(dataset, image)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"codes": {"a": "nonsense"}},
            {"segments": {"a": "("}},
            {"segments": {"a": "."}, "fractional": "keep", "layout": "map"},
        ],
    )
    def test_contradictory_options_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Seg(**options)
