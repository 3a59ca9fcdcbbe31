"""The sarcoma cohorts, built once a session by the serial runner; other builds are compared with them."""

from pathlib import Path

import pytest

from tests.endtoend.trees import KEY, SARCOMA, SARCOMA_CT_MR


@pytest.fixture(scope="session")
def sarcoma(corpus, tmp_path_factory) -> Path:
    """The published dataset of ``specs/soft-tissue-sarcoma.yaml``."""
    from builder.run.pipeline import build

    target = tmp_path_factory.mktemp("sarcoma") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(SARCOMA, to=target, parameters={"corpus": str(corpus("sts"))})
    return target


@pytest.fixture(scope="session")
def ct_mr(corpus, tmp_path_factory) -> Path:
    """The published dataset of ``specs/soft-tissue-sarcoma-ct-mr.yaml``, built serially."""
    from builder.run.pipeline import build

    target = tmp_path_factory.mktemp("ct_mr") / "dataset"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_KEY", KEY)
        build(SARCOMA_CT_MR, to=target, parameters={"corpus": str(corpus("sts"))})
    return target
