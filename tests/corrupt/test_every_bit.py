"""Every truncation and every flipped bit of a small store gives the same cells or a typed error, and verify finds it.

In a process of its own, so that a crash or a hang fails the test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "store_v2"

# (store, file): frames of blocks, frames with a head section, and the files that tell what they mean. A read proves no
# frame's or uid's own bytes, so that damage may read as other numbers there, and verify must say so: it did for each.
READ_BY_HASH = {"manifest.json", "genes-1.parquet", "model.bin"}
FILES = [
    ("blocks", "shards/00001.cells"),
    ("panel", "shards/00002.cells"),
    ("blocks", "obs/00002.uids"),
    ("panel", "model.bin"),
    ("blocks", "genes-1.parquet"),
    ("blocks", "manifest.json"),
]


def damage(tmp_path: Path, store: str, kind: str, name: str) -> dict[str, int]:
    folder = tmp_path / f"{store}.store"
    shutil.copytree(GOLDEN / folder.name, folder)
    said = subprocess.run(
        [sys.executable, str(HERE / "every_bit.py"), str(folder), kind, name],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    result = json.loads(said.stdout)
    assert not result["problems"], result["problems"][:5]
    return result["said"]


@pytest.mark.parametrize(("store", "name"), FILES)
def test_every_flipped_bit_is_harmless_refused_or_found_by_verify(tmp_path, store, name):
    # The table of genes is long, and read only when its hash holds: every ninth bit of it.
    said = damage(tmp_path, store, "some" if name.startswith("genes") else "bits", name)
    assert said["refused"] > 0
    if name in READ_BY_HASH:
        assert set(said) == {"refused"}
    elif name.endswith(".cells"):
        assert said["same"] > 0  # Bits of padding.
        assert ("other" in said) == (store == "blocks")


@pytest.mark.parametrize(("store", "name"), FILES)
def test_every_truncation_is_refused(tmp_path, store, name):
    said = damage(tmp_path, store, "truncations", name)
    assert set(said) == {"refused"}
