"""What two sites do so that no image is in both of their datasets: give marks away, compare, and leave persons out."""

import csv
import io
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from builder.copies import Print, parse_prints
from builder.errors import LayoutError, PrivacyError, SpecError
from builder.federation.documents import Plan, Spec
from builder.federation.leaks import Match, copies
from builder.federation.local import Terms, local_spec
from builder.federation.offers import teller_of
from builder.federation.policy import Policy, read_policy
from builder.federation.sharing import allowed, make_copies, make_marks, read_marks, to_leave_out
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.model.layout import CURRENT, MANIFEST, parse_current, parse_manifest, version_path
from builder.model.parquet import read_parquet
from builder.run.federation import documents_of, keep_made, leave_out_too, secret_of, write_private
from builder.run.pipeline import PRINTS
from builder.stages.shard import prints_path
from builder.storage import open_store, private_store

FOUND = "{federation}-copies.csv"
"""File beside the ledger: each image that another site has as well."""


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Parameters
    ----------
    place, found
        ``copies.json``, if its numbers may be told, and the private list of images.
    untold
        Why there is no ``copies.json``; "" where there is one.
    persons
        Site to this site's persons with an image there.
    left_out
        Persons whom the next build leaves out, those of earlier comparisons included.
    """

    place: Path | None
    untold: str
    found: Path
    persons: dict[str, int]
    left_out: int


def give_marks(plan: Path, spec: Path, policy_file: Path, folder: Path) -> Path:
    """Write ``marks.json`` of what is published now, which nobody has approved yet."""
    site = _Site.open(plan, spec, policy_file)
    made = make_marks(
        site.documents, site.policy, site.terms, site.prints(), site.shared,
        sequence=site.ledger.sequence("marks"), nonce=secrets.token_hex(16),
    )  # fmt: skip
    return keep_made(made, site.ledger, folder / "marks.json")


def compare(plan: Path, spec: Path, policy_file: Path, marks: Sequence[Path], folder: Path) -> Compared:
    """Compare what is published with the marks of other sites, and write ``copies.json`` and two private lists.

    Where its numbers, beside those told before, would tell of few persons, there is no ``copies.json``.

    Raises
    ------
    LayoutError, PrivacyError
        If a file is not one that may be compared.
    """
    site = _Site.open(plan, spec, policy_file)
    others = {}
    for path in marks:
        given = read_marks(path.read_bytes(), site.documents, site.policy, site.shared, where=str(path))
        if given.site in others:
            raise LayoutError(f"{path}: found second marks of {given.site}, expected one of each site; name the newest")
        site.ledger.accept(given, where=str(path))
        others[given.site] = given.volumes
    own = site.prints()
    matches = [m for other, volumes in sorted(others.items()) for m in copies(own, other, volumes, site.shared)]
    found, left_out = site.keep(matches)
    site.ledger.keep()
    persons = {other: {m.person_key for m in matches if m.site == other} for other in others}
    everybody = sorted({volume.person_key for volume in own})
    teller = teller_of(site.ledger, site.key, everybody, site.terms)
    place, untold, known = None, "", site.ledger.memory()
    try:
        made = make_copies(site.documents, site.policy, teller, everybody, persons, nonce=secrets.token_hex(16))
        place = keep_made(made, site.ledger, folder / "copies.json")
    except PrivacyError as error:
        site.ledger.told, untold = known, str(error)  # nothing of it has left
    return Compared(place, untold, found, {other: len(them) for other, them in sorted(persons.items())}, left_out)


@dataclass(frozen=True)
class _Site:
    """What a site knows when it gives marks away or compares them; ``shared`` is the key that sites share."""

    documents: tuple[Spec, Plan]
    policy: Policy
    terms: Terms
    ledger: Ledger
    key: Key
    shared: Key

    @staticmethod
    def open(plan: Path, spec: Path, policy_file: Path) -> "_Site":
        policy = read_policy(policy_file)
        options = allowed(policy)
        ledger = Ledger.open(policy.ledger)
        signed, joint = documents_of(spec, plan, policy, ledger)
        _, terms = local_spec(signed, policy, joint)
        key = secret_of(policy.patient_key, "policy: patient_key")
        shared = secret_of(options.key, "policy: copies.key")
        if shared == key:
            raise SpecError(
                "policy: found one secret as patient_key and copies.key, expected two: other sites would know this "
                "site's key of pseudonyms"
            )
        return _Site((signed, joint), policy, terms, ledger, key, shared)

    def prints(self) -> list[Print]:
        """Return the prints of all images that are published now. Raises LayoutError."""
        store = open_store(self.policy.dataset)
        try:
            version = parse_current(store.read(CURRENT))
        except FileNotFoundError:
            raise LayoutError(
                f"{self.policy.dataset}: found no published dataset, expected one; run builder site build"
            ) from None
        private = private_store(self.policy.dataset).join(PRINTS)
        found = []
        for shard in parse_manifest(store.read(version_path(version, MANIFEST))).shards:
            try:
                data = private.read(prints_path(shard.fingerprint))
            except FileNotFoundError:
                raise LayoutError(
                    f"{private.url}: found no prints of a shard, expected what builder site build leaves there; build "
                    "again, under a spec without leaks.pixels: off"
                ) from None
            found += parse_prints(read_parquet(data))
        return found

    def keep(self, matches: Sequence[Match]) -> tuple[Path, int]:
        """Write what was found, and who is left out, for their owner alone. Return the first file and the number."""
        home, name = Path(self.policy.ledger), self.documents[0].federation
        found = home.with_name(FOUND.format(federation=name))
        text = io.StringIO()
        sheet = csv.DictWriter(text, Match.__annotations__, lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(asdict(match) for match in matches)
        write_private(found, text.getvalue().encode())
        return found, leave_out_too(to_leave_out(matches, self.policy.site), self.policy, name)
