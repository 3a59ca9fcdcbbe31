"""The public names: few, sorted, each where it says it is, and none of them loaded by the import."""

import subprocess
import sys
from pathlib import Path

import pytest

import builder

ROOT = Path(__file__).resolve().parent.parent


def test_every_name_resolves() -> None:
    assert len(builder.__all__) <= 15
    assert list(builder.__all__) == sorted(builder.__all__)
    for name in builder.__all__:
        assert getattr(builder, name) is not None
        assert name in dir(builder)
    with pytest.raises(AttributeError, match="open_dataset"):
        _ = builder.open_datasets


def test_importing_loads_nothing() -> None:
    code = "import sys, builder; sys.exit(any(m == 'numpy' or m.startswith('builder.') for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
