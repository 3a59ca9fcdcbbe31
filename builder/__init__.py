"""Builds machine-learning datasets out of medical imaging archives, and reads them.

The names below are loaded when they are first used: ``import builder`` alone loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.errors import BuilderError as BuilderError
    from builder.library.verify import verify as verify
    from builder.model.case import Case as Case
    from builder.model.case import Sample as Sample
    from builder.model.case import Volume as Volume
    from builder.model.geometry import Geometry as Geometry
    from builder.reader import open_dataset as open_dataset
    from builder.run.pipeline import build as build
    from builder.spec import DatasetSpec as DatasetSpec
    from builder.specfile import load_spec as load_spec

_HOMES = {
    "BuilderError": "builder.errors",
    "Case": "builder.model.case",
    "DatasetSpec": "builder.spec",
    "Geometry": "builder.model.geometry",
    "Sample": "builder.model.case",
    "Volume": "builder.model.case",
    "build": "builder.run.pipeline",
    "load_spec": "builder.specfile",
    "open_dataset": "builder.reader",
    "verify": "builder.library.verify",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'builder' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
