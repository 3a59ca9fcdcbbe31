"""Three hospitals as three processes, each with its own folder, key, vendor and policy; only files are carried."""

import json
import os
import secrets
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builder.federation.counting import EDGES
from builder.federation.documents import Plan, read
from builder.phantom import write_archive
from builder.report.association import cramers_v
from builder.split.joint import level_of
from tests.endtoend.trees import ROOT, command, tree
from tests.federation.conftest import NO_NETWORK, SITES, Three, federated_spec

if not os.environ.get("BUILDER_FEDERATION"):
    pytest.skip("make federation builds at three sites, which takes minutes", allow_module_level=True)

from tests.federation.test_three_sites import people, table

HABITS = {
    "lakeside": ("k: 3", "{sex: [F, M], recurrence: ['Yes', 'No']}", "[age_years, spacing_slice_mm]"),
    "north": ("k: 4", "{sex: [F, M], recurrence: ['Yes', 'No']}", "[age_years, spacing_slice_mm]"),
    "university": ("k: 3", "{sex: [F, M]}", "[spacing_slice_mm, age_years]"),
}
"""What the policies of the sites say: the smallest number, the columns and the quantities that may leave."""


def started(home: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start ``builder`` in a folder, without a network; its file ``secret`` is the only key that it has."""
    own = {name: value for name, value in os.environ.items() if name != "BUILDER_KEY"}
    secret = home / "secret"
    if secret.exists():
        own["BUILDER_KEY"] = secret.read_text()
    return subprocess.Popen(
        command(*arguments), cwd=home, env={**own, "PYTHONPATH": f"{NO_NETWORK}{os.pathsep}{ROOT}"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def at_every_site(home: Path, *arguments: str) -> None:
    """Run the same command at all sites at the same time; ``SITE`` stands for the folder of each."""
    running = {s: started(home / s, *(a.replace("SITE", str(home / s)) for a in arguments)) for s in SITES}
    for site, process in running.items():
        said, _ = process.communicate(timeout=400)
        assert process.returncode == 0, f"{site}: {said[-3000:]}"


def coordinated(home: Path, *arguments: str) -> None:
    process = started(home, *arguments)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Three:
    home = tmp_path_factory.mktemp("processes")
    office = home / "office"
    office.mkdir()
    write_archive(home / "phantom", patients=48, seed=20251121)
    coordinated(office, "federate", "key", "--to", "coordinator.key")
    public = (office / "coordinator.key.pub").read_text().strip()
    for site in SITES:
        own = home / site
        own.mkdir()
        (home / "phantom" / "archive" / site).rename(own / "archive")
        shutil.copy(home / "phantom" / "clinical.csv", own)
        (own / "secret").write_text(secrets.token_hex(32))
        k, columns, histograms = HABITS[site]
        (own / "policy.yaml").write_text(
            f"site: {site}\ncoordinator: {public}\n{k}\ndataset: {own / 'dataset'}\ncolumns: {columns}\n"
            f"histograms: {histograms}\nallow: [clinical, labels, leaks]\n"
            f"parameters: {{archive: {own / 'archive'}, tables: {own}}}\n"
        )
    shutil.rmtree(home / "phantom")
    at_every_site(home, "federate", "key", "--to", "site.key")
    for site in SITES:
        shutil.copy(home / site / "site.key.pub", office / f"{site}.pub")
    (office / "spec.yaml").write_text(federated_spec((ROOT / "specs" / "phantom.yaml").read_text()))
    sites = [word for site in SITES for word in ("--site", f"{site}={site}.pub")]
    coordinated(
        office, "federate", "sign", "spec.yaml", "--key", "coordinator.key", "--to", "spec.signed.json", *sites,
        "--levels", "recurrence=Yes,No",
    )  # fmt: skip
    carried(office, home, "spec.signed.json")
    at_every_site(home, "site", "offer", "spec.signed.json", "--policy", "policy.yaml", "--to", "out")
    gathered(home, office, "offer")
    coordinated(
        office, "federate", "plan", *(f"{site}-offer.json" for site in SITES), "--spec", "spec.signed.json", "--key",
        "coordinator.key", "--to", "plan.json",
    )  # fmt: skip
    carried(office, home, "plan.json")
    at_every_site(
        home, "site", "build", "--plan", "plan.json", "--spec", "spec.signed.json", "--policy", "policy.yaml", "--to",
        "out",
    )  # fmt: skip
    gathered(home, office, "receipt")
    coordinated(
        office, "federate", "merge", *(f"{site}-receipt.json" for site in SITES), "--plan", "plan.json", "--spec",
        "spec.signed.json", "--coordinator", "coordinator.key.pub", "--to", "joint",
    )  # fmt: skip
    return Three(home)


def carried(office: Path, home: Path, name: str) -> None:
    for site in SITES:
        shutil.copy(office / name, home / site / name)


def gathered(home: Path, office: Path, kind: str) -> None:
    at_every_site(home, "site", "approve", f"out/{kind}.json", "--policy", "policy.yaml", "--key", "site.key")
    for site in SITES:
        shutil.copy(home / site / "out" / f"{kind}.json", office / f"{site}-{kind}.json")


def test_the_joint_split_is_within_one_person_of_the_ratio_in_every_stratum(joined: Three):
    plan, _ = read((joined.home / "office" / "plan.json").read_bytes(), Plan, where="plan")
    everybody = [row for site in SITES for row in people(joined, site).values()]
    strata = {tuple(q.levels) for quotas in plan.quotas.values() for q in quotas}
    assert len(everybody) >= 20
    for levels in strata:
        named = {own[0] for own in strata} - {"*"}
        inside = Counter(split for split, sex in everybody if (sex not in named if levels == ("*",) else sex in levels))
        for split, ratio in plan.ratios.items():
            assert abs(inside[split] - ratio * inside.total()) < 1, (levels, split, inside)


def test_a_site_builds_the_bytes_that_it_would_build_alone_under_the_plan(joined: Three):
    at_every_site(
        joined.home, "build", "joint-lesions-spec.json", "--to", "alone", "--param", "archive=SITE/archive", "--param",
        "tables=SITE",
    )  # fmt: skip
    for site in SITES:
        assert tree(joined.at(site, "alone")) == tree(joined.at(site, "dataset"))


def pooled(three: Three, column: str, *, without: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """Split and value of each person of all sites; of several numbers the smallest, as receipts count."""
    found = []
    for site in sorted({*SITES} - {*without}):
        index = table(three, site, "index.parquet")
        values: dict[str, tuple[str, Any]] = {}
        for person, split, value in zip(*(index[c].to_pylist() for c in ("person_key", "split", column)), strict=True):
            _, known = values.get(person, (split, None))
            values[person] = (split, value if known is None or (value is not None and value < known) else known)
        found += values.values()
    return found


def band(value: float | None, edges: tuple[float, ...], levels: list[str]) -> str:
    return levels[-1] if value is None or value < edges[0] else levels[int(np.digitize(value, edges)) - 1]


def report_of(three: Three) -> Mapping[str, Any]:
    report: Mapping[str, Any] = json.loads((three.home / "office" / "joint" / "report.json").read_text())
    return report


def test_each_number_of_the_joint_report_is_that_of_all_rows(joined: Three):
    report, told = report_of(joined), 0
    receipt = json.loads((joined.home / "office" / "north-receipt.json").read_text())["document"]
    levels = {t["name"]: t["columns"][-1]["levels"] for t in (receipt["strata"], *receipt["tables"]) if t["columns"]}
    assert report["persons"] == len(pooled(joined, "sex"))
    for found in report["tables"]:
        if not found["columns"]:
            continue
        column = found["columns"][-1]
        persons = [
            (split, band(value, EDGES[column], levels[found["name"]])
             if column in EDGES else level_of(value, levels[found["name"]]))
            for split, value in pooled(joined, column)
        ]  # fmt: skip
        for row in found["rows"]:
            split, level = row["levels"]
            if row["persons"] is not None:
                told += 1
                assert row["persons"] == sum(split in ("*", s) and level in ("*", v) for s, v in persons), row
    assert told >= 3  # what one small site hides has no joint number
    assert "recurrence" not in {found["name"] for found in report["tables"]}


def test_each_statistic_of_the_joint_report_holds_that_of_all_rows(joined: Three):
    report = report_of(joined)
    entries = {entry["table"]: entry for entry in report["statistics"]}
    assert "university" in entries["recurrence"]["without"]
    for quantity in ("age_years", "spacing_slice_mm"):
        entry = entries[f"histogram of {quantity}"]
        without = entry["without"]
        assert len(without) < 2
        for row in entry["splits"]:
            own = [
                v
                for split, v in pooled(joined, quantity, without=without)
                if v is not None and row["split"] in ("*", split)
            ]
            assert row["mean"]["low"] - 1e-9 <= np.mean(own) <= row["mean"]["high"] + 1e-9
            for q, ends in row["quantiles"].items():
                assert ends["low"] - 1e-9 <= np.quantile(own, float(q)) <= ends["high"] + 1e-9
    without = entries["sex"]["without"]
    levels = ["F", "M or other"]
    sexes = [(split, level_of(value, levels)) for split, value in pooled(joined, "sex", without=without)]
    counts = Counter(sexes)
    crossed = np.array([[counts[s, x] for x in ("F", "M or other")] for s in report["ratios"]])
    found = entries["sex"]["association"]["cramers_v"]
    assert found["low"] - 1e-9 <= cramers_v(crossed) <= found["high"] + 1e-9
    for row in entries["sex"]["levels"]:
        share = sum(x == row["levels"][0] for _, x in sexes) / len(sexes)
        assert row["share"]["low"] - 1e-9 <= share <= row["share"]["high"] + 1e-9
