"""A site that is killed continues, one that lets a person go tells of nobody, and one that leaves moves nobody."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from builder.federation.coordinating import merge_receipts, plan_offers
from builder.federation.signing import read_public
from builder.run.federation import approve, build_joint, receipt
from builder.run.withdraw import withdraw
from builder.run.withdrawals import Policy
from tests.endtoend.trees import KEY, command, environment, tree
from tests.federation.conftest import SITES, Three, document, moved, splits

if not os.environ.get("BUILDER_FEDERATION"):
    pytest.skip("make federation builds at three sites, which takes minutes", allow_module_level=True)

NORTH = "north"


@pytest.mark.parametrize("point", ["shard.receipt:2", "publish.manifest", "publish.current", "federation.told"])
def test_a_killed_site_continues_and_ends_with_the_same_bytes(built: Three, tmp_path, point):
    policy = moved(built, NORTH, tmp_path / NORTH)
    for name in ("dataset", "dataset.private", "out"):
        shutil.rmtree(tmp_path / NORTH / name)
    shutil.copy(tmp_path / NORTH / "before.json", tmp_path / NORTH / "federation-ledger.json")
    arguments = command(
        "site", "build", "--plan", built.plan, "--spec", built.signed, "--policy", policy, "--to", tmp_path / "out"
    )
    killed = subprocess.run(arguments, env={**environment(), "BUILDER_CRASH_AT": point}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert not (tmp_path / "out" / "receipt.json").exists()
    subprocess.run(arguments, env=environment(), capture_output=True, check=True)
    assert tree(tmp_path / NORTH / "dataset") == tree(built.at(NORTH, "dataset"))
    mine, whole = document(tmp_path / "out" / "receipt.json"), document(built.at(NORTH, "out", "receipt.json"))
    # a receipt that was told and not written counts as one
    assert mine["sequence"] == whole["sequence"] + (point == "federation.told")
    assert {**mine, "nonce": "", "sequence": 0} == {**whole, "nonce": "", "sequence": 0}


def numbers(made: Mapping[str, Any]) -> dict[tuple[str, ...], int | None]:
    return {
        (table["name"], *row["levels"]): row["persons"]
        for table in (made["strata"], *made["tables"])
        for row in table["rows"]
    }


def test_a_person_who_leaves_is_in_no_difference_of_two_receipts(built: Three, tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    policy = moved(built, NORTH, tmp_path / NORTH)
    before = splits(tmp_path / NORTH / "dataset")
    gone = min(before)
    withdraw(str(tmp_path / NORTH / "dataset"), people=[gone], policy=Policy("consent"))
    path = receipt(built.plan, built.signed, policy, tmp_path / "out")
    approve(path, policy, built.at(NORTH, "site.key"))
    first, second = document(built.at(NORTH, "out", "receipt.json")), document(path)
    assert second["sequence"] == first["sequence"] + 1
    assert second["version"] == (tmp_path / NORTH / "dataset" / "CURRENT").read_text().strip() != first["version"]
    assert numbers(second) == numbers(first)
    assert second["counted"] == first["version"]
    assert {person: split for person, split in before.items() if person != gone} == splits(tmp_path / NORTH / "dataset")

    public = read_public(str(built.home / "coordinator.key.pub"), where="")
    others = [built.at(site, "out", "receipt.json") for site in SITES]
    joined = merge_receipts(built.signed, built.plan, [path, *others], public)
    assert joined.report["sites"][NORTH]["version"] == second["version"]
    assert any(line.startswith("north: the numbers are those of version") for line in joined.report["differences"])
    assert second["version"].encode() in joined.files()["index.html"]


def test_a_site_that_leaves_moves_nobody_else(built: Three, tmp_path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    left = [site for site in SITES if site != NORTH]
    data, _ = plan_offers(
        built.signed, [built.at(site, "out", "offer.json") for site in left], built.home / "coordinator.key", sequence=2
    )
    (tmp_path / "plan.json").write_bytes(data)
    for site in left:
        policy = moved(built, site, tmp_path / site)
        before = splits(tmp_path / site / "dataset")
        build_joint(tmp_path / "plan.json", built.signed, policy, tmp_path / site / "out", cluster="serial")
        assert splits(tmp_path / site / "dataset") == before
        assert approve(tmp_path / site / "out" / "receipt.json", policy, tmp_path / site / "site.key") == "receipt"
    public = read_public(str(built.home / "coordinator.key.pub"), where="")
    joined = merge_receipts(
        built.signed, tmp_path / "plan.json", [tmp_path / site / "out" / "receipt.json" for site in left], public
    )
    assert sorted(joined.report["sites"]) == left
