"""Reports of synthetic patients with planted names, dates and numbers, whose finding words are known."""

from dataclasses import dataclass

import numpy as np

from builder.model.keyed import Key
from builder.phantom.people import Person, draw_person

SIDES = ("right", "left")
LOBES = ("upper lobe", "lower lobe", "lung base", "hilum", "apex")
SIZES = ("small", "moderate", "large", "subtle", "patchy")
FINDINGS = (
    "pleural effusion", "pneumothorax", "consolidation", "atelectasis", "pulmonary nodule", "cardiomegaly",
    "interstitial edema", "pulmonary mass", "emphysema", "pleural thickening",
)  # fmt: skip
NORMAL = (
    "The heart size is normal.", "The lungs are clear.", "There is no pneumothorax or pleural effusion.",
    "No acute bony abnormality is seen.", "The mediastinal contours are within normal limits.",
)  # fmt: skip
STAFF = ("Okonkwo", "Lindqvist", "Harrington", "Petrosyan", "Vandermeer", "Castellanos", "Oyelaran", "Wisniewska")


@dataclass(frozen=True)
class PhantomReport:
    """A report and what is known of it.

    Parameters
    ----------
    person, accession
        Who it is about, and its number.
    text
        With the headings INDICATION, COMPARISON, FINDINGS and IMPRESSION.
    planted
        Every text in it that identifies somebody or says when something was.
    findings
        Every phrase in it that says what was found and where.
    """

    person: Person
    accession: str
    text: str
    planted: tuple[str, ...]
    findings: tuple[str, ...]


def write_report(key: Key, number: int) -> PhantomReport:
    """Write report ``number`` (from 1), as a pure function of the key and the number."""
    person = draw_person(key, number)
    rng = np.random.Generator(np.random.PCG64(key.number("report", str(number))))
    family, given = person.name.split("^")
    doctor, reader = rng.choice(STAFF, 2, replace=False)
    accession = f"A{rng.integers(10**6, 10**7)}"
    mrn, phone = f"{rng.integers(10**7, 10**8)}", f"{rng.integers(200, 999)}-555-{rng.integers(1000, 9999)}"
    earlier = f"{rng.integers(1, 13):02d}/{rng.integers(1, 29):02d}/{person.year}"
    seen = f"{rng.integers(10, 24)}:{rng.integers(10, 60)}"
    spoken = f"March {rng.integers(1, 29)}, {person.year}"
    found = [_finding(rng) for _ in range(int(rng.integers(1, 4)))]
    normal = [NORMAL[n] for n in sorted(rng.choice(len(NORMAL), 2, replace=False))]
    sentences = [f"There is a {phrase}." for phrase in found]
    text = (
        f"PATIENT NAME: {given} {family}   MRN: {mrn}\nACCESSION NUMBER: {accession}\n\n"
        f"INDICATION: Mr. {family} with cough, referred by Dr. {doctor}, telephone {phone}.\n\n"
        f"COMPARISON: Chest radiograph of {earlier}.\n\n"
        f"FINDINGS: {' '.join([*sentences, *normal])} Compared with {spoken}, this is unchanged.\n\n"
        f"IMPRESSION: {found[0].capitalize()}. Findings were discussed with Dr. {reader} at {seen} on {earlier}.\n"
    )
    planted = (family, given, str(doctor), str(reader), mrn, accession, phone, earlier, seen, spoken)
    return PhantomReport(person, accession, text, planted, tuple(found))


def _finding(rng: np.random.Generator) -> str:
    size, finding = rng.choice(SIZES), rng.choice(FINDINGS)
    return f"{size} {finding} in the {rng.choice(SIDES)} {rng.choice(LOBES)}"
