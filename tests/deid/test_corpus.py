"""Whole real files: no value of the source about persons, places or objects is found again, and nothing crashes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from builder.deid.headers import deidentify
from builder.deid.identifiers import UNDECODABLE
from builder.deid.leaks import Canaries, assert_clean
from builder.deid.profile import Action, Profile, table
from builder.deid.text import ordinary_words
from builder.deid.uids import UidMap, is_registered
from builder.errors import CaseError, PrivacyError
from builder.model.keyed import Key

KEY = Key(b"sixteen bytes and more")
TEXT = ("LO", "SH", "PN", "UI", "LT", "ST", "UT", "AE", "UC", "UR")


def identifying(dataset: Dataset) -> Iterator[str]:
    """The UIDs and the values of attributes that the profile removes, empties or replaces, at every depth."""
    profile = Profile()
    for element in dataset.iterall():
        row = table().get(int(element.tag))
        listed = row is not None and profile.action(row) in (Action.REMOVE, Action.EMPTY, Action.DUMMY, Action.UID)
        if element.VR in TEXT and (listed or element.VR in ("UI", "PN")):
            values = element.value if element.VM > 1 else [element.value]
            yield from (str(v) for v in values if v and not is_registered(str(v)))


# Imaging words, and manufacturers that sign as persons.
EXPECTED_WORDS = ordinary_words() | {"pixelmed", "qiicr"}


@pytest.mark.filterwarnings("ignore")  # real files break rules of their VRs
@pytest.mark.parametrize(
    ("archive", "folder", "most"),
    [
        ("odd", "deid_phi", 10),
        ("segmentation", "qin_hn_0024_pet_seg", 20),
        ("segmentation", "highdicom_seg_sr", 40),
        ("segmentation", "dcmqi_seg_sr_pm", 40),
        ("geometry", "orthanc_brainix", 10),
        ("geometry", "enhanced_mr", 10),
        ("sts", "sts001_raw", 5),
    ],
)
def test_no_identifying_value_is_found_again(
    corpus: Callable[[str], Path], archive: str, folder: str, most: int
) -> None:
    uids = UidMap(KEY)
    checked = 0
    paths = sorted(p for p in (corpus(archive) / folder).rglob("*") if p.is_file())
    for path in paths[: most // 2] + paths[-most // 2 :]:
        if path.read_bytes()[128:132] != b"DICM":
            continue
        source = dcmread(path, stop_before_pixels=True)
        values = [v for v in identifying(source) if len(v) < 65 and not set(v.lower().split()) <= EXPECTED_WORDS]
        result = deidentify(source, profile=Profile(), uids=uids, person="p")
        text = result.to_json().encode()
        if leaks(text, values):
            pytest.fail(f"found again: {sorted({v for v in values if leaks(text, [v])})}")
        checked += 1
    assert checked > 2


def leaks(text: bytes, values: list[str]) -> bool:
    try:
        assert_clean(text, Canaries.of(values), where="object")
    except PrivacyError:
        return True
    return False


@pytest.mark.filterwarnings("ignore")
def test_malformed_files_are_cleaned_or_refused(corpus: Callable[[str], Path]) -> None:
    uids = UidMap(KEY)
    walked = 0
    for path in sorted((corpus("odd") / "malformed").rglob("*.dcm")):
        try:
            source = dcmread(path, force=True)
        except (*UNDECODABLE, OSError):
            continue  # the reader's business
        try:
            deidentify(source, profile=Profile(), uids=uids, person="p")
        except CaseError:
            continue
        walked += 1
    assert walked > 40
