"""Commands of a federation: what a site does, and what the coordinator does. Files travel as the sites like."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cli.options import Cluster, Quiet, continuing, filled, print_json, style
from builder.errors import SpecError, counted

site = typer.Typer(help="A hospital's part of a joint dataset: offer, show, approve, build.", no_args_is_help=True)
federate = typer.Typer(help="Coordinate one dataset over several hospitals.", no_args_is_help=True)

Signed = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec that the coordinator signed.")]
SignedOption = Annotated[Path, typer.Option("--spec", metavar="SPEC", help="The spec that the coordinator signed.")]
PlanOption = Annotated[Path, typer.Option("--plan", metavar="PLAN", help="The joint plan.")]
PolicyFile = Annotated[Path, typer.Option("--policy", metavar="FILE", help="The site's policy.")]
Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="Private key, readable by its owner alone.")]
Folder = Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for what is written.")]
Out = Annotated[Path, typer.Option("--to", metavar="FILE", help="File to write.")]
Number = Annotated[int, typer.Option("--number", min=1, help="Greater than that of every earlier one.")]
Shown = Annotated[
    Path, typer.Argument(metavar="FILE", help="A spec, offer, plan, receipt, marks, copies, request or answer.")
]


@site.command("offer")
def site_offer(
    spec: Signed,
    policy: PolicyFile,
    to: Folder,
    measure: Annotated[
        bool, typer.Option("--measure", help="Read all images too, and tell limits of intensities and label sizes.")
    ] = False,
    cluster: Cluster = "serial",
    quiet: Quiet = False,
) -> None:
    """Plan locally and write offer.json: numbers of persons, to be read and approved before they leave."""
    from builder.run.federation import offer
    from builder.run.progress import open_progress

    with continuing("nothing was told"), open_progress(style(False, quiet)) as progress:
        place = offer(spec, policy, to, cluster=cluster, measured=measure, progress=progress)
    typer.echo(f"{place}: read it with builder site show, and sign it with builder site approve")


@site.command("show")
def site_show(path: Shown) -> None:
    """Print all that a file says, for the person who approves it."""
    from builder.federation.showing import shown_file

    typer.echo(shown_file(path))


@site.command("schema")
def site_schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="spec, offer, plan, receipt, marks, copies, request or answer.")
    ],
) -> None:
    """Print the JSON Schema of a kind of file, for programs of a site that check what leaves."""
    from builder.federation.documents import published_schemas

    schemas = published_schemas()
    if kind not in schemas:
        raise SpecError(f"KIND: found {kind!r}, expected one of {', '.join(schemas)}")
    print_json(schemas[kind])


@site.command("approve")
def site_approve(path: Shown, policy: PolicyFile, key: Key) -> None:
    """Sign what this site made (an offer, a receipt, a file for another site), after a person has read it."""
    from builder.run.federation import approve

    typer.echo(f"{path}: the {approve(path, policy, key)} is signed and may leave")


@site.command("build")
def site_build(
    plan: PlanOption,
    spec: SignedOption,
    policy: PolicyFile,
    to: Folder,
    cluster: Cluster = "serial",
    quiet: Quiet = False,
) -> None:
    """Build this site's dataset under the joint plan, and write receipt.json; started again it continues."""
    from builder.run.federation import build_joint
    from builder.run.progress import open_progress

    with continuing("nothing was published and finished shards stay"), open_progress(style(False, quiet)) as progress:
        built, place = build_joint(plan, spec, policy, to, cluster=cluster, progress=progress)
    typer.echo(built.text())
    typer.echo(f"{place}: read it with builder site show, and sign it with builder site approve")


@site.command("receipt")
def site_receipt(plan: PlanOption, spec: SignedOption, policy: PolicyFile, to: Folder) -> None:
    """Write receipt.json of what is published now, for instance after a withdrawal."""
    from builder.run.federation import receipt

    typer.echo(f"{receipt(plan, spec, policy, to)}: read it with builder site show, sign it with builder site approve")


@site.command("marks")
def site_marks(plan: PlanOption, spec: SignedOption, policy: PolicyFile, to: Folder) -> None:
    """Write marks.json, by which sites that share a key find images that two of them have; a policy must allow it."""
    from builder.run.copies import give_marks

    typer.echo(f"{give_marks(plan, spec, policy, to)}: sign it with builder site approve, and give it to these sites")


@site.command("compare")
def site_compare(
    marks: Annotated[list[Path], typer.Argument(metavar="MARKS...", help="Approved marks of other sites.")],
    plan: PlanOption,
    spec: SignedOption,
    policy: PolicyFile,
    to: Folder,
) -> None:
    """Find images that other sites have as well; of these the site whose name comes first keeps them."""
    from builder.run.copies import compare

    done = compare(plan, spec, policy, marks, to)
    for other, persons in done.persons.items():
        typer.echo(f"{other}: has images of {counted(persons, 'person')} of this site as well")
    typer.echo(f"{done.found}: which images these are; it stays here")
    typer.echo(f"{counted(done.left_out, 'person')} left out by the next builder site build")
    if done.place is None:
        typer.echo(f"no numbers for the coordinator: {done.untold}")
    else:
        typer.echo(f"{done.place}: numbers for the coordinator; read and sign them, or keep them here")


