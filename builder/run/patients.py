"""What two sites do to find persons who are patients of both: ask, answer, match, and deal them alike."""

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import LayoutError, PrivacyError, SpecError
from builder.federation import intersecting
from builder.federation.documents import Answer, Request, Spec, digest
from builder.federation.local import held_out, local_spec
from builder.federation.patients import (
    count_answer,
    drawn_for,
    elements_of,
    key_check,
    matching,
    read_answer,
    read_request,
)
from builder.federation.policy import Matching, Policy, read_policy
from builder.federation.signing import read_signed
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.planning.rows import included
from builder.protocols import Progress
from builder.run.federation import (
    ALIKE,
    beside_others,
    coordinator_of,
    keep_made,
    leave_out_too,
    planned_here,
    secret_of,
    write_private,
)
from builder.specfile import parse_spec
from builder.split.alike import alike_file, parse_alike

ASKED = "{federation}-asked-{site}.json"
"""File beside the ledger: the key of a request, and the persons that it asks about."""

SECONDS = 3600
"""The library takes about a millisecond for an identifier."""


@dataclass(frozen=True)
class Matched:
    """What an answer says.

    Parameters
    ----------
    site
        The other site.
    size
        How many identifiers both have; None where they are fewer than ``k``.
    dealt, left_out
        Persons who are dealt alike, and who are left out; None where only the size is told.
    """

    site: str
    size: int | None
    dealt: int | None
    left_out: int | None


def ask_site(spec: Path, site: str, policy_file: Path, folder: Path, *, cluster: str,
             progress: Progress | None = None) -> Path:  # fmt: skip
    """Write ``request.json`` for another site, which nobody has approved yet."""
    own = _Site.open(spec, policy_file)
    if site not in {*own.options.sites} & {*own.signed.sites} - {own.policy.site}:
        raise PrivacyError(
            f"SITE: found {site!r}, expected another site of the spec that the policy names under patients.sites: "
            f"{', '.join(own.options.sites)}"
        )
    elements = own.elements(cluster, progress)
    if len(elements) < own.policy.k:
        raise PrivacyError(
            f"{site}: found fewer than {own.policy.k} persons with what patients.identifiers names, expected as many "
            "as the policy's k"
        )
    membership, names = own.options.tell == "membership", sorted(elements)
    begun = own.run("ask", elements=names, membership=membership)
    made = Request(
        federation=own.signed.federation, sequence=own.ledger.sequence("request"), nonce=secrets.token_hex(16),
        site=own.policy.site, to=site, spec=digest(own.signed), identifiers=own.options.identifiers,
        membership=membership, check=key_check(own.shared), persons=len(names), message=begun["message"],
    )  # fmt: skip
    kept = {
        "request": digest(made),
        "membership": membership,
        "key": begun["key"],
        "elements": [[name, sorted(elements[name])] for name in names],
    }
    write_private(own.asked(site), json.dumps(kept).encode())
    return keep_made(made, own.ledger, folder / "request.json")


def answer_site(spec: Path, request: Path, policy_file: Path, folder: Path, *, cluster: str,
                progress: Progress | None = None) -> Path:  # fmt: skip
    """Write ``answer.json`` to the request of another site, which nobody has approved yet."""
    own = _Site.open(spec, policy_file)
    asked = read_request(request.read_bytes(), own.signed, own.policy, own.shared, where=str(request))
    own.ledger.accept(asked, where=str(request))
    count_answer(asked, own.policy, own.ledger, where=str(request))
    elements = sorted(own.elements(cluster, progress))
    found = own.run(
        "answer", elements=elements, membership=asked.membership, persons=asked.persons, message=asked.message
    )
    if "setup" not in found:
        raise PrivacyError(
            f"{request}: found a message for {found['persons']} identifiers (membership: {found['membership']}), "
            f"expected {asked.persons} ({asked.membership}), as the file says; ask {asked.site} what it wants"
        )
    made = Answer(
        federation=own.signed.federation, sequence=own.ledger.sequence("answer"), nonce=secrets.token_hex(16),
        site=own.policy.site, to=asked.site, request=digest(asked), membership=asked.membership,
        setup=found["setup"], message=found["message"],
    )  # fmt: skip
    return keep_made(made, own.ledger, folder / "answer.json")


