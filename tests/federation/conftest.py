"""Three hospitals with the archives of three vendors, in folders of their own, and a coordinator."""

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from builder.federation.coordinating import plan_offers, sign_spec
from builder.federation.signing import make_key
from builder.phantom import write_archive
from builder.run.federation import approve, build_joint, offer
from tests.endtoend.trees import KEY, ROOT

NO_NETWORK = Path(__file__).with_name("without_network")
"""Folder that makes a Python, which has it in PYTHONPATH, refuse every connection."""

SITES = ("lakeside", "north", "university")


def federated_spec(text: str) -> str:
    """``specs/phantom.yaml`` for one site: one source, whose place each site fills in."""
    head, rest = text.split("sources:\n")
    _, rest = rest.split("clinical:\n")
    source = 'sources:\n  - {kind: folder, url: "${archive}", origin: {title: Synthetic archive, license: CC0-1.0}}\n'
    text = f"{head}{source}clinical:\n{rest}".replace("${phantom}", "${tables}")
    return text.replace("stratify: [grade]", "stratify: [sex]\n  tested: {labels: any}").replace(
        "name: phantom-lesions", "name: joint-lesions"
    )


@dataclass(frozen=True)
class Three:
    """The coordinator's folder, with ``spec.signed.json`` and ``plan.json``, and those of the sites."""

    home: Path

    def at(self, site: str, *names: str) -> Path:
        return self.home.joinpath(site, *names)

    @property
    def signed(self) -> Path:
        return self.home / "spec.signed.json"

    @property
    def plan(self) -> Path:
        return self.home / "plan.json"


def begin(home: Path, *, persons: int, k: int = 3, change=lambda text: text) -> Three:
    """Write archives, keys, policies and a signed spec; nothing is offered yet."""
    write_archive(home / "phantom", patients=persons, seed=20251121)
    three = Three(home)
    public = make_key(home / "coordinator.key")
    keys = {}
    for site in SITES:
        three.at(site).mkdir()
        (home / "phantom" / "archive" / site).rename(three.at(site, "archive"))
        three.at(site, "clinical.csv").write_bytes((home / "phantom" / "clinical.csv").read_bytes())
        keys[site] = make_key(three.at(site, "site.key"))
        three.at(site, "policy.yaml").write_text(
            f"site: {site}\ncoordinator: {public}\nk: {k}\ndataset: {three.at(site, 'dataset')}\n"
            "columns: {sex: [F, M], recurrence: ['Yes', 'No']}\nhistograms: [age_years, spacing_slice_mm]\n"
            f"pairs: [[sex, recurrence]]\ntell: [exclusions, coverage]\nallow: [clinical, labels, leaks]\n"
            f"parameters: {{archive: {three.at(site, 'archive')}, tables: {three.at(site)}}}\n"
        )
    spec = home / "spec.yaml"
    spec.write_text(change(federated_spec((ROOT / "specs" / "phantom.yaml").read_text())))
    three.signed.write_bytes(
        sign_spec(spec, home / "coordinator.key", sites=keys, levels={"recurrence": ["Yes", "No"]}, sequence=1)
    )
    return three


def offered(three: Three) -> list[Path]:
    """Offer and approve at every site."""
    for site in SITES:
        path = offer(three.signed, three.at(site, "policy.yaml"), three.at(site, "out"), cluster="serial")
        approve(path, three.at(site, "policy.yaml"), three.at(site, "site.key"))
    return [three.at(site, "out", "offer.json") for site in SITES]


@contextmanager
def no_network() -> Iterator[None]:
    """Let this process open no connection; ``NO_NETWORK`` refuses it in others."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("found that a site uses a network, expected files alone")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "bind", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(autouse=True)
def without_network():
    """Nothing of a federation opens a connection. It ends with each test: those of other rooms use sockets."""
    with no_network():
        yield


@pytest.fixture(scope="session")
def planned(tmp_path_factory) -> Three:
    """Offers of all sites, approved, and the joint plan."""
    with no_network(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        three = begin(tmp_path_factory.mktemp("federation"), persons=32)
        data, _ = plan_offers(three.signed, offered(three), three.home / "coordinator.key", sequence=1)
        three.plan.write_bytes(data)
    return three


@pytest.fixture(scope="session")
def built(planned: Three) -> Three:
    """The dataset of every site, and its receipt, approved; ``before.json`` is the ledger as it was before."""
    with no_network(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        for site in SITES:
            policy = planned.at(site, "policy.yaml")
            shutil.copy(planned.at(site, "federation-ledger.json"), planned.at(site, "before.json"))
            _, path = build_joint(planned.plan, planned.signed, policy, planned.at(site, "out"), cluster="serial")
            approve(path, policy, planned.at(site, "site.key"))
    return planned


def moved(three: Three, site: str, to: Path) -> Path:
    """Copy a site into a new folder, where it can be changed; its archive stays. Return its policy."""
    shutil.copytree(three.at(site), to, ignore=shutil.ignore_patterns("archive"))
    policy = to / "policy.yaml"
    policy.write_text(policy.read_text().replace(f"dataset: {three.at(site)}/", f"dataset: {to}/"))
    return policy


def document(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.read_text())["document"]
    return made


def published(dataset: Path, name: str):
    version = (dataset / "CURRENT").read_text().strip()
    return pq.read_table(dataset / "versions" / version / name)


def splits(dataset: Path) -> Mapping[str, str]:
    table = published(dataset, "splits.parquet")
    return dict(zip(table["person_key"].to_pylist(), table["split"].to_pylist(), strict=True))
