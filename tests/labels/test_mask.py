"""Mask files: nibabel and SimpleITK as oracles, published files, pairing, resampling on record."""

import contextlib
import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from builder.errors import CaseError, Reason
from builder.labels.layers import Structure, layer
from builder.labels.linking import check_pattern, select_files
from builder.labels.mask import FORMATS, MaskFile, read_label_file
from builder.labels.placing import move, place
from builder.labels.rtstruct import RtStruct
from builder.model.case import Mask
from builder.model.geometry import Geometry
from builder.model.linking import How, ImageRow
from builder.model.tables import INSTANCES
from builder.protocols import ImageFacts, LabelObject
from tests import synthetic
from tests.contracts.label_reader import LabelReaderContract
from tests.labels.images import dice, image_facts


def oblique() -> Geometry:
    return synthetic.ct_series(orientation=synthetic.OBLIQUE).geometry


def pattern(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Values 0 to 3, no symmetry."""
    s, r, c = np.indices(shape)
    return ((s + 2 * (r > shape[1] // 3) + 3 * (c > 2 * shape[2] // 3)) % 4).astype(np.uint8)


def to_sitk(voxels: NDArray[Any], geometry: Geometry) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.directions[:, ::-1].ravel().tolist())
    return image


def file_of(image: SimpleITK.Image, path: Path, *, compress: Any = False) -> bytes:
    SimpleITK.WriteImage(image, str(path), compress)
    return path.read_bytes()


def nifti(
    voxels: NDArray[Any], affine: NDArray[np.float64], *, sform: Any = None, qcode: int = 1, scode: int = 1
) -> bytes:
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_qform(affine, qcode)
    image.set_sform(affine if sform is None else sform, scode)
    return bytes(image.to_bytes())


def read(data: bytes, geometry: Geometry, **options: Any) -> Mask:
    reader = MaskFile(**{"match": "*", "values": {1: "a", 2: "b", 3: "c"}, **options})
    (mask,) = reader.read("m", [LabelObject(data)], ImageFacts(geometry, "1.2", {}))
    assert isinstance(mask, Mask)
    return mask


class TestMaskContract(LabelReaderContract):
    options = {"kind": "mask", "match": "{folder}/*.nii.gz", "values": {1: "tumor"}}  # noqa: RUF012

    @pytest.fixture
    def image(self) -> ImageFacts:
        return ImageFacts(oblique(), "1.2", {})

    @pytest.fixture
    def objects(self, image: ImageFacts) -> list[LabelObject]:
        affine = np.diag([-1.0, -1, 1, 1]) @ image.geometry.affine[:, [2, 1, 0, 3]]
        return [LabelObject(gzip.compress(nifti(pattern(image.geometry.shape).transpose(2, 1, 0), affine)), "m.nii.gz")]


class TestDecoding:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
    @pytest.mark.parametrize("compress", [False, True])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32])
    def test_what_simpleitk_writes_comes_back_on_the_same_grid(
        self, tmp_path: Path, suffix: str, compress: bool, dtype: Any
    ) -> None:
        geometry = oblique()
        voxels = pattern(geometry.shape)
        content = file_of(to_sitk(voxels.astype(dtype), geometry), tmp_path / f"m{suffix}", compress=compress)
        grid = read_label_file([content])
        assert np.array_equal(grid.layers[0], voxels)
        assert grid.geometry.same_grid(geometry, tolerance_voxels=1e-3)
        mask = read(content, geometry)
        assert mask.measures["resampled"] == 0
        for number, name in enumerate("abc"):
            assert np.array_equal(mask.voxels[number], voxels == number + 1), name

    def test_mhd_with_its_raw_companion_and_never_another_file(self, tmp_path: Path) -> None:
        geometry = oblique()
        head = file_of(to_sitk(pattern(geometry.shape), geometry), tmp_path / "m.mhd")
        raw = (tmp_path / "m.raw").read_bytes()
        objects = [LabelObject(raw, "m.raw"), LabelObject(head, "m.mhd")]
        reader = MaskFile(match="*", values={1: "a"})
        (mask,) = reader.read("m", objects, ImageFacts(geometry, "1.2", {}))
        assert np.array_equal(mask.voxels[0], pattern(geometry.shape) == 1)
        with pytest.raises(CaseError, match="mhd needs its raw file"):
            read_label_file([head])

    def test_a_detached_nrrd_never_opens_the_file_it_names(self) -> None:
        head = b"NRRD0004\ntype: uchar\nsizes: 1 1 1\nencoding: raw\ndata file: /etc/passwd\n\n"
        with pytest.raises(CaseError, match="detached"):
            read_label_file([head])

    def test_nrrd_spaces_are_told_apart(self, corpus: Any) -> None:
        path = corpus("tables") / "nrrd_pyradiomics" / "brain1_label.nrrd"
        truth = SimpleITK.ReadImage(str(path))
        grid = read_label_file([path.read_bytes()])
        assert np.array_equal(grid.layers[0], SimpleITK.GetArrayFromImage(truth))
        corner = tuple(n - 1 for n in truth.GetSize())
        assert np.allclose(
            grid.geometry.to_world([corner[::-1]])[0], truth.TransformIndexToPhysicalPoint(corner), atol=1e-6
        )
        turned = path.read_bytes().replace(b"space: left-posterior-superior", b"space: right-anterior-superior", 1)
        other = read_label_file([turned]).geometry
        assert np.allclose(other.affine[:2], -grid.geometry.affine[:2])
        assert np.allclose(other.affine[2], grid.geometry.affine[2])

    @pytest.mark.parametrize(
        ("line", "millimetres"),
        [
            ('space units: "mm" "mm" "mm"', (1, 1, 1)),
            ('space units: "" "" ""', (1, 1, 1)),
            ("", (1, 1, 1)),
            ('space units: "cm" "cm" "cm"', (10, 10, 10)),
            ('space units: "um" "um" "um"', (1e-3, 1e-3, 1e-3)),
            ('space units: "\u00b5m" "microns" "Micrometers"', (1e-3, 1e-3, 1e-3)),
            ('space units: "m" "meters" "metre"', (1000, 1000, 1000)),
            ('space units: "mm" "mm" "cm"', (1, 1, 10)),
            ("space units: mm mm mm", (1, 1, 1)),
            ('units: "mm" "mm" "mm"', (1, 1, 1)),
            ('space units: "inch" "inch" "inch"', None),
            ('space units: "mm" "mm"', None),
            ('space units: "mm" "mm" "???"', None),
            ('units: "cm" "cm" "cm"', None),
        ],
    )
    def test_units_of_an_nrrd_become_mm_or_refuse_it(self, line: str, millimetres: Any) -> None:
        head = [
            "NRRD0004", "type: uint8", "dimension: 3", "space: RAS", "sizes: 2 3 4", "encoding: raw",
            "space directions: (2,0,0) (0,3,0) (0,0,4)", "space origin: (5,6,7)", line,
        ]  # fmt: skip
        content = "\n".join([*(part for part in head if part), "", ""]).encode() + bytes(24)
        if millimetres is None:
            with pytest.raises(CaseError) as caught:
                read_label_file([content])
            assert caught.value.reason is Reason.LABEL_GEOMETRY
            return
        affine = read_label_file([content]).geometry.affine
        expected = np.array([[0, 0, -2, -5], [0, -3, 0, -6], [4, 0, 0, 7]]) * np.array(millimetres)[:, None]
        np.testing.assert_allclose(affine[:3], expected, rtol=1e-12)

    def test_segments_of_a_seg_nrrd_overlap_in_layers_and_keep_their_codes(self) -> None:
        geometry = Geometry((3, 4, 5), np.eye(4)[:, [2, 1, 0, 3]])
        layers = np.zeros((2, 5, 4, 3), dtype=np.uint8)
        layers[0, :3], layers[1, 2:] = 1, 2
        text = (
            "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\nsizes: 2 5 4 3\n"
            "space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\nencoding: raw\n"
            "space origin: (0,0,0)\nSegment0_ID:=Segment_1\nSegment0_Name:=Liver left\nSegment0_Layer:=0\n"
            "Segment0_LabelValue:=1\nSegment0_Tags:=TerminologyEntry:Cat~SCT^123037004^Anatomical Structure~"
            "SCT^10200004^Liver~^^~Anatomic~^^~^^|\nSegment1_ID:=Segment_2\nSegment1_Name:=Tumor\nSegment1_Layer:=1\n"
            "Segment1_LabelValue:=2\n\n"
        )
        content = text.encode() + layers.tobytes(order="F")
        mask = read(content, geometry, values={}, names={"tumor": "(?i)tumor", "liver": "(?i)liver"})
        assert mask.voxels.sum(axis=(1, 2, 3)).tolist() == [36, 36]
        assert mask.measures["overlap_voxels"] == 12
        liver = mask.segments[1]
        assert (liver.name, liver.type.meaning, liver.category.value) == ("liver", "Liver", "123037004")

    @pytest.mark.parametrize("cut", [10, 200, 360, 2000, -100])
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
    def test_truncated_files_are_refused(self, tmp_path: Path, suffix: str, cut: int) -> None:
        geometry = oblique()
        content = file_of(to_sitk(pattern(geometry.shape), geometry), tmp_path / f"m{suffix}")
        if cut < len(content):
            with pytest.raises(CaseError) as caught:
                read_label_file([content[:cut]])
            assert caught.value.reason in (Reason.LABEL_UNREADABLE, Reason.LABEL_GEOMETRY)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(st.sampled_from([".nii", ".nrrd", ".mha"]), st.data())
    def test_damaged_headers_raise_nothing_but_case_errors(
        self, tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
    ) -> None:
        geometry = oblique()
        content = bytearray(
            file_of(to_sitk(pattern(geometry.shape), geometry), tmp_path_factory.getbasetemp() / f"m{suffix}")
        )
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(CaseError):
            read(bytes(content), geometry, empty="keep")

    def test_a_huge_declared_size_is_refused_before_memory_is_taken(self) -> None:
        header = nibabel.Nifti1Header()
        header.set_data_shape((30000, 30000, 30000))
        with pytest.raises(CaseError, match=r"2\*\*31"):
            read_label_file([header.binaryblock + b"\0" * 100])


class TestForms:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])

    def test_qform_and_sform_that_disagree_are_refused(self) -> None:
        other = self.affine.copy()
        other[0, 3] = 1.0
        with pytest.raises(CaseError, match="apart") as caught:
            read_label_file([nifti(np.ones((4, 5, 6), np.uint8), self.affine, sform=other)])
        assert caught.value.reason is Reason.LABEL_GEOMETRY

    def test_a_file_without_any_form_is_refused(self) -> None:
        with pytest.raises(CaseError) as caught:
            read_label_file([nifti(np.ones((4, 5, 6), np.uint8), self.affine, qcode=0, scode=0)])
        assert caught.value.reason is Reason.LABEL_GEOMETRY

    @pytest.mark.parametrize(("qcode", "scode"), [(1, 0), (0, 2), (1, 4)])
    def test_the_form_with_a_code_counts_and_ras_turns_to_lps(self, qcode: int, scode: int) -> None:
        content = nifti(np.ones((4, 5, 6), np.uint8), self.affine, qcode=qcode, scode=scode)
        geometry = read_label_file([content]).geometry
        assert geometry.shape == (6, 5, 4)
        assert geometry.orientation == "SPL"
        assert np.allclose(geometry.to_world([(1, 1, 1)]), [[2, 2, 3]])


class TestGrids:
    @settings(max_examples=40, deadline=None)
    @given(st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
    def test_any_axis_order_and_direction_is_the_same_label(self, order: list[int], flips: Any) -> None:
        geometry = oblique()
        voxels = pattern(geometry.shape)
        affine = geometry.affine.copy()
        for axis, flip in enumerate(flips):
            if flip:
                voxels = np.flip(voxels, axis)
                affine[:3, 3] += affine[:3, axis] * (geometry.shape[axis] - 1)
                affine[:3, axis] *= -1
        voxels, affine = voxels.transpose(order), affine[:, [*order, 3]]
        label = Geometry(voxels.shape, affine)
        placement = place(label, geometry, tolerance_voxels=0.01)
        assert not placement.resampled
        moved = move(voxels == 2, placement, interpolation="nearest")
        assert np.array_equal(moved, pattern(geometry.shape) == 2)

    def test_a_crop_on_the_same_lattice_is_put_where_it_belongs(self) -> None:
        geometry = oblique()
        box = geometry.box((2, -3, 30), (4, 10, 10))
        placement = place(box, geometry, tolerance_voxels=0.01)
        moved = move(np.ones(box.shape, bool), placement, interpolation="nearest")
        assert placement.offset == (-2, 3, -30)
        assert np.array_equal(np.argwhere(moved).min(axis=0), [2, 0, 30])
        assert moved.sum() == 4 * 7 * 2

    @pytest.mark.parametrize("interpolation", ["nearest", "linear"])
    def test_another_grid_is_resampled_as_simpleitk_does_and_recorded(self, interpolation: Any) -> None:
        image = Geometry((20, 40, 40), np.array([[0, 0, 1, -20], [0, 1, 0, -20], [2, 0, 0, -20], [0, 0, 0, 1.0]]))
        label = Geometry(
            (30, 25, 25), np.array([[0, 0.1, 1.5, -18], [0, 1.5, -0.1, -17], [1.3, 0, 0, -19.2], [0, 0, 0, 1]])
        )
        z, y, x = np.indices(label.shape)
        ball = ((z - 15) * 1.3) ** 2 + ((y - 12) * 1.5) ** 2 + ((x - 12) * 1.5) ** 2 < 150
        placement = place(label, image, tolerance_voxels=0.01)
        assert placement.resampled
        moved = move(ball, placement, interpolation=interpolation)
        method = SimpleITK.sitkNearestNeighbor if interpolation == "nearest" else SimpleITK.sitkLinear
        source, target = to_sitk(ball.astype(np.float32), label), to_sitk(np.zeros(image.shape, np.float32), image)
        truth = (
            SimpleITK.GetArrayFromImage(SimpleITK.Resample(source, target, SimpleITK.Transform(), method, 0.0)) >= 0.5
        )
        assert dice(moved, truth) > 0.998
        affine = np.diag([-1.0, -1, 1, 1]) @ label.affine[:, [2, 1, 0, 3]]
        mask = read(nifti(ball.astype(np.uint8).transpose(2, 1, 0), affine), image, interpolation=interpolation)
        assert mask.measures["resampled"] == 1
        assert mask.measures["a/voxel_volume_mm3"] == pytest.approx(mask.measures["a/own_grid_volume_mm3"], rel=0.03)
        with pytest.raises(CaseError) as caught:
            read(nifti(ball.astype(np.uint8).transpose(2, 1, 0), affine), image, off_grid="refuse")
        assert caught.value.reason is Reason.LABEL_OFF_GRID

    def test_a_label_elsewhere_is_off_grid(self) -> None:
        geometry = oblique()
        with pytest.raises(CaseError) as caught:
            place(geometry.box((100, 0, 0), (3, 3, 3)), geometry, tolerance_voxels=0.01)
        assert caught.value.reason is Reason.LABEL_OFF_GRID


class TestValues:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    geometry = Geometry((6, 5, 4), np.eye(4)[:, [2, 1, 0, 3]])

    def content(self, voxels: Any) -> bytes:
        return nifti(np.asarray(voxels), self.affine)

    def test_undeclared_values_are_counted_or_refused(self) -> None:
        voxels = np.zeros((4, 5, 6), np.uint8)
        voxels[0], voxels[1] = 1, 9
        mask = read(self.content(voxels), self.geometry, values={1: "a"})
        assert mask.measures["undeclared_voxels"] == 30
        with pytest.raises(CaseError) as caught:
            read(self.content(voxels), self.geometry, values={1: "a"}, undeclared="refuse")
        assert caught.value.reason is Reason.LABEL_AMBIGUOUS

    def test_an_empty_file_is_excluded_or_a_true_negative(self) -> None:
        content = self.content(np.zeros((4, 5, 6), np.uint8))
        with pytest.raises(CaseError) as caught:
            read(content, self.geometry)
        assert caught.value.reason is Reason.LABEL_EMPTY
        mask = read(content, self.geometry, empty="keep")
        assert not mask.voxels.any()
        assert [s.name for s in mask.segments] == ["a", "b", "c"]

    def test_probabilities_become_shares_of_255(self) -> None:
        voxels = np.linspace(0, 1, 120, dtype=np.float32).reshape(4, 5, 6)
        mask = read(self.content(voxels), self.geometry, values={0: "lesion"}, content="probability")
        assert mask.fractional
        assert np.array_equal(mask.voxels[0], np.round(voxels.astype(float) * 255).transpose(2, 1, 0))
        with pytest.raises(CaseError, match="fractions"):
            read(self.content(voxels), self.geometry)
        with pytest.raises(CaseError, match="beyond 0 to 1"):
            read(self.content(voxels * 3), self.geometry, values={0: "lesion"}, content="probability")

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"values": {1: "a"}, "names": {"a": "x"}},
            {"values": {0: "a"}},
            {"names": {"a": "("}},
            {"values": {1: "a"}, "match": "{nonsense}/x"},
            {"values": {1: "a"}, "match": "{folder/x"},
            {"structures": ["a"], "match": "{structure}", "empty_file": "absent", "content": "probability",
             "layout": "channels"},
            {"values": {0: "a"}, "content": "probability", "layout": "map"},
            {"names": {"a": "x"}, "content": "probability", "layout": "channels"},
            {"structures": ["a"], "match": "{structure}"},
            {"structures": ["a"], "match": "x", "empty_file": "absent"},
            {"values": {1: "a"}, "empty_file": "absent"},
            {"values": {1: "a"}, "match": "{structure}"},
        ],
    )  # fmt: skip
    def test_contradictory_options_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            MaskFile(**{"match": "*", **options})


class TestPairing:
    image = ImageRow("1.2.3", folder="site/P[1]/CT/image", modality="CT", patient_id="P[1]")

    def table(self, *paths: str) -> pa.Table:
        rows = [dict.fromkeys(INSTANCES.names) | {"path": p, "format": "nifti", "source": 0} for p in paths]
        return pa.Table.from_pylist(rows, schema=INSTANCES)

    @pytest.mark.parametrize(
        ("match", "expected"),
        [
            ("{parent}/*_mask.nii.gz", (0,)),
            ("{folder}/../CT_mask.nii.gz", (0,)),
            ("**/{patient}/{modality}/*_mask.nii.gz", (0,)),
            ("site/P?1?/**/*_mask.nii.gz", (0, 2)),
            ("**/*.nii.gz", (0, 1, 2, 3)),
            ("*.nii.gz", (3,)),
            ("**/{series}.nii.gz", ()),
            ("site/P[[]1]/[CM]T/*.nii.gz", (0,)),
        ],
    )
    def test_patterns(self, match: str, expected: tuple[int, ...]) -> None:
        table = self.table(
            "site/P[1]/CT/CT_mask.nii.gz", "site/P2/CT/CT_mask.nii.gz", "site/P[1]/PET/PET_mask.nii.gz", "top.nii.gz"
        )
        chosen = select_files(self.image, table, pattern=check_pattern(match), formats=FORMATS)
        assert chosen.rows == expected
        assert chosen.how is (How.NAME if expected else How.NONE)

    def test_files_of_another_format_are_not_masks(self) -> None:
        table = self.table("a.nii.gz").set_column(INSTANCES.get_field_index("format"), "format", pa.array(["csv"]))
        assert select_files(self.image, table, pattern="*", formats=FORMATS).rows == ()


def test_files_of_structures_may_be_listed_in_short_forms() -> None:
    def given(structures: object) -> object:
        options = {"match": "{structure}.nii", "structures": structures, "empty_file": "absent"}
        return MaskFile.model_validate(options).structures

    assert given(["lung", "liver"]) == given({"lung": "lung", "liver": ["liver"]})
    assert given({"lung": ["left", "right"]}) != given({"lung": "left"})


def test_figures_of_a_mask_have_nine_digits_and_nine_places() -> None:
    """Later digits depend on how a machine adds, and would make the bytes of two machines differ."""
    geometry = Geometry((1, 2, 2), np.eye(4))
    structure = Structure("a", np.ones((1, 2, 2), bool))
    found = layer("m", [structure], geometry, measures={"small": 0.01234567894, "large": 123456789.4})
    assert found.measures == {"small": 0.012345679, "large": 123456789, "overlap_voxels": 0}


class TestSarcomaFiles:
    def test_published_masks_land_on_their_dicom_images_voxel_for_voxel(self, corpus: Any) -> None:
        reader = MaskFile(match="{parent}/*_mask.nii.gz", values={1: "tumor"})
        for series in ("STS_008/CT", "STS_008/MR_T1", "STS_008/PET", "STS_035/PET"):
            folder = corpus("sts") / "sts_cohort" / series
            image = image_facts(folder / "image")
            path = next(folder.glob("*_mask.nii.gz"))
            (mask,) = reader.read("tumor", [LabelObject(path.read_bytes(), path.name)], image)
            assert isinstance(mask, Mask)
            assert mask.measures["resampled"] == 0
            dataset = pydicom.dcmread(next((folder / "mask").iterdir()), force=True)
            (drawn,) = RtStruct(roi={"tumor": "."}).read("tumor", [LabelObject(dataset)], image)
            assert np.array_equal(mask.voxels, drawn.voxels)
