"""Record what training runs report back, six parameters and results, beside the dataset; reports never change."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from builder.catalog.cmimi import DEEP_LEARNING
from builder.deid.gate import refuse_identifiers
from builder.errors import LayoutError, PrivacyError, SpecError
from builder.library.versions import Version, open_version
from builder.model.canonical import canonical_json, fingerprint
from builder.storage import Store, open_beside

TRAINING = ".training"
"""Suffix of the folder beside a dataset that holds the reports."""


class TrainingRun(BaseModel):
    """One training run.

    Parameters
    ----------
    architecture, loss, optimizer, learning_rate, batch_size, epochs
        The six parameters.
    metrics
        Maps the name of a result to its value, e.g. ``{dice: 0.81}``.
    evaluated_on
        The split on which the metrics were computed.
    code
        Address of the code, if possible of the exact revision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(min_length=1)
    loss: str = Field(min_length=1)
    optimizer: str = Field(min_length=1)
    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    metrics: Mapping[str, float] = Field(default_factory=dict)
    evaluated_on: str | None = None
    code: str | None = Field(default=None, pattern=r"^https?://\S+$")

    @field_validator("metrics")
    @classmethod
    def _are_finite(cls, metrics: Mapping[str, float]) -> Mapping[str, float]:
        wrong = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if wrong:
            raise ValueError(f"found {', '.join(wrong)} that is no finite number")
        return metrics

    def sentence(self) -> str:
        """Return the run as one line of text."""
        told = ", ".join(f"{name.replace('_', ' ')} {getattr(self, name)}" for name in DEEP_LEARNING[1:])
        on = f" on {self.evaluated_on}" if self.evaluated_on else ""
        results = ", ".join(f"{name} {value:g}" for name, value in sorted(self.metrics.items()))
        return f"{self.architecture}: {told}" + (f"; {results}{on}" if results else "")


@dataclass(frozen=True)
class Recorded:
    """A report as it is stored; ``fresh`` says whether this call stored it for the first time."""

    dataset: str
    version: str
    name: str
    run: TrainingRun
    fresh: bool

    def facts(self) -> dict[str, Any]:
        """Return the report as data that JSON can hold."""
        return {"dataset": self.dataset, "version": self.version, "name": self.name, "fresh": self.fresh,
                "run": self.run.model_dump(mode="json")}  # fmt: skip

    def text(self) -> str:
        """Return the report as text."""
        said = "recorded" if self.fresh else "was recorded before"
        return f"{self.dataset} {self.version}: {said} as {self.name}\n  {self.run.sentence()}"


def record_training(url: str, values: Mapping[str, Any]) -> Recorded:
    """Store the report of a training run beside the version it was trained on; an identical report is stored once.

    Parameters
    ----------
    url
        ``DATASET`` or ``DATASET@VERSION``.
    values
        Fields of ``TrainingRun``; None means not given.

    Raises
    ------
    SpecError
        If fields are missing or wrong; the message names all of them.
    PrivacyError
        If a text looks like an identifier.
    LayoutError
        If there is no such version, or it has no such split.
    """
    run = _checked({k: v for k, v in values.items() if v is not None})
    version = open_version(url)
    _check_split(run, version)
    document = canonical_json({"version": version.manifest.version, **run.model_dump(mode="json")})
    name = fingerprint(document)
    fresh = True
    try:
        _home(version).create(f"{version.manifest.version}/{name}.json", document)
    except FileExistsError:
        fresh = False
    return Recorded(version.manifest.name, version.manifest.version, name, run, fresh)


def read_training(version: Version) -> tuple[TrainingRun, ...]:
    """Return every run reported for a version, in the order of their names. Raises LayoutError if one is damaged."""
    home = _home(version)
    runs = []
    for path in home.list(version.manifest.version):
        if path.endswith(".json"):
            try:
                document = json.loads(home.read(path))
                runs.append(TrainingRun(**{k: v for k, v in document.items() if k != "version"}))
            except (ValueError, TypeError, AttributeError) as error:
                raise LayoutError(
                    f"{path}: found no training run ({type(error).__name__}), expected what record-training writes"
                ) from None
    return tuple(runs)


def _home(version: Version) -> Store:
    return open_beside(version.store, TRAINING)


def _checked(values: Mapping[str, Any]) -> TrainingRun:
    try:
        run = TrainingRun.model_validate(values)
    except ValidationError as error:
        faults = [_fault(e) for e in error.errors(include_url=False)]
        raise SpecError("training run: " + "; ".join(faults)) from None
    texts = {name: getattr(run, name) for name in ("architecture", "loss", "optimizer")}
    try:
        refuse_identifiers(texts)
    except PrivacyError as error:
        raise PrivacyError(f"training run: {error}") from None
    return run


def _fault(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{name}: found nothing, expected a value"
    text = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{name}: {text}" if text.startswith("found") else f"{name}: found {error['input']!r}, expected {text}"


def _check_split(run: TrainingRun, version: Version) -> None:
    if run.evaluated_on is None:
        return
    known = sorted({row.split for row in version.facts().splits})
    if run.evaluated_on not in known:
        raise LayoutError(f"evaluated_on: found {run.evaluated_on!r}, expected one of {', '.join(known)}")
