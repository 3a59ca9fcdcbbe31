"""Find volumes that show one image, put their persons into one split, and write the leak certificate."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from builder.copies import THRESHOLDS, Match, Print, certify
from builder.copies.matching import NEIGHBOURS
from builder.copies.texts import TextOf, certify_texts
from builder.errors import LayoutError, counted
from builder.labels.text import TEXTS
from builder.model.canonical import Json
from builder.model.tables import used_rows
from builder.plan import DatasetPlan
from builder.planning.deal import deal, joined, shared_keys
from builder.planning.registry import next_registry
from builder.publishing.comparing import compare_in_tasks, read_facts
from builder.report.crossings import crossings, overlapping_samples, published_split
from builder.report.shift import INTENSITIES
from builder.spec import DatasetSpec
from builder.stages.graph import Runner
from builder.storage import Store

MOST_ALIKE = 10
"""Most persons who may show one image; more are taken for false matches, as images on one atlas are all alike."""


FITTED = ("dawid_skene",)
EVERY_CASE = "how readers answered in all cases, those of the test split too"
"""Basis of a consensus that estimates how readers confuse classes: no leak of images, but users must know it."""


@dataclass(frozen=True, eq=False)
class Compared:
    """What the comparison of all volumes found; empty if the spec turns it off."""

    prints: tuple[Print, ...]
    matches: tuple[Match, ...]
    thresholds: Mapping[str, float]


def compare(plan: DatasetPlan, prints: Store, runner: Runner) -> Compared:
    """Compare every volume of the dataset with every other one."""
    options = plan.spec.leaks
    thresholds = {**THRESHOLDS, **options.thresholds}
    shards = [s.fingerprint for s in plan.shards]
    facts = read_facts(prints, shards)
    neighbours = NEIGHBOURS if options.pixels == "near" else 0
    matches = compare_in_tasks(prints, shards, facts, runner, thresholds=thresholds, neighbours=neighbours)
    found = {p.key: p for held in facts for p in held}  # a series that serves several cases was read for each
    return Compared(tuple(found.values()), matches, thresholds)


def deal_again(plan: DatasetPlan, compared: Compared) -> DatasetPlan:
    """Return the plan with persons who show one image in one split, or the same plan if there is nothing to join.

    Raises
    ------
    LayoutError
        If images lie under several persons and ``leaks.on_match`` is ``stop``, or an earlier version already put them
        into two splits.
    """
    shared = shared_keys(plan.cohort)
    groups = [group for found in shared for group in found.groups]
    if plan.spec.leaks.on_match == "stop" and (compared.matches or groups):
        first = compared.matches[0].persons if compared.matches else groups[0][:2]
        raise LayoutError(
            f"leaks: found {counted(len(compared.matches), 'pair')} of volumes of different persons that show one "
            f"image, and {counted(len(groups), 'group')} of persons with a frame of reference or accession number in "
            f"common, for instance {first[0]} and {first[1]}; expected none: state in persons.aliases that they are "
            "one person, leave one out, or set leaks.on_match: merge"
        )
    if plan.spec.leaks.on_match != "merge" or not compared.matches:
        return plan
    together = [*groups, *(m.persons for m in compared.matches)]
    _check_credible(compared)
    return replace(plan, splits=deal(plan.spec, plan.cohort, plan.persons, together=together, registry=plan.registry))


def _check_credible(compared: Compared) -> None:
    """Raise LayoutError if near copies join more persons than real copies would."""
    first = joined([m.persons for m in compared.matches if not m.exact and not m.planes])
    sizes = Counter(first.values())
    largest = max(sizes.values(), default=0)
    if largest > MOST_ALIKE:
        raise LayoutError(
            f"leaks: found {largest} persons whose volumes are all alike, expected {MOST_ALIKE} at most: images "
            "that were registered to one atlas or made by one program are. Raise leaks.thresholds for their modality, "
            "or set leaks.pixels: exact"
        )


def certificate(plan: DatasetPlan, compared: Compared, index: pa.Table) -> dict[str, Json]:
    """Return everything that was compared across splits: counts, thresholds, digests, and what was found.

    ``found`` counts what still lies in two splits, which is 0 unless the spec says to report only.
    """
    split_of = dict(zip(*(plan.splits[c].to_pylist() for c in ("person_key", "split")), strict=True))
    prints = [replace(p, split=split_of.get(p.person_key)) for p in compared.prints]
    matches = [replace(m, splits=(split_of.get(m.persons[0]), split_of.get(m.persons[1]))) for m in compared.matches]
    pixels = None
    if plan.spec.leaks.pixels != "off":
        pixels = certify(prints, matches, thresholds=compared.thresholds)
        pixels["compared"] = plan.spec.leaks.pixels
        if plan.spec.leaks.pixels == "exact":
            pixels["method"] = None  # copies that are not equal were not looked for
    keys = crossings(index)
    keys += [k for k in crossings(_dealt(plan, split_of)) if k["key"] not in {row["key"] for row in keys}]
    patches = overlapping_samples(index)
    left = [sum(k["in_two_splits"] for k in keys), patches["in_two_splits"], pixels["in_two_splits"] if pixels else 0]
    return {
        "on_match": plan.spec.leaks.on_match,
        "anonymity": None if plan.anonymity is None else plan.anonymity.facts(),
        "deal": _deal_facts(plan),
        "found": sum(left),
        "keys": keys,
        "shared": [
            {"key": s.key, "groups": len(s.groups), "persons": len({p for g in s.groups for p in g}),
             "too_common": s.too_common} for s in shared_keys(plan.cohort)
        ],
        "pixels": pixels,
        "patches": patches,
        "known": known_of(plan.clinical),
        "statistics": statistics_of(plan.spec),
        "labels": labels_of(plan.spec, index),
        **published_split(used_rows(plan.cohort)),
        **_texts(plan.spec, index),
    }  # fmt: skip


def known_of(tables: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Return how it is told of every clinical column when its values were known, and how many were known too late.

    Raises
    ------
    LayoutError
        If an input holds a value from after the study of its image, which a join never gives.
    """
    found = [{"table": n, **known} for n, facts in enumerate(tables, start=1) for known in facts["known"]]
    late = [known for known in found if known["after_study"]]
    if late:
        first = late[0]
        raise LayoutError(
            f"clinical table {first['table']}: found {counted(first['after_study'], 'value')} of {first['column']} "
            "from after the study of the image, expected none in an input; report this as a fault of builder"
        )
    return found


