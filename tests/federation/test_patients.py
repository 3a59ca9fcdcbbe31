"""Persons of two sites: what is matched, and that they are dealt alike; ``make patients`` runs the library itself."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builder.errors import LayoutError, PrivacyError, SpecError
from builder.federation.coordinating import plan_offers
from builder.federation.documents import Answer, Plan, Request, Spec, digest, read, written
from builder.federation.local import local_spec
from builder.federation.patients import count_answer, drawn_for, elements_of, key_check, read_answer, read_request
from builder.federation.policy import Matching, Policy, read_policy
from builder.federation.signing import load_key, make_key, sign
from builder.federation.told import Ledger
from builder.model.keyed import Key
from builder.run.federation import approve, beside_others, planned_here
from builder.run.patients import answer_site, ask_site, match_answer
from builder.split.alike import alike_file, deal_alike, draw, parse_alike
from builder.split.options import Splits
from tests.endtoend.trees import KEY
from tests.federation.conftest import SITES, Three, begin, document, offered

FITTING = KEY[5:] + KEY[:5]
"""A shared secret that draws no more of the three patients of two sites to a split than its quotas have places for."""

PYTHON = os.environ.get("BUILDER_PSI_PYTHON", "")
needs_library = pytest.mark.skipif(not PYTHON, reason="make patients installs openmined-psi apart")
SHARED = Key(b"shared by two sites alone")
RATIOS = {"train": 0.7, "validation": 0.15, "test": 0.15}
HEAD: dict[str, Any] = {"federation": "joint-lesions", "sequence": 1, "nonce": "0" * 32}
OPTIONS = Matching(sites=("south",), key="${env:BUILDER_SHARED}", identifiers="issuer_and_patient_id", python="python")
PEOPLE = [f"p{n:025d}" for n in range(6)]


def test_a_draw_is_the_same_at_both_sites_and_keeps_the_ratios():
    names = [f"element {n}" for n in range(4000)]
    drawn = [draw(SHARED, name, RATIOS) for name in names]
    assert drawn == [draw(Key(SHARED.secret), name, dict(RATIOS)) for name in names]
    for split, share in RATIOS.items():
        assert abs(Counter(drawn)[split] / 4000 - share) < 0.03
    assert drawn != [draw(Key(b"of somebody who is no site"), name, RATIOS) for name in names]


def test_identifiers_are_matched_however_they_are_written():
    rows = pa.table(
        {
            "patient_id": ["A 1", "a  1 ", "A 1", None, "B"],
            "issuer_of_patient_id": ["KBV", "kbv", None, "KBV", "KBV"],
            "patient_birth_date": ["19700101", "19700101", "19700102", "19700101", None],
        }
    )
    people = ["p1", "p1", "p2", "p3", None]
    found = elements_of(rows, people, OPTIONS, SHARED)
    assert list(found.values()) == [{"p1"}]  # neither without an issuer, nor of nobody in the cohort
    by_birth = OPTIONS.model_copy(update={"identifiers": "patient_id_and_birth_date"})
    assert sorted(map(sorted, elements_of(rows, people, by_birth, SHARED).values())) == [["p1"], ["p2"]]
    assert not {*found} & {*elements_of(rows, people, by_birth, SHARED)}


def test_whoever_has_identifiers_of_two_splits_is_left_out():
    names: dict[str, str] = {}
    for n in range(100):
        names.setdefault(draw(SHARED, f"e{n}", RATIOS), f"e{n}")
    matched = {names["train"]: ["p1", "p2"], names["test"]: ["p2", "p3"]}
    assert drawn_for(matched, RATIOS, SHARED) == ({"p1": "train", "p3": "test"}, {"p2"})


def dealt(drawn, *, previous=None, barred=(), kept=PEOPLE):
    before = None if previous is None else pa.table({"person_key": list(previous), "split": list(previous.values())})
    groups = {PEOPLE[0]: PEOPLE[:2], **{p: [p] for p in PEOPLE[2:]}}
    found = deal_alike(groups, drawn, Splits(), previous=before, barred=barred, kept=kept)
    return {} if found is None else dict(zip(found["person_key"].to_pylist(), found["split"].to_pylist(), strict=True))


def test_persons_of_two_sites_are_dealt_before_the_others():
    assert parse_alike(alike_file({PEOPLE[1]: "test"})) == {PEOPLE[1]: "test"}
    assert dealt({PEOPLE[1]: "test", PEOPLE[3]: "train"}) == {PEOPLE[0]: "test", PEOPLE[3]: "train"}
    assert dealt({PEOPLE[3]: "train"}, previous={PEOPLE[2]: "test", PEOPLE[3]: "train"}) == {
        PEOPLE[2]: "test", PEOPLE[3]: "train"
    }  # fmt: skip
    assert dealt({"q" * 26: "train"}) == {}
    with pytest.raises(SpecError, match="line 1: found something else"):
        parse_alike(b"Jane Roe\n")


@pytest.mark.parametrize(
    "options",
    [{"previous": {PEOPLE[3]: "test"}}, {"barred": [PEOPLE[3]]}, {}],
    ids=["dealt before", "may not be tested on", "two of one group"],
)
def test_who_cannot_go_to_the_split_of_the_other_site_is_left_out_first(options):
    drawn = {PEOPLE[3]: "test" if "barred" in options else "train"}
    if not options:
        drawn = {PEOPLE[0]: "train", PEOPLE[1]: "test"}
    with pytest.raises(LayoutError, match=f"leave them out by their keyed names: .*{max(drawn)}"):
        dealt(drawn, **options)
    left = [p for p in PEOPLE if p not in drawn]
    assert {*dealt(drawn, **options, kept=left)} == {*options.get("previous", ())}


@pytest.fixture
def asked(tmp_path):
    """A request of south as north reads it."""
    public = make_key(tmp_path / "south.key")
    spec = Spec(**HEAD, spec="name: joint-lesions\n", columns={}, sites={"south": public, "north": public})
    policy = Policy(site="north", coordinator=public, dataset="/data", k=5, patients=OPTIONS)

    def made(update=None, policy_update=None, patients=None):
        request = Request(
            **HEAD, site="south", to="north", spec=digest(spec), identifiers="issuer_and_patient_id", membership=False,
            check=key_check(SHARED), persons=40, message="00",
        ).model_copy(update=update or {})  # fmt: skip
        own = policy.model_copy(update={"patients": patients or OPTIONS, **(policy_update or {})})
        data = written(request, sign(request, load_key(tmp_path / "south.key")))
        return read_request(data, spec, own, SHARED, where="request.json")

    return made


REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "to another site": ({"update": {"to": "west"}}, LayoutError, "found a request to west"),
    "under another spec": ({"update": {"spec": "b" * 64}}, LayoutError, "perhaps under another spec"),
    "under another key": ({"update": {"check": "0" * 26}}, LayoutError, "perhaps under another key"),
    "by other identifiers": ({"update": {"identifiers": "patient_id_and_birth_date"}}, LayoutError, "agree with south"),
    "for membership": ({"update": {"membership": True}}, PrivacyError, "asks which persons are here"),
    "about few": ({"update": {"persons": 4}}, PrivacyError, "about 4 identifiers, expected at least 5"),
    "of a site that is not named": ({"patients": OPTIONS.model_copy(update={"sites": ("west",)})}, PrivacyError,
                                    "found a file of south, expected"),
    "where nothing is allowed": ({"policy_update": {"patients": None}}, PrivacyError, "found no patients, expected"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_request_that_the_policy_does_not_allow_is_refused(asked, what):
    options, error, words = REFUSED[what]
    assert asked().persons == 40
    with pytest.raises(error, match=words):
        asked(**options)


def answer_of(spec: Spec, **changes: Any) -> Answer:
    stated = {"site": "south", "to": "north", "request": "a" * 64, "membership": False, "setup": "00", "message": "00"}
    return Answer(**{**HEAD, **stated, **changes})


@pytest.mark.parametrize("what", ["request", "answer"])
def test_files_that_are_not_as_a_known_site_signed_them_are_refused(tmp_path, what):
    south, stranger = (make_key(tmp_path / f"{name}.key") for name in ("south", "stranger"))
    spec = Spec(**HEAD, spec="name: joint-lesions\n", columns={}, sites={"south": south, "north": stranger})
    policy = Policy(site="north", coordinator=south, dataset="/data", k=5, patients=OPTIONS)
    request = Request(
        **HEAD, site="south", to="north", spec=digest(spec), identifiers="issuer_and_patient_id", membership=False,
        check=key_check(SHARED), persons=40, message="00",
    )  # fmt: skip
    made = request if what == "request" else answer_of(spec)

    def opened(data: bytes):
        if what == "request":
            return read_request(data, spec, policy, SHARED, where="file")
        return read_answer(data, spec, policy, where="file")

    good = written(made, sign(made, load_key(tmp_path / "south.key")))
    assert opened(good) == made
    with pytest.raises(LayoutError, match="changed after south signed it"):
        opened(good.replace(b'"message": "00"', b'"message": "01"'))
    with pytest.raises(PrivacyError, match="expected the key of south"):
        opened(written(made, sign(made, load_key(tmp_path / "stranger.key"))))
    with pytest.raises(PrivacyError, match="without a signature, expected that of south"):
        opened(written(made))


def test_an_answer_counts_only_for_the_newest_request_of_the_site_it_is_for(tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setenv("BUILDER_SHARED", KEY[::-1])
    coordinator, south = (make_key(tmp_path / f"{name}.key") for name in ("coordinator", "south"))
    spec = Spec(**HEAD, spec="name: joint-lesions\n", columns={}, sites={"south": south, "north": coordinator})
    (tmp_path / "spec.json").write_bytes(written(spec, sign(spec, load_key(tmp_path / "coordinator.key"))))
    (tmp_path / "policy.yaml").write_text(
        f"site: north\ncoordinator: {coordinator}\nk: 5\ndataset: {tmp_path / 'dataset'}\n"
        "patients: {sites: [south], key: '${env:BUILDER_SHARED}', python: none, identifiers: issuer_and_patient_id}\n"
    )

    def given(**changes: Any) -> Path:
        made = answer_of(spec, **changes)
        path = tmp_path / "answer.json"
        path.write_bytes(written(made, sign(made, load_key(tmp_path / "south.key"))))
        return path

    with pytest.raises(LayoutError, match="found the answer to another request"):
        match_answer(tmp_path / "spec.json", given(), tmp_path / "policy.yaml")
    with pytest.raises(LayoutError, match="found an answer to west, expected one to north"):
        match_answer(tmp_path / "spec.json", given(to="west"), tmp_path / "policy.yaml")


def test_a_site_is_answered_as_often_as_the_policy_says(asked, tmp_path):
    ledger = Ledger.open(str(tmp_path / "ledger.json"))
    policy = Policy(site="north", coordinator="ed25519:" + "0" * 64, dataset="/data", patients=OPTIONS)
    first = asked()
    for _ in range(2):  # the same one again is no second one
        count_answer(first, policy, ledger, where="request.json")
    with pytest.raises(PrivacyError, match="expected at most 1"):
        count_answer(asked({"nonce": "1" * 32}), policy, ledger, where="request.json")


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> Three:
    """Three sites, of which lakeside has some patients of north as well, and both tell which."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        three = begin(tmp_path_factory.mktemp("patients"), persons=24)
        for folder in sorted(path for path in three.at("north", "archive").iterdir() if path.is_dir())[:5]:
            shutil.copytree(folder, three.at("lakeside", "archive", f"transferred {folder.name}"))
        for site, tell in {"lakeside": "membership", "north": "membership", "university": "sizes"}.items():
            with three.at(site, "policy.yaml").open("a") as policy:
                policy.write(
                    "patients: {sites: [lakeside, north, university], key: '${env:BUILDER_SHARED}', python: "
                    f"{PYTHON}, identifiers: patient_id_and_birth_date, tell: {tell}}}\n"
                )
    return three


