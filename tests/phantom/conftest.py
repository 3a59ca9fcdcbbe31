"""The archives that several tests look at, made once."""

import json

import pytest

from builder.phantom import write_archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """(folder, summary, answer key) of an archive of ten persons: every modality, vendor and oddity."""
    folder = tmp_path_factory.mktemp("phantom") / "made"
    summary = write_archive(folder, patients=10)
    return folder, summary, json.loads((folder / "truth.json").read_text())
