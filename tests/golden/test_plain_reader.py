"""The format's page is complete: a reader written from it alone reads what cellmill reads, and refuses what it must.

Negative controls: stores that are wrong in one place must be refused, and readers that are wrong in one line must fail
the comparison.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellmill.store import Store, open_store
from golden import plain_reader
from golden.plain_reader import Refused
from golden.stores import (
    grown_store,
    hash_bytes,
    hashed,
    named_files,
    panel_store,
    reseal,
    reseal_shard,
    sealed,
    wide_store,
)

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("stores")
    return {"grown": grown_store(folder), "wide": wide_store(folder), "panel": panel_store(folder)}


def compare(plain: plain_reader.PlainStore, store: Store) -> None:
    """Assert that a plain reader's store is cellmill's, in all that can be read."""
    assert len(plain.cells) == store.n_cells
    assert plain.genes == store.genes.to_pylist()
    assert plain.uids == store.uids().tolist()
    assert plain.obs == store.obs.to_arrow().to_pydict()
    assert plain.manifest["digest"] == store.digest
    matrix = store.read(np.arange(store.n_cells))
    for row, (genes, counts) in enumerate(plain.cells):
        span = slice(*matrix.indptr[row : row + 2])
        assert genes == matrix.indices[span].tolist() and counts == matrix.data[span].tolist(), row
    vocabulary = store.vocabulary
    assert plain.vocabulary["ids"] == list(vocabulary.ids) and plain.vocabulary["specials"] == dict(vocabulary.specials)
    assert plain.vocabulary["tokens"] == vocabulary.tokens.tolist()
    for source in plain.manifest["sources"]:
        report = (store.path / source["report"]["path"]).read_bytes()
        measured = store.measured(source["name"])
        assert plain_reader.read_measured(report, plain.vocabulary) == set(np.array(store.gene_ids)[measured])


@pytest.mark.parametrize("name", ["grown", "wide", "panel"])
def test_a_reader_written_from_the_page_reads_the_same_store(stores, name):
    compare(plain_reader.read_store(stores[name].path), stores[name])


def test_the_reader_imports_nothing_of_the_package():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import plain_reader; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code, str(HERE)], capture_output=True, text=True, check=True)
    assert "plain_reader" in said.stdout and "cellmill" not in said.stdout.split()


def test_the_stores_use_every_part_of_the_format(stores):
    plain = {name: plain_reader.read_store(store.path) for name, store in stores.items()}
    assert plain["grown"].offset_bits == [16] * 5 and plain["wide"].offset_bits == [32]
    footers = [n_genes_in_footer(stores["grown"], shard) for shard in range(5)]
    assert footers == [300] * 3 + [330] * 2
    assert {len(genes) for genes, _ in plain["grown"].cells} >= {0, 300}
    assert max(max(counts, default=0) for _, counts in plain["grown"].cells) == 2**32 - 1
    panel = plain["panel"]
    assert 0 < len(panel.head) <= 24 and len(panel.genes) == 40
    assert max(max(counts, default=0) for _, counts in panel.cells) == 2**32 - 1
    modes = {block for name in ("grown", "wide") for frame in plain[name].frames for block in blocks_of(frame)}
    assert modes >= {(mode, full, stream) for mode in range(3) for full in (True, False) for stream in range(2)} - {
        (2, True, 0)
    }, modes


def n_genes_in_footer(store: Store, shard: int) -> int:
    return struct.unpack("<I", (store.path / store.manifest.shards[shard].cells.path).read_bytes()[-76:-72])[0]


def blocks_of(frame: bytes) -> set[tuple[int, bool, int]]:
    """Return (mode, whether the block is full, stream) of each block."""
    nnz, at = plain_reader.read_varint(frame, 0)
    found = set()
    for begin in range(0, nnz, 128):
        for stream in range(2):
            header, at = plain_reader.read_header(frame, at, min(128, nnz - begin))
            found.add((header[1], header[0] == 128, stream))
    return found


# ---- stores that are wrong -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copies(stores, tmp_path_factory):
    """Make a copy of a store that may be changed."""

    def copy(name: str = "grown") -> Path:
        folder = tmp_path_factory.mktemp("copy") / f"{name}.mill"
        shutil.copytree(stores[name].path, folder)
        return folder

    return copy


SHARD = "shards/00001.cells"


def change(path: Path, at: int, replacement: bytes) -> None:
    data = bytearray(path.read_bytes())
    at %= len(data)
    assert data[at : at + len(replacement)] != replacement
    data[at : at + len(replacement)] = replacement
    path.write_bytes(data)


def flip(path: Path, at: int) -> None:
    change(path, at, bytes([path.read_bytes()[at] ^ 4]))


@pytest.mark.parametrize("name", ["grown", "wide", "panel"])
def test_a_flipped_bit_in_any_file_is_refused(copies, name):
    folder = copies(name)
    for name_of_file in named_files(folder):
        path = folder / name_of_file
        whole = path.read_bytes()
        flip(path, len(whole) // 2)
        with pytest.raises(Refused, match=name_of_file):
            plain_reader.read_store(folder)
        path.write_bytes(whole)
    plain_reader.read_store(folder)


def edit_shard(at: int, replacement: bytes):
    """Change a shard and give it, and the manifest, the hashes that belong to it."""

    def edit(folder: Path) -> None:
        change(folder / SHARD, at, replacement)
        (folder / SHARD).write_bytes(reseal_shard(bytearray((folder / SHARD).read_bytes())))

    return edit


def swap_offsets(folder: Path) -> None:
    data = bytearray((folder / SHARD).read_bytes())
    start = struct.unpack("<Q", data[-32:-24])[0]  # Two groups: 8 bytes of bases, then 21 steps.
    at = start + 8 + 2 * 5
    assert data[at : at + 2] != data[at + 2 : at + 4]
    data[at : at + 4] = data[at + 2 : at + 4] + data[at : at + 2]
    (folder / SHARD).write_bytes(reseal_shard(data))


def swap_uids(folder: Path) -> None:
    path = folder / "obs/00001.uids"
    data = path.read_bytes()
    body = data[:16] + data[24:32] + data[16:24] + data[32:-8]
    path.write_bytes(body + hash_bytes(body))


def exchange_shards(folder: Path) -> None:
    first, second = folder / "shards/00000.cells", folder / SHARD
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def edit_obs(folder: Path) -> None:
    path = folder / "obs/00001.parquet"
    table = pq.read_table(path)
    totals = table.column("stored_counts").to_pylist()
    at = table.column_names.index("stored_counts")
    pq.write_table(table.set_column(at, "stored_counts", pa.array([totals[0] + 1, *totals[1:]])), path)


def edit_manifest(**changes: object):
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


SEALED_MUTANTS = {
    "another magic number": edit_shard(0, b"X"),
    "another version in the header": edit_shard(8, b"\3"),
    "another version in the footer": edit_shard(-80, b"\3"),
    "other bits of offsets": edit_shard(-78, b"\x20"),
    "no such bits of offsets": edit_shard(-78, b"\x11"),
    "more genes than the store": edit_shard(-76, struct.pack("<I", 331)),
    "fewer genes than the cells have": edit_shard(-76, struct.pack("<I", 3)),
    "another number of cells": edit_shard(-72, struct.pack("<Q", 19)),
    "another number of counts": edit_shard(-64, struct.pack("<Q", 19)),
    "frames elsewhere": edit_shard(-56, struct.pack("<Q", 17)),
    "shorter frames": edit_shard(-48, struct.pack("<Q", 100)),
    "offsets elsewhere": edit_shard(-32, struct.pack("<Q", 100)),
    "shorter offsets": edit_shard(-24, struct.pack("<Q", 40)),
    "another frame byte": edit_shard(16 + 40, b"\xc3"),
    "offsets exchanged": swap_offsets,
    "uids exchanged": swap_uids,
    "shards exchanged": exchange_shards,
    "another total in obs": edit_obs,
    "another format version": edit_manifest(format_version=3),
    "a key that the page does not know": edit_manifest(extra="x"),
    "another vocabulary": edit_manifest(vocabulary_hash="0" * 32),
    "a number for a text": edit_manifest(cellmill_version=5),
    "a column named row": edit_manifest(obs_schema=[*plain_reader.STANDARD, ["row", "int64"]]),
}


@pytest.mark.parametrize("mutant", SEALED_MUTANTS)
def test_a_store_that_is_wrong_under_right_hashes_is_refused(copies, mutant):
    folder = copies()
    SEALED_MUTANTS[mutant](folder)
    reseal(folder)
    with pytest.raises(Refused):
        plain_reader.read_store(folder)


def test_sealing_alone_changes_nothing(copies, stores):
    folder = copies()
    path = folder / SHARD
    path.write_bytes(reseal_shard(bytearray(path.read_bytes())))
    reseal(folder)
    compare(plain_reader.read_store(folder), stores["grown"])
    assert open_store(folder).verify().ok


@pytest.mark.parametrize("key", ["manifest_xxh3", "digest"])
def test_a_manifest_whose_hash_or_digest_is_not_its_own_is_refused(copies, key):
    folder = copies()
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if key == "digest":  # Under a hash that holds.
        path.write_bytes(hashed(manifest | {"digest": "f" * 32}))
    else:
        change(path, 21, b"f" * 32)
    with pytest.raises(Refused, match="digest" if key == "digest" else "own hash"):
        plain_reader.read_store(folder)
    path.write_bytes(sealed(manifest))
    plain_reader.read_store(folder)


# ---- readers that are wrong ----------------------------------------------------------------------------------------

READER_MUTANTS = {
    "head genes after the others": ("[len(head) + gene for gene in genes]", "genes"),
    "twice nnz as nnz": ("nnz >> 1, 0, nnz & 1", "nnz, 0, nnz & 1"),
    "the escape first": ("[SLOTS - sum(written), *written]", "[*written, SLOTS - sum(written)]"),
    "states of four bytes": ("3 if length % 2 else 4", "4"),
    "no refill": ("self.x = self.x * 2**16 + self.words.pop(0)", "self.words.pop(0)"),
    "the last word first": ("self.words.pop(0)", "self.words.pop()"),
    "low bits before high ones": ("high << low_bits | low", "low << low_bits | high"),
    "raw bits of the next symbol": ("(symbol - 8) // 4 + 1", "(symbol - 8) // 4 + 2"),
    "gaps without one": ("last += gap + 1", "last += gap"),
    "genes from one": ("genes, last = [], -1", "genes, last = [], 0"),
    "counts as stored": ("[count + 1 for count", "[count for count"),
    "varints of eight bits": ("<< 7 * i", "<< 8 * i"),
    "exceptions without the high part": ("values[position] += (high + 1) << width", "pass"),
    "the high part less one": ("(high + 1) << width", "high << width"),
    "an exception in place of its low bits": ("values[position] += (high", "values[position] = (high"),
    "lanes in the wrong order": ("lanes[j % 4][j // 4]", "lanes[3 - j % 4][j // 4]"),
    "lanes one after the other": ("lanes[j % 4][j // 4]", "lanes[j // 32][j % 32]"),
    "full blocks as short ones": ("if n < 128:", "if n < 129:"),
    "unary without low bits": ("(high << width) + value", "high << width"),
    "unary with the high bit first": ("if byte >> bit & 1", "if byte << bit & 128"),
    "headers of gaps first": ("streams[number % 2]", "streams[number * 2 // len(headers)]"),
    "bases of 32 entries": ("bases[i >> 4]", "bases[i >> 5]"),
    "no bases": ("bases[i >> 4] + steps[i]", "steps[i]"),
    "steps from each other": ("bases[i >> 4] + steps[i]", "bases[i >> 4] + sum(steps[i & ~15 : i + 1])"),
    "uids by name alone": ("\\0{cell}\\0{seen[dataset, cell]}", "\\0{cell}\\0{0}"),
    "a fingerprint of genes alone": ("mix64(gene ^ mix64(count))", "mix64(gene)"),
    "columns in the types of the file": ("cast(table.column(name), kind)", "table.column(name).to_pylist()"),
    "hashes with a seed": ("xxh3_64_intdigest(data)", "xxh3_64_intdigest(data, 1)"),
    "sections aligned to eight": ("round_up(start + length, 4)", "round_up(start + length, 8)"),
}


@pytest.mark.parametrize("mutant", READER_MUTANTS)
def test_a_reader_that_is_wrong_in_one_line_is_found_out(stores, mutant):
    source = (HERE / "plain_reader.py").read_text()
    old, new = READER_MUTANTS[mutant]
    assert source.count(old) == 1
    module = types.ModuleType("wrong_reader")
    sys.modules[module.__name__] = module  # Where dataclasses look their module up.
    exec(compile(source.replace(old, new), "wrong_reader.py", "exec"), module.__dict__)
    with pytest.raises(Exception):  # noqa: PT012 - whichever of the two it trips over
        for store in stores.values():
            compare(module.read_store(store.path), store)
