"""A dataset in a bucket whose server fails, drags, cuts answers off and loses answers: the same bytes in the end."""

import hashlib
from pathlib import Path

import pytest

from tests.faults.bucket import FAULTS, serve
from tests.faults.builds import Case, Server, count, tree

TRIES = count("BUCKET", ci=3, long=50)


@pytest.mark.fault("S3: {fault}")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_store_misbehaves(
    server: Server, spec: Path, undisturbed: Path, tmp_path: Path, record_property, fault: str
) -> None:
    expected = tree(undisturbed)
    struck = 0
    for attempt in range(100):
        if struck >= TRIES:
            break
        with serve(fault, every=(17, 23, 31, 13)[attempt % 4]) as (bucket, address):
            bucket.dice.seed(attempt)
            env = {"AWS_ENDPOINT": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
            env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
            case = Case(server, spec, tmp_path / f"log-{attempt}", (), env)
            for _ in range(10):
                build = case.command("build", str(spec), "--to", "s3://bucket/dataset")
                if build.wait() == 0:
                    break
                assert "Traceback" not in build.said(), build.said()
            else:
                pytest.fail(f"failed ten times:\n{build.said()}")
            struck += bucket.faults
            found = {
                key.removeprefix("dataset/"): hashlib.sha256(data).hexdigest()
                for key, data in bucket.objects.items()
                if key.startswith("dataset/")
            }
        assert found == expected
    record_property("times", struck)
