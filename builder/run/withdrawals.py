"""What a withdrawal is asked to do, how far it is, and what it did."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from builder.errors import SpecError, counted
from builder.model.canonical import canonical_json, fingerprint
from builder.run.elsewhere import Kind, Place
from builder.split.withdrawn import REASONS
from builder.storage import Store, open_store

FOLDER = "withdrawals"
"""Of the private workspace: withdrawals under way. Of the dataset: certificates."""

OLD = ("now", "after", "keep")


@dataclass(frozen=True)
class Policy:
    """Why persons are taken out, and what happens to the versions that had them.

    Parameters
    ----------
    reason
        One of ``builder.split.withdrawn.REASONS``.
    old
        ``now``, ``keep``, or ``after`` some days.
    days
        For ``after``.
    also
        Places beside the dataset that may hold the persons.
    """

    reason: str
    old: str = "now"
    days: int = 0
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise SpecError(f"--reason: found {self.reason!r}, expected one of {', '.join(REASONS)}")
        if self.old not in OLD or (self.old == "after") != (self.days > 0):
            raise SpecError("--old: found neither now, keep nor 'after N days', expected one of them")


def parse_policy(reason: str, old: str, also: Sequence[str] = ()) -> Policy:
    """Read ``now``, ``keep`` or ``after N days``. Raises SpecError."""
    words, places = old.split(), tuple(open_store(place).url for place in also)
    if len(words) == 3 and words[0] == "after" and words[2] in ("day", "days") and words[1].isdigit():
        return Policy(reason, "after", int(words[1]), places)
    return Policy(reason, old, also=places)


@dataclass(frozen=True)
class Intention:
    """A withdrawal under way.

    Parameters
    ----------
    people
        Rows of the registry: whom it is about.
    before
        Version that was published when it began.
    plan, inventory
        That version's plan and inventory, in the private workspace.
    due
        Day from which the old versions go, as ``YYYY-MM-DD``; "" for now.
    published
        Whether a version without the persons is published.
    """

    people: tuple[Mapping[str, Any], ...]
    policy: Policy
    before: str
    plan: str
    inventory: str
    due: str = ""
    after: Mapping[str, Any] = field(default_factory=dict)
    """The plan without the persons, once it is made: a kill may come between its publication and the note of it."""
    published: bool = False
    places: tuple[Place, ...] = ()
    """Beside the dataset and its workspace, as they were before anything was removed there."""
    not_searched: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its file, which says nothing of the persons without the key."""
        return fingerprint(sorted(row["person_key"] for row in self.people))

    @property
    def names(self) -> frozenset[str]:
        """Every keyed name of the persons."""
        return frozenset(
            n for row in self.people for n in (row["person_key"], *row["members"], *(row["studies"] or ()))
        )

    def keep(self, private: Store) -> None:
        """Write it into the private workspace."""
        private.join(FOLDER).put(f"{self.name}.json", canonical_json(asdict(self)))


@dataclass(frozen=True)
class Gone:
    """What a withdrawal did."""

    dataset: str
    version: str
    persons: int
    certificate: Mapping[str, Any] | None
    """None while old versions are kept until a day."""
    due: str
    seen: Mapping[str, Any]
    """Reads, exports and training runs of the versions that had the persons."""
    elsewhere: tuple[Mapping[str, Any], ...] = ()
    """Places beside the dataset: ``place``, ``kind``, ``url``, and in how many objects anything was ``found_in``."""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return asdict(self)

    def text(self) -> str:
        """Return it as lines for a person."""
        lines = [f"{self.dataset}: {counted(self.persons, 'person')} withdrawn, published version {self.version}"]
        if self.certificate is None:
            lines.append(f"  the old versions stay until {self.due}: builder gc removes them from that day on")
        elif self.certificate["absent"]:
            searched = counted(self.certificate["objects_searched"], "object")
            lines.append(f"  absent from all of {searched}; the certificate is in {FOLDER}/ of the dataset")
        else:
            lines += [f"  STILL FOUND in {place}" for place in self.certificate["found_in"]]
        lines += [_line(place) for place in self.elsewhere]
        shared = (self.certificate or {}).get("searched_for", {}).get("image_chunks_that_others_have_too", 0)
        if shared:
            lines.append(f"  {counted(shared, 'image chunk')} of the person also in samples of others: see leaks.json")
        for what, rows in self.seen.items():
            lines += [f"  {what} that had seen the person: {row}" for row in rows]
        return "\n".join(lines)


def _line(place: Mapping[str, Any]) -> str:
    where = f"{place['place']} ({place['kind']}, {place['url']})"
    if place["found_in"]:
        return f"  STILL FOUND in {counted(place['found_in'], 'object')} of {where}: delete it, or make it anew"
    return f"  absent from {where}" if place["kind"] != Kind.GONE else f"  not searched: {where}"


def kept_intentions(private: Store) -> list[Intention]:
    """Return the withdrawals under way."""
    found = []
    for path in sorted(private.join(FOLDER).list()):
        if path.endswith(".json") and "/" not in path:
            said = json.loads(private.join(FOLDER).read(path))
            people = tuple(said.pop("people"))
            policy = Policy(**{**said["policy"], "also": tuple(said["policy"].get("also", ()))})
            places = tuple(Place(p["url"], Kind(p["kind"]), p["told"]) for p in said.pop("places", ()))
            others = tuple(said.pop("not_searched", ()))
            made = {**said, "people": people, "policy": policy, "places": places, "not_searched": others}
            found.append(Intention(**made))
    return found