def exchanged(three: Three, one: str, other: str) -> Path:
    """Let one site ask another; return the approved answer."""
    policies = {site: three.at(site, "policy.yaml") for site in (one, other)}
    path = ask_site(three.signed, other, policies[one], three.at(one, "out"), cluster="serial")
    approve(path, policies[one], three.at(one, "site.key"))
    answer = answer_site(three.signed, path, policies[other], three.at(other, "out"), cluster="serial")
    approve(answer, policies[other], three.at(other, "site.key"))
    return answer


def joint_split(three: Three, plan: Plan) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Persons of all sites by stratum and split, and how many more are dealt alike to a split than its quota has."""
    joint: Counter[tuple[str, str]] = Counter()
    surplus: Counter[str] = Counter()
    for site in SITES:
        planned = planned_at(three, site, plan)
        rows = planned.plan.splits.to_pylist()
        place = three.at(site, "joint-lesions-alike.txt")
        alike = parse_alike(place.read_bytes()) if place.exists() else {}
        quotas = {q.levels[0]: q.counts for q in plan.quotas.get(site, ())}
        home = {r["person_key"]: r["stratum"].partition("sex=")[2] for r in rows}
        joint.update((level, r["split"]) for r in rows for level in {home[r["person_key"]], "*"})
        taken = Counter((home[r["person_key"]], r["split"]) for r in rows if r["person_key"] in alike)
        for (level, split), number in taken.items():
            surplus[level] += max(0, number - quotas.get(level, {}).get(split, 0))
    return joint, +surplus


def planned_at(three: Three, site: str, plan: Plan | None = None):
    policy = read_policy(three.at(site, "policy.yaml"))
    signed, _ = read(three.signed.read_bytes(), Spec, where="")
    local, _ = local_spec(signed, policy, plan)
    return planned_here(beside_others(local, policy, signed.federation), policy, cluster="serial", progress=None)


def shared_splits(three: Three, site: str) -> dict[tuple[str, str], str]:
    """PatientID and birth date of each person of the cohort, from the headers of a site's archive, to the split."""
    planned = planned_at(three, site)
    splits = dict(zip(*(planned.plan.splits[c].to_pylist() for c in ("person_key", "split")), strict=True))
    rows = planned.survey.identities()
    keys = planned.plan.persons.keys_of(rows)
    names = zip(rows["patient_id"].to_pylist(), rows["patient_birth_date"].to_pylist(), keys, strict=True)
    return {(name, born): splits[key] for name, born, key in names if key in splits}


