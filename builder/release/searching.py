"""Search the pixels of some images for text, in one task: what a rule clears is not decoded."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydicom import Dataset

from builder.decode.format import pixel_format
from builder.deid.pixels import pixel_risk
from builder.errors import Reason
from builder.headers.boundary import elements_as
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.stored import stored_values
from builder.model.parquet import parquet_bytes, read_parquet
from builder.pixeltext.engines import Engine, rapid, tesseract
from builder.pixeltext.finding import Found, find_text, merged
from builder.release.devices import Devices, unpack_devices
from builder.release.found import Seen
from builder.release.triage import RULES
from builder.sources import AnySource
from builder.spec import DatasetSpec, keeping
from builder.stages.boundary import Faults, InternalError, OnInternalError, describe, fault_of_case
from builder.stages.listed import Listed, bring, read_object
from builder.stages.planned import SPEC
from builder.storage import checkpoint, open_store

IMAGES_A_TASK = 40


@dataclass(frozen=True)
class SearchArgument:
    """Which images to search, and where their plan is."""

    plan: str
    part: str
    everything: bool = False
    """Whether images that a rule clears are searched, too."""
    second_opinion: bool = False
    on_internal_error: OnInternalError = "exclude"
    content: str = ""


@dataclass(frozen=True)
class Searched:
    """What a task tells: images that were searched, how many a rule cleared, and how many could not be read."""

    images: tuple[Seen, ...]
    cleared: int = 0
    failed: int = 0
    resumed: bool = False
    internal_errors: tuple[InternalError, ...] = ()


def part_bytes(rows: pa.Table) -> bytes:
    """Return the images of a task as a file."""
    return parquet_bytes(rows, compression="lz4")


def part_path(part: str) -> str:
    """Return the path of a task's images in the plan."""
    return f"parts/{part}.parquet"


def receipt_path(part: str) -> str:
    """Return the path of what a task found, in the plan."""
    return f"searched/{part}.json"


def search_images(argument: SearchArgument) -> Searched:
    """Search some images unless it is done already. It is safe to run this again."""
    store = open_store(argument.plan, directory_mode=0o700)
    try:
        return _parsed(store.read(receipt_path(argument.part)))
    except FileNotFoundError:
        pass
    spec = keeping(DatasetSpec.model_validate_json(store.read(SPEC)), argument.content)
    rows = read_parquet(store.read(part_path(argument.part)))
    bring(rows, spec.sources)
    devices = unpack_devices(store.read(RULES))
    engines = [rapid(), *([tesseract()] if argument.second_opinion else [])]
    images: list[Seen] = []
    errors: list[InternalError] = []
    faults = Faults(argument.on_internal_error, errors.append)
    cleared = failed = 0
    for number, row in enumerate(rows.to_pylist()):
        try:
            seen = _search(row, spec.sources, None if argument.everything else devices, engines)
        except Exception as error:  # noqa: BLE001 - the case boundary
            if fault_of_case(error, on_internal_error=faults.action).reason == Reason.INTERNAL_ERROR:
                faults.add([describe(error, f"{argument.part}-{number}")])
            failed += 1
            continue
        if seen is None:
            cleared += 1
        else:
            images.append(seen)
    done = Searched(tuple(images), cleared, failed, internal_errors=tuple(errors))
    checkpoint("text.searched")
    if not errors:  # the fault may be mended before the next run
        store.put(receipt_path(argument.part), json.dumps(asdict(done)).encode())
    return done


def _parsed(data: bytes) -> Searched:
    found = json.loads(data)
    images = tuple(
        Seen(
            one["uid"], one["series"], one["why"], tuple((tuple(box), score, name) for box, score, name in one["found"])
        )
        for one in found["images"]
    )
    return Searched(images, found["cleared"], found["failed"], resumed=True)


def _search(
    row: dict[str, Any], sources: Sequence[AnySource], devices: Devices | None, engines: Sequence[Engine]
) -> Seen | None:
    """Return what is found in one image; None if a rule of ``devices`` clears it."""
    source = parse_instance(read_object(Listed.of(row), sources))
    with elements_as(Reason.UNREADABLE):
        if devices is not None and devices.rule_for(source).action == "clean":
            return None
        risk = pixel_risk(source)
        found = text_in(source, engines)
    rectangles = tuple((one.box, round(one.score, 3), one.source) for one in found)
    return Seen(row["sop_instance_uid"], row["series_uid"], risk.value if risk else "", rectangles)


def text_in(source: Dataset, engines: Sequence[Engine]) -> list[Found]:
    """Return rectangles around the text in all frames of an object: what is blanked is blanked in each of them.

    Frames that are equal are read once. Overlays (60xx) are not read, because none leaves with a release.

    Raises
    ------
    CaseError
        If the pixels cannot be decoded.
    """
    form = pixel_format(source)
    found: list[Found] = []
    seen: set[bytes] = set()
    for frame in frames_of(source):
        digest = hashlib.sha256(frame.tobytes()).digest()
        if digest not in seen:
            seen.add(digest)
            found += find_text(frame, engines, window=window_of(source) if form.samples == 1 else None)
    return merged(found)


def frames_of(source: Dataset) -> NDArray[Any]:
    """Return (frame, row, column[, 3]) values of an object, decoded. May raise CaseError."""
    form = pixel_format(source)
    values = stored_values(source, form)
    return values * np.uint8(255) if form.bits_allocated == 1 else values


def window_of(source: Dataset) -> tuple[float, float] | None:
    """Return the lowest and highest stored value that the header would show (PS3.3 C.11.2.1.2); None if it has none."""
    try:
        centre, width = (float(np.ravel(source.get(name))[0]) for name in ("WindowCenter", "WindowWidth"))
        slope, intercept = float(source.get("RescaleSlope") or 1), float(source.get("RescaleIntercept") or 0)
    except (TypeError, ValueError, IndexError):
        return None
    if not (np.isfinite([centre, width, slope, intercept]).all() and width > 0 and slope):
        return None
    low, high = sorted(((centre + side * width / 2) - intercept) / slope for side in (-1, 1))
    return low, high
