"""Where tasks run: profiles of clusters. A profile says *where* and never enters a fingerprint."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from builder.errors import SpecError
from builder.run.serial import SerialRunner
from builder.stages.graph import Runner


class Serial(BaseModel):
    """Every task in this process, one after the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["serial"] = "serial"
    VERSION: ClassVar[int] = 1

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """A serial runner; refuses more than one worker."""
        if workers not in (None, 1):
            raise SpecError(f"--workers: found {workers} with the serial runner, expected 1; use --cluster local")
        yield SerialRunner()


class Local(BaseModel):
    """Worker processes on this machine, one thread each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"] = "local"
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """None: one a core."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Of one worker; None: the machine's memory shared out."""
    dashboard: bool = False

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """A runner on a fresh LocalCluster that is closed at the end."""
        import dask
        from distributed import Client, LocalCluster

        from builder.run.dask import ALLOWED_FAILURES, DaskRunner

        _quieten()
        dask.config.set({"distributed.scheduler.allowed-failures": ALLOWED_FAILURES})
        count = workers or self.workers or os.cpu_count() or 1
        memory: Any = "auto" if self.memory_gib is None else int(self.memory_gib * 2**30)
        with ExitStack() as stack:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    memory_limit=memory,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0" if self.dashboard else None,
                )
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
            client.wait_for_workers(count, timeout=120)
            yield DaskRunner(client)


class Address(BaseModel):
    """A scheduler that is already running."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["address"] = "address"
    url: Annotated[str, Field(pattern=r"^(tcp|tls)://")]
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """A runner on the workers the scheduler has."""
        from distributed import Client
        from distributed.security import Security

        from builder.run.dask import DaskRunner

        if workers is not None:
            raise SpecError("--workers: found a number with a scheduler's address, expected none: it has its workers")
        security = None
        if self.url.startswith("tls://"):
            security = Security(
                tls_ca_file=self.ca_file,
                tls_client_cert=self.cert_file,
                tls_client_key=self.key_file,
                require_encryption=True,
            )
        with Client(self.url, security=security, set_as_default=False, timeout=30) as client:
            client.wait_for_workers(1, timeout=120)
            yield DaskRunner(client)


AnyCluster = Annotated[Serial | Local | Address, Field(discriminator="kind")]
CLUSTERS: dict[str, type[BaseModel]] = {"serial": Serial, "local": Local, "address": Address}


def load_cluster(text: str) -> Serial | Local | Address:
    """A profile from ``serial``, ``local``, ``tcp://...``, ``tls://...`` or the path of a YAML file.

    Raises
    ------
    SpecError
        When it is none of these, or the file is not a valid profile.
    """
    if text == "serial":
        return Serial()
    if text == "local":
        return Local()
    if text.startswith(("tcp://", "tls://")):
        return Address(url=text)
    path = Path(text)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise SpecError(
            f"--cluster: found {text!r}, expected serial, local, tcp://HOST:PORT, "
            "tls://HOST:PORT or a profile's YAML file"
        )
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
        profile: Serial | Local | Address = TypeAdapter(AnyCluster).validate_python(document)
    except YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        lines = (f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise SpecError("\n".join(lines)) from None
    return profile


def _quieten() -> None:
    """Dask's own warnings about a closing cluster are noise to a user; its errors are not."""
    import logging

    for name in ("distributed.nanny", "distributed.worker", "distributed.core", "distributed.comm"):
        logging.getLogger(name).setLevel(logging.ERROR)
