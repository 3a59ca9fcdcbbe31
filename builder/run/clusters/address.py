"""Use a scheduler that is already running."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from builder.errors import SpecError
from builder.run.clusters.connection import Tls, configure_dask, connect, is_loopback
from builder.stages.graph import Runner

PATIENCE_SECONDS = 60
"""Seconds to wait for a worker. It is short, because a running scheduler has its workers or never gets any."""

JOINING_SECONDS = 3600
"""Seconds to wait for as many workers as a profile states, which may wait in a queue before they join."""


class Address(BaseModel):
    """A scheduler that is already running, with the workers it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["address"] = "address"
    url: Annotated[str, Field(pattern=r"^(tcp|tls)://")]
    """``tcp://HOST:PORT``, or ``tls://HOST:PORT`` outside this machine."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Workers to wait for before the build starts; others may join later."""
    tls: Tls | None = None
    VERSION: ClassVar[int] = 1

    @field_validator("url")
    @classmethod
    def _names_host_and_port(cls, url: str) -> str:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if not parts.hostname or not port:
            raise ValueError(
                f"found {url!r}, expected {parts.scheme}://HOST:PORT with a port from 1 to 65535, such as "
                f"{parts.scheme}://HOST:8786"
            )
        return url

    @model_validator(mode="after")
    def _beyond_loopback_only_with_tls(self) -> "Address":
        parts = urlsplit(self.url)
        if parts.scheme == "tls" and self.tls is None:
            raise ValueError("tls: found nothing, expected ca_file, cert_file and key_file; 'builder certs' makes them")
        if parts.scheme == "tcp" and not is_loopback(parts.hostname or ""):
            raise ValueError(
                f"found tcp:// to {parts.hostname}, expected tls:// beyond this machine: "
                "whoever reaches a scheduler without TLS can run code on its workers"
            )
        return self

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open a runner on the scheduler's workers."""
        if workers is not None:
            raise SpecError("--workers: found a number with a scheduler's address, expected none: it has its workers")
        configure_dask()
        patience = PATIENCE_SECONDS if self.workers == 1 else JOINING_SECONDS
        with connect(self.url, tls=self.tls, workers=self.workers, patience=patience) as runner:
            yield runner
