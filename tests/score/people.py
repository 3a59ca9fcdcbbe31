"""Invented people with everything that identifies them, each value in the ways in which it is written."""

import random
from dataclasses import dataclass
from datetime import date

_FAMILY_NAMES = """
Kowalczyk Zimmerli Oyelaran Featherstone Brzezinski Papadakis Vandenberghe Hutchison Lindqvist Moriarty
Quattrocchi Ramaswamy Skarsgard Thistlewood Umarov Villanueva Wojnarowicz Yamashiro Zapatero Abernathy
Bjornstad Castellano Dimitrova Eisenhauer Fitzpatrick Gunnarsson Habermann Iyengar Jankowski Kettlewell
O'Mahony De-la-Cruz Szymborska Przybylski Nakamura Okonkwo Petrosyan Haugland Ibrahimovic Jefferies
"""
_GIVEN_NAMES = """
Agnieszka Bartholomew Cordelia Dagmar Ekaterina Florentina Giancarlo Henrietta Isadora Jaroslaw Katarzyna
Leopold Mariamne Nikolai Ottoline Persephone Quentin Rosalind Stanislaw Theodora Ursula Valentina Winifred
Xanthippe Yevgenia Zoltan Anneliese Benedikt Clementine Dorothea
"""
_PLACES = """
Tillmouth Harrowgate Brackenfell Osterwick Veldhaven Mirashore Calderbeck Dunmarrow Esterholt Quillford
"""
_FAMILIES, _GIVEN, _TOWNS = _FAMILY_NAMES.split(), _GIVEN_NAMES.split(), _PLACES.split()
_HOUSES = ("General Hospital", "University Clinic", "Radiology Associates", "Klinikum", "Medical Center")
_STREETS = ("Bluebell", "Larkspur", "Wisteria", "Hawthorn", "Juniper", "Magnolia")


@dataclass(frozen=True)
class Human:
    """A person, and the house and the staff that cared for them."""

    family: str
    given: str
    doctor: str
    mrn: str
    born: date
    phone: str
    address: str
    town: str
    institution: str
    station: str
    accession: str
    serial: str
    mail: str

    @property
    def name(self) -> str:
        """As DICOM writes it (VR PN)."""
        return f"{self.family}^{self.given}"

    def secrets(self) -> dict[str, str]:
        """What must be found nowhere, lower case, by its kind."""
        return {
            "family": self.family.lower(), "given": self.given.lower(), "doctor": self.doctor.lower(),
            "mrn": self.mrn.lower(), "phone": self.phone.lower(), "address": self.address.split(",")[0].lower(),
            "town": self.town.lower(), "station": self.station.lower(), "accession": self.accession.lower(),
            "serial": self.serial.lower(), "mail": self.mail.lower(),
        }  # fmt: skip

    def written(self, kind: str, rng: random.Random) -> str:
        """A value as people and programs write it."""
        f, g, d = self.family, self.given, self.born
        forms = {
            "family": [f, f.upper(), f"{f}, {g}", f"{g} {f}", f"{f.upper()}^{g.upper()}", f"Mrs. {f}", f"pat {f} {g}"],
            "given": [f"{g} {f}", f"{f}_{g}", f"{g[0]}. {f} ({g})"],
            "doctor": [f"Dr. {self.doctor}", self.doctor, f"read by {self.doctor}", f"Prof {self.doctor.upper()}"],
            "mrn": [self.mrn, f"MRN {self.mrn}", f"ID:{self.mrn}"],
            "phone": [self.phone, f"tel {self.phone}", f"call {self.phone}"],
            "address": [self.address, self.address.upper()],
            "town": [self.institution, f"at {self.institution}", self.town.upper()],
            "station": [self.station, f"scanned on {self.station}"],
            "accession": [self.accession, f"Acc#{self.accession}"],
            "serial": [self.serial, f"S/N {self.serial}"],
            "mail": [self.mail, f"mail to {self.mail}"],
            "born": [f"{d:%Y%m%d}", f"{d:%d.%m.%Y}", f"{d:%m/%d/%Y}", f"{d.day} {d:%B %Y}", f"DOB {d:%Y-%m-%d}",
                     f"{d:%b} {d.day}, {d.year}"],
        }  # fmt: skip
        return rng.choice(forms[kind])


KINDS = (
    *("family", "given", "doctor", "mrn", "phone", "address", "town", "station", "accession", "serial", "mail", "born"),
)
"""Kinds of what identifies somebody."""


def human(rng: random.Random) -> Human:
    """Somebody who does not exist."""
    family, given = rng.choice(_FAMILIES), rng.choice(_GIVEN)
    doctor = rng.choice([f for f in _FAMILIES if f != family])
    town = rng.choice(_TOWNS)
    return Human(
        family=family,
        given=given,
        doctor=doctor,
        mrn=rng.choice([f"{rng.randrange(10**6, 10**7)}", f"H{rng.randrange(10**6, 10**7)}"]),
        # Studies of 2010 and later move to 1999 at the earliest: a birth date after that may read like a moved date.
        born=date(rng.randrange(1935, 1999), rng.randrange(1, 13), rng.randrange(2, 29)),
        phone=f"555-{rng.randrange(100, 999)}-{rng.randrange(1000, 9999)}",
        address=f"{rng.randrange(11, 999)} {rng.choice(_STREETS)} Street, {town}",
        town=town,
        institution=f"{town} {rng.choice(_HOUSES)}",
        station=f"{town[:5].upper()}CT{rng.randrange(10, 99)}",
        accession=f"A{rng.randrange(10**7, 10**8)}",
        serial=f"SN{rng.randrange(10**5, 10**6)}X",
        mail=f"{given.lower()}@{town.lower()}.example",
    )
