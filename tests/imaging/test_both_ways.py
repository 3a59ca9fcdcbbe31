"""Series that went wrong before, and variations of each kind: the right voxels from ``builder volumes`` and ``build``.

All variations of a kind lie in one archive, each with a number of columns of its own by which it is found again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

import builder
from builder.library.volumes import KEEP_ALL, write_volumes
from tests.endtoend.trees import KEY

STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
ROWS = 12
Volumes = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Variation:
    """A series under one UID and the volumes, (channel, slice, row, column), that are right."""

    name: str
    slices: Callable[[int], Sequence[Dataset]]
    right: Callable[[int], Volumes]
    note: str = ""


def piece(pixels: NDArray[Any], z: float, *, modality: str = "CT", **more: Any) -> Dataset:
    """One slice, without UIDs; ``more`` are attributes by keyword, None to leave one out."""
    made = Dataset()
    values = {
        "Modality": modality, "SOPClassUID": STORAGE[modality], "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "StudyDate": "20200101", "SeriesDate": "20200101", "AcquisitionDate": "20200101", "StudyTime": "100000",
        "SeriesTime": "100000", "AcquisitionTime": "100000", "PixelSpacing": [1, 1], "SliceThickness": "5",
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, f"{z:.6g}"],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8, "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }  # fmt: skip
    if modality == "CT":
        values |= {"RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "HU", "KVP": "120"}
    for name, value in (values | more).items():
        if value is not None:
            setattr(made, name, value)
    made.Rows, made.Columns = pixels.shape
    made.HighBit = made.BitsStored - 1
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"
    return made


def flat(value: float, columns: int, dtype: Any = np.int16) -> NDArray[Any]:
    return np.full((ROWS, columns), value, dtype)


def write(folder: Path, number: int, made: Sequence[Dataset], *, syntax: str = ExplicitVRLittleEndian) -> None:
    """The slices of a variation as the files of a patient."""
    (folder / f"{number:02d}").mkdir(parents=True)
    for index, image in enumerate(made):
        image.PatientID, image.PatientName, image.PatientSex = f"V{number}", f"V{number}", "F"
        image.StudyInstanceUID, image.SeriesInstanceUID = f"1.2.3.{number + 1}", f"1.2.3.{number + 1}.1"
        image.FrameOfReferenceUID = f"1.2.3.{number + 1}.2"
        image.SOPInstanceUID = f"1.2.3.{number + 1}.1.{index + 1}"
        if "InstanceNumber" not in image:
            image.InstanceNumber = index + 1
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = syntax
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.save_as(folder / f"{number:02d}" / f"{index:03d}.dcm", enforce_file_format=True)


def by_volumes(folder: Path, out: Path, **options: Any) -> tuple[dict[int, list[NDArray[Any]]], list[dict[str, Any]]]:
    """Columns to the volumes that ``builder volumes`` writes."""
    rows = write_volumes(folder, out, options=KEEP_ALL.model_copy(update=options)).to_pylist()
    found: dict[int, list[NDArray[Any]]] = {}
    for row in rows:
        if row["file"]:
            voxels = np.asarray(nibabel.load(out / row["file"]).dataobj)
            voxels = voxels[..., None] if voxels.ndim == 3 else voxels
            found.setdefault(row["columns"], []).append(voxels.transpose(3, 2, 1, 0))
    return found, rows


def by_build(folder: Path, out: Path, **volumes: Any) -> tuple[dict[int, list[NDArray[Any]]], list[dict[str, Any]]]:
    """Columns to the volumes that ``builder build`` publishes; and its exclusions."""
    spec = builder.DatasetSpec.model_validate(
        {
            "name": "both", "license": "none", "sources": [{"kind": "folder", "url": str(folder)}],
            "cohort": {"one_per": "series"}, "deid": {"patient_key": "${env:BUILDER_TEST_KEY}"}, "volumes": volumes,
            "samples": {"kind": "volumes", "chunk": [1, 32, 32]}, "splits": {"ratios": {"train": 1.0}},
            "leaks": {"pixels": "off"},
        }
    )  # fmt: skip
    builder.build(spec, to=str(out))
    version = out / "versions" / (out / "CURRENT").read_text().strip()
    dataset = builder.open_dataset(str(out))
    found: dict[int, list[NDArray[Any]]] = {}
    for number, row in enumerate(pq.read_table(version / "index.parquet").to_pylist()):
        found.setdefault(row["columns"], []).append(np.asarray(dataset[number]["image"]))
    return found, pq.read_table(version / "exclusions.parquet").to_pylist()


def check(variations: Sequence[Variation], tmp_path: Path, *, syntax: str = ExplicitVRLittleEndian, **how: Any) -> None:
    """Both ways give every variation its right volumes, in any order of the stacks of a series."""
    archive = tmp_path / "archive"
    for number, variation in enumerate(variations):
        write(archive, number, variation.slices(16 + number), syntax=syntax)
    shown, _ = by_volumes(archive, tmp_path / "shown", **how)
    built, exclusions = by_build(archive, tmp_path / "built", **how)
    assert [e for e in exclusions if e["stage"] == "shard"] == []
    for number, variation in enumerate(variations):
        right = [np.asarray(v) for v in variation.right(16 + number)]
        for way, found in (("volumes", shown), ("build", built)):
            volumes = sorted(found.get(16 + number, []), key=lambda v: (v.shape, v.ravel().tolist()))
            assert len(volumes) == len(right), f"{variation.name}: {len(volumes)} volumes by {way}"
            for one, other in zip(volumes, right, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{variation.name} by {way}")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_TEST_KEY", KEY)


def constant(value: float, columns: int, slices: int) -> NDArray[Any]:
    return np.full((1, slices, ROWS, columns), value)


def two(name: str, one: Mapping[str, Any], other: Mapping[str, Any], shift: float = 2.5) -> Variation:
    """Two stacks of six slices under one series, half a gap apart, of 40 and 400 HU."""

    def slices(columns: int) -> list[Dataset]:
        return [
            piece(flat(value, columns), z0 + 5.0 * k, **more)
            for value, z0, more in ((40, 0.0, one), (400, shift, other)) for k in range(6)
        ]  # fmt: skip

    return Variation(name, slices, lambda columns: [constant(40, columns, 6), constant(400, columns, 6)])


def one(name: str, change: Callable[[int], Mapping[str, Any]]) -> Variation:
    """One MR volume of ten slices, 3 mm thick and apart, of 100, 101, ..."""
    plain: dict[str, Any] = {"modality": "MR", "SliceThickness": "3", "EchoTime": "4.92"}
    plain |= {"EchoNumbers": 1, "FlipAngle": "15"}

    def slices(columns: int) -> list[Dataset]:
        return [piece(flat(100 + k, columns), 3.0 * k, **(plain | dict(change(k)))) for k in range(10)]

    def right(columns: int) -> Volumes:
        return [np.broadcast_to(100 + np.arange(10)[None, :, None, None], (1, 10, ROWS, columns))]

    return Variation(name, slices, right)


SERIES = (
    two("kernel", {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
    two("kernel, uneven", {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}, shift=1.0),
    two("tube voltage", {"KVP": "80"}, {"KVP": "140"}),
    two("acquisition", {"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    two("acquisition time", {"AcquisitionTime": "100000"}, {"AcquisitionTime": "100500"}),
    two("thickness", {"SliceThickness": "5"}, {"SliceThickness": "4"}),
    two("contrast", {"ContrastBolusAgent": None}, {"ContrastBolusAgent": "Iodine"}),
    two("series number", {"SeriesNumber": 2}, {"SeriesNumber": 3}),
    two("description", {"SeriesDescription": "native"}, {"SeriesDescription": "venous"}),
    two("derived", {}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}),
    two("flip angle", {"FlipAngle": "10"}, {"FlipAngle": "30"}),
    one("rounded echo time", lambda k: {"EchoTime": "4.9200001" if k % 2 else "4.92"}),
    one("rounded echo time in blocks", lambda k: {"EchoTime": "4.9200001" if k > 4 else "4.92"}),
    one("cut echo time", lambda k: {"EchoTime": "4.9" if k % 2 else "4.92"}),
    one("a rounding a slice", lambda k: {"EchoTime": f"{4.92 + k * 1e-6:.8f}"}),
    one("no echo number", lambda k: {"EchoNumbers": None if k % 2 else 1}),
    one("no echo time", lambda k: {"EchoTime": None if k % 2 else "4.92"}),
    one("no flip angle", lambda k: {"FlipAngle": None if k % 2 else "15"}),
    one("derived half", lambda k: {"ImageType": ["DERIVED" if k % 2 else "ORIGINAL", "PRIMARY", "M"]}),
    one("no acquisition number", lambda k: {"AcquisitionNumber": None if k % 2 else 1}),
    one("two passes", lambda k: {"AcquisitionNumber": 1 + k % 2, "AcquisitionTime": f"10000{k % 2}"}),
)


def test_unlike_slices_are_never_joined_and_like_ones_never_set_apart(tmp_path: Path) -> None:
    check(SERIES, tmp_path)


def padded(name: str, **options: Any) -> Variation:
    """Six slices with padding in the first four rows."""
    how: dict[str, Any] = {
        "value": 63536, "declared": 63536, "stored": 12, "dtype": np.uint16, "vr": "US", "intercept": -1024,
        "data": 1064, "limit": None, "air": -1024, "where": lambda pixels: (slice(0, 4), slice(None)),
    } | options  # fmt: skip

    def slices(columns: int) -> list[Dataset]:
        made = []
        for k in range(6):
            pixels = flat(how["data"], columns, how["dtype"])
            pixels[how["where"](pixels)] = how["value"]
            image = piece(pixels, 5.0 * k, BitsStored=how["stored"], RescaleIntercept=str(how["intercept"]))
            if how["declared"] is not None:
                image.add_new(0x00280120, how["vr"], how["declared"])
            if how["limit"] is not None:
                image.add_new(0x00280121, how["vr"], how["limit"])
            made.append(image)
        return made

    def right(columns: int) -> Volumes:
        volume = constant(how["data"] + how["intercept"], columns, 6)
        volume[(..., *how["where"](volume[0, 0]))] = how["air"]
        return [volume]

    return Variation(name, slices, right)


def few(pixels: NDArray[Any]) -> Any:
    """Every fifth pixel of every fifth row: scattered, as noise is."""
    return (slice(1, None, 5), slice(1, None, 5))


def edge(pixels: NDArray[Any]) -> Any:
    return (slice(None), slice(0, 5))


PADDING = (
    padded("above the stored bits"),
    padded("above 14 stored bits", stored=14),
    padded("above 10 stored bits", stored=10, data=600),
    padded("all bits set", value=65535, declared=65535),
    padded("the lowest number, signed", value=-32768, declared=-32768, dtype=np.int16, vr="SS", data=64, intercept=0),
    padded("a signed value declared without a sign", value=-2000, declared=63536, dtype=np.int16, stored=16, data=64,
           intercept=0),
    padded("within the stored bits", value=2048, declared=2048),
    padded("a range", value=3010, declared=3000, limit=3020),
    padded("a range above the stored bits", value=63536, declared=60000, limit=65535),
    padded("declared and nowhere", declared=63536, value=1064, air=40),
    padded("16 bits", value=65535, declared=65535, stored=16),
    padded("0 around", value=0, declared=0, stored=16, dtype=np.int16, vr="SS", intercept=0, data=40, where=edge),
    padded("0 in tissue", value=0, declared=0, stored=16, dtype=np.int16, vr="SS", intercept=0, data=40, where=few,
           air=0),
    padded("without intercept, unsigned", value=65535, declared=65535, stored=16, intercept=0, data=40),
)  # fmt: skip


def test_padding_is_told_from_data_whatever_bits_it_uses(tmp_path: Path) -> None:
    check(PADDING, tmp_path)


def over_time(name: str, moments: Sequence[Mapping[str, Any]], **how: Any) -> Variation:
    """Three time points of four slices, of 100, 200 and 300; ``hole`` is padding at the first alone."""
    modality, hole = how.get("modality", "PT"), how.get("hole")
    plain = {"Units": "CNTS", "RescaleSlope": "1", "RescaleIntercept": "0"} if modality == "PT" else {}

    def value(t: int, columns: int) -> NDArray[Any]:
        pixels = flat(100 * (t + 1), columns)
        if hole is not None and t == 0:
            pixels[2:6, 2:6] = hole
        return pixels

    def slices(columns: int) -> list[Dataset]:
        made = []
        for t, moment in enumerate(moments):
            for k in range(4):
                more = plain | dict(moment) | {"InstanceNumber": 100 - 10 * t + k}
                image = piece(value(t, columns), 4.0 * k, modality=modality, **more)
                if hole is not None:
                    image.add_new(0x00280120, "SS", hole)
                made.append(image)
        return made

    def right(columns: int) -> Volumes:
        points = [np.broadcast_to(value(t, columns), (4, ROWS, columns)).astype(np.int32) for t in range(len(moments))]
        if hole is not None:
            points[0] = np.where(points[0] == hole, how.get("air", 0), points[0])
        return [np.stack(points)]

    return Variation(name, slices, right)


NIGHT = (("20200101", "235000"), ("20200101", "235500"), ("20200102", "000000"))
POSITIONS = tuple({"TemporalPositionIdentifier": t} for t in (1, 2, 3))
TIMES = (
    over_time("midnight", [{"AcquisitionDate": d, "AcquisitionTime": t, "SeriesTime": "235000"} for d, t in NIGHT]),
    over_time("midnight with frame times", [
        {"AcquisitionDate": d, "AcquisitionTime": t, "FrameReferenceTime": str(n * 300000 + 150000)}
        for n, (d, t) in enumerate(NIGHT)
    ]),
    over_time("midnight by content", [
        {"AcquisitionTime": None, "AcquisitionDate": None, "ContentDate": d, "ContentTime": t} for d, t in NIGHT
    ]),
    over_time("midnight by the series", [
        {"AcquisitionDate": None, "AcquisitionTime": t, "SeriesTime": "234500"} for _, t in NIGHT
    ]),
    over_time("days at earlier hours", [
        {"AcquisitionDate": d, "AcquisitionTime": t}
        for d, t in (("20200101", "170000"), ("20200102", "120000"), ("20200103", "080000"))
    ]),
    over_time("dates and times", [
        {"AcquisitionDate": None, "AcquisitionTime": None, "AcquisitionDateTime": d + t} for d, t in NIGHT
    ]),
    over_time("time zones in dates and times", [
        {"AcquisitionDate": None, "AcquisitionTime": None, "AcquisitionDateTime": t}
        for t in ("20200101120000+0200", "20200101103000+0000", "20200101070000-0500")
    ]),
    over_time("time zones", [
        {"AcquisitionTime": t, "TimezoneOffsetFromUTC": z}
        for t, z in (("120000", "+0200"), ("103000", "+0000"), ("070000", "-0500"))
    ]),
    over_time("trigger times", [
        {"TriggerTime": f, "AcquisitionTime": t} for f, t in (("0", "100300"), ("45", "100200"), ("90", "100100"))
    ], modality="MR"),
    over_time("counters that start anew", [
        {"AcquisitionNumber": n, "AcquisitionDate": d, "AcquisitionTime": t}
        for n, d, t in ((5, "20200101", "160000"), (6, "20200101", "170000"), (1, "20200102", "080000"))
    ]),
    over_time("padding at one time", POSITIONS, modality="MR", hole=0),
    over_time("padding below at one time", POSITIONS, modality="MR", hole=-32768),
    over_time("padding of a CT at one time", POSITIONS, modality="CT", hole=-2000, air=-1024),
)  # fmt: skip


def test_time_points_are_in_order_and_padding_is_that_of_its_own_image(tmp_path: Path) -> None:
    check(TIMES, tmp_path, time_series="keep")


def eight_bits(name: str, vrs: Sequence[str], **options: Any) -> Variation:
    """Six slices of 8 bits whose rows count up; ``vrs`` are the VR of Pixel Data of each slice in turn."""
    how: dict[str, Any] = {"dtype": np.uint8, "rows": ROWS, "first": 0, "stored": 8, "padding": None} | options
    how = {"modality": "MR", "slope": None, "intercept": None, "downwards": False} | how

    def pixels(columns: int, k: int) -> NDArray[Any]:
        row = (np.arange(columns) * 3 + k + how["first"]) % 2 ** how["stored"]
        return np.tile(row, (how["rows"], 1)).astype(how["dtype"])

    def slices(columns: int) -> list[Dataset]:
        made = []
        scale = {"RescaleSlope": how["slope"], "RescaleIntercept": how["intercept"]} if how["slope"] else {}
        for k in range(6):
            data = pixels(columns, k)
            image = piece(data, 5.0 * k, modality=how["modality"], BitsStored=how["stored"], **scale)
            if how["padding"] is not None:
                image.add_new(0x00280120, "US", how["padding"])
            whole = np.append(data.ravel(), np.zeros(data.size % 2, data.dtype))  # an even number of bytes
            vr = vrs[k % len(vrs)]
            image.PixelData = (whole.reshape(-1, 2)[:, ::-1] if vr == "OW" else whole).tobytes()
            image["PixelData"].VR = vr
            made.append(image)
        return made[::-1] if how["downwards"] else made

    def right(columns: int) -> Volumes:
        volume = np.array([[pixels(columns, k) for k in range(6)]]).astype(np.float64)
        return [volume * float(how["slope"] or 1) + float(how["intercept"] or 0)]

    return Variation(name, slices, right)


EIGHT_BITS = (
    eight_bits("words", ["OW"]),
    eight_bits("words, an odd number of columns", ["OW"]),
    eight_bits("bytes", ["OB"]),
    eight_bits("signed words", ["OW"], dtype=np.int8, stored=8, first=-20),
    eight_bits("signed bytes", ["OB"], dtype=np.int8, stored=8, first=-20),
    eight_bits("padded words", ["OW"], padding=250),
    eight_bits("padded bytes", ["OB"], padding=250),
    eight_bits("words, an odd number of pixels", ["OW"], rows=11),
    eight_bits("bytes of a smaller image", ["OB"], rows=4),
    eight_bits("bytes, an odd number of pixels", ["OB"], rows=11),
    eight_bits("words of values above 127", ["OW"], first=140),
    eight_bits("words with 7 bits stored", ["OW"], stored=7, first=60),
    eight_bits("words of a CT", ["OW"], modality="CT", slope="1", intercept="-1024"),
    eight_bits("words with a slope", ["OW"], slope="2", intercept="3"),
    eight_bits("words and bytes in turn", ["OW", "OB"]),
    eight_bits("words from the last slice to the first", ["OW"], downwards=True),
)


def test_bytes_of_big_endian_words_are_in_order(tmp_path: Path) -> None:
    check(EIGHT_BITS, tmp_path, syntax=ExplicitVRBigEndian)


def scaled(name: str, slope: str, intercept: str, dtype: Any = np.int16, **more: Any) -> Variation:
    def slices(columns: int) -> list[Dataset]:
        rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        return [piece(flat(100, columns, dtype), 5.0 * k, **(rescale | more)) for k in range(6)]

    return Variation(name, slices, lambda columns: [constant(100 * float(slope) + float(intercept), columns, 6)])


WHOLE, HALF = scaled("whole", "1", "-1024"), scaled("half", "0.5", "-1024")


@pytest.mark.parametrize(
    ("variations", "dtype"),
    [
        ([WHOLE, WHOLE, HALF], "float32"),
        ([HALF, WHOLE, WHOLE], "float32"),
        ([WHOLE, HALF, WHOLE], "float32"),
        ([WHOLE, HALF, scaled("quarter", "0.25", "-1024")], "float32"),
        ([WHOLE, scaled("between", "1", "-1024.5"), WHOLE], "float32"),
        ([scaled("unsigned half", "0.5", "-1024", np.uint16), WHOLE], "float32"),
        ([WHOLE, scaled("MR", "0.5", "0", modality="MR")], "float32"),
        ([WHOLE, scaled("bytes", "1", "0", np.uint8, modality="MR"), WHOLE], "int16"),
        ([scaled("bytes", "1", "0", np.uint8, modality="MR"), scaled("words", "1", "0", modality="MR")], "int16"),
        ([scaled("words", "1", "0", np.uint16, modality="MR"), scaled("signed", "1", "0")], "float32"),
        ([scaled("a", "1", "0.5"), scaled("b", "1", "0", np.uint16), scaled("c", "1", "0", np.uint8)], "float32"),
    ],
)
def test_the_plan_chooses_one_number_type_for_all(variations: Sequence[Variation], dtype: str, tmp_path: Path) -> None:
    check(variations, tmp_path)
    version = tmp_path / "built" / "versions" / (tmp_path / "built" / "CURRENT").read_text().strip()
    manifest = json.loads((version / "dataset.json").read_text())
    assert dtype in json.dumps(manifest["fields"])


def pet(name: str, note: str, **changes: Any) -> Variation:
    """A Zr-89 or F-18 scan whose header contradicts itself: activity, 1000 Bq/ml, with the reason."""

    def slices(columns: int) -> list[Dataset]:
        how = {"half_life": "6586.2", "code": ("C-111A1", "^18^Fluorine"), "clock": "090000", "weight": "70"} | changes
        made = []
        for k in range(4):
            image = piece(
                flat(1000, columns), 4.0 * k, modality="PT", RescaleSlope="1", RescaleIntercept="0", Units="BQML",
                CorrectedImage=["ATTN", "DECY"], DecayCorrection="START", PatientWeight=how["weight"], DecayFactor="1",
                FrameReferenceTime="0",
            )  # fmt: skip
            drug, code = Dataset(), Dataset()
            drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = how.get("dose", "370000000"), how["half_life"]
            drug.RadiopharmaceuticalStartTime = how["clock"]
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = how["code"][0], "SRT", how["code"][1]
            drug.RadionuclideCodeSequence = [code]
            image.RadiopharmaceuticalInformationSequence = [drug]
            made.append(image)
        return made

    return Variation(name, slices, lambda columns: [constant(1000, columns, 4)], note)


PETS = (
    pet("clock of Zr-89", "injection_day_unknown", half_life="282276", code=("C-168A4", "^89^Zirconium")),
    pet("clock of Cu-64", "injection_day_unknown", half_life="45724", code=("C-127A2", "^64^Copper")),
    pet("clock of I-124", "injection_day_unknown", half_life="360806", code=("C-114A5", "^124^Iodine")),
    pet("clock of Lu-177", "injection_day_unknown", half_life="574300", code=("X", "^177^Lutetium")),
    pet("half-life of C-11", "half_life_contradicts_nuclide", half_life="1221.8"),
    pet("half-life in minutes", "half_life_contradicts_nuclide", half_life="109.77"),
    pet("half-life 6 % off", "half_life_contradicts_nuclide", half_life="6990"),
    pet("an unknown half-life", "half_life_of_no_nuclide", half_life="2000", code=("X", "tracer")),
    pet("0.7 kg", "weight_implausible", weight="0.7"),
    pet("grams", "weight_implausible", weight="70000"),
    pet("a dose in kBq", "dose_implausible", dose="370000"),
)


def test_contradicting_pet_is_activity_with_the_reason(tmp_path: Path) -> None:
    check(PETS, tmp_path)
    _, rows = by_volumes(tmp_path / "archive", tmp_path / "again")
    notes = {row["columns"]: row["notes"] for row in rows}
    assert notes == {16 + n: [f"no_suv:{variation.note}"] for n, variation in enumerate(PETS)}


@pytest.mark.parametrize("odd", [0, 3])
def test_values_that_no_header_tells_cost_their_own_case(odd: int, tmp_path: Path) -> None:
    for number in range(4):
        value = 60000 if number == odd else 1000
        pixels = flat(value, 16 + number, np.uint16)
        write(tmp_path / "in", number, [piece(pixels, 5.0 * k, RescaleIntercept="-1024") for k in range(4)])
    built, exclusions = by_build(tmp_path / "in", tmp_path / "built")
    assert sorted(built) == [16 + n for n in range(4) if n != odd]
    assert [(e["reason"], "intensity" in e["detail"]) for e in exclusions] == [("inconsistent_pixels", True)]
