"""Marks go from site to site as signed files; who has a copy of an earlier site's image leaves the person out."""

import csv
import json
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builder.cli import app
from builder.copies import Print, prints_table
from builder.copies.prints import take_print
from builder.errors import LayoutError, PrivacyError, SpecError
from builder.federation.documents import Marks, Plan, Spec, digest, read, written
from builder.federation.local import local_spec
from builder.federation.policy import read_policy
from builder.federation.signing import load_key, make_key, sign
from builder.model.canonical import canonical_json
from builder.model.layout import Manifest, ShardEntry, version_path, write_current
from builder.model.parquet import parquet_bytes
from builder.run.copies import Compared, compare, give_marks
from builder.run.federation import approve, without_copies
from builder.stages.shard import prints_path
from tests.endtoend.trees import KEY, ROOT
from tests.federation.conftest import SITES, federated_spec
from tests.federation.test_leaks import body, noisy

SHARED = "d0" + KEY[:-2]
VERSION = "a" * 32
HEAD: dict[str, Any] = {"federation": "joint-lesions", "sequence": 1, "nonce": "0" * 32}
TEXT = federated_spec((ROOT / "specs" / "phantom.yaml").read_text()).replace("pixels: exact", "pixels: near")
PEOPLE = {site: [f"{site[0]}{n:025d}" for n in range(8)] for site in SITES}
COPIED = {"north": [("lakeside", 0), ("lakeside", 1)], "university": [("north", 5)]}
"""Site to images of others that its first persons have as well; north has a noisy one."""


@dataclass(frozen=True)
class Sites:
    """Three sites that have each published a dataset, of which only prints are there."""

    home: Path

    def at(self, site: str, *names: str) -> Path:
        return self.home.joinpath(site, *names)

    @property
    def files(self) -> tuple[Path, Path]:
        return self.home / "plan.json", self.home / "spec.json"

    def given(self, site: str) -> Path:
        path = give_marks(*self.files, self.at(site, "policy.yaml"), self.at(site, "out"))
        approve(path, self.at(site, "policy.yaml"), self.at(site, "site.key"))
        return path

    def compared(self, site: str, *marks: Path) -> Compared:
        return compare(*self.files, self.at(site, "policy.yaml"), marks, self.at(site, "out"))

    def changed(self, site: str, old: str, new: str) -> None:
        policy = self.at(site, "policy.yaml")
        assert old in policy.read_text()
        policy.write_text(policy.read_text().replace(old, new))


def images(site: str) -> list[Print]:
    """Prints of the images of a site: its own, and in place of the first ones copies of others' images."""
    first = 100 * SITES.index(site)
    voxels = [body(first + n) for n in range(len(PEOPLE[site]))]
    for place, (other, number) in enumerate(COPIED.get(site, ())):
        copied = body(100 * SITES.index(other) + number)
        voxels[place] = noisy(copied, 3) if place else copied[::-1] + 24
    return [take_print(v, key=f"i{p[1:]}", person_key=p) for v, p in zip(voxels, PEOPLE[site], strict=True)]


