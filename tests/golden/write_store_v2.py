"""Writes store_v2/: small stores and what is in them, to hold format version 2 still.

    PYTHONPATH=tests python tests/golden/write_store_v2.py

Golden stores are never changed: the script refuses to overwrite them. Another layout is another format version and
another folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from cellmill.ingest import append_inputs, build
from cellmill.store import Store, open_store
from conftest import write_tiny_h5ad

GOLDEN = Path(__file__).with_name("store_v2")


def golden_inputs() -> dict[str, list[list[list[int]]]]:
    """Return, by the name of a store, the dense counts of its inputs: the first is built, the second appended."""
    rng = np.random.default_rng(2)
    cells = rng.geometric(0.6, (10, 140)) * (rng.random((10, 140)) < 0.3)
    cells[1], cells[2], cells[3, :9] = 0, 1, 2**32 - 1
    later = rng.geometric(0.6, (3, 140)) * (rng.random((3, 140)) < 0.2)
    panel = rng.poisson(0.3, (600, 8))
    panel[1], panel[2, 3], panel[3, 5] = 0, 70_000, 30
    return {"blocks": [cells.tolist(), later.tolist()], "panel": [panel.tolist(), rng.poisson(0.5, (20, 8)).tolist()]}


def build_golden(folder: Path, name: str, inputs: list[list[list[int]]]) -> Store:
    """Build a store in a folder, which is made the working folder, so that no path of a machine gets into it."""
    first, *later = (np.array(counts, np.uint32) for counts in inputs)
    size = max(4, len(first) * 2 // 3)
    with contextlib.chdir(folder):
        path = write_tiny_h5ad(Path(f"{name}_first.h5ad"), first, dtype="uint32").path
        store = build(f"{name}.store", [path], vocabulary="union", shard_cells=size, block_cells=size)
        for counts in later:
            append_inputs(store.path, [write_tiny_h5ad(Path(f"{name}_later.h5ad"), counts, dtype="uint32").path])
    return open_store(folder / f"{name}.store")


def main() -> None:
    if GOLDEN.exists():
        sys.exit(f"{GOLDEN} exists and is never overwritten: a change of layout needs a new format version")
    with tempfile.TemporaryDirectory() as folder:
        inputs = golden_inputs()
        stores = [build_golden(Path(folder), name, inputs[name]) for name in inputs]
        GOLDEN.mkdir()
        for store in stores:
            # What the manifest does not name says when and where the store was built.
            ignored = shutil.ignore_patterns("build.json", "append-*.json")
            shutil.copytree(store.path, GOLDEN / store.path.name, ignore=ignored)
    (GOLDEN / "inputs.json").write_text(json.dumps(inputs, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
