"""Compare what lies in several splits: persons, studies, equal pixels, near copies and texts, and the balance."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from builder.copies import THRESHOLDS, Print, find_matches, pixel_digest, take_print
from builder.copies.texts import TextOf, near_texts
from builder.decode.format import pixel_format
from builder.errors import BuilderError, counted
from builder.files.formats import read_voxels
from builder.imaging.parse import parse_instance
from builder.imaging.pixels.stored import stored_values
from builder.library.audit.bias import HEADER, Bias, look_for_bias
from builder.library.audit.items import FILES, Divided, Item, few, read_divided
from builder.pages import template_environment

KINDS = ("persons", "studies", "equal_pixels", "near_copies", "texts")
MOST_SHOWN = 20
PICTURE, PICTURE_THRESHOLD = "picture", 0.97
"""Pictures without a header need this correlation: two chests reach 0.956, copies at least 0.987 (docs/audit.md)."""
Track = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Finding:
    """Something that lies in several splits, or several times in one.

    Parameters
    ----------
    kind
        One of KINDS.
    items
        Names of the items.
    persons
        Whose they are.
    splits
        Splits of the division where they lie apart, "" for a division without a name.
    leaks
        Whether they lie in several splits of one division.
    """

    kind: str
    items: tuple[str, ...]
    persons: tuple[str, ...]
    splits: tuple[str, ...]
    leaks: bool


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit. Its names are those of the data, and no key hides them."""

    place: str
    divided: Divided
    compared: int
    unread: tuple[str, ...]
    findings: tuple[Finding, ...]
    balance: tuple[Mapping[str, Any], ...]
    bias: Bias = field(default_factory=Bias)

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """What lies in several splits."""
        return tuple(f for f in self.findings if f.leaks)

    def count(self, kind: str, *, leaks: bool) -> int:
        """Count the findings of a kind across splits, or inside them."""
        return sum(f.kind == kind and f.leaks == leaks for f in self.findings)

    def facts(self, *, names: bool = False) -> dict[str, Any]:
        """Return it as JSON-able data; without ``names`` nothing in it is a name of the data."""
        return {
            "layout": self.divided.layout,
            "persons_told_by": self.divided.told_by,
            "items": len(self.divided.items),
            "persons": len({i.person for i in self.divided.items if i.person}),
            "without_a_person": sum(not i.person for i in self.divided.items),
            "without_a_split": self.divided.without_a_split,
            "images_compared": self.compared,
            "images_unread": len(self.unread),
            "across_splits": {kind: self.count(kind, leaks=True) for kind in KINDS},
            "inside_splits": {kind: self.count(kind, leaks=False) for kind in KINDS[2:]},
            "balance": [dict(row) for row in self.balance],
            "headers_alone": [dict(row) for row in self.bias.headers_alone],
            "associated": [dict(row) for row in self.bias.associated],
            "clean": not self.leaks,
            **({"findings": [f.__dict__ for f in self.findings]} if names else {}),
        }

    def text(self, *, names: bool = False) -> str:
        """Return it as lines for a person."""
        facts = self.facts()
        lines = [
            f"{self.place}: {facts['layout']}, {counted(facts['items'], 'item')} of "
            f"{counted(facts['persons'], 'person')} (told by {facts['persons_told_by']})",
            "  across splits: " + ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in facts["across_splits"].items()),
            "  inside one split: " + ", ".join(f"{n} {k.replace('_', ' ')}" for k, n in facts["inside_splits"].items()),
        ]
        if facts["without_a_person"]:
            lines.append(
                f"  {counted(facts['without_a_person'], 'item')} of nobody known: --person-of tells by the path"
            )
        if facts["without_a_split"]:
            lines.append(f"  {counted(facts['without_a_split'], 'image')} in no split, so not looked at")
        if self.unread:
            lines.append(f"  {counted(len(self.unread), 'image')} not compared: missing or unreadable")
        for row in self.balance[:MOST_SHOWN]:
            shares = ", ".join(f"{split} {share:.2f}" for split, share in row["shares"].items())
            lines.append(f"  {row['column']} = {row['level']}: {shares}")
        for row in self.bias.headers_alone:
            where = f"{row['low']:.2f} to {row['high']:.2f}"
            lines.append(f"  headers alone predict {row['outcome']}: AUC {row['auc']:.2f} ({where}), chance 0.50")
        for row in self.bias.associated[:MOST_SHOWN]:
            lines.append(f"  {row['label']} goes with {row['group']}: Cramer's V {row['cramers_v']:.2f}")
        shown = self.leaks[:MOST_SHOWN] if names else ()
        lines += [f"  {f.kind.replace('_', ' ')} in {' and '.join(f.splits)}: {', '.join(f.items[:4])}" for f in shown]
        lines.append(
            "  no leak found" if not self.leaks else f"  LEAKS: {len(self.leaks)}" + ("" if names else "; --names")
        )
        return "\n".join(lines)

    def page(self, *, names: bool) -> str:
        """Return it as one HTML page that fetches nothing."""
        template = template_environment(Path(__file__).parent).get_template("page.html.jinja")
        shown = [f.__dict__ for f in self.leaks] if names else []
        return template.render(facts=self.facts(), place=Path(self.place).name if names else "", findings=shown)


