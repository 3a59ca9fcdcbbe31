"""Run without a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from builder.errors import SpecError
from builder.run.serial import SerialRunner
from builder.stages.graph import Runner


class Serial(BaseModel):
    """Every task in this process, in sequence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["serial"] = "serial"
    VERSION: ClassVar[int] = 1

    @contextmanager
    def open(self, workers: int | None) -> Iterator[Runner]:
        """Open a serial runner. Refuses more than one worker."""
        if workers not in (None, 1):
            raise SpecError(f"--workers: found {workers} with the serial runner, expected 1; use --cluster local")
        yield SerialRunner()