@site.command("ask")
def site_ask(
    other: Annotated[str, typer.Argument(metavar="SITE", help="The site to ask.")],
    spec: SignedOption,
    policy: PolicyFile,
    to: Folder,
    cluster: Cluster = "serial",
    quiet: Quiet = False,
) -> None:
    """Write request.json: which persons of this site does another have as well? A policy must allow it."""
    from builder.run.patients import ask_site
    from builder.run.progress import open_progress

    with continuing("nothing was asked"), open_progress(style(False, quiet)) as progress:
        place = ask_site(spec, other, policy, to, cluster=cluster, progress=progress)
    typer.echo(f"{place}: sign it with builder site approve, and give it to {other}")


@site.command("answer")
def site_answer(
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="The approved request of another site.")],
    spec: SignedOption,
    policy: PolicyFile,
    to: Folder,
    cluster: Cluster = "serial",
    quiet: Quiet = False,
) -> None:
    """Write answer.json to the request of another site; a policy must allow it."""
    from builder.run.patients import answer_site
    from builder.run.progress import open_progress

    with continuing("nothing was answered"), open_progress(style(False, quiet)) as progress:
        place = answer_site(spec, request, policy, to, cluster=cluster, progress=progress)
    typer.echo(f"{place}: sign it with builder site approve, and give it to the site that asked")


@site.command("matched")
def site_matched(
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="The approved answer of another site.")],
    spec: SignedOption,
    policy: PolicyFile,
) -> None:
    """Say how many persons another site has as well and, where both policies tell which, deal them as it does."""
    from builder.run.patients import match_answer

    done = match_answer(spec, answer, policy)
    size = "fewer identifiers than the policy's k" if done.size is None else counted(done.size, "identifier")
    typer.echo(f"{done.site}: has {size} of this site as well")
    if done.dealt is not None:
        typer.echo(f"{counted(done.dealt, 'person')} dealt alike by the next offer and build, {done.left_out} left out")


@federate.command("key")
def federate_key(to: Out) -> None:
    """Make a key for a coordinator or a site: a private file, and the public one beside it."""
    from builder.federation.signing import make_key

    typer.echo(f"{to}: keep it; give away {to}.pub: {make_key(to)}")


@federate.command("sign")
def federate_sign(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The dataset's YAML spec.")],
    key: Key,
    to: Out,
    site: Annotated[list[str], typer.Option("--site", metavar="NAME=KEY", help="A site and its public key or .pub.")],
    levels: Annotated[
        list[str] | None, typer.Option("--levels", metavar="COLUMN=A,B", help="Levels that a column is told by.")
    ] = None,
    number: Number = 1,
) -> None:
    """Sign a spec for some sites."""
    from builder.federation.coordinating import sign_spec
    from builder.federation.signing import read_public

    sites = {name: read_public(text, where="--site") for name, text in filled(site, option="--site").items()}
    told = {name: text.split(",") for name, text in filled(levels, option="--levels").items()}
    to.write_bytes(sign_spec(spec, key, sites=sites, levels=told, sequence=number))
    typer.echo(f"{to}: signed for {', '.join(sorted(sites))}")


@federate.command("plan")
def federate_plan(
    offers: Annotated[list[Path], typer.Argument(metavar="OFFER...", help="Approved offers.")],
    spec: SignedOption,
    key: Key,
    to: Out,
    number: Number = 1,
    fit_spacing: Annotated[
        bool, typer.Option("--fit-spacing", help="Resample to the median spacing of all sites instead of the spec's.")
    ] = False,
    fit_clip: Annotated[
        bool, typer.Option("--fit-clip", help="Limit intensities to the median limits of all sites, not of each image.")
    ] = False,
) -> None:
    """Make the joint plan of some offers: quotas for each site and stratum, and how the sites differ."""
    from builder.federation.coordinating import plan_offers
    from builder.federation.joint import Fitted
    from builder.federation.showing import shown

    wanted: dict[Fitted, bool] = {"spacing": fit_spacing, "clip": fit_clip}
    fitted = [name for name, asked in wanted.items() if asked]
    data, plan = plan_offers(spec, offers, key, sequence=number, fit=fitted)
    to.write_bytes(data)
    typer.echo(shown(plan))


@federate.command("merge")
def federate_merge(
    receipts: Annotated[list[Path], typer.Argument(metavar="RECEIPT...", help="Approved receipts.")],
    plan: PlanOption,
    spec: SignedOption,
    coordinator: Annotated[str, typer.Option("--coordinator", metavar="KEY", help="Public key, or a .pub file.")],
    to: Folder,
) -> None:
    """Make the joint report, its page and the catalog entry out of receipts alone."""
    from builder.federation.coordinating import merge_receipts
    from builder.federation.signing import read_public

    joined = merge_receipts(spec, plan, receipts, read_public(coordinator, where="--coordinator"))
    to.mkdir(parents=True, exist_ok=True)
    for name, data in joined.files().items():
        (to / name).write_bytes(data)
    typer.echo(f"{to / 'index.html'}: {len(joined.report['sites'])} sites")
