"""Evidence of a label: who made it, with what and when. The object's own statements come before those of the spec."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydicom.dataset import Dataset

from builder.labels.label import Stated
from builder.labels.values import items_of, value_of
from builder.model.case import EVIDENCE_TIERS, Annotation, Tier

PERSON_OBSERVER = "121008"
"""Person Observer Name (PS3.16 TID 1003)."""

DEVICE_OBSERVER_MODEL = ("121014", "121015")
"""Device Observer Manufacturer and Model Name (PS3.16 TID 1004)."""

PEOPLE = ("ContentCreatorName", "OperatorsName", "ReviewerName")
"""Attributes with the names of people who made the object: (0070,0084), (0008,1070), (300E,0008)."""

Some = TypeVar("Some", bound=Annotation)


@dataclass(frozen=True)
class Observed:
    """What an object says about who made it, with what tool and when. Names are keyed."""

    readers: tuple[str, ...] = ()
    tool: str | None = None


def observe(
    dataset: Dataset,
    *,
    map_uid: Callable[[str], str],
    clear: Callable[[str], str | None],
) -> Observed:
    """Return what a label object, as stored in the archive, says about its readers and its tool.

    The time at which the label was made is not read. Labels are made in campaigns, so the days from scan to label would
    give away the dates of all scans as soon as one is known.

    Parameters
    ----------
    map_uid
        The keyed map. Names of people are passed through ``reader_name`` with it.
    clear
        The privacy gate for the name of a vendor, model or program. It returns None if the name may not be published.
    """
    people = sorted({reader_name(n, map_uid=map_uid) for n in _people(dataset) if n.strip(" ^")})
    named = dict.fromkeys(cleared for part in _tool(dataset) if (cleared := clear(part)))
    return Observed(tuple(people), " ".join(named) or None)


def merge(observed: Sequence[Observed]) -> Observed:
    """Merge what several objects say: all readers, and the tool if they share one."""
    tools = {o.tool for o in observed}
    readers = tuple(sorted({r for o in observed for r in o.readers}))
    return Observed(readers, tools.pop() if len(tools) == 1 else None)


def settle(annotation: Some, stated: Stated, observed: Observed) -> Some:
    """Return the annotation with its evidence, from the reader and the object first, and from the spec otherwise."""
    found = annotation.evidence
    evidence = replace(
        found,
        readers=observed.readers or found.readers or stated.readers,
        tool=found.tool or observed.tool or stated.tool,
        time=stated.time,
    )
    return replace(annotation, evidence=evidence)


def reader_name(name: str, *, map_uid: Callable[[str], str]) -> str:
    """Return the keyed name of a reader. It is the same everywhere, and it reveals nothing without the key."""
    return "reader-" + hashlib.sha256(map_uid(f"reader:{name.strip().casefold()}").encode()).hexdigest()[:12]


def weakest(tiers: Sequence[Tier]) -> Tier:
    """Return the weakest of several tiers."""
    return max(tiers, key=EVIDENCE_TIERS.index)


def strongest(tiers: Sequence[Tier]) -> Tier:
    """Return the strongest of several tiers."""
    return min(tiers, key=EVIDENCE_TIERS.index)


def _people(dataset: Dataset) -> Iterator[str]:
    for name in PEOPLE:
        value = value_of(dataset, name)
        if value:
            yield from [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
    for item in items_of(dataset, "VerifyingObserverSequence"):
        yield str(value_of(item, "VerifyingObserverName") or "")
    for item in items_of(dataset, "RTROIObservationsSequence"):
        yield str(value_of(item, "ROIInterpreter") or "")
    yield from _observers(dataset, (PERSON_OBSERVER,), "PersonName")


def _tool(dataset: Dataset) -> list[str]:
    """Return the names of the device, then of the algorithm, each once."""
    parts: list[Any] = [value_of(dataset, "Manufacturer"), value_of(dataset, "ManufacturerModelName")]
    parts += _observers(dataset, DEVICE_OBSERVER_MODEL, "TextValue")
    parts += [value_of(item, "SegmentAlgorithmName") for item in items_of(dataset, "SegmentSequence")]
    return list(dict.fromkeys(str(p).strip() for p in parts if p))


def _observers(dataset: Dataset, codes: Sequence[str], keyword: str) -> Iterator[str]:
    """Yield values of top-level content items with one of the codes (observer context, PS3.16 TID 1001)."""
    for item in items_of(dataset, "ContentSequence"):
        concept = next(iter(items_of(item, "ConceptNameCodeSequence")), Dataset())
        if str(value_of(concept, "CodeValue") or "") in codes and value_of(item, keyword):
            yield str(value_of(item, keyword))
