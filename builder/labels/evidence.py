"""Who made a label, with what and when: as the object states it, or else as the spec does."""

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
"""Who made it: (0070,0084), (0008,1070), (300E,0008)."""

Some = TypeVar("Some", bound=Annotation)


@dataclass(frozen=True)
class Observed:
    """What an object says about who made it, with what tool and when; names are keyed."""

    readers: tuple[str, ...] = ()
    tool: str | None = None


def observe(
    dataset: Dataset,
    *,
    map_uid: Callable[[str], str],
    clear: Callable[[str], str | None],
) -> Observed:
    """What a label object, as the archive has it, says of its readers and its tool.

    When it was made is not read: the day of a label, counted from the scan, gives the date of every scan away as soon
    as one is known, because labels are made in campaigns.

    Parameters
    ----------
    map_uid
        The keyed map; names of people become ``reader_name`` of it.
    clear
        The privacy gate for the name of a vendor, a model or a program; None where it may not leave.
    """
    people = sorted({reader_name(n, map_uid=map_uid) for n in _people(dataset) if n.strip(" ^")})
    named = dict.fromkeys(cleared for part in _tool(dataset) if (cleared := clear(part)))
    return Observed(tuple(people), " ".join(named) or None)


def merge(observed: Sequence[Observed]) -> Observed:
    """What several objects say together: all readers, and the tool they share."""
    tools = {o.tool for o in observed}
    readers = tuple(sorted({r for o in observed for r in o.readers}))
    return Observed(readers, tools.pop() if len(tools) == 1 else None)


def settle(annotation: Some, stated: Stated, observed: Observed) -> Some:
    """The annotation with its evidence: as the reader and the object say, and as the spec says where they do not."""
    found = annotation.evidence
    evidence = replace(
        found,
        readers=observed.readers or found.readers or stated.readers,
        tool=found.tool or observed.tool or stated.tool,
        time=stated.time,
    )
    return replace(annotation, evidence=evidence)


def reader_name(name: str, *, map_uid: Callable[[str], str]) -> str:
    """The keyed name of a reader: the same wherever somebody reads, and nothing without the key."""
    return "reader-" + hashlib.sha256(map_uid(f"reader:{name.strip().casefold()}").encode()).hexdigest()[:12]


def weakest(tiers: Sequence[Tier]) -> Tier:
    """The weakest of some tiers."""
    return max(tiers, key=EVIDENCE_TIERS.index)


def strongest(tiers: Sequence[Tier]) -> Tier:
    """The strongest of some tiers."""
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
    """Names of the device, then of the algorithm, each once."""
    parts: list[Any] = [value_of(dataset, "Manufacturer"), value_of(dataset, "ManufacturerModelName")]
    parts += _observers(dataset, DEVICE_OBSERVER_MODEL, "TextValue")
    parts += [value_of(item, "SegmentAlgorithmName") for item in items_of(dataset, "SegmentSequence")]
    return list(dict.fromkeys(str(p).strip() for p in parts if p))


def _observers(dataset: Dataset, codes: Sequence[str], keyword: str) -> Iterator[str]:
    """Values of the root's content items that carry one of the codes (observer context, PS3.16 TID 1001)."""
    for item in items_of(dataset, "ContentSequence"):
        concept = next(iter(items_of(item, "ConceptNameCodeSequence")), Dataset())
        if str(value_of(concept, "CodeValue") or "") in codes and value_of(item, keyword):
            yield str(value_of(item, keyword))
