"""The sarcoma cohort, built once a session by the serial runner: what the other builds are compared with."""

from pathlib import Path

import pytest

from tests.endtoend.trees import KEY, SARCOMA


@pytest.fixture(scope="session")
def sarcoma(corpus, tmp_path_factory) -> Path:
    """The published dataset of ``specs/soft-tissue-sarcoma.yaml``."""
    from builder.run.pipeline import build

    target = tmp_path_factory.mktemp("sarcoma") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(SARCOMA, to=target, parameters={"corpus": str(corpus("sts"))})
    return target
