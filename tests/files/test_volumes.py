"""Volume files: voxels and affines equal those of nibabel and SimpleITK, and a grid that is not proved is refused."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from nibabel.spatialimages import HeaderDataError

from builder.files import FileFault, facts_from_json, read_facts, read_voxels
from builder.files.nifti import is_nifti
from builder.files.nrrd import nrrd_facts
from tests.files.writers import OBLIQUE, STRAIGHT, lps_of, nifti, values, written_by_itk


def read(*paths: Path) -> tuple[Any, Any]:
    facts, stored = read_voxels([path.read_bytes() for path in paths])
    return facts, stored[0].astype(np.float64) * facts.slope + facts.intercept


def same_as_peer(*paths: Path) -> None:
    facts, found = read(*paths)
    expected, affine = lps_of(paths[0])
    assert np.array_equal(found, expected)
    assert np.allclose(facts.affine, affine, rtol=0, atol=1e-5)
    assert facts_from_json(facts.to_json()) == facts


@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["left-handed", "sheared"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64"])
def test_a_nifti_is_read_as_nibabel_reads_it(tmp_path: Path, name: str, affine: Any, dtype: str) -> None:
    same_as_peer(nifti(tmp_path / name, values(dtype=dtype), affine))


def test_nifti_2_and_big_endian_and_scaled(tmp_path: Path) -> None:
    same_as_peer(nifti(tmp_path / "two.nii", values(), kind=nibabel.Nifti2Image))
    swapped = nibabel.Nifti1Image(values(), STRAIGHT, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(swapped, tmp_path / "big.nii")
    same_as_peer(tmp_path / "big.nii")
    scaled = nibabel.Nifti1Image(values(), STRAIGHT)
    scaled.header.set_slope_inter(2.5, -1024)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    assert read(tmp_path / "scaled.nii")[0].scaled
    same_as_peer(tmp_path / "scaled.nii")


def test_a_pair_needs_its_voxels(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(values(), STRAIGHT), tmp_path / "p.hdr")
    same_as_peer(tmp_path / "p.hdr", tmp_path / "p.img")
    with pytest.raises(FileFault, match="belong together"):
        read(tmp_path / "p.hdr")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nhdr", "a.mhd"])
@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_nrrd_and_metaimage_are_read_as_itk_reads_them(tmp_path: Path, name: str, packed: bool) -> None:
    path = written_by_itk(tmp_path / name, values().T, packed=packed)
    beside = [p for p in tmp_path.iterdir() if p != path]
    same_as_peer(path, *beside)


def test_a_slope_that_is_no_number_scales_nothing(tmp_path: Path) -> None:
    """Nibabel writes NaN for images that it does not scale."""
    path = nifti(tmp_path / "a.nii", values())
    data = bytearray(path.read_bytes())
    data[112:116] = np.float32("nan").tobytes()
    path.write_bytes(data)
    same_as_peer(path)


@pytest.mark.parametrize("slope", [0, 1, 2, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("intercept", [0, 5, np.nan, np.inf])
def test_slope_and_intercept_follow_nibabels_rule(tmp_path: Path, slope: float, intercept: float) -> None:
    path = nifti(tmp_path / "a.nii", values())
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(data)
    if slope in (1, 2) and not np.isfinite(intercept):
        with pytest.raises(HeaderDataError, match="intercept"):
            nibabel.load(path)
        said = f"scl_slope {slope} and scl_inter {intercept}, expected a number"
        with pytest.raises(FileFault, match=said):
            read_facts(bytes(data))
    else:
        same_as_peer(path)


def changed(path: Path, **fields: Any) -> Any:
    """Facts of a NIfTI with other header fields."""
    data = path.read_bytes()
    header = nibabel.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return read_facts(header.binaryblock + data[348:])


def test_grids_that_are_not_proved_are_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", values())
    assert "neither qform nor sform" in changed(path, qform_code=0, sform_code=0).fault
    assert "voxels apart" in changed(path, qoffset_x=40.0).fault
    assert "not finite" in changed(path, srow_x=np.nan, qform_code=0).fault
    assert "usable grid" in changed(path, srow_x=0, qform_code=0).fault
    assert "units" in changed(path, xyzt_units=7).fault
    assert changed(path, xyzt_units=0).notes == ("spatial_unit_unstated",)
    metres = changed(path, xyzt_units=1)
    assert np.allclose(np.array(metres.affine)[:3], 1000 * np.array(read_facts(path.read_bytes()).affine)[:3])


def test_four_axes_and_vectors_are_told_apart(tmp_path: Path) -> None:
    assert read_facts(nifti(tmp_path / "t.nii", values((5, 4, 3, 2))).read_bytes()).layer_kind == "volumes"
    assert read_facts(nifti(tmp_path / "v.nii", values((5, 4, 3, 1, 2))).read_bytes()).layer_kind == "vector"
    colour = np.zeros((5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, STRAIGHT), tmp_path / "c.nii")
    assert read_facts((tmp_path / "c.nii").read_bytes()).layer_kind == "colour"
    with pytest.raises(FileFault, match="complex64"):
        read_facts(nifti(tmp_path / "z.nii", values(dtype="complex64")).read_bytes())


@pytest.mark.parametrize(
    ("shape", "intent", "kind", "parts"),
    [
        ((5, 4), 0, "", 1), ((5, 4, 1, 1, 1), 0, "", 1), ((5, 4, 3, 1, 1, 1, 1), 0, "", 1),
        ((5, 4, 3, 2), 0, "volumes", 1), ((5, 4, 3, 2, 1, 1, 1), 0, "volumes", 1), ((5, 4, 1, 6), 0, "volumes", 1),
        ((5, 4, 3, 1, 2), 0, "vector", 1), ((5, 4, 3, 1, 2), 1007, "vector", 2),
        ((5, 4, 3, 1, 3, 1, 1), 0, "vector", 1),
    ],
)  # fmt: skip
def test_further_axes_of_a_nifti_are_those_of_nibabel_and_itk(
    tmp_path: Path, shape: tuple[int, ...], intent: int, kind: str, parts: int
) -> None:
    path = nifti(tmp_path / "a.nii", values(shape), intent_code=intent)
    facts, stored = read_voxels([path.read_bytes()])
    expected = np.asarray(nibabel.load(path).dataobj).T
    assert (facts.layer_kind, facts.layers, facts.fault) == (kind, int(np.prod(shape[3:])), "")
    assert np.array_equal(stored, expected.reshape(stored.shape))
    assert facts.shape == (*shape, 1)[:3][::-1]
    if 2 < len(shape) < 7:  # ITK refuses a picture whose axes leave its plane
        image = SimpleITK.ReadImage(str(path))
        assert image.GetNumberOfComponentsPerPixel() == parts
        assert image.GetNumberOfPixels() * parts == stored.size


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((5, 4, 3, 2, 2), r"shape \(5, 4, 3, 2, 2\), time points \(axis 4\) of vectors \(axis 5\)"),
        ((5, 4, 3, 1, 1, 2), "expected three axes, or a fourth of volumes or a fifth of vectors"),
        ((5, 4, 3, 2, 1, 2), "expected three axes, or a fourth"),
        ((5,), "expected two to seven axes"),
    ],
)
def test_axes_that_are_not_understood_are_refused_with_their_shape(
    tmp_path: Path, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(FileFault, match=said):
        read_facts(nifti(tmp_path / "a.nii", values(shape)).read_bytes())


@pytest.mark.parametrize("trailing", [(1, 1, 1, 1), (2, 1, 1, 1), (0, 0, 0, 0), (7, 7, 7, 7)])
def test_axes_beyond_the_number_of_axes_do_not_count(tmp_path: Path, trailing: tuple[int, ...]) -> None:
    path = nifti(tmp_path / "a.nii", values())
    assert changed(path, dim=[3, 5, 4, 3, *trailing]) == read_facts(path.read_bytes())
    flat = changed(path, dim=[2, 5, 4, *trailing[:1], *trailing])
    assert (flat.shape, flat.layers) == ((1, 4, 5), 1)


def test_time_points_of_vectors_are_refused_in_other_formats(tmp_path: Path) -> None:
    image = SimpleITK.JoinSeries([SimpleITK.Image([5, 4, 3], SimpleITK.sitkVectorFloat32, 2)] * 3)
    for name, said in (("a.mha", "a MetaImage of 4 axes"), ("a.nrrd", "of 5 axes with a direction in space")):
        SimpleITK.WriteImage(image, str(tmp_path / name))
        with pytest.raises(FileFault, match=said):
            read_facts((tmp_path / name).read_bytes())
    vectors = SimpleITK.Image([5, 4, 3], SimpleITK.sitkVectorFloat32, 2)
    for name in ("v.mha", "v.nrrd"):
        SimpleITK.WriteImage(vectors, str(tmp_path / name))
        facts = read_facts((tmp_path / name).read_bytes())
        assert (facts.layer_kind, facts.layers) == ("vector", 2)


def test_a_damaged_stream_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 99, (20, 20, 9)).astype("i2")
    whole = nifti(tmp_path / "a.nii.gz", noise).read_bytes()
    with pytest.raises(FileFault, match="break off"):
        read_voxels([whole[: len(whole) // 2]])
    with pytest.raises(FileFault, match="break off"):
        read_voxels([whole[:-6]])  # all voxels are there, their checksum is not
    flipped = bytearray(whole)
    flipped[-6] ^= 1
    with pytest.raises(FileFault, match="do not decompress"):
        read_voxels([bytes(flipped)])
    inside = gzip.decompress(whole)
    parts = gzip.compress(inside[:3000]) + gzip.compress(inside[3000:])  # several members, as bgzip writes
    assert np.array_equal(read_voxels([parts])[1], read_voxels([whole])[1])
    with pytest.raises(FileFault, match="more than"):
        read_voxels([gzip.compress(inside + bytes(2**21))])
    tape = whole + gzip.compress(b"") + bytes(512)  # an empty member ends what bgzip writes, and tapes pad with zeros
    assert np.array_equal(read_voxels([tape])[1], read_voxels([whole])[1])
    with pytest.raises(FileFault, match="do not decompress"):
        read_voxels([whole + b"rest of another file"])


def test_a_magic_of_the_other_version_is_no_nifti(tmp_path: Path) -> None:
    data = bytearray(nifti(tmp_path / "a.nii", values()).read_bytes())
    data[344:348] = b"n+2\0"
    with pytest.raises(FileFault, match="neither NIfTI"):
        read_facts(bytes(data))


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", values())
    with pytest.raises(FileFault, match=r"2\*\*31"):
        changed(path, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    data = path.read_bytes()
    with pytest.raises(FileFault, match="bytes of voxels"):
        read_voxels([data[:352]])


def test_a_nifti_2_whose_line_ends_were_changed_is_none(tmp_path: Path) -> None:
    content = bytearray(nifti(tmp_path / "two.nii", values(), kind=nibabel.Nifti2Image).read_bytes())
    assert is_nifti(bytes(content))
    content[8:12] = b"\n\x1a\n\0"  # nifti2.h: as a transfer as text leaves them
    assert not is_nifti(bytes(content))


def test_an_origin_with_a_bracket_too_many_is_refused(tmp_path: Path) -> None:
    path = written_by_itk(tmp_path / "a.nrrd", values().T, packed=False)
    content = path.read_bytes()
    assert nrrd_facts(content).fault == ""
    damaged = content.replace(b"space origin: (", b"space origin: ((")
    assert damaged != content
    assert "origin that can be used" in nrrd_facts(damaged).fault
    with pytest.raises(FileFault, match="no field of the format"):
        nrrd_facts(content.replace(b"space origin: ", b"space origin:"))


@pytest.mark.parametrize("coded", [{"sform_code": 0}, {}], ids=["qform", "both"])
def test_a_qform_without_its_sign_is_right_handed(tmp_path: Path, coded: dict[str, int]) -> None:
    """nifti1.h: "if pixdim[0]=0 (which should not occur), we take qfac=1"."""
    right = np.diag([-0.8, -1.2, 2.5, 1.0])
    path = nifti(tmp_path / "a.nii", values(), right)
    header = nibabel.Nifti1Header(path.read_bytes()[:348])
    header["pixdim"][0] = 0
    for name, code in coded.items():
        header[name] = code
    path.write_bytes(header.binaryblock + path.read_bytes()[348:])
    same_as_peer(path)


HEADER = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 0 1 0 0 0 -1 1 0 0\nOffset = 1 2 3\n"
    "ElementSpacing = 0.7 1.3 2.9\nDimSize = 5 4 3\nElementType = MET_SHORT\n{}ElementDataFile = {}\n"
)


@pytest.mark.parametrize(
    "more", ["Comment = M\u00fcller\n", "HeaderSize = -1\n", "HeaderSize = 0\n", "ElementByteOrderMSB = False\n"]
)
def test_metaimages_of_other_writers_are_read_as_itk_reads_them(tmp_path: Path, more: str) -> None:
    first = b"four" if "-1" in more else b""
    head = HEADER.format(more.replace("0\n", "0\nDistanceUnits = mm\n"), "LOCAL")
    (tmp_path / "a.mha").write_bytes(head.encode() + first + values().T.tobytes())
    same_as_peer(tmp_path / "a.mha")
    (tmp_path / "b.mhd").write_text(HEADER.format(more, "./b.raw"))
    (tmp_path / "b.raw").write_bytes(first + values().T.tobytes())
    same_as_peer(tmp_path / "b.mhd", tmp_path / "b.raw")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("DistanceUnits = cm\n", "not mm"),
        ("ElementToIntensityFunctionSlope = 2\n", "ElementToIntensityFunction"),
        ("ElementToIntensityFunctionOffset = -1024\n", "ElementToIntensityFunction"),
        ("ElementByteOrderMSB = True\nBinaryDataByteOrderMSB = False\n", "byte order"),
        ("HeaderSize = 4\n", "HeaderSize"),
        ("HeaderSize = -2\n", "HeaderSize"),
    ],
)
def test_metaimages_that_readers_take_differently_are_refused(more: str, said: str) -> None:
    with pytest.raises(FileFault, match=said):
        read_facts(HEADER.format(more, "LOCAL").encode() + values().T.tobytes())


def test_packed_voxels_that_are_fewer_than_stated_are_refused(tmp_path: Path) -> None:
    """ITK reads no such file, although the stream itself is whole."""
    image = SimpleITK.GetImageFromArray(values().T)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"), useCompression=True)
    content = (tmp_path / "a.mha").read_bytes()
    stated = read_facts(content).packed_bytes
    assert read_voxels([content])[1].size == values().size
    longer = content.replace(b"CompressedDataSize = %d" % stated, b"CompressedDataSize = %d" % (stated + 1))
    with pytest.raises(FileFault, match=f"{stated} bytes of compressed voxels, expected {stated + 1}"):
        read_voxels([longer])


def test_an_nrrd_that_leaves_the_order_of_bytes_open_is_refused(tmp_path: Path) -> None:
    content = written_by_itk(tmp_path / "a.nrrd", values().T).read_bytes()
    with pytest.raises(FileFault, match="endian"):
        read_facts(content.replace(b"endian: little\n", b""))


@pytest.mark.parametrize(
    ("name", "said"), [("x.mha", "a MetaImage of 4 axes, expected three"), ("x.nrrd", "0 of 4 axes with a direction")]
)
def test_four_axes_that_nobody_explains_are_refused_by_their_number(tmp_path: Path, name: str, said: str) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 5), "int16"), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / name))
    with pytest.raises(FileFault, match=said):
        read_facts((tmp_path / name).read_bytes())
