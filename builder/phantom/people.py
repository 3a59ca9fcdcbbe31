"""Draw the archive's persons from stated distributions."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from builder.model.keyed import Key

Weights: TypeAlias = tuple[tuple[str, float], ...]

DISTRIBUTIONS: dict[str, Weights] = {
    "sex": (("F", 0.52), ("M", 0.48)),
    "race": (("White", 0.62), ("Black", 0.16), ("Asian", 0.12), ("Other", 0.06), ("Unknown", 0.04)),
    "grade": (("Low", 0.25), ("Intermediate", 0.35), ("High", 0.40)),
    "recurrence": (("Low", 0.15), ("Intermediate", 0.30), ("High", 0.55)),
    "vendor": (("GE", 0.35), ("SIEMENS", 0.30), ("Philips", 0.20), ("TOSHIBA", 0.08), ("Canon", 0.07)),
    "lesions": (("1", 0.60), ("2", 0.25), ("3", 0.15)),
    "age_years": (("mean", 61.0), ("sd", 13.0), ("low", 18.0), ("high", 89.0)),
    "height_m_F": (("mean", 1.63), ("sd", 0.065), ("low", 1.45), ("high", 1.90)),
    "height_m_M": (("mean", 1.77), ("sd", 0.070), ("low", 1.50), ("high", 2.05)),
    "bmi": (("mean", 26.0), ("sd", 4.0), ("low", 18.0), ("high", 38.0)),
    "log_radius_mm": (("mean", 2.56), ("sd", 0.30), ("low", 2.08), ("high", 3.14)),
    "follow_up_days": (("mean", 700.0), ("sd", 320.0), ("low", 30.0), ("high", 1800.0)),
}
"""Every distribution of the synthetic population.

Categories list (value, probability), and are drawn independently of one another; ``recurrence`` is the probability of
``Yes`` given the grade; the rest are normal distributions, clipped to [low, high]: age in years, height in m by sex,
body-mass index in kg/m2, natural logarithm of a lesion's equivalent radius in mm, follow-up in days. The first five
persons have one vendor each, so that every archive of five or more holds all."""

_FAMILY = (
    "Abel",
    "Brandt",
    "Castro",
    "Dupont",
    "Egger",
    "Fischer",
    "Garcia",
    "Huber",
    "Ito",
    "Jansen",
    "Kim",
    "Lopez",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
    "Quinn",
    "Rossi",
    "Silva",
    "Tanaka",
    "Ueda",
    "Vogel",
    "Weber",
    "Young",
)
_GIVEN = {
    "F": ("Ada", "Berta", "Clara", "Dora", "Emma", "Fatima", "Greta", "Hana", "Ines", "Julia", "Keiko", "Lena"),
    "M": ("Adam", "Boris", "Carl", "David", "Emil", "Felix", "Georg", "Hugo", "Ivan", "Jonas", "Kenji", "Luis"),
}


@dataclass(frozen=True)
class Person:
    """A synthetic person. ``radii_mm`` are the lesions' equivalent radii, ``year`` is the year of the first visit."""

    number: int
    name: str
    sex: str
    age_years: int
    race: str
    grade: str
    recurrence: bool
    follow_up_days: int
    height_m: float
    weight_kg: float
    vendor: str
    radii_mm: tuple[float, ...]
    year: int
    day: int

    @property
    def birth_date(self) -> str:
        """YYYYMMDD, such that the age holds on every visit of the first year."""
        return f"{self.year - self.age_years:04d}0101"


def draw_person(key: Key, number: int) -> Person:
    """Draw person ``number`` (from 1), as a pure function of the key and the number."""
    rng = np.random.Generator(np.random.PCG64(key.number("person", str(number))))
    sex = _choose(rng, DISTRIBUTIONS["sex"])
    height = round(_normal(rng, f"height_m_{sex}"), 2)
    grade = _choose(rng, DISTRIBUTIONS["grade"])
    vendors = DISTRIBUTIONS["vendor"]
    vendor = _choose(rng, vendors)
    return Person(
        number=number,
        name=f"{_FAMILY[rng.integers(len(_FAMILY))]}^{_GIVEN[sex][rng.integers(len(_GIVEN[sex]))]}",
        sex=sex,
        age_years=int(_normal(rng, "age_years")),
        race=_choose(rng, DISTRIBUTIONS["race"]),
        grade=grade,
        recurrence=bool(rng.random() < dict(DISTRIBUTIONS["recurrence"])[grade]),
        follow_up_days=int(_normal(rng, "follow_up_days")),
        height_m=height,
        weight_kg=round(_normal(rng, "bmi") * height**2, 1),
        vendor=vendors[number - 1][0] if number <= len(vendors) else vendor,
        radii_mm=tuple(
            round(float(np.exp(_normal(rng, "log_radius_mm"))), 2)
            for _ in range(int(_choose(rng, DISTRIBUTIONS["lesions"])))
        ),
        year=int(rng.integers(2012, 2020)),
        day=int(rng.integers(0, 336)),
    )


def _choose(rng: np.random.Generator, weights: Weights) -> str:
    edges = np.cumsum([weight for _, weight in weights])
    return weights[min(int(np.searchsorted(edges, rng.random(), side="right")), len(weights) - 1)][0]


def _normal(rng: np.random.Generator, name: str) -> float:
    law = dict(DISTRIBUTIONS[name])
    return float(np.clip(rng.normal(law["mean"], law["sd"]), law["low"], law["high"]))
