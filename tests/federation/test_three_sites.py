"""Three hospitals build one dataset: joint splits, equal bytes, and a report that adds up."""

import json
import os
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest

from builder.federation.coordinating import merge_receipts
from builder.federation.documents import Offer, Plan, Spec, read
from builder.federation.local import local_spec
from builder.federation.policy import read_policy
from builder.federation.signing import read_public
from builder.run.federation import build_joint, receipt
from builder.run.pipeline import build
from builder.split.joint import level_of
from tests.endtoend.trees import KEY, ROOT, tree
from tests.federation.conftest import SITES, Three

if not os.environ.get("BUILDER_FEDERATION"):
    pytest.skip("make federation builds at three sites, which takes minutes", allow_module_level=True)


def table(three: Three, site: str, name: str):
    dataset = three.at(site, "dataset")
    version = (dataset / "CURRENT").read_text().strip()
    return pq.read_table(dataset / "versions" / version / name)


def people(three: Three, site: str) -> dict[str, tuple[str, str]]:
    """Person to split and level of sex, from the site's own tables."""
    splits = dict(
        zip(*(table(three, site, "splits.parquet")[c].to_pylist() for c in ("person_key", "split")), strict=True)
    )
    index = table(three, site, "index.parquet")
    sexes = dict(zip(*(index[c].to_pylist() for c in ("person_key", "sex")), strict=True))
    return {person: (splits[person], level_of(sexes[person], ["F", "M or other"])) for person in sexes}


def test_the_joint_split_is_within_one_person_of_the_ratio_in_every_stratum(built: Three):
    plan, _ = read(built.plan.read_bytes(), Plan, where="plan")
    everybody = [row for site in SITES for row in people(built, site).values()]
    strata = {tuple(q.levels) for quotas in plan.quotas.values() for q in quotas}
    assert len(everybody) >= 20
    for levels in sorted(strata):
        inside = Counter(split for split, sex in everybody if levels in ((sex,), ("*",)))
        if levels == ("*",):  # the pool holds whoever is in no stratum of its own
            named = {own[0] for own in strata}
            inside = Counter(split for split, sex in everybody if sex not in named)
        for split, ratio in plan.ratios.items():
            assert abs(inside[split] - ratio * inside.total()) < 1, (levels, split, inside)


def test_a_site_builds_the_bytes_that_it_would_build_alone_under_the_plan(built: Three, tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    site = SITES[0]
    policy = read_policy(built.at(site, "policy.yaml"))
    spec = built.at(site, "joint-lesions-spec.json")  # plain YAML, as builder build takes it
    build(str(spec), to=tmp_path / "alone", parameters=policy.parameters)
    assert tree(tmp_path / "alone") == tree(built.at(site, "dataset"))
    signed, _ = read(built.signed.read_bytes(), Spec, where="spec")
    assert '"joint":' not in local_spec(signed, policy)[0].model_dump_json()


def test_the_joint_report_equals_what_the_sites_hold_together(built: Three, tmp_path):
    receipts = [built.at(site, "out", "receipt.json") for site in SITES]
    public = read_public(str(built.home / "coordinator.key.pub"), where="")
    report = merge_receipts(built.signed, built.plan, receipts, public).report
    everybody = [row for site in SITES for row in people(built, site).values()]
    assert report["persons"] in (len(everybody), None)  # a site with fewer than k persons tells nothing
    told = 0
    by_sex = next(t for t in report["tables"] if t["name"] == "sex")
    for row in by_sex["rows"]:
        split, sex = row["levels"]
        if row["persons"] is not None:
            told += 1
            assert row["persons"] == sum(split in ("*", s) and sex in ("*", x) for s, x in everybody), row
    fewer = merge_receipts(built.signed, built.plan, receipts[1:], public).report
    assert fewer["absent"] == [SITES[0]]
    both = [row for site in SITES[1:] for row in people(built, site).values()]
    assert fewer["persons"] == len(both)
    assert told or fewer["persons"]


def test_no_number_below_k_and_no_name_leaves(built: Three):
    for site in SITES:
        for name in ("offer.json", "receipt.json"):
            text = built.at(site, "out", name).read_text()
            document = json.loads(text)["document"]
            for rows in (t["rows"] for t in (document["strata"], *document["tables"])):
                assert all(row["persons"] is None or row["persons"] >= document["k"] for row in rows)
            assert "PH-" not in text
            assert str(built.home) not in text
            assert not {*people(built, site)} & {word.strip('",') for word in text.split()}


def test_a_second_build_changes_nothing_and_a_receipt_can_be_written_again(built: Three, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    site = SITES[1]
    before = tree(built.at(site, "dataset"))
    policy = built.at(site, "policy.yaml")
    build_joint(built.plan, built.signed, policy, built.at(site, "again"), cluster="serial")
    assert tree(built.at(site, "dataset")) == before
    first = json.loads(built.at(site, "out", "receipt.json").read_text())["document"]
    second = json.loads(receipt(built.plan, built.signed, policy, built.at(site, "again")).read_text())["document"]
    assert second["sequence"] > first["sequence"]
    assert second["tables"] == first["tables"]


def test_an_offer_names_the_spec_and_what_is_withheld(planned: Three):
    offer, signature = read(planned.at("north", "out", "offer.json").read_bytes(), Offer, where="offer")
    assert signature is not None
    assert any(line.startswith("grade: ") for line in offer.withheld)


def test_the_offer_on_the_page_is_that_of_a_site(planned: Three):
    page = (ROOT / "docs" / "federation.md").read_text()
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    shown, made = (
        json.loads(text)["document"],
        json.loads(planned.at("university", "out", "offer.json").read_text())["document"],
    )
    assert {**shown, "nonce": "", "spec": "", "lock": {}} == {**made, "nonce": "", "spec": "", "lock": {}}
