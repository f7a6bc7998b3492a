"""Small stores that use everything of the format, and what seals a store again after it was changed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import xxhash

from cellmill.genes import Vocabulary
from cellmill.ingest import append_inputs, build
from cellmill.store import Store
from conftest import write_tiny_h5ad

GENES = [f"GENE{i}" for i in range(300)]


def small_counts(n_cells: int, n_genes: int, seed: int) -> np.ndarray:
    """Return counts of 0 to 2^32 - 1: an empty cell, one with every gene, wide ones, sparse ones."""
    rng = np.random.default_rng(seed)
    counts = rng.geometric(0.5, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < rng.random(n_genes) * 0.5)
    counts[1] = 0
    counts[2] = rng.geometric(0.3, n_genes)
    counts[3, : n_genes - 10] = rng.integers(1, 2**32, n_genes - 10)
    counts[4] = rng.random(n_genes) < 0.4
    counts[5, [0, n_genes - 1]] = 2**32 - 1
    counts[6, ::40] = rng.integers(1, 90_000, len(counts[6, ::40]))
    return counts.astype(np.uint32)


def grown_store(folder: Path) -> Store:
    """Build a store of three shards, and append two more with other genes and other types of obs columns."""
    vocabulary = Vocabulary(
        [f"GENE{i}" for i in range(340)], symbols=[f"Sÿmbol {i}" for i in range(340)], specials={"<päd>": 7}
    )
    first = write_tiny_h5ad(
        folder / "first.h5ad",
        small_counts(45, 300, 1),
        genes=GENES,
        cells=[f"cell{i // 2}" for i in range(45)],  # Each name twice.
        obs={"tissue": ["gut", "blüt", "liver"] * 15},
        dtype="uint32",
    )
    second = write_tiny_h5ad(
        folder / "second.h5ad",
        small_counts(25, 90, 2),
        genes=[f"GENE{i}" for i in range(240, 330)],
        obs={"donor": ["d1"] * 25},
        dtype="float64",
    )
    add_columns(first.path, batch=np.arange(45, dtype=np.int32), code=np.arange(45) / 3, kept=np.arange(45) % 2 == 0)
    add_columns(second.path, batch=np.linspace(0, 1e20, 25), code=["x", "y", "z", "1", "é"] * 5, kept=np.arange(25))
    store = folder / "grown.mill"
    build(store, [first.path], vocabulary=vocabulary, shard_cells=20, block_cells=20)
    # types that clash are refused since; stores that have them, from before or by a merge, are read all the same
    with patch("cellmill.ingest.planning.require_one_type"):
        return append_inputs(store, [second.path], shard_cells=20, block_cells=20)


def panel_store(folder: Path) -> Store:
    """Build a store of few genes, which become head genes, and append genes that are none."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(0.4, (900, 24)) * (rng.random((900, 24)) < 0.5)
    counts[1], counts[2] = 0, 1
    counts[3, [0, 5, 23]] = 2**32 - 1, 70_000, 900
    counts[4, 3], counts[5, 7:12] = 12, [8, 9, 15, 16, 40]
    genes = [f"GENE{i}" for i in range(40)]
    first = write_tiny_h5ad(folder / "panel.h5ad", counts, genes=genes[:24], dtype="uint32")
    more = rng.poisson(0.5, (20, 30))
    more[0], more[1, :14], more[2, 14:] = 0, 0, 0
    second = write_tiny_h5ad(folder / "more.h5ad", more, genes=genes[10:], dtype="uint32")
    store = folder / "panel.mill"
    build(store, [first.path], vocabulary=Vocabulary(genes), shard_cells=500, block_cells=500)
    return append_inputs(store, [second.path])


def add_columns(path: Path, **columns: object) -> None:
    """Add columns of obs to an h5ad."""
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        obs.attrs["column-order"] = [*obs.attrs["column-order"], *columns]
        for name, values in columns.items():
            obs[name] = values
            kind = "string-array" if isinstance(values, list) else "array"
            obs[name].attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})


def wide_store(folder: Path) -> Store:
    """Build a store whose frames are so long that offsets take 32 bits."""
    counts = small_counts(34, 1200, 3)
    counts[16:31] = np.random.default_rng(4).integers(2**31, 2**32, (15, 1200))  # All of one group but the last.
    path = write_tiny_h5ad(folder / "wide.h5ad", counts, dtype="uint32").path
    return build(folder / "wide.mill", [path], vocabulary="union")


# ---- sealing a changed store ---------------------------------------------------------------------------------------


def reseal(folder: Path) -> None:
    """Make a manifest name the files as they are now, so that only what they say can be found wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for files in columns_of_files(manifest):
        data = [(folder / name).read_bytes() for name in files["path"]]
        files |= {"bytes": [len(each) for each in data], "xxh3": [xxhash.xxh3_128_hexdigest(each) for each in data]}
    for key in ("genes", "vocabulary", "head"):
        if manifest[key]:
            data = (folder / manifest[key]["path"]).read_bytes()
            manifest[key] |= {"bytes": len(data), "xxh3": xxhash.xxh3_128_hexdigest(data)}
    path.write_bytes(sealed(manifest))


def columns_of_files(manifest: dict) -> list[dict]:
    return [*(manifest["shards"][part] for part in ("cells", "obs", "uids")), manifest["sources"]["report"]]


def named_files(folder: Path) -> list[str]:
    """Return the path of every file that a manifest names."""
    manifest = json.loads((folder / "manifest.json").read_text())
    single = [manifest[key]["path"] for key in ("genes", "vocabulary", "head") if manifest[key]]
    return single + [name for files in columns_of_files(manifest) for name in files["path"]]


def sealed(manifest: dict) -> bytes:
    """Return a manifest with the digest and the hash that belong to it."""
    shards = manifest["shards"]
    hashes = [bytes.fromhex(xxh3) for part in ("cells", "obs", "uids") for xxh3 in shards[part]["xxh3"]]
    numbers = [number.to_bytes(8, "little") for key in ("n_cells", "nnz") for number in shards[key]]
    content = {
        "format_version": manifest["format_version"],
        "vocabulary_hash": manifest["vocabulary_hash"],
        "genes": manifest["genes"]["xxh3"],
        "head": manifest["head"] and manifest["head"]["xxh3"],
        "obs_schema": manifest["obs_schema"],
        "shards": xxhash.xxh3_128_hexdigest(b"".join(hashes + numbers)),
    }
    return hashed(manifest | {"digest": xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())})


def hashed(manifest: dict) -> bytes:
    """Return a manifest with the hash that belongs to it, whatever its digest."""
    body = {key: value for key, value in manifest.items() if key != "manifest_xxh3"}
    raw = json.dumps({"manifest_xxh3": "0" * 32} | body, indent=1).encode()
    return raw[:21] + xxhash.xxh3_128_hexdigest(raw).encode() + raw[53:]


def reseal_shard(data: bytearray) -> bytearray:
    """Give a shard file the hashes of its sections, and its footer its own."""
    footer = len(data) - 88
    for start, length, place in ((32, 40, 48), (56, 64, 72)):
        begin, size = (int.from_bytes(data[footer + at : footer + at + 8], "little") for at in (start, length))
        data[footer + place : footer + place + 8] = hash_bytes(data[begin : begin + size])
    data[-8:] = hash_bytes(data[footer:-8])
    return data


def hash_bytes(data: bytes | bytearray) -> bytes:
    return xxhash.xxh3_64_intdigest(bytes(data)).to_bytes(8, "little")
