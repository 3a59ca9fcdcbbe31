"""What a killed plan leaves behind is readable by its owner alone, whatever the umask."""

import os
from pathlib import Path
from typing import Any

import pytest

from builder.planning import inventory
from builder.planning.merge import merge_parts
from builder.run.pipeline import plan
from builder.spec import DatasetSpec
from tests.endtoend.trees import KEY
from tests.synthetic import ct_series


def test_parts_of_an_inventory_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEY", KEY)
    ct_series(tmp_path / "archive", slices=2, shape=(8, 8))
    modes = []

    def see(parts: list[Path], store: Any) -> list[str]:
        modes.extend((part.stat().st_mode & 0o777, part.parent.stat().st_mode & 0o777) for part in parts)
        return merge_parts(parts, store)

    monkeypatch.setattr(inventory, "merge_parts", see)
    spec = {
        "name": "modes",
        "license": "CC0-1.0",
        "sources": [{"kind": "folder", "url": str(tmp_path / "archive")}],
        "deid": {"patient_key": "${env:BUILDER_KEY}"},
        "samples": {"kind": "volumes"},
    }
    before = os.umask(0)
    try:
        plan(DatasetSpec.model_validate(spec), to=tmp_path / "data")
    finally:
        os.umask(before)
    assert modes == [(0o600, 0o700)]
