"""Leave out the cases and persons that a file names: it holds keyed names, which ``builder view`` writes."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from builder.errors import Reason, SpecError, counted
from builder.planning.image_sets import IMAGES_RULE
from builder.storage import read_at

RULE = "leave_out"
"""The rule under which such cases are listed; it runs last, so that nothing takes their place."""

_NAME = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_HEAD = """\
# Cases and persons to leave out, one keyed name a line. Name this file in the spec as cohort.leave_out.
"""


@dataclass(frozen=True)
class LeftOut:
    """The names of a file, and the sha256 of its bytes for the lock; empty without a file."""

    names: frozenset[str] = frozenset()
    sha256: str = ""

    @property
    def lock(self) -> Mapping[str, str]:
        """Return what the lock of a version says of the file; nothing without one."""
        return {"leave_out": self.sha256} if self.sha256 else {}


def read_left_out(url: str | None) -> LeftOut:
    """Read the file that the spec names.

    Raises
    ------
    SpecError
        If there is none, or a line is no keyed name. The line is not quoted, as it may be the name of a patient.
    """
    if url is None:
        return LeftOut()
    try:
        data = read_at(url)
    except (FileNotFoundError, IsADirectoryError):
        raise SpecError(
            "cohort.leave_out: found no file there, expected one that `builder view` wrote; check the path"
        ) from None
    return LeftOut(parse_names(data, "cohort.leave_out"), hashlib.sha256(data).hexdigest())


def parse_names(data: bytes, where: str) -> frozenset[str]:
    """Return the names in the bytes of such a file. Raises SpecError, which says ``where`` it was found."""
    names = set()
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise SpecError(f"{where}: found bytes that are no text, expected one keyed name a line") from None
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if name and not is_name(name):
            raise SpecError(
                f"{where}, line {number}: found what is no keyed name (not shown), expected a case_key or person_key "
                "of a published dataset, 26 letters; names of the archive do not belong here"
            )
        if name:
            names.add(name)
    return frozenset(names)


def is_name(text: str) -> bool:
    """Return whether a text has the form of a keyed name."""
    return _NAME.fullmatch(text) is not None


def names_file(names: Iterable[str]) -> bytes:
    """Return the bytes of a file with these names."""
    return (_HEAD + "".join(f"{name}\n" for name in sorted(names))).encode()


def without_names(data: bytes, names: Collection[str]) -> bytes:
    """Return the bytes of such a file without the lines that begin with some names; comments and other lines stay."""
    lines = data.decode(errors="surrogateescape").splitlines(keepends=True)
    kept = (line for line in lines if line.partition("#")[0].strip().partition(" ")[0] not in names)
    return "".join(kept).encode(errors="surrogateescape")


def leave_out(cohort: pa.Table, links: pa.Table, left: LeftOut, *, withdrawn: int = 0) -> tuple[pa.Table, pa.Table]:
    """Return the cohort without the named cases, and the links of the cases that stay.

    The series of a case that is left out have the reason ``left_out``; its other images are unused where no other case
    has them.

    Parameters
    ----------
    withdrawn
        Number of persons who withdrew: where there are any, the names may all be theirs.

    Raises
    ------
    SpecError
        If none of the names is of a case or person of the cohort: they were made with another key.
    """
    if not left.names:
        return cohort, links
    columns = {name: cohort[name].to_pylist() for name in ("included", "rule", "reason", "detail", "case_key")}
    persons = cohort["person_key"].to_pylist()
    if not withdrawn and not left.names & {*columns["case_key"], *persons}:
        raise SpecError(
            f"cohort.leave_out: found {counted(len(left.names), 'name')}, none of a case or person of this archive, "
            "expected names of a dataset that was built from it with the same deid.patient_key"
        )
    gone = {
        case
        for case, person, kept in zip(columns["case_key"], persons, columns["included"], strict=True)
        if kept and (case in left.names or person in left.names)
    }
    serves = cohort["serves"].to_pylist() if "serves" in cohort.column_names else None
    for row, (case, kept) in enumerate(zip(columns["case_key"], [*columns["included"]], strict=True)):
        before, uses = (0, []) if serves is None else (len(serves[row]), [c for c in serves[row] if c not in gone])
        if serves is not None:
            serves[row] = uses
        if kept and case in gone:
            columns["included"][row] = False
            if not uses:  # else another case has it as an image, so that it is not excluded
                _decide(columns, row, RULE, Reason.LEFT_OUT, None)
        elif before and not uses:
            _decide(columns, row, IMAGES_RULE, Reason.IMAGE_UNUSED, "its case is left out (cohort.leave_out)")
    for name in ("included", "rule", "reason", "detail"):
        cohort = _with(cohort, name, columns[name])
    if serves is not None:
        cohort = _with(cohort, "serves", serves)
    return cohort, links.filter(pc.invert(pc.is_in(links["case_key"], pa.array(sorted(gone), pa.string()))))


def as_if_kept(cohort: pa.Table) -> pa.Table:
    """Return the cohort with the left out cases in it, for what must not change because of them: the splits."""
    if "reason" not in cohort.column_names:
        return cohort
    left = pc.fill_null(pc.equal(cohort["reason"], Reason.LEFT_OUT.value), False)
    return _with(cohort, "included", pc.or_(cohort["included"], left).to_pylist())


def left_out_line(cohort: pa.Table, left: LeftOut, *, withdrawn: int = 0) -> str:
    """Say how many cases are left out, and how many names are of nobody here, as of persons who withdrew."""
    reasons = pc.fill_null(pc.equal(cohort["reason"], Reason.LEFT_OUT.value), False)
    unknown = len(left.names - {*cohort["case_key"].to_pylist(), *cohort["person_key"].to_pylist()})
    cases = counted(pc.sum(reasons).as_py() or 0, "case is", "cases are")
    others = f"; {counted(unknown, 'name is', 'names are')} of no case or person of this archive" if unknown else ""
    if unknown and withdrawn:
        others += f" ({counted(withdrawn, 'person')} withdrew; take out what was theirs, and check the rest)"
    return f"{cases} left out by the file{others}"


def _decide(columns: Mapping[str, list[object]], row: int, rule: str, reason: Reason, detail: str | None) -> None:
    columns["rule"][row], columns["reason"][row], columns["detail"][row] = rule, reason.value, detail


def _with(cohort: pa.Table, name: str, values: list[object]) -> pa.Table:
    place = cohort.schema.get_field_index(name)
    field = cohort.schema.field(place)
    return cohort.set_column(place, field, pa.array(values, field.type))