def publish(place: Path, found: list[Print]) -> None:
    """Write what marks are made from."""
    shard = ShardEntry("c" * 32, 0, ())
    manifest = Manifest("joint-lesions", VERSION, {}, {}, (), (shard,), ())
    path = place / version_path(VERSION, "dataset.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest.to_json())
    (place / "CURRENT").write_bytes(write_current(VERSION))
    prints = place.with_name(place.name + ".private") / "prints" / prints_path(shard.fingerprint)
    prints.parent.mkdir(parents=True)
    prints.write_bytes(parquet_bytes(prints_table(found)))


@pytest.fixture(scope="module")
def taken():
    return {site: images(site) for site in SITES}


@pytest.fixture
def sites(tmp_path, taken, monkeypatch) -> Sites:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setenv("BUILDER_SHARED", SHARED)
    three = Sites(tmp_path)
    public = make_key(tmp_path / "coordinator.key")
    keys = {}
    for site in SITES:
        three.at(site).mkdir()
        keys[site] = make_key(three.at(site, "site.key"))
        others = ", ".join(other for other in SITES if other != site)
        three.at(site, "policy.yaml").write_text(
            f"site: {site}\ncoordinator: {public}\nk: 3\ndataset: {three.at(site, 'dataset')}\n"
            "columns: {sex: [F, M]}\nallow: [clinical, labels, leaks]\nparameters: {archive: /pacs, tables: /tables}\n"
            f"copies: {{sites: [{others}], key: '${{env:BUILDER_SHARED}}'}}\n"
        )
        ledger = {"told": {}, "seen": {}, "made": {digest_of(site): "offer"}}
        three.at(site, "federation-ledger.json").write_bytes(canonical_json(ledger))
        publish(three.at(site, "dataset"), taken[site])
    spec = Spec(**HEAD, spec=TEXT, columns={"sex": ["F", "M"]}, sites=keys)
    write(three, spec, plan_under(spec))
    return three


def digest_of(site: str) -> str:
    return f"{SITES.index(site):064x}"


def plan_under(spec: Spec, sequence: int = 1) -> Plan:
    return Plan(
        **{**HEAD, "sequence": sequence}, spec=digest(spec), offers={site: digest_of(site) for site in SITES},
        ratios={}, columns=[], quotas={}, held_out={}, rules=[], differences=[], tables=[],
    )  # fmt: skip


def write(three: Sites, spec: Spec, plan: Plan) -> None:
    key = load_key(three.home / "coordinator.key")
    three.files[0].write_bytes(written(plan, sign(plan, key)))
    three.files[1].write_bytes(written(spec, sign(spec, key)))


def left_out(three: Sites, site: str) -> set[str]:
    path = three.at(site, "joint-lesions-left-out.txt")
    return {line for line in path.read_text().splitlines() if not line.startswith("#")} if path.exists() else set()


def test_each_copy_stays_at_one_site(sites: Sites):
    marks = {site: sites.given(site) for site in SITES}
    done = {site: sites.compared(site, *(m for other, m in marks.items() if other != site)) for site in SITES}
    assert done["lakeside"].persons == {"north": 2, "university": 0}
    assert done["north"].persons == {"lakeside": 2, "university": 1}
    assert done["university"].persons == {"lakeside": 0, "north": 1}
    assert left_out(sites, "lakeside") == set()
    assert left_out(sites, "north") == set(PEOPLE["north"][:2])
    assert left_out(sites, "university") == set(PEOPLE["university"][:1])
    assert done["north"].left_out == 2


def test_the_next_build_leaves_them_out_beside_those_of_the_spec(sites: Sites):
    sites.compared("north", sites.given("lakeside"))
    policy = read_policy(sites.at("north", "policy.yaml"))
    signed, _ = read(sites.files[1].read_bytes(), Spec, where="")
    plan, _ = read(sites.files[0].read_bytes(), Plan, where="")
    local, _ = local_spec(signed, policy, plan)
    with_copies = without_copies(local, policy, "joint-lesions")
    assert with_copies.cohort.leave_out == str(sites.at("north", "joint-lesions-left-out.txt"))
    sites.at("own.txt").write_text(PEOPLE["north"][7] + "\n")
    own = local.model_copy(update={"cohort": local.cohort.model_copy(update={"leave_out": "${tables}/own.txt"})})
    both = without_copies(own, policy.model_copy(update={"parameters": {"tables": str(sites.home)}}), "joint-lesions")
    file = Path(str(both.cohort.leave_out))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    names = set(file.read_text().splitlines()[1:])
    assert names == {*PEOPLE["north"][:2], PEOPLE["north"][7]}
    assert without_copies(local, read_policy(sites.at("lakeside", "policy.yaml")), "joint-lesions") is local


def test_marks_have_no_bands_where_near_copies_do_not_count(sites: Sites):
    near, _ = read(sites.given("lakeside").read_bytes(), Marks, where="")
    signed, _ = read(sites.files[1].read_bytes(), Spec, where="")
    exact = signed.model_copy(update={"spec": TEXT.replace("pixels: near", "pixels: exact"), "sequence": 2})
    write(sites, exact, plan_under(exact, sequence=2))
    plain, _ = read(sites.given("lakeside").read_bytes(), Marks, where="")
    assert all(volume.bands for volume in near.volumes)
    assert not any(volume.bands for volume in plain.volumes)


def test_who_was_left_out_once_stays_out(sites: Sites, taken):
    sites.compared("north", sites.given("lakeside"))
    prints = sites.at("north", "dataset.private", "prints", prints_path("c" * 32))
    prints.write_bytes(parquet_bytes(prints_table(taken["north"][2:])))  # as the next build publishes them
    again = sites.compared("north", sites.given("lakeside"))
    assert again.persons == {"lakeside": 0}
    assert again.place is None  # six of eight persons: the difference would tell of two
    assert "earlier offer again" in again.untold
    assert left_out(sites, "north") == set(PEOPLE["north"][:2])


def test_what_leaves_holds_no_name_and_no_small_number(sites: Sites):
    marks = sites.given("lakeside")
    done = sites.compared("north", marks)
    assert not [person for people in PEOPLE.values() for person in people if person in marks.read_text()]
    assert not [i for i in images("lakeside") if i.key in marks.read_text() or i.digest in marks.read_text()]
    assert done.place is not None
    told = json.loads(done.place.read_text())["document"]
    numbers = {(t["name"], *row["levels"]): row["persons"] for t in told["tables"] for row in t["rows"]}
    assert numbers[("total",)] == 8
    assert numbers[("copies at lakeside", "true")] is None  # two persons
    assert numbers[("copies at lakeside", "false or other")] is None
    assert not [person for people in PEOPLE.values() for person in people if person in done.place.read_text()]
    assert stat.S_IMODE(done.found.stat().st_mode) == 0o600
    rows = list(csv.DictReader(done.found.read_text().splitlines()))
    assert {row["person_key"] for row in rows} == set(PEOPLE["north"][:2])
    volumes = read(marks.read_bytes(), Marks, where="")[0].volumes
    assert all(1 <= int(row["number"]) <= len(volumes) for row in rows)


def test_many_copies_are_told_as_a_number(sites: Sites, taken):
    prints = sites.at("north", "dataset.private", "prints", prints_path("c" * 32))
    both = [*taken["lakeside"][:5], *taken["north"][2:7]]
    many = [replace(p, person_key=f"n{n:025d}") for n, p in enumerate(both)]
    prints.write_bytes(parquet_bytes(prints_table(many)))
    done = sites.compared("north", sites.given("lakeside"))
    assert done.place is not None
    told = json.loads(done.place.read_text())["document"]
    rows = {row["levels"][0]: row["persons"] for row in told["tables"][1]["rows"]}
    assert rows == {"*": 10, "true": 5, "false or other": 5}


def test_a_site_refuses_by_default(sites: Sites):
    policy = sites.at("north", "policy.yaml")
    policy.write_text("".join(line for line in policy.read_text().splitlines(True) if not line.startswith("copies")))
    with pytest.raises(PrivacyError, match="found no copies, expected the sites"):
        sites.given("north")
    with pytest.raises(PrivacyError, match="found no copies, expected the sites"):
        sites.compared("north", sites.given("lakeside"))
    assert not sites.at("north", "out").exists()


def test_a_site_gives_no_marks_of_few_persons(sites: Sites):
    sites.changed("north", "k: 3", "k: 9")
    with pytest.raises(PrivacyError, match="images of fewer than 9 persons"):
        sites.given("north")


def altered(three: Sites) -> Path:
    path = three.given("lakeside")
    facts = json.loads(path.read_text())
    facts["document"]["volumes"].pop()
    path.write_text(json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return path


def unsigned(three: Sites) -> Path:
    return give_marks(*three.files, three.at("lakeside", "policy.yaml"), three.at("lakeside", "out"))


def foreign(three: Sites) -> Path:
    path = three.given("lakeside")
    marks, _ = read(path.read_bytes(), Marks, where="")
    path.write_bytes(written(marks, sign(marks, load_key(three.at("university", "site.key")))))
    return path


def own(three: Sites) -> Path:
    return three.given("north")


def replayed(three: Sites) -> Path:
    first = three.given("lakeside").read_bytes()
    three.compared("north", three.given("lakeside"))
    path = three.at("lakeside", "out", "marks.json")
    path.write_bytes(first)
    return path


def of_an_earlier_plan(three: Sites) -> Path:
    path = three.given("lakeside")
    spec, _ = read(three.files[1].read_bytes(), Spec, where="")
    write(three, spec, plan_under(spec, 2))
    return path


def for_others(three: Sites) -> Path:
    three.changed("lakeside", "sites: [north, university]", "sites: [university]")
    return three.given("lakeside")


def of_a_site_that_is_not_named(three: Sites) -> Path:
    three.changed("north", "sites: [lakeside, university]", "sites: [university]")
    return three.given("lakeside")


REFUSED = {
    altered: (LayoutError, "changed after lakeside signed it"),
    unsigned: (PrivacyError, "marks without a signature, expected that of lakeside"),
    foreign: (PrivacyError, "expected the key of lakeside"),
    own: (PrivacyError, "found marks of north, expected those of another site"),
    replayed: (LayoutError, "found marks 1 of joint-lesions, expected a later one than number 2.*ask lakeside"),
    of_an_earlier_plan: (LayoutError, "under another plan"),
    for_others: (PrivacyError, "found marks for university, expected some for north"),
    of_a_site_that_is_not_named: (PrivacyError, "found marks of lakeside, expected those of another site .*: universi"),
}


@pytest.mark.parametrize("what", REFUSED, ids=lambda w: w.__name__)
def test_marks_that_must_not_count_are_refused(sites: Sites, what):
    error, words = REFUSED[what]
    path = what(sites)
    before = left_out(sites, "north")
    with pytest.raises(error, match=words):
        sites.compared("north", path)
    assert left_out(sites, "north") == before


def test_another_key_is_noticed(sites: Sites, monkeypatch):
    marks = sites.given("lakeside")
    monkeypatch.setenv("BUILDER_SHARED", SHARED[::-1])
    with pytest.raises(LayoutError, match="made with another key"):
        sites.compared("north", marks)
    monkeypatch.setenv("BUILDER_SHARED", KEY)
    with pytest.raises(SpecError, match="one secret as patient_key and"):
        sites.compared("north", marks)


def test_only_what_the_site_made_is_approved(sites: Sites):
    path = sites.given("lakeside")
    with pytest.raises(PrivacyError, match="found marks that this site did not make"):
        approve(path, sites.at("north", "policy.yaml"), sites.at("north", "site.key"))


def test_the_commands_say_what_was_found(sites: Sites):
    marks = sites.given("lakeside")
    shown = CliRunner().invoke(app, ["site", "show", str(marks)])
    assert "8 images with 20 to 20 planes" in shown.stdout
    assert "to be compared by north, university" in shown.stdout
    options = ["--plan", str(sites.files[0]), "--spec", str(sites.files[1]), "--to", str(sites.at("north", "out")),
               "--policy", str(sites.at("north", "policy.yaml"))]  # fmt: skip
    assert CliRunner().invoke(app, ["site", "marks", *options]).exit_code == 0
    done = CliRunner().invoke(app, ["site", "compare", str(marks), *options])
    assert "lakeside: has images of 2 persons of this site as well" in done.stdout
    assert "2 persons left out by the next builder site build" in done.stdout
    assert "2 numbers are suppressed" in CliRunner().invoke(
        app, ["site", "show", str(sites.at("north", "out", "copies.json"))]
    ).stdout  # fmt: skip
