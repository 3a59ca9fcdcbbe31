"""Bits, lengths and files of a published dataset changed at random: ``verify`` finds every one."""

import random
import shutil
from pathlib import Path

from builder.stages.verify import verify
from tests.faults.builds import count

DAMAGES = count("DAMAGES", ci=300, long=10_000)


def test_every_damage_is_found(undisturbed: Path, tmp_path: Path, record_property) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(undisturbed, copy)
    dice = random.Random(13)
    files = sorted(p for p in copy.rglob("*") if p.is_file())
    for number in range(DAMAGES):
        path = dice.choice(files)
        whole = path.read_bytes()
        damage = ("flip", "truncate", "delete", "extra")[number % 4]
        extra = path.with_name(path.name + ".more")
        if damage == "flip":
            changed = bytearray(whole)
            bit = dice.randrange(len(whole) * 8)
            changed[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bytes(changed))
        elif damage == "truncate":
            path.write_bytes(whole[: dice.randrange(len(whole))])
        elif damage == "delete":
            path.unlink()
        elif path.name != "CURRENT":
            extra.write_bytes(b"?")
        else:
            continue
        faults = verify(str(copy)).faults
        extra.unlink(missing_ok=True)
        path.write_bytes(whole)
        assert faults, f"damage {number}: {damage} of {path.relative_to(copy)} was not found"
    assert verify(str(copy)).faults == ()
    record_property("times", DAMAGES)
