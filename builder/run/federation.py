"""What a site does in a federation: plan and offer, approve, build under a joint plan, and write a receipt."""

import json
import os
import secrets
from collections.abc import Collection, Mapping
from os import environ
from pathlib import Path
from typing import Any, TypeAlias

from builder.deid import resolve_key
from builder.errors import LayoutError, PrivacyError
from builder.federation.coverage import covered
from builder.federation.documents import (
    KINDS,
    Answer,
    Copies,
    Marks,
    Offer,
    Plan,
    Receipt,
    Request,
    Spec,
    digest,
    kind_of,
    read,
    written,
)
from builder.federation.local import Terms, local_spec
from builder.federation.offers import Newcomers, make_offer
from builder.federation.policy import Policy, read_policy
from builder.federation.receipts import Published, make_receipt
from builder.federation.signing import load_key, read_signed, sign
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.model.layout import (
    COHORT,
    CURRENT,
    EXCLUSIONS,
    INDEX,
    MANIFEST,
    parse_current,
    parse_manifest,
    version_path,
)
from builder.model.parquet import read_parquet
from builder.planning.deal import newcomers, shared_keys
from builder.planning.left_out import names_file, parse_names, read_left_out
from builder.protocols import Progress
from builder.report.flow import decided_finally
from builder.run.clusters import load_cluster
from builder.run.measuring import measure
from builder.run.outcomes import Built, Planned
from builder.run.pipeline import ask, build, opened, plan_asked
from builder.run.progress import SilentProgress
from builder.spec import DatasetSpec
from builder.stages.boundary import Faults, default_action
from builder.storage import checkpoint, open_store

Made: TypeAlias = Offer | Receipt | Marks | Copies | Request | Answer
"""What a site makes, and a person approves."""

LOCAL_SPEC = "{federation}-spec.json"
"""File beside the ledger: the spec as this site builds it, which ``builder build`` takes as well."""

LEFT_OUT = "{federation}-left-out.txt"
"""File beside the ledger: keyed names of persons whose images another site keeps."""

ALIKE = "{federation}-alike.txt"
"""File beside the ledger: keyed names of persons whom another site has as well, and the split of each at both."""

BOTH_LEFT_OUT = "{federation}-leave-out.txt"
"""File beside the ledger: the names of ``LEFT_OUT``, and those of the file that the spec names."""


