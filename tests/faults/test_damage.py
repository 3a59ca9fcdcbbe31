"""Bits, lengths and files of a published dataset changed at random: ``verify`` finds every one."""

import random
import shutil
from pathlib import Path

import pytest

from builder.library.verify import verify
from tests.faults.builds import count, portions

DAMAGES = count("DAMAGES", ci=300, long=10_000)
KINDS = ("flip", "truncate", "delete", "extra")
AT_ONCE = 25


def damage(path: Path, kind: str, dice: random.Random) -> Path:
    """Damage a file, or put one beside it; returns what is wrong now."""
    whole = path.read_bytes()
    if kind == "extra":
        path = path.with_name(path.name + ".more")
        path.write_bytes(b"?")
    elif kind == "delete":
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(whole[: dice.randrange(len(whole))])
    else:
        bit = dice.randrange(len(whole) * 8)
        path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
    return path


@pytest.mark.fault("bit flip, truncation, deletion or extra file in the published dataset")
@pytest.mark.parametrize("damages", portions(DAMAGES, size=500))
def test_every_damage_is_found(
    undisturbed: Path, tmp_path: Path, dice: random.Random, damages: int, record_property
) -> None:
    """Pointer and manifest one at a time, of the other objects several at once: each must be named."""
    copy = tmp_path / "dataset"
    shutil.copytree(undisturbed, copy)
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    roots = [p for p in files if p.name in ("CURRENT", "dataset.json")]
    done = 0
    while done < damages:
        if dice.random() < 0.3:
            chosen = [dice.choice(roots)]
        else:
            chosen = dice.sample([p for p in files if p not in roots], min(AT_ONCE, damages - done, len(files) - 2))
        whole = {path: path.read_bytes() for path in chosen}
        kinds = [dice.choice(KINDS if path.name != "CURRENT" else KINDS[:3]) for path in chosen]
        wrong = [damage(path, kind, dice) for path, kind in zip(chosen, kinds, strict=True)]
        faults = verify(str(copy)).faults
        for original, path in zip(chosen, wrong, strict=True):
            name = path.relative_to(copy).as_posix()
            named = any(fault.startswith(f"{name}:") for fault in faults)
            assert named or (original in roots and faults), f"the damage of {name} was not found among {faults}"
        for path in wrong:
            path.unlink(missing_ok=True)
        for path, data in whole.items():
            path.write_bytes(data)
        done += len(chosen)
    assert verify(str(copy)).faults == ()
    record_property("times", done)


def test_a_folder_without_a_dataset_is_not_called_damaged(tmp_path: Path) -> None:
    found = verify(str(tmp_path))
    assert found.facts()["sound"] is False
    assert "CURRENT: found nothing, expected the name of the published version; check the path" in found.text()
    assert "shards" not in found.text()
