"""A dataset that grows: nobody moves to another split, and only the shards that newcomers touch are built."""

import json
from pathlib import Path

import builder
from builder.phantom import write_archive
from builder.run.pipeline import build
from tests.endtoend.trees import KEY, ROOT

SPEC = (ROOT / "specs" / "phantom.yaml").read_text()
SPEC = SPEC.replace("per_case: 4", "per_case: 1").replace("report: {groups:", "report: {thumbnails: 0, groups:")
CITY = next(line for line in SPEC.splitlines(keepends=True) if "archive/city" in line)


def homes(dataset: Path) -> dict[str, str]:
    table = builder.open_dataset(dataset).table
    return dict(zip(table["person_key"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_nobody_moves_and_little_is_built_again(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BUILDER_KEY", KEY)
    write_archive(tmp_path / "phantom", patients=12, seed=20251121)
    parameters = {"phantom": str(tmp_path / "phantom")}
    target, spec = tmp_path / "dataset", tmp_path / "spec.yaml"
    small = SPEC.replace(CITY, "").replace("cases: 4", "cases: 2")
    spec.write_text(small)
    first = build(spec, to=target, parameters=parameters)
    before, old = homes(target), first.published.version

    spec.write_text(SPEC.replace("cases: 4", "cases: 2").replace("  seed: 7", "  seed: 99"))
    second = build(spec, to=target, parameters=parameters)
    after = homes(target)
    newcomers = set(after) - set(before)
    assert newcomers
    assert {person: after[person] for person in before} == before
    assert 0 < second.resumed < second.shards
    assert builder.open_dataset(target, version=old).manifest.version == old

    spec.write_text(small.replace("  seed: 7", "  seed: 99\n  fresh: true"))
    third = build(spec, to=target, parameters=parameters)
    assert homes(target) != before  # dealt anew, because the spec says so
    leaks = json.loads((target / "versions" / third.published.version / "leaks.json").read_text())
    assert leaks["deal"]["fresh"] is True
