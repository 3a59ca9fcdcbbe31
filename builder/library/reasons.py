"""What each reason for leaving something out means, and what a user can do about it."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from builder.errors import Reason, SpecError


@dataclass(frozen=True)
class Explained:
    """A reason in words: what was found, and what can be done."""

    code: str
    meaning: str
    advice: str

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return asdict(self)

    @property
    def text(self) -> str:
        """Return it as the lines that a terminal shows."""
        return f"{self.code}: {self.meaning}\n  {self.advice}"


_EXPLAIN = "`builder explain DATASET NAME` shows the detail for one object."

_TEXTS: Mapping[Reason, tuple[str, str]] = {
    Reason.NOT_DICOM: (
        "A file that is neither DICOM nor a format that a label or source of this spec reads.",
        "Nothing, if it is not data. `include` and `exclude` of a folder source keep such files out of the count.",
    ),
    Reason.UNREADABLE: (
        "A file or object that its parser cannot read: cut short, damaged, or not what it claims to be.",
        "Fetch it again from where it came; compare its size with the original.",
    ),
    Reason.MISSING_UID: (
        "A DICOM object without a SOP, Series or Study Instance UID, so that nothing says what it belongs to.",
        "Ask whoever exported it for the original; a UID that is made up would join or divide series at random.",
    ),
    Reason.TOO_LARGE: (
        "An object or volume beyond the limits for size, depth or number of items.",
        "If it is genuine, raise `volumes.max_voxels` or `volumes.max_frames`.",
    ),
    Reason.DUPLICATE_SAME: (
        "Another file holds the same object with the same content; that one is used.",
        "Nothing: the object is in the dataset once.",
    ),
    Reason.DUPLICATE_FORMAT: (
        "The archive holds the image twice, as DICOM and as another file such as NIfTI; one of them is used.",
        "Nothing; `cohort.twins` says which of the two is used.",
    ),
    Reason.DUPLICATE_CONFLICT: (
        "Several files claim to be one object (one SOP Instance UID) but differ, so none of them is believed.",
        "Find out which one is right and remove the others, or leave them out with `exclude`.",
    ),
    Reason.NOT_AN_IMAGE: (
        "An object without pixels, such as a report or a raw data file, where an image was asked for.",
        "Nothing, unless `cohort.image` should have chosen another series.",
    ),
    Reason.SOURCE_CHANGED: (
        "The file or object is no longer the one that was listed when the plan was made.",
        "Run the same command again; it lists the source anew.",
    ),
    Reason.SOURCE_MISSING: (
        "The file or object was listed and could not be had when it was read.",
        "Check that the source is complete and reachable, and run the same command again.",
    ),
    Reason.SOURCE_INCOMPLETE: (
        "A study that the source did not give whole after all tries, left out for now because the source says "
        "`missing: exclude`. Nothing is known against the study itself.",
        "Run the same command again when the server is well: the study is asked for again each time.",
    ),
    Reason.HEADERS_DISAGREE: (
        "A series that was planned from tables of its archive, and whose headers, read in the build, say otherwise.",
        "Leave `headers` out of the idc source: the plan is then made from the headers. Tell the archive.",
    ),
    Reason.UNKNOWN_GEOMETRY: (
        "Slices whose positions or orientation are absent or contradict each other; their order cannot be proved.",
        "Use the original instead of a converted or anonymised copy, which may have lost these attributes.",
    ),
    Reason.IRREGULAR_SPACING: (
        "Slices at unequal distances.",
        "`volumes: {irregular: resample}` interpolates them to a regular grid.",
    ),
    Reason.GAPPED: (
        "A regular series of which slices are missing.",
        "Fetch the missing slices; or `volumes: {gapped: resample}` interpolates them, and `split` makes one volume "
        "per run.",
    ),
    Reason.SHEARED: (
        "Slices shifted against each other, as a tilted gantry gives, which the spec excludes.",
        "`volumes: {sheared: keep}` keeps the grid as it is; `resample` makes it orthogonal.",
    ),
    Reason.DUPLICATE_POSITIONS: (
        "Several slices at one position that no attribute tells apart.",
        "Look at the series: two reconstructions may share one Series Instance UID.",
    ),
    Reason.MIXED_ORIENTATION: (
        "Slices of several orientations that do not form separate stacks.",
        "Nothing in the spec makes one volume of them; localizers look like this.",
    ),
    Reason.SINGLE_SLICE: (
        "A slice without neighbours, which is no volume.",
        "`volumes: {single_slice: keep}` lets it in as a volume of one slice.",
    ),
    Reason.TIME_SERIES: (
        "Several images at each position, at different times.",
        "`volumes: {time_series: split}` makes one volume per time point; `keep` makes them channels.",
    ),
    Reason.UNSUPPORTED_OBJECT: (
        "A kind of image that the spec excludes by default: a localizer, radiograph, film, still or screen capture.",
        "Name the kind under `volumes`, for example `volumes: {projection: keep}` for radiographs; `builder plan` says "
        "which.",
    ),
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: (
        "Pixels in a compression that no installed decoder reads.",
        "Convert the files with dcmtk or gdcm, without loss.",
    ),
    Reason.UNDECODABLE_PIXELS: (
        "Pixels that cannot be decoded, or that do not fit the size and bits that the header states.",
        "Fetch the object again; if its source holds the same bytes, the object is damaged.",
    ),
    Reason.INCONSISTENT_PIXELS: (
        "Values that the chosen number type cannot hold, or slices that state unlike ones.",
        "State a type that holds all cases: `transforms: [{kind: intensity, dtype: float32}]`.",
    ),
    Reason.UNKNOWN_UNITS: (
        "Values whose unit cannot be proved, such as a PET that contradicts its own dose, where the spec requires one.",
        "`volumes: {pet: suv}` keeps such series as activity, with the reason in their notes.",
    ),
    Reason.LABEL_MISSING: (
        "No object, file or row gives a label that the spec requires for the image.",
        "`cohort: {labels: optional}` keeps images without it; `builder plan` shows which names were found.",
    ),
    Reason.LABEL_AMBIGUOUS: (
        "Several objects, files or structures claim to be the same label of one image.",
        "Narrow the pattern, or say `several: join` where the label's kind has it.",
    ),
    Reason.LABEL_UNREADABLE: (
        "A label object, file or row that cannot be read as its kind.",
        _EXPLAIN,
    ),
    Reason.LABEL_EMPTY: (
        "A label without a voxel, point or value inside the image.",
        "Say what an empty label means: `empty: keep` where the label's kind has it.",
    ),
    Reason.LABEL_OFF_GRID: (
        "A label that lies beside the image, or on a grid that does not fit it.",
        "Check that it was drawn on this series; `off_grid: resample` accepts another grid in the same space.",
    ),
    Reason.LABEL_GEOMETRY: (
        "A label whose own geometry is not usable, or that is in another frame of reference than the image.",
        "Draw or export it on this image again.",
    ),
    Reason.LABEL_UNPROVEN: (
        "A label that fails a check under `proof`, for example because it lies outside the body.",
        "Look at its picture in the report, and mend the label or the limit of the check.",
    ),
    Reason.WITHDRAWN: (
        "Files of a person who withdrew from the dataset; nothing of them is read or used.",
        "Take the person's files out of the archive too; `withdrawn.parquet` of the version holds the tombstones.",
    ),
    Reason.CLINICAL_MISSING: (
        "A person without a row in the clinical tables, where the spec requires one.",
        "Check the ids: `clinical-ids.csv` in the private workspace lists those without a partner.",
    ),
    Reason.CLINICAL_AMBIGUOUS: (
        "A person whose clinical rows contradict each other, where the spec requires one.",
        "Correct the table, or say with `cardinality: many` and `pick` which row counts.",
    ),
    Reason.COHORT_RULE: (
        "A named rule of the cohort is not met; the exclusion says which.",
        "Nothing, if the rule is right. `builder plan` shows which values each rule met.",
    ),
    Reason.ONE_PER_RULE: (
        "The spec keeps one series of each person or study, or one as each image of a case, and another was preferred.",
        "`cohort.prefer`, or `prefer` of the image, says which is kept.",
    ),
    Reason.NOT_SELECTED: (
        "The series is not among those that `cohort.image` asks for.",
        "Nothing, if the expression is right. `builder plan` shows which values it met.",
    ),
    Reason.LEFT_OUT: (
        "A person looked at the case and wrote its name, or the name of its patient, into the `cohort.leave_out` file.",
        "Nothing; take the name out of the file to have the case back. Nobody changes the split either way.",
    ),
    Reason.IMAGE_MISSING: (
        "A case lacks an image that the spec requires; the exclusion says which.",
        "`required: false` of the image keeps the case, and `within_days` looks in other studies of the person.",
    ),
    Reason.IMAGE_NOT_ALIGNED: (
        "An image of a case is not in the reference's frame of reference or on its grid, or no registration places it.",
        "Add a Spatial Registration object and state `aligned: registration`; `aligned: assumed` takes the image as it "
        "is, if you know that it lies where the reference lies.",
    ),
    Reason.IMAGE_UNUSED: (
        "The series fits an image of the spec, but the case it belongs to is not in the cohort.",
        "Look up why: `builder explain DATASET NAME` of the person's reference series says it.",
    ),
    Reason.VISIT_MISSING: (
        "A case of several visits lacks one, or the next visit is not as many days away as the spec asks for.",
        "The detail says what was found; `cohort.visits.gap_days` says how far visits may be apart.",
    ),
    Reason.VISIT_UNDATED: (
        "A visit whose place in time nobody states: it has no study date, and no number in the name of its session.",
        "Name the sessions by numbers, or leave the series out.",
    ),
    Reason.VISIT_UNUSED: (
        "A visit that the spec does not choose, such as one between the first and the last.",
        "`cohort.visits.choose` says which visits make a case.",
    ),
    Reason.BURNED_IN: (
        "An image that may show text in its pixels.",
        "Look at such images and list their modality in `deid.reviewed`, or blank `deid.mask_regions`.",
    ),
    Reason.FACE_SHOWN: (
        "An image of a head whose face may be recognised, where the spec refuses or removes faces.",
        "Look at its picture in `builder view`, and decide; leave out labels that cover the face, or the series.",
    ),
    Reason.NO_SAMPLES: (
        "No sample could be cut from the case, for example because no patch holds enough of a label.",
        "Lower `samples.foreground_at_least`, or make the patches smaller.",
    ),
    Reason.OUT_OF_MEMORY: (
        "The case needs more memory than a worker has, or than its header lets expect.",
        "Give workers more memory; a case that exceeds its projection is damaged or hostile.",
    ),
    Reason.CRASHED: (
        "The process that prepared the case died each time, so that the case is left out.",
        "Its pixels are likely damaged; a decoder that crashes on them is worth a report to its makers.",
    ),
    Reason.INTERNAL_ERROR: (
        "This program failed on the case in a way nobody foresaw. It is a fault of the program, not of the case.",
        "Report it with the traceback in the private journal; a later build tries the case again.",
    ),
}


def explain_reason(code: str) -> Explained:
    """Return a reason in words. Raises SpecError for a code that does not exist."""
    known = {reason.value: texts for reason, texts in _TEXTS.items()}
    if code not in known:
        near = difflib.get_close_matches(code, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SpecError(f"found the reason {code!r}, expected one of: {', '.join(sorted(known))}{hint}")
    return Explained(code, *known[code])


def all_reasons() -> list[Explained]:
    """Return every reason in words, in the order of ``builder.errors.Reason``."""
    return [explain_reason(reason.value) for reason in Reason]
