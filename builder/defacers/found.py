"""The private table of the faces that were found, one line for each stack, and what people decided about them."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from builder.defacers.heads import Verdict
from builder.errors import CaseError, LayoutError, Reason, SpecError

COLUMNS: Final = (
    *("stack", "series", "verdict", "doubt", "removal", "voxels", "taken_out", "brain_taken_out"),
    *("removed", "face_side", "flat", "width_mm", "depth_mm", "height_mm", "bone"),
)
"""``stack`` is its keyed name, as in the cohort and in the name of its picture, ``series`` the archive's own UID,
``removal`` the digest of what goes. ``voxels`` has the stack, of which so many would be ``taken_out``, and of these
``brain_taken_out`` are the brain's. The others are figures of the search."""
DECIDED: Final = ("uid", "decision")
"""Columns of a table of decisions. ``uid`` is a Series Instance UID of the archive, or a stack's keyed name."""
NOT_JUDGED: Final = "not judged"
"""Verdict on images that could not be read."""
ACCEPT, REFUSE, KEEP = "accept", "refuse", "keep"
"""What was found is right; the images stay behind; their pixels stay as they are."""
LEFT_OUT: Final = {
    "open": "found a head whose face is open, expected none (deid.faces: refuse)",
    "doubt": "found an image of which nobody can say that it shows no face, expected a decision about it, or none of "
    "the head: builder view shows it",
    "undecided": "found an image of a head that nobody decided about, expected a decision: builder view shows it",
    "divided": "found an object of several stacks, which are searched for faces one by one, expected one stack or a "
    "decision to keep the pixels",
    "refused": "found an image of a head that a person refused, expected none",
}
"""Why an image does not leave, by what its plan says in place of a removal's digest."""


@dataclass(frozen=True)
class Seen:
    """One stack that was searched. Fields are as in ``COLUMNS``."""

    stack: str
    series: str
    verdict: str
    doubt: str = ""
    removal: str = ""
    voxels: int = 0
    taken_out: int = 0
    brain_taken_out: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_head(self) -> bool:
        """Whether it is one of the heads that a person may look at."""
        return bool(self.doubt or self.removal or self.verdict != Verdict.NO_HEAD)

    def waits(self, review: str) -> bool:
        """Return whether the images wait for a person, as ``deid.face_review`` says."""
        return bool(self.doubt) if review == "doubtful" else review == "all" and self.is_head

    def outcome(self, decision: str | None, *, faces: str, review: str) -> str:
        """Return what a plan says: the digest of what goes, "" if nothing does, or a key of ``LEFT_OUT``."""
        if decision == KEEP:
            return ""
        if decision == REFUSE:
            return "refused"
        if decision is None and self.waits(review):
            return "undecided"
        if self.verdict == NOT_JUDGED or (decision is None and self.doubt):
            return "doubt"  # of images that nobody could read, nothing was found that could be accepted
        if faces == "refuse":
            return "open" if self.verdict == Verdict.FACE else ""
        return self.removal

    def row(self) -> list[Any]:
        """Return its line of the table."""
        named = [getattr(self, name) for name in COLUMNS[:8]]
        return [*named, *(self.figures.get(name, "") for name in COLUMNS[8:])]


@dataclass(frozen=True)
class FoundFaces:
    """The stacks that were searched and the decisions about them; empty where faces stay."""

    seen: Mapping[str, Seen] = field(default_factory=dict, repr=False)
    decisions: Mapping[str, str] = field(default_factory=dict, repr=False)
    removals: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What goes, by digest, as ``parse_removal`` takes it."""
    faces: str = "keep"
    review: str = "none"

    def decision(self, one: Seen) -> str | None:
        """Return what was decided about a stack, or else about its series; None if nobody decided."""
        return self.decisions.get(one.stack, self.decisions.get(one.series))

    def of(self, stack: str) -> str:
        """Return what a plan says about a stack, as ``Seen.outcome``; "" where faces stay or none can be."""
        one = self.seen.get(stack)
        if self.faces == "keep" or one is None:
            return ""
        return one.outcome(self.decision(one), faces=self.faces, review=self.review)

    @property
    def waiting(self) -> int:
        """Stacks that wait for a decision."""
        return sum(self.of(stack) == "undecided" for stack in self.seen)

    @property
    def lock(self) -> Mapping[str, str]:
        """Return the digest of what is said about every stack, for the manifest; nothing where faces stay."""
        if self.faces == "keep":
            return {}
        said = sorted((stack, self.of(stack)) for stack in self.seen)
        return {"faces": hashlib.sha256(json.dumps(said).encode()).hexdigest()}


def check_face(face: str) -> None:
    """Raise CaseError FACE_SHOWN if a plan says that an image does not leave."""
    if face in LEFT_OUT:
        raise CaseError(Reason.FACE_SHOWN, LEFT_OUT[face])


def found_table(stacks: Iterable[Seen]) -> bytes:
    """Return the table, sorted by stack."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(one.row() for one in sorted(stacks, key=lambda one: one.stack))
    return sink.getvalue().encode()


def parse_found(data: bytes) -> dict[str, Seen]:
    """Read a table that ``found_table`` wrote, by stack. Raises LayoutError for anything else."""
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8", "replace"), newline="")))
    try:
        return {row["stack"]: _seen(row) for row in rows}
    except (KeyError, ValueError, TypeError):
        raise LayoutError("faces/found.csv: found another table, expected that of a search; plan again") from None


def _seen(row: Mapping[str, str]) -> Seen:
    stack, series, verdict, doubt, removal = (row[name] for name in COLUMNS[:5])
    voxels, taken, brain = (int(row[name]) for name in COLUMNS[5:8])
    figures = {name: float(row[name]) for name in COLUMNS[8:] if row[name]}
    return Seen(stack, series, verdict, doubt, removal, voxels, taken, brain, figures)


def parse_decisions(data: bytes) -> dict[str, str]:
    """Read a table of decisions, by series or stack; the last line of one counts.

    Raises
    ------
    SpecError
        If a line is no decision. The message numbers the line and does not quote it.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise SpecError("deid.face_decisions: found a file that is no CSV in UTF-8, expected one") from None
    if not rows or tuple(rows[0][: len(DECIDED)]) != DECIDED:
        raise SpecError(f"deid.face_decisions: found another first line, expected the headings {','.join(DECIDED)}")
    found = {}
    for number, row in enumerate(rows[1:], start=2):
        if any(cell.strip() for cell in row):
            uid, decision = (*(cell.strip() for cell in row[:2]), "", "")[:2]
            if not uid or decision not in (ACCEPT, REFUSE, KEEP):
                raise SpecError(
                    f"deid.face_decisions, line {number}: found no decision (not shown), expected a series or stack "
                    f"and {ACCEPT}, {REFUSE} or {KEEP}"
                )
            found[uid] = decision
    return found


def decisions_table(before: Sequence[tuple[str, str]], changed: Mapping[str, str]) -> bytes:
    """Return a table of decisions with changed ones; "" takes one back."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(DECIDED)
    writer.writerows(row for row in before if row[0] not in changed)
    writer.writerows((uid, decision) for uid, decision in changed.items() if decision)
    return sink.getvalue().encode()
