"""Writes frames_v1.json: cells and their frames, to hold format version 1 still.

    python tests/golden/write_frames_v1.py

A golden file is never changed: the script refuses to overwrite it. Another layout is another format version and
another file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from cellmill import kernel

GOLDEN = Path(__file__).with_name("frames_v1.json")


def golden_cells() -> list[dict[str, object]]:
    rng = np.random.default_rng(20_000)
    sparse = np.sort(rng.choice(36_000, 300, replace=False))
    thinning = np.flatnonzero(rng.random(2000) < 3 / (3 + np.arange(2000) / 20))
    rows = [
        ("empty", 10, [], []),
        ("one gene", 10, [3], [7]),
        ("last gene, largest count", 2**20, [2**20 - 1], [2**32 - 1]),
        ("all genes, all ones", 300, range(300), [1] * 300),
        ("full block, small counts", 400, range(0, 384, 3), rng.geometric(0.6, 128)),
        ("full block, one large count", 128, range(128), [1] * 77 + [5000] + [1] * 50),
        ("full block, wide counts", 128, range(128), rng.integers(2**30, 2**32, 128)),
        ("genes far apart", 36_000, sparse, rng.geometric(0.4, 300)),
        ("genes that thin out", 2000, thinning, rng.geometric(1 / (1 + 30 / (1 + np.arange(len(thinning)))))),
    ]
    return [
        {"name": name, "n_genes": n_genes, "genes": [int(g) for g in genes], "counts": [int(c) for c in counts]}
        for name, n_genes, genes, counts in rows
    ]


def main() -> None:
    if GOLDEN.exists():
        sys.exit(f"{GOLDEN} exists and is never overwritten: a change of layout needs a new format version")
    cells = golden_cells()
    for cell in cells:
        genes, counts = np.array(cell["genes"], np.int64), np.array(cell["counts"], np.uint32)
        frames, _ = kernel.encode(np.array([0, len(genes)]), genes, counts, n_genes=int(str(cell["n_genes"])))
        cell["frame"] = frames.tobytes().hex()
    text = ",\n".join(json.dumps(cell) for cell in cells)
    GOLDEN.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
