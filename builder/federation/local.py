"""The coordinator's spec as one site builds it: its own places, key and name, and no feature that it did not allow."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.errors import PrivacyError
from builder.federation.coverage import structures
from builder.federation.documents import Plan, Spec
from builder.federation.exclusions import outcomes
from builder.federation.policy import ALWAYS, Policy
from builder.labels.label import MaskLabel
from builder.model.canonical import fingerprint
from builder.model.options import LOCATION_FIELDS, stated
from builder.spec import DatasetSpec
from builder.specfile import parse_spec
from builder.split.options import Joint, Splits
from builder.split.options import Quota as Share
from builder.transforms.intensity import place_of_percent

_TEMPLATE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}(/[^$]*)?")
_SECRET = re.compile(r"\$\{(env|file):")
SITE = "site"


def local_spec(signed: Spec, policy: Policy, plan: Plan | None = None) -> tuple[DatasetSpec, "Terms"]:
    """Return what the site plans and builds, whose locations still hold ``${NAME}``, and on which terms it tells.

    Raises
    ------
    SpecError
        If the text is no spec.
    PrivacyError
        If it uses what the policy does not allow.
    """
    spec = parse_spec(signed.spec.encode(), name="spec")
    faults = [*_faults(spec, policy)]
    if faults:
        raise PrivacyError("\n".join(f"spec: {fault}" for fault in faults) + "; change the policy, or refuse the spec")
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["deid"]["patient_key"] = policy.patient_key
    document["sources"] = [{**source, SITE: policy.site} for source in document["sources"]]
    splits = document.get("splits", {})
    if splits.get("hold_out"):
        splits["hold_out"] = [rule for rule in splits["hold_out"] if _is_here(rule, policy.site)]
    if plan is not None and plan.quotas.get(policy.site):
        shares = tuple(Share(levels=tuple(q.levels), counts=q.counts) for q in plan.quotas[policy.site])
        joint = Joint(columns={column.name: tuple(column.levels) for column in plan.columns}, quotas=shares)
        splits["joint"] = joint.model_dump(mode="json")
    document["splits"] = splits
    if plan is not None and plan.spacing_mm is not None:
        document["transforms"] = [_respaced(step, plan.spacing_mm) for step in document.get("transforms", ())]
    place = place_of_percent(spec.transforms)
    if plan is not None and plan.clip is not None and place is not None:
        document["transforms"][place] |= {"clip_percent": None, "clip": plan.clip}
    local = DatasetSpec.model_validate(document)
    return local, _terms(local, policy)


def _respaced(step: dict[str, Any], spacing_mm: Sequence[float | None]) -> dict[str, Any]:
    """Return a step that resamples to the fitted spacing, where it resamples at all; null keeps an axis."""
    if step["kind"] != "resample":
        return step
    axes = zip(step["spacing_mm"], spacing_mm, strict=True)
    return {**step, "spacing_mm": [None if own is None else fitted for own, fitted in axes]}


def held_out(spec: DatasetSpec) -> dict[str, str]:
    """Return the hospitals that the spec holds out, and the split of each."""
    rules = [rule for rule in spec.splits.hold_out if rule.column == SITE]
    return {str(site): rule.split for rule in reversed(rules) for site in rule.values}


@dataclass(frozen=True)
class Terms:
    """On which terms a site tells of its persons.

    Parameters
    ----------
    question
        Digest of what decides who is counted.
    k
        Smallest number that leaves.
    strata
        Columns that the split is stratified by.
    splits
        Splits that persons may be in.
    outcomes
        What can become of a person whose images are candidates.
    sizes
        Quantity of each structure that the spec declares to the column of the index that holds its volume.
    structures
        How many structures the labels declare that take ROIs or segments by their names.
    near
        Whether near copies of images count, and not equal pixels alone.
    measures
        Digest of what decides what is measured of whom: ``question``, and the transforms.
    grids
        Quantities that are measured in stored samples, and the digest of what decides these.
    """

    question: str
    k: int
    strata: tuple[str, ...]
    splits: tuple[str, ...]
    outcomes: tuple[str, ...] = ()
    sizes: Mapping[str, str] = field(default_factory=dict)
    structures: int = 0
    near: bool = True
    measures: str = ""
    grids: Mapping[str, str] = field(default_factory=dict)


def _terms(spec: DatasetSpec, policy: Policy) -> Terms:
    """Return the terms of a site's spec and policy."""
    parts = [stated(block) for block in (spec.cohort, spec.volumes, spec.persons, *spec.clinical, *spec.sources)]
    splits = spec.splits
    question = fingerprint(*parts, {name: stated(label) for name, label in spec.labels.items()})
    sizes = {
        f"label_ml of {label}.{part}": f"label.{label}.{part}.volume_mm3"
        for label, reader in spec.labels.items()
        if isinstance(reader, MaskLabel)
        for part in reader.declared
    }
    grid = fingerprint(stated(spec.samples), *(stated(step) for step in spec.transforms))
    return Terms(
        question,
        max(policy.k, spec.deid.anonymity.k if spec.deid.anonymity is not None else 0),
        splits.stratify,
        splits_of(splits),
        outcomes(spec),
        sizes,
        structures(spec.labels),
        spec.leaks.pixels == "near",
        fingerprint(question, *(stated(step) for step in spec.transforms)),
        dict.fromkeys((*sizes, "intensity_median"), grid),
    )


def splits_of(splits: Splits) -> tuple[str, ...]:
    """Return the splits that persons may be in: those of the ratios, then those of hold-outs."""
    return tuple(dict.fromkeys([*splits.ratios, *(rule.split for rule in splits.hold_out)]))


def _is_here(rule: dict[str, Any], site: str) -> bool:
    return rule["column"] != SITE or site in rule.get("values", ())


def _faults(spec: DatasetSpec, policy: Policy) -> Iterator[str]:
    allowed = {*ALWAYS, *policy.allow}
    for block in sorted(spec.model_fields_set - allowed):
        yield f"found the block {block}, expected one that the policy allows"
    splits = spec.splits
    for name in sorted(
        {"previous", "fresh", "sequester", "trust_registry", "joint", "alike"} & splits.model_fields_set
    ):
        yield f"found splits.{name}, expected none: who was dealt stays where the site's registry has the person"
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["deid"].pop("patient_key", None)
    for key, text in _texts(document):
        match = _TEMPLATE.fullmatch(text)
        if _SECRET.search(text):
            yield f"found an environment variable or file in {key}, expected none: a site names its own secrets"
        elif key in LOCATION_FIELDS and (match is None or match[1] not in policy.parameters or ".." in text):
            yield f"found a place in {key} that is no parameter of the policy, expected ${{NAME}} of {_names(policy)}"
        elif key == "sign_in":
            yield "found sign_in, expected none: a site signs in to its own archive"


def _names(policy: Policy) -> str:
    return ", ".join(sorted(policy.parameters)) or "none"


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "sign_in":
                yield name, ""
            yield from _texts(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, node
