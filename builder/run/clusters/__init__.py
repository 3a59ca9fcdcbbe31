"""Define where tasks run by cluster profiles, one module per kind. A profile never enters a fingerprint."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from builder.errors import SpecError
from builder.plugins import block_of, with_installed
from builder.run.clusters.address import Address
from builder.run.clusters.jobs import DIALECTS, Jobs
from builder.run.clusters.kubernetes import Kubernetes
from builder.run.clusters.local import Local
from builder.run.clusters.serial import Serial
from builder.run.clusters.ssh import Ssh
from builder.specfile import described
from builder.stages.graph import Runner


class Profile(Protocol):
    """What a build asks of a cluster: what kind it is, and a runner to run tasks on."""

    @property
    def kind(self) -> str:
        """What selects this kind of cluster in a profile."""

    def open(self, workers: int | None) -> AbstractContextManager[Runner]:
        """Start the workers and return a runner; leaving the context ends them."""


Cluster = Serial | Local | Address | Ssh | Jobs | Kubernetes
BUILT_IN: dict[str, type[BaseModel]] = {
    "serial": Serial,
    "local": Local,
    "address": Address,
    "ssh": Ssh,
    **dict.fromkeys(DIALECTS, Jobs),
    "kubernetes": Kubernetes,
}
"""The clusters that this package contains."""

CLUSTERS = with_installed("clusters", BUILT_IN)
"""All clusters, by the ``kind`` that selects them in a profile."""


def load_cluster(text: str) -> Cluster:
    """Load a profile from ``serial``, ``local``, ``tcp://...``, ``tls://...`` or the path of a YAML file.

    Raises
    ------
    SpecError
        When it is none of these, or the file is not a valid profile.
    """
    if text in ("serial", "local"):
        return _validated({"kind": text}, "--cluster")
    if text.startswith(("tcp://", "tls://")):
        return _validated({"kind": "address", "url": text}, "--cluster")
    path = Path(text)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise SpecError(
            f"--cluster: found {text!r}, expected serial, local, tcp://HOST:PORT, "
            "tls://HOST:PORT or a profile's YAML file"
        )
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text("utf-8-sig"))
    except YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: found bytes at {error.start} that are not UTF-8, expected a YAML file") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot read the profile: {error.strerror}; expected a YAML file") from None
    return _validated(document, str(path))


def _validated(document: object, place: str) -> Cluster:
    try:
        profile: Cluster = TypeAdapter(block_of(CLUSTERS)).validate_python(document)
    except ValidationError as error:
        lines = (f"{place}: {message}" for _, message, _ in described(error, document, *CLUSTERS.values()))
        raise SpecError("\n".join(lines)) from None
    return profile