def _texts(spec: DatasetSpec, index: pa.Table) -> dict[str, Json]:
    """Return what the comparison of published texts found, by label; nothing if no label is a text.

    Near copies of texts join nobody, because reports repeat what is often said.
    """
    found: dict[str, Json] = {}
    for name in (f"text.{label}" for label, reader in spec.labels.items() if isinstance(reader, TEXTS)):
        rows = index.filter(pc.is_valid(index[name])).select(["case_key", "person_key", "split", name]).to_pylist()
        texts = {row["case_key"]: TextOf(row["case_key"], row["person_key"], row["split"], row[name]) for row in rows}
        found[name] = certify_texts(list(texts.values()))
    return {"texts": found} if found else {}


def _deal_facts(plan: DatasetPlan) -> Json:
    """Return how the splits were made: kept or dealt afresh, and how many persons moved because the spec said so."""
    registry = next_registry(plan.registry, plan.persons, plan.splits, key=plan.key)
    moved = [splits for splits in registry["moved_from"].to_pylist() if splits]
    return {
        "fresh": plan.spec.splits.fresh,
        "registry_trusted": plan.spec.splits.trust_registry,
        "persons": registry.num_rows,
        "absent": registry["present"].to_pylist().count(False),
        "moved": len(moved),
        "moved_from": sorted({split for splits in moved for split in splits}),
    }


def with_intensities(index: pa.Table, compared: Compared) -> pa.Table:
    """Add three quantiles of each case's values as stored in the archive to the index, if volumes were compared."""
    if not compared.prints:
        return index
    found = {p.key: p.quantiles for p in compared.prints}
    rows = [found.get(key) for key in index["case_key"].to_pylist()]
    for place, name in enumerate(INTENSITIES):
        index = index.append_column(name, pa.array([None if r is None else r[place] for r in rows], pa.float64()))
    return index


def statistics_of(spec: DatasetSpec) -> list[Json]:
    """Return what each transform takes statistics of, and how many persons outside train contribute.

    The number is always 0, because transforms measure each volume by itself.
    """
    fits = [(t.kind, t.fitted_on) for t in spec.transforms]
    return [{"transform": kind, "fitted_on": on, "persons_outside_train": 0} for kind, on in fits]


def labels_of(spec: DatasetSpec, index: pa.Table) -> list[Json]:
    """Return what each label is derived from: objects and rows of its own case, or all cases if readers were judged.

    ``persons_outside_train`` counts the persons outside train whose cases influenced the labels of others.
    """
    everybody = set(zip(index["person_key"].to_pylist(), index["split"].to_pylist(), strict=True))
    outside = len({person for person, split in everybody if split != "train"})
    made: list[tuple[str, str, bool]] = [(n, r.kind, False) for n, r in sorted(spec.labels.items())]
    made += [(n, f"consensus, {c.method}", c.method in FITTED) for n, c in sorted(spec.consensus.items())]
    return [
        {"label": name, "kind": kind, "derived_from": EVERY_CASE if fitted else "its own case",
         "persons_outside_train": outside if fitted else 0} for name, kind, fitted in made
    ]  # fmt: skip


def _dealt(plan: DatasetPlan, split_of: Mapping[str, str]) -> pa.Table:
    included = used_rows(plan.cohort)
    splits = [split_of.get(p) for p in included["person_key"].to_pylist()]
    return included.append_column("split", pa.array(splits, pa.string()))
