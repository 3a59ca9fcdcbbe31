"""Who of the persons with images has a clinical row."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from builder.clinical.rows import ClinicalRows
from builder.clinical.table import ClinicalTable
from builder.errors import SpecError
from builder.model.keyed import Key

EXAMPLES: Final = 5


@dataclass(frozen=True)
class MatchReport:
    """Raw ids by how they met, each sorted; private. ``summary`` is what may be shown."""

    matched: tuple[str, ...]
    image_only: tuple[str, ...]
    clinical_only: tuple[str, ...]
    ambiguous: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """Share of the persons with images that have exactly one row; 1.0 when there are no images."""
        persons = len(self.matched) + len(self.image_only) + len(self.ambiguous)
        return len(self.matched) / persons if persons else 1.0

    def summary(self, key: Key) -> dict[str, Any]:
        """Counts, and a few examples by the keyed name of the PatientID (no issuer)."""
        groups = {name: getattr(self, name) for name in ("matched", "image_only", "clinical_only", "ambiguous")}
        return {
            "matched_fraction": self.fraction,
            **{name: len(ids) for name, ids in groups.items()},
            "examples": {n: sorted(key.name("patient", "", i) for i in ids)[:EXAMPLES] for n, ids in groups.items()},
        }


def match(rows: ClinicalRows, persons: Collection[str]) -> MatchReport:
    """Who of ``persons`` (PatientIDs that have images) has a clinical row."""
    images = set(persons)
    ambiguous = set(rows.ambiguous)
    clinical = set(rows.table["person_id"].to_pylist())
    return MatchReport(
        matched=tuple(sorted(images & clinical)),
        image_only=tuple(sorted(images - clinical - ambiguous)),
        clinical_only=tuple(sorted((clinical | ambiguous) - images)),
        ambiguous=tuple(sorted(images & ambiguous)),
    )


def check_match(report: MatchReport, options: ClinicalTable) -> None:
    """Raise SpecError when fewer persons matched than the spec's ``min_matched`` asks for."""
    if report.fraction < options.min_matched:
        persons = len(report.matched) + len(report.image_only) + len(report.ambiguous)
        raise SpecError(
            f"clinical: found a row for {len(report.matched)} of {persons} persons ({report.fraction:.1%}), expected "
            f"at least {options.min_matched:.1%}; check person_id and person_pattern, or lower min_matched"
        )