def audit(place: Path, *, person: str | None = None, pixels: str = "near", track: Track | None = None) -> Audit:
    """Audit a table or folder that somebody else divided.

    Parameters
    ----------
    person
        See ``read_divided``.
    pixels
        ``near``, ``exact`` or ``off``.
    """
    divided = read_divided(place, person=person)
    volumes, unread = [], []
    groups = list(_volumes(divided.items)) if pixels != "off" else []
    read: dict[tuple[Any, ...], Item] = {}
    headers: dict[str, Mapping[str, Any]] = {}
    for members in (track or _plain)(groups, len(groups)):
        try:
            item, voxels, header = _voxels(members)
        except (BuilderError, OSError):
            unread += [member.name for member in members]
            continue
        read |= {_listing(member): replace(member, person=item.person, study=item.study) for member in members}
        headers[item.name] = {**header, **dict(zip(HEADER[-3:], voxels.shape, strict=True))}
        modality = header.get("modality") or (PICTURE if len(voxels) == 1 else "")
        person_key, key = item.person or item.name, repr(_listing(item))
        taken = take_print(voxels, key=key, person_key=person_key, modality=modality)
        volumes.append((item, pixel_digest(voxels), taken))
    unread += [i.name for i in divided.items if i.place is None and not i.text]
    items = tuple(read.get(_listing(item), item) for item in divided.items)
    divided = replace(divided, items=items)
    findings = [*_same(items, "persons"), *_same(items, "studies"), *_equal(volumes)]
    findings += _near(volumes) if pixels == "near" else []
    findings += _texts(items)
    bias = look_for_bias(items, headers)
    return Audit(str(place), divided, len(volumes), tuple(unread), tuple(findings), tuple(_balance(items)), bias)


def _listing(item: Item) -> tuple[Any, ...]:
    """Return what tells items apart: one image may be listed in several splits."""
    return item.name, *sorted(item.splits.items())


def _plain(items: Iterable[Any], total: int) -> Iterable[Any]:
    return items


def _apart(members: Sequence[Item]) -> tuple[str, ...]:
    """Return the splits of the first division in which items lie apart; empty if they do in none."""
    for division in sorted({d for item in members for d in item.splits}):
        splits = {item.splits[division] for item in members if division in item.splits}
        if len(splits) > 1:
            return tuple(f"{division} {split}".strip() for split in sorted(splits))
    return ()


def _finding(kind: str, members: Sequence[Item]) -> Finding:
    apart = _apart(members)
    splits = apart or tuple(sorted({s for item in members for s in item.splits.values()}))
    persons = tuple(sorted({item.person for item in members if item.person}))
    return Finding(kind, tuple(item.name for item in members), persons, splits, bool(apart))