@needs_library
def test_persons_of_two_sites_are_found_and_dealt_alike(sites: Three, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setenv("BUILDER_SHARED", FITTING)
    truth = {*shared_splits(sites, "north")} & {*shared_splits(sites, "lakeside")}
    assert len(truth) >= 3
    for one, other in (("lakeside", "north"), ("north", "lakeside")):
        answer = exchanged(sites, one, other)
        done = match_answer(sites.signed, answer, sites.at(one, "policy.yaml"))
        assert (done.size, done.dealt, done.left_out) == (len(truth), len(truth), 0)
        for name, _ in truth:
            assert name not in answer.read_text()
    both = [shared_splits(sites, site) for site in ("lakeside", "north")]
    assert {person: both[0][person] for person in truth} == {person: both[1][person] for person in truth}
    assert len({both[0][person] for person in truth}) > 1
    offers = offered(sites)
    newcomers = [row["persons"] for row in document(offers[1])["strata"]["rows"] if row["levels"] == ["*"]]
    assert newcomers == [planned_at(sites, "north").plan.splits.num_rows]  # those of two sites among them
    data, plan = plan_offers(sites.signed, offers, sites.home / "coordinator.key", sequence=1)
    sites.plan.write_bytes(data)
    joint, surplus = joint_split(sites, plan)
    assert not surplus
    for level in {"*", *(q.levels[0] for own in plan.quotas.values() for q in own)}:
        inside = {split: joint[level, split] for split in plan.ratios}
        for split, ratio in plan.ratios.items():
            assert abs(inside[split] - ratio * sum(inside.values())) < 1, (level, inside)


@needs_library
def test_a_site_that_tells_sizes_tells_no_membership(sites: Three, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    monkeypatch.setenv("BUILDER_SHARED", KEY[::-1])
    with pytest.raises(PrivacyError, match="asks which persons are here"):
        exchanged(sites, "north", "university")
    answer = exchanged(sites, "university", "north")
    done = match_answer(sites.signed, answer, sites.at("university", "policy.yaml"))
    assert (done.size, done.dealt) == (None, None)  # none is below k
    assert not sites.at("university", "joint-lesions-alike.txt").exists()
    with pytest.raises(PrivacyError, match="expected at most 1"):
        exchanged(sites, "university", "north")
    forged = json.loads(answer.read_text())
    forged["document"]["setup"] = "00"
    answer.write_text(json.dumps(forged, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    with pytest.raises(LayoutError, match="changed after north signed it"):
        match_answer(sites.signed, answer, sites.at("university", "policy.yaml"))