def offer(
    spec: Path,
    policy_file: Path,
    folder: Path,
    *,
    cluster: str,
    measured: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Plan locally and write ``offer.json``, which nobody has approved yet. Return its path.

    With ``measured`` all images are read as well, and what is measured of them is counted.
    """
    policy = read_policy(policy_file)
    ledger = Ledger.open(policy.ledger)
    signed = read_signed(spec.read_bytes(), Spec, where=str(spec), pinned=coordinator_of(policy))
    ledger.accept(signed, where=str(spec))
    _check_offers(ledger, policy)
    local, told = local_spec(signed, policy)
    local = beside_others(local, policy, signed.federation)
    plan = planned_here(local, policy, cluster=cluster, progress=progress).plan
    groups = [g for found in shared_keys(plan.cohort) for g in found.groups] if local.leaks.on_match == "merge" else ()
    people = newcomers(plan.spec, plan.cohort, plan.persons, together=groups, registry=plan.registry)
    names = covered(plan.spec.labels, plan.cohort, plan.links, plan.annotations)
    shown = progress or SilentProgress()
    values = measure(plan.url, plan.shards, policy.dataset, cluster=cluster, progress=shown) if measured else None
    made = make_offer(
        signed, policy, told, Newcomers(people, plan.cohort, plan.lock, names, values), ledger,
        key=plan.key, nonce=secrets.token_hex(16),
    )  # fmt: skip
    return keep_made(made, ledger, folder / "offer.json")


def planned_here(spec: DatasetSpec, policy: Policy, *, cluster: str, progress: Progress | None) -> Planned:
    """Plan what this site would build."""
    asked = ask(spec, policy.dataset, _used(spec, policy))
    with opened(load_cluster(cluster), None) as runner:
        return plan_asked(asked, runner, progress or SilentProgress(), Faults(default_action(environ)))


def approve(document: Path, policy_file: Path, key: Path) -> str:
    """Sign what this site made, be it an offer, a receipt or a file for another site. Return its kind."""
    policy = read_policy(policy_file)
    data = document.read_bytes()
    kinds: Mapping[str, Any] = {kind: KINDS[kind] for kind in ("receipt", "marks", "copies", "request", "answer")}
    made: Made = read(data, kinds.get(kind_of(data), Offer), where=str(document))[0]
    Ledger.open(policy.ledger).check_made(made, where=str(document))
    replace_file(document, written(made, sign(made, load_key(key))))
    return made.kind


def build_joint(
    plan: Path, spec: Path, policy_file: Path, folder: Path, *, cluster: str, progress: Progress | None = None
) -> tuple[Built, Path]:
    """Build this site's dataset under a joint plan and write ``receipt.json``, which nobody has approved yet."""
    policy = read_policy(policy_file)
    ledger = Ledger.open(policy.ledger)
    signed, joint = documents_of(spec, plan, policy, ledger)
    local, told = local_spec(signed, policy, joint)
    local = beside_others(local, policy, signed.federation)
    place = Path(policy.ledger).with_name(LOCAL_SPEC.format(federation=signed.federation))
    replace_file(place, _as_yaml(local))
    ledger.keep()
    used = _used(local, policy)
    built = build(local, to=policy.dataset, parameters=used, cluster=cluster, progress=progress)
    return built, _receipt((signed, joint), policy, told, ledger, folder)


def receipt(plan: Path, spec: Path, policy_file: Path, folder: Path) -> Path:
    """Write ``receipt.json`` of what is published now, for instance after a person has withdrawn."""
    policy = read_policy(policy_file)
    ledger = Ledger.open(policy.ledger)
    signed, joint = documents_of(spec, plan, policy, ledger)
    _, told = local_spec(signed, policy, joint)
    return _receipt((signed, joint), policy, told, ledger, folder)


def beside_others(spec: DatasetSpec, policy: Policy, federation: str) -> DatasetSpec:
    """Return the spec that leaves out whose images another site keeps, and deals persons of two sites alike."""
    spec = without_copies(spec, policy, federation)
    place = Path(policy.ledger).with_name(ALIKE.format(federation=federation))
    if not place.exists():
        return spec
    return spec.model_copy(update={"splits": spec.splits.model_copy(update={"alike": str(place)})})


def without_copies(spec: DatasetSpec, policy: Policy, federation: str) -> DatasetSpec:
    """Return the spec that also leaves out whose images another site keeps, as ``builder site compare`` found."""
    place = Path(policy.ledger).with_name(LEFT_OUT.format(federation=federation))
    if not place.exists():
        return spec
    own = spec.cohort.leave_out
    if own is not None:
        names = parse_names(place.read_bytes(), str(place)) | read_left_out(filled(own, policy)).names
        place = place.with_name(BOTH_LEFT_OUT.format(federation=federation))
        write_private(place, names_file(names))
    return spec.model_copy(update={"cohort": spec.cohort.model_copy(update={"leave_out": str(place)})})


def filled(location: str, policy: Policy) -> str:
    """Return a location of the spec with the policy's parameters in it."""
    for name, value in policy.parameters.items():
        location = location.replace(f"${{{name}}}", value)
    return location


def documents_of(spec: Path, plan: Path, policy: Policy, ledger: Ledger) -> tuple[Spec, Plan]:
    """Return the coordinator's spec and plan, and note them. Raises LayoutError if they do not belong together."""
    signed = read_signed(spec.read_bytes(), Spec, where=str(spec), pinned=coordinator_of(policy))
    joint = read_signed(plan.read_bytes(), Plan, where=str(plan), pinned=coordinator_of(policy))
    if joint.spec != digest(signed):
        raise LayoutError(
            f"{plan}: found the plan of another spec, expected that of {spec}; ask the coordinator for the two files "
            "that belong together"
        )
    own = joint.offers.get(policy.site)
    if own is None or own not in ledger.made:
        found = "no offer of this site" if own is None else "an offer that this site did not make"
        raise LayoutError(
            f"{plan}: found {found} in the plan, expected one that it made; ask for a plan that counts it"
        )
    ledger.accept(signed, where=str(spec))
    ledger.accept(joint, where=str(plan))
    return signed, joint


def _receipt(documents: tuple[Spec, Plan], policy: Policy, told: Terms, ledger: Ledger, folder: Path) -> Path:
    store = open_store(policy.dataset)
    try:
        version = parse_current(store.read(CURRENT))
    except FileNotFoundError:
        raise LayoutError(
            f"{policy.dataset}: found no published dataset, expected one; run builder site build"
        ) from None
    lock: Mapping[str, Any] = parse_manifest(store.read(version_path(version, MANIFEST))).lock
    index, cohort, out = (read_parquet(store.read(version_path(version, n))) for n in (INDEX, COHORT, EXCLUSIONS))
    published = Published(version, lock, index, decided_finally(cohort, out))
    key = resolve_key(policy.patient_key, environ, read=lambda path: Path(path).read_bytes())
    made = make_receipt(documents, policy, told, published, ledger, key=key, nonce=secrets.token_hex(16))
    return keep_made(made, ledger, folder / "receipt.json")


def keep_made(made: Made, ledger: Ledger, place: Path) -> Path:
    """Note what is told before the file exists: what was written once may have left."""
    ledger.note(made)
    ledger.keep()
    checkpoint("federation.told")
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(place, written(made))
    return place


def _check_offers(ledger: Ledger, policy: Policy) -> None:
    made = ledger.sequence("offer") - 1
    if made >= policy.offers:
        raise PrivacyError(
            f"{policy.ledger}: found {made} offers made, expected fewer than {policy.offers}, which the policy allows; "
            "send an earlier one again, or raise offers in the policy"
        )


def secret_of(reference: str, where: str) -> Key:
    """Return the secret that a policy refers to."""
    return resolve_key(reference, environ, read=lambda path: Path(path).read_bytes(), where=where)


def leave_out_too(persons: Collection[str], policy: Policy, federation: str) -> int:
    """Note persons whom the next build leaves out. Return how many are noted in all."""
    place = Path(policy.ledger).with_name(LEFT_OUT.format(federation=federation))
    before = parse_names(place.read_bytes(), str(place)) if place.exists() else frozenset()
    if persons:
        write_private(place, names_file(before | {*persons}))
    return len(before | {*persons})


def coordinator_of(policy: Policy) -> dict[str, str]:
    """Return whose specs and plans count."""
    return {policy.coordinator: "the coordinator"}


def _used(spec: DatasetSpec, policy: Policy) -> dict[str, str]:
    """Return the parameters that the spec uses."""
    text = spec.model_dump_json(exclude_unset=True)
    return {name: value for name, value in policy.parameters.items() if f"${{{name}}}" in text}


def _as_yaml(spec: DatasetSpec) -> bytes:
    """Return a spec as JSON, which is YAML; the order of splits and columns stays as it is, because it counts."""
    return json.dumps(spec.model_dump(mode="json", by_alias=True, exclude_unset=True), indent=1).encode() + b"\n"


def write_private(place: Path, data: bytes) -> None:
    """Write a file whole, or not at all, for its owner alone."""
    beside = place.with_name(place.name + ".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    beside.replace(place)


def replace_file(place: Path, data: bytes) -> None:
    """Write a file whole, or not at all."""
    beside = place.with_name(place.name + ".new")
    beside.write_bytes(data)
    beside.replace(place)