def _same(items: Sequence[Item], kind: str) -> Iterator[Finding]:
    """Yield persons or studies that lie in several splits."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        name = item.person if kind == "persons" else item.study
        if name:
            groups[name].append(item)
    for _, members in sorted(groups.items()):
        if _apart(members):
            yield _finding(kind, members)


def _equal(volumes: Sequence[tuple[Item, str, Print]]) -> Iterator[Finding]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item, digest, taken in volumes:
        if taken.planes:  # images of one value are equal without being copies
            groups[digest].append(item)
    for _, members in sorted(groups.items()):
        if len(members) > 1:
            yield _finding("equal_pixels", members)


def _near(volumes: Sequence[tuple[Item, str, Print]]) -> Iterator[Finding]:
    """Yield pairs of images of different persons that are copies of each other without being equal."""
    of = {taken.key: (item, digest) for item, digest, taken in volumes}
    thresholds = {**THRESHOLDS, PICTURE: PICTURE_THRESHOLD}
    for match in find_matches([taken for *_, taken in volumes], thresholds=thresholds):
        (one, first), (other, second) = of[match.first], of[match.second]
        if first != second:
            yield _finding("near_copies", (one, other))


def _texts(items: Sequence[Item]) -> Iterator[Finding]:
    of = {item.name: item for item in items if item.text}
    texts = [TextOf(name, item.person or name, None, item.text) for name, item in of.items()]
    for pair in near_texts(texts):
        yield _finding("texts", (of[pair.first.key], of[pair.second.key]))


def _balance(items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """Yield the share of each level of each column of few values, by split."""
    rows: list[tuple[str, Mapping[str, str]]] = [(item.splits[""], item.groups) for item in items if "" in item.splits]
    sizes = Counter(split for split, _ in rows)
    for column in sorted({name for _, groups in rows for name in groups}):
        values = [groups.get(column, "") for _, groups in rows]
        if few(values):
            for level in sorted(set(values)):
                counts = Counter(split for split, groups in rows if groups.get(column, "") == level)
                shares = {split: round(counts[split] / size, 4) for split, size in sorted(sizes.items())}
                yield {"column": column, "level": level, "shares": shares}


def _volumes(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    """Yield the items of each image: one file, or the DICOM files of one series."""
    series: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.place is None:
            continue
        uid = _series(item.place)
        if uid is None:
            yield (item,)
        else:
            series[f"{uid} {item.splits}"].append(item)
    yield from (tuple(members) for _, members in sorted(series.items()))


def _series(place: Path) -> str | None:
    if place.name.lower().endswith(FILES):
        return None
    try:
        header = pydicom.dcmread(place, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (pydicom.errors.InvalidDicomError, OSError, EOFError, ValueError):
        return None
    return str(header.get("SeriesInstanceUID", "")) or hashlib.sha256(place.read_bytes()).hexdigest()


def _voxels(members: Sequence[Item]) -> tuple[Item, NDArray[Any], dict[str, Any]]:
    """Return the item, the (slice, row, column) values and what the header says of an image."""
    first = members[0]
    assert first.place is not None
    if _series(first.place) is None:
        facts, layers = read_voxels([first.place.read_bytes()])
        del facts
        return first, _grey(layers), {}
    planes = []
    for member in members:
        assert member.place is not None
        dataset = parse_instance(member.place.read_bytes())
        order = float(dataset.get("InstanceNumber") or 0)
        planes.append((order, member.name, stored_values(dataset, pixel_format(dataset)), dataset))
    planes.sort(key=lambda plane: plane[:2])
    whole = np.concatenate([values if values.ndim == 3 else values.mean(axis=-1) for _, _, values, _ in planes])
    header = planes[0][3]
    item = replace(
        first,
        person=first.person or str(header.get("PatientID", "")),
        study=first.study or str(header.get("StudyInstanceUID", "")),
    )
    kvp = header.get("KVP")
    return (
        item,
        whole,
        {
            "modality": str(header.get("Modality", "")),
            "manufacturer": str(header.get("Manufacturer", "")) or None,
            "manufacturer_model": str(header.get("ManufacturerModelName", "")) or None,
            "kvp": float(kvp) if isinstance(kvp, int | float) else None,
        },
    )


def _grey(layers: NDArray[Any]) -> NDArray[Any]:
    """Return (slice, row, column) values of (layer, slice, row, column): the mean of three colours, or one layer."""
    if len(layers) == 1 or np.array_equal(layers[0], layers[1]):
        first: NDArray[Any] = layers[0]
        return first
    colours: NDArray[Any] = np.rint(layers[:3].astype(np.float64).mean(axis=0)).astype(np.int64)
    return colours
