"""What a coordinator does with files: sign a spec, read offers into a plan, and receipts into a joint report."""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from builder.errors import LayoutError, SpecError
from builder.federation.documents import Offer, Plan, Receipt, Spec, digest, written
from builder.federation.joint import Fitted, check_offers, make_plan
from builder.federation.merging import Joined, join
from builder.federation.signing import load_key, public_of, read_signed, sign
from builder.specfile import parse_spec


def sign_spec(
    spec: Path, key: Path, *, sites: Mapping[str, str], levels: Mapping[str, Sequence[str]], sequence: int
) -> bytes:
    """Return a signed spec: its text, the sites' public keys, and the levels of the columns to be told of.

    Levels that a clinical table of the spec states are taken from there.

    Raises
    ------
    SpecError
        If the spec is wrong, or it names a column whose levels nobody states: sites could not count alike.
    """
    data = spec.read_bytes()
    parsed = parse_spec(data, name=str(spec))
    stated = {c: list(o.levels or ()) for table in parsed.clinical for c, o in table.columns.items()}
    asked = dict.fromkeys((*parsed.splits.stratify, *parsed.report.groups, *levels))
    columns = {name: list(levels.get(name) or stated.get(name) or ()) for name in asked}
    unknown = [name for name in parsed.splits.stratify if not columns[name]]
    if unknown:
        raise SpecError(
            f"{spec}: found the column {unknown[0]!r} in splits.stratify without levels, expected them, because every "
            f"site must count alike: state them in the clinical table, or by --levels {unknown[0]}=A,B"
        )
    document = Spec(
        federation=parsed.name,
        sequence=sequence,
        nonce=secrets.token_hex(16),
        spec=data.decode(),
        columns={name: known for name, known in columns.items() if known},
        sites=dict(sites),
    )
    return written(document, sign(document, load_key(key)))


def plan_offers(
    spec: Path, offers: Sequence[Path], key: Path, *, sequence: int, fit: Collection[Fitted] = ()
) -> tuple[bytes, Plan]:
    """Return the signed joint plan of some offers, and the plan; ``fit`` names what is fitted on their histograms."""
    private = load_key(key)
    signed = read_signed(spec.read_bytes(), Spec, where=str(spec), pinned={public_of(private): "the coordinator"})
    pinned = {public: site for site, public in signed.sites.items()}
    found: dict[str, tuple[str, Offer]] = {}
    for path in offers:
        data = path.read_bytes()
        offer = read_signed(data, Offer, where=str(path), pinned=pinned)
        owner = pinned[json.loads(data)["signature"]["key"]]
        if owner in found:
            raise LayoutError(f"{path}: found a second offer of {owner}, expected one of each site; name the newest")
        found[owner] = (str(path), offer)
    check_offers(signed, found)
    own = {site: offer for site, (_, offer) in found.items()}
    plan = make_plan(signed, own, sequence=sequence, nonce=secrets.token_hex(16), fit=fit)
    return written(plan, sign(plan, private)), plan


def merge_receipts(spec: Path, plan: Path, receipts: Sequence[Path], coordinator: str) -> Joined:
    """Return the joint report of some receipts; of several of one site the newest counts."""
    pin = {coordinator: "the coordinator"}
    signed = read_signed(spec.read_bytes(), Spec, where=str(spec), pinned=pin)
    joint = read_signed(plan.read_bytes(), Plan, where=str(plan), pinned=pin)
    if joint.spec != digest(signed):
        raise LayoutError(f"{plan}: found the plan of another spec, expected that of {spec}")
    pinned = {public: site for site, public in signed.sites.items()}
    found: dict[str, Receipt] = {}
    for path in receipts:
        data = path.read_bytes()
        receipt = read_signed(data, Receipt, where=str(path), pinned=pinned)
        owner = pinned[json.loads(data)["signature"]["key"]]
        if receipt.plan != digest(joint) or receipt.site != owner:
            raise LayoutError(
                f"{path}: found a receipt of another plan or site, expected one of {owner} under {plan}; ask for it"
            )
        before = found.get(owner)
        if before is not None and before.sequence == receipt.sequence and before != receipt:
            raise LayoutError(
                f"{path}: found another receipt {receipt.sequence} of {owner} than one named before, expected one"
            )
        if before is None or before.sequence < receipt.sequence:
            found[owner] = receipt
    return join(signed, joint, found)
