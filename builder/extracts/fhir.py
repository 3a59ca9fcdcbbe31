"""FHIR R4 bundles and NDJSON, as bulk exports and tools write them: one type of resource is one table."""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import pyarrow as pa
from pydantic import Field

from builder.errors import MissingExtra, SpecError, counted
from builder.extracts.extract import ExtractBlock
from builder.extracts.fhir_rows import Kind, Resource, Row, has_no_column, headings, is_mistake, rows
from builder.protocols import Extracted, Outside

DEPTH_LIMIT: Final = 50
"""Most levels of a resource. Real ones have fewer than 20."""

_SUFFIXES: Final = (".json", ".ndjson")


class Fhir(ExtractBlock):
    """One type of resource out of bundles (``.json``) and lines of resources (``.ndjson``).

    Parameters
    ----------
    url
        A file, or a folder with such files.
    resource
        The type of resource. Its headings are in ``builder.extracts.fhir_rows``.
    identifier
        The system of the patients' numbers, such as ``urn:oid:1.2.276.0.76.3.1.64``, or several in the order in which
        they are tried: ``person`` is the number under it, and ``issuer`` the system. Without it ``person`` is the id
        that the server gave the patient.
    """

    VERSION: ClassVar[int] = 2

    kind: Literal["fhir"]
    url: str = Field(min_length=1)
    resource: Kind
    identifier: str | tuple[str, ...] | None = Field(default=None, min_length=1)

    @property
    def title(self) -> str:
        return f"fhir {self.resource}"

    def take(self, outside: Outside) -> Extracted:
        found = _Found(self.resource)
        files = outside.files(self.url, lambda name: name.lower().endswith(_SUFFIXES))
        number = 0
        for number, (name, data) in enumerate(files, start=1):
            for place, full_url, resource in _resources(name, data, f"{self.title}: file {number}"):
                found.add(resource, full_url, place=f"resource {place} of file {number}")
        if not number:
            raise SpecError(
                f"{self.title}: found no file at its url that ends in {' or '.join(_SUFFIXES)}, expected one"
            )
        if not found.kept:
            raise SpecError(f"{self.title}: found no {self.resource} in the files at its url, expected at least one")
        people = _People(found.patients, (self.identifier,) if isinstance(self.identifier, str) else self.identifier)
        made = [
            {**row, **people.of(self.resource, resource, key)}
            for key, resource in found.kept.items()
            for row in rows(self.resource, found.with_code(resource))
        ]
        names = headings(self.resource)
        table = pa.table({name: pa.array([row.get(name) for row in made], pa.string()) for name in names})
        return Extracted(table, tuple(found.notes()))


def _resources(name: str, data: bytes, where: str) -> Iterator[tuple[int, str, Any]]:
    """Yield number, full URL and content of every resource of a file. Raises SpecError when it is no such file."""
    try:
        if name.lower().endswith(".ndjson"):
            documents = [json.loads(line) for line in data.splitlines() if line.strip()]
        else:
            documents = [json.loads(data)]
    except (ValueError, RecursionError) as error:
        raise SpecError(
            f"{where}: found no JSON ({type(error).__name__}), expected a bundle or lines of resources"
        ) from None
    number = 0
    for document in documents:
        if not isinstance(document, dict) or not isinstance(document.get("resourceType"), str):
            raise SpecError(f"{where}: found JSON that is no FHIR resource, expected one with a resourceType")
        entries = [{"resource": document}]
        if document["resourceType"] == "Bundle":
            entries = [e for e in document.get("entry") or () if isinstance(e, dict)]
        for entry in entries:
            number += 1
            yield number, str(entry.get("fullUrl") or ""), entry.get("resource")