def match_answer(spec: Path, answer: Path, policy_file: Path) -> Matched:
    """Return what an answer says, and note whom the next plan deals alike or leaves out."""
    own = _Site.open(spec, policy_file)
    given = read_answer(answer.read_bytes(), own.signed, own.policy, where=str(answer))
    place = own.asked(given.site)
    kept: dict[str, Any] = json.loads(place.read_bytes()) if place.exists() else {"request": None}
    if kept["request"] != given.request or kept["membership"] != given.membership:
        raise LayoutError(
            f"{answer}: found the answer to another request, expected one to the newest of this site; ask "
            f"{given.site} to answer that"
        )
    found = own.run("match", key=kept["key"], membership=given.membership, setup=given.setup, message=given.message)
    size = found["size"] if found["size"] >= own.policy.k else None
    own.ledger.keep()
    if not given.membership:
        return Matched(given.site, size, None, None)
    matched = {kept["elements"][n][0]: kept["elements"][n][1] for n in found["places"]}
    dealt, left_out = own.keep(matched)
    return Matched(given.site, size, dealt, left_out)


@dataclass(frozen=True)
class _Site:
    """What a site knows when it asks or answers; ``shared`` is the key that sites share."""

    signed: Spec
    policy: Policy
    options: Matching
    ledger: Ledger
    shared: Key

    @staticmethod
    def open(spec: Path, policy_file: Path) -> "_Site":
        policy = read_policy(policy_file)
        options = matching(policy)
        ledger = Ledger.open(policy.ledger)
        signed = read_signed(spec.read_bytes(), Spec, where=str(spec), pinned=coordinator_of(policy))
        ledger.accept(signed, where=str(spec))
        shared = secret_of(options.key, "policy: patients.key")
        if shared == secret_of(policy.patient_key, "policy: patient_key"):
            raise SpecError(
                "policy: found one secret as patient_key and patients.key, expected two: other sites would know this "
                "site's key of pseudonyms"
            )
        return _Site(signed, policy, options, ledger, shared)

    def asked(self, site: str) -> Path:
        return Path(self.policy.ledger).with_name(ASKED.format(federation=self.signed.federation, site=site))

    def elements(self, cluster: str, progress: Progress | None) -> dict[str, set[str]]:
        """Return the keyed identifiers of the persons of the cohort."""
        local, _ = local_spec(self.signed, self.policy)
        local = beside_others(local, self.policy, self.signed.federation)
        planned = planned_here(local, self.policy, cluster=cluster, progress=progress)
        people = {*included(planned.plan.cohort)["person_key"].to_pylist()}
        identities = planned.survey.identities()
        persons = (p if p in people else None for p in planned.plan.persons.keys_of(identities))
        return elements_of(identities, persons, self.options, self.shared)

    def run(self, step: str, **given: Any) -> dict[str, Any]:
        """Run a step of the protocol in the environment that has the library."""
        command = [self.options.python, str(intersecting.__file__), step]
        try:
            done = subprocess.run(command, input=json.dumps(given).encode(), capture_output=True, timeout=SECONDS)
        except OSError:
            raise SpecError(
                f"policy: found no program {self.options.python} under patients.python, expected the Python of an "
                "environment with openmined-psi"
            ) from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise LayoutError(
                f"openmined-psi: found that it failed ({words[-1] if words else 'no message'}), expected what a site "
                "wrote with the same release; pip install openmined-psi==2.0.6 where patients.python points to"
            )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def keep(self, matched: dict[str, list[str]]) -> tuple[int, int]:
        """Note who is dealt alike and who is left out. Return how many each are."""
        name = self.signed.federation
        spec = parse_spec(self.signed.spec.encode(), name="spec")
        drawn, torn = drawn_for(matched, spec.splits.ratios, self.shared)
        if self.policy.site in held_out(spec):  # the other site deals them by the ratios
            drawn, torn = {}, {*drawn, *torn}
        leave_out_too(torn, self.policy, name)
        place = Path(self.policy.ledger).with_name(ALIKE.format(federation=name))
        before = parse_alike(place.read_bytes()) if place.exists() else {}
        if drawn:
            write_private(place, alike_file({**before, **drawn}))
        return len(drawn), len(torn)