@dataclass
class _Found:
    """The resources of one type and the patients, each once, and why others were left out."""

    kind: Kind
    kept: dict[str, Resource] = field(default_factory=dict)
    patients: dict[str, tuple[Resource, str]] = field(default_factory=dict)
    medications: dict[str, Resource] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    mistakes: int = 0

    def add(self, resource: Any, full_url: str, *, place: str) -> None:
        kind = resource.get("resourceType") if isinstance(resource, dict) else None
        if kind == "Medication" and self.kind == "MedicationRequest":
            self.medications |= {f"Medication/{resource.get('id')}": resource, full_url: resource}
        if kind not in (self.kind, "Patient"):
            return
        if not _is_valid(resource):
            self.invalid.append(f"{kind}, {place}")
            return
        key = str(resource.get("id") or full_url or place)
        if kind == "Patient":
            known = self.patients.get(key)
            self.patients[key] = (resource if known is None else _later(known[0], resource, place), full_url)
        if kind == self.kind and is_mistake(resource):
            self.mistakes += 1
        elif kind == self.kind:
            self.kept[key] = _later(self.kept.get(key, resource), resource, place)

    def with_code(self, resource: Resource) -> Resource:
        """Return a request with the code of the Medication that it names, there or among what it contains."""
        told = resource.get("medicationReference", {}).get("reference", "")
        inside = {f"#{r.get('id')}": r for r in resource.get("contained", ())}
        named = inside.get(told) or self.medications.get(told) if told else None
        return resource if named is None else {**resource, "medicationCodeableConcept": named.get("code")}

    def notes(self) -> Iterator[str]:
        if self.invalid:
            yield (
                f"{counted(len(self.invalid), 'resource is', 'resources are')} not valid in R4 and left out; the first "
                f"is a {self.invalid[0]}"
            )
        if self.mistakes:
            yield f"{counted(self.mistakes, 'resource is', 'resources are')} marked entered-in-error and left out"
        without = sum(map(has_no_column, self.kept.values())) if self.kind == "Observation" else 0
        if without:
            yield f"{counted(without, 'observation holds', 'observations hold')} a range, ratio or curve, in no column"


def _later(one: Resource, other: Resource, place: str) -> Resource:
    """Return the later version of a resource that occurs twice. Raises SpecError when neither says that it is."""
    if one == other:
        return one
    stamps = [resource.get("meta", {}).get("lastUpdated", "") for resource in (one, other)]
    if not all(stamps) or stamps[0] == stamps[1]:
        raise SpecError(
            f"fhir: found two {one['resourceType']}s of one id that differ ({place}), expected one, or "
            "meta.lastUpdated to tell which is later"
        )
    return one if stamps[0] > stamps[1] else other


class _People:
    """Whose a resource is: the server's id of the patient, and the number of a system that the spec names."""

    def __init__(self, patients: Mapping[str, tuple[Resource, str]], systems: tuple[str, ...] | None) -> None:
        self.systems = systems
        self.ids: dict[str, str] = {}
        self.numbers: dict[str, Row] = {}
        for key, (patient, full_url) in patients.items():
            self.ids |= {f"Patient/{key}": key, f"urn:uuid:{key}": key, **({full_url: key} if full_url else {})}
            self.numbers[key] = self._named(key, patient.get("identifier", ()))

    def of(self, kind: Kind, resource: Resource, key: str) -> Row:
        """Return the cells that say whose a resource is; ``key`` is the id under which it was found."""
        if kind == "Patient":
            return {"patient": key, **self.numbers[key]}
        subject = resource.get("subject", {})
        told = subject.get("reference", "").partition("/_history/")[0]
        short = "/".join(told.split("/")[-2:])
        patient: str | None = self.ids.get(told) or self.ids.get(short)
        if patient is None and short.startswith("Patient/"):
            patient = short.removeprefix("Patient/")
        named = self.numbers.get(patient or "") or self._named(patient, ())
        if named["person"] is None and "identifier" in subject:
            named = self._named(patient, (subject["identifier"],))
        return {"patient": patient, **named}

    def _named(self, patient: str | None, identifiers: Any) -> Row:
        """Return the number under the first system that has one, and that system."""
        if self.systems is None:
            return {"person": patient, "issuer": None}
        for system in self.systems:
            if (number := _number(identifiers, system)) is not None:
                return {"person": number, "issuer": system}
        return {"person": None, "issuer": None}


def _number(identifiers: Any, system: str) -> str | None:
    """Return the number under a system; None without one, or with two that differ."""
    found = {str(i["value"]) for i in identifiers if i.get("system") == system and i.get("value")}
    return found.pop() if len(found) == 1 else None


def _is_valid(resource: Mapping[str, Any]) -> bool:
    """Return whether a resource has the fields and types that R4 gives its type."""
    if _depth(resource) > DEPTH_LIMIT:
        return False
    model, fault = _model(resource["resourceType"])
    try:
        model(dict(resource), strict=True)
    except (fault, ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def _depth(node: Any, above: int = 0) -> int:
    if above > DEPTH_LIMIT or not isinstance(node, dict | list):
        return above
    parts = node.values() if isinstance(node, dict) else node
    return max((_depth(part, above + 1) for part in parts), default=above + 1)


def _model(kind: str) -> tuple[Callable[..., Any], type[Exception]]:
    try:
        from fhirclient.models.fhirabstractbase import FHIRValidationError

        module = importlib.import_module(f"fhirclient.models.{kind.lower()}")
    except ImportError:
        raise MissingExtra("fhirclient", "fhir") from None
    return getattr(module, kind), FHIRValidationError
