"""A shard and its uids are what the format's page says, read here from the page alone; other bytes are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from cellmill import kernel
from cellmill.errors import CellmillError, CorruptStoreError
from cellmill.ingest import build
from cellmill.store import open_store
from cellmill.store.format import Footer, pack_offsets, parse_offsets
from cellmill.store.manifest import FileEntry, ShardEntry
from cellmill.store.shard import open_shard
from cellmill.store.writer import ShardWriter


def read_by_the_page(raw):
    """Offsets and frames of a shard, by nothing but docs/reference/format.md."""
    assert struct.unpack("<8sHHI", raw[:16]) == (b"CELLMILL", 2, 0, 0)
    footer = raw[-88:]
    magic, version, bits, n_genes, n, nnz, f_at, f_bytes, f_hash, o_at, o_bytes, o_hash, own = struct.unpack(
        "<8sHHIQQQQQQQQQ", footer
    )
    assert (magic, version, own) == (b"LLIMLLEC", 2, xxhash.xxh3_64_intdigest(footer[:-8]))
    frames, section = raw[f_at : f_at + f_bytes], raw[o_at : o_at + o_bytes]
    assert (xxhash.xxh3_64_intdigest(frames), xxhash.xxh3_64_intdigest(section)) == (f_hash, o_hash)
    assert f_at == 16 and o_at == -(-(16 + f_bytes) // 4) * 4 and len(raw) == -(-(o_at + o_bytes) // 8) * 8 + 88
    entries = n + 1
    if bits == 32:
        offsets = list(struct.unpack(f"<{entries}I", section))
    else:
        groups = -(-entries // 16)
        base = struct.unpack(f"<{groups}I", section[: 4 * groups])
        step = struct.unpack(f"<{entries}H", section[4 * groups :])
        assert not any(step[::16])
        offsets = [base[i >> 4] + step[i] for i in range(entries)]
    assert offsets[-1] == f_bytes
    return bits, n_genes, nnz, offsets, frames


def written(folder, sizes, *, n_genes=70_000):
    """A shard of cells with so many genes each, all ones (16 apart: about one byte a gene), and its entry."""
    (folder / "shards").mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    chosen = [np.sort(rng.choice(n_genes, size, replace=False)) for size in sizes]
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    counts = rng.integers(1, 2**30, indptr[-1]).astype(np.uint32)
    genes = np.concatenate([np.empty(0, np.int64), *chosen]).astype(np.int32)
    frames, offsets = kernel.encode(indptr, genes, counts, n_genes=n_genes)
    with ShardWriter(folder / "shards/0.cells", n_genes=n_genes) as writer:
        for i in range(0, len(sizes), 7):  # in blocks, as a build does
            part = offsets[i : i + 8]
            writer.append(frames[part[0] : part[-1]], part - part[0], nnz=int(np.diff(indptr[i : i + 8]).sum()))
        cells = writer.finish()
    none = FileEntry("", 0, "")
    entry = ShardEntry(cells, none, none, n_cells=len(sizes), nnz=int(indptr[-1]), source="x")
    return folder / cells.path, entry, offsets


@pytest.mark.parametrize(
    ("sizes", "bits"),
    [([], 16), ([3], 16), ([5] * 16, 16), ([40] * 100, 16), ([0] * 33, 16), ([10, 40_000, 3], 32), ([9_000] * 20, 32)],
)
def test_both_layouts_of_offsets_are_what_the_page_says(tmp_path, sizes, bits):
    path, entry, offsets = written(tmp_path, sizes)
    found, n_genes, nnz, by_the_page, _ = read_by_the_page(path.read_bytes())
    assert (found, n_genes, nnz) == (bits, 70_000, sum(sizes))
    assert by_the_page == offsets.tolist()
    shard = open_shard(path, entry, n_genes=70_000)
    cells = np.random.default_rng(0).permutation(len(sizes))
    start, stop = shard.spans(cells)
    assert start.dtype == stop.dtype == np.uint64
    np.testing.assert_array_equal(start, offsets[:-1][cells])
    np.testing.assert_array_equal(stop, offsets[1:][cells])


def test_a_long_frame_at_the_end_of_a_group_costs_no_wide_offsets(tmp_path):
    sizes = [1] * 15 + [40_000] + [1] * 20
    path, entry, offsets = written(tmp_path, sizes)
    assert offsets[16] - offsets[15] > 1 << 16
    shard = open_shard(path, entry, n_genes=70_000)
    assert shard.offset_bits == 16
    np.testing.assert_array_equal(np.stack(shard.spans(np.arange(36))), np.stack([offsets[:-1], offsets[1:]]))


@given(st.lists(st.integers(1, 9000), max_size=60))
def test_offsets_come_back_in_the_smallest_layout(sizes):
    offsets = np.cumsum([0, *sizes]).astype(np.uint32)
    bits, raw = pack_offsets(offsets)
    footer = Footer(bits, 1, len(sizes), 0, 16, 0, 0, 0, len(raw), 0)
    bases, steps = parse_offsets(np.frombuffer(raw, np.uint8), footer)
    at = np.arange(len(offsets))
    back = bases[at] if bits == 32 else bases[at >> 4] + steps
    np.testing.assert_array_equal(back, offsets)
    assert bits == (16 if all(offsets[i] - offsets[i >> 4 << 4] < 1 << 16 for i in at) else 32)


def test_uids_are_what_the_page_says(tmp_path, tiny_h5ad):
    store = build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union", shard_cells=20, block_cells=20)
    for number, shard in enumerate(store.manifest.shards):
        raw = (store.path / f"obs/0000{number}.uids").read_bytes()
        assert struct.unpack("<8sHHI", raw[:16]) == (b"CELLUIDS", 2, 0, 0)
        assert struct.unpack("<Q", raw[-8:])[0] == xxhash.xxh3_64_intdigest(raw[:-8])
        rows = np.arange(number * 20, number * 20 + shard.n_cells)
        assert list(struct.unpack(f"<{shard.n_cells}Q", raw[16:-8])) == store.uids(rows).tolist()
        assert store.uids(rows).tolist() == store.column("uid", rows).to_pylist()


def test_every_prefix_of_a_shard_is_refused(tmp_path):
    path, entry, _ = written(tmp_path, [5] * 20, n_genes=100)
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        for stated in (entry.cells.bytes, length):  # also when the manifest was made to agree
            cells = FileEntry(entry.cells.path, stated, entry.cells.xxh3)
            with pytest.raises(CorruptStoreError, match=r"0\.cells"):
                open_shard(path, ShardEntry(cells, entry.obs, entry.uids, 20, 100, "x"), n_genes=100)


def test_a_footer_of_more_genes_than_the_store_is_refused_and_one_of_fewer_is_not(tmp_path):
    path, entry, _ = written(tmp_path, [5] * 20, n_genes=100)
    assert open_shard(path, entry, n_genes=101).footer.n_genes == 100
    with pytest.raises(CorruptStoreError, match="100 genes, the store has 99"):
        open_shard(path, entry, n_genes=99)


def test_damaged_offsets_give_an_error_and_no_bytes_from_elsewhere(tmp_path, tiny_h5ad):
    store = build(tmp_path / "s.mill", [tiny_h5ad().path], vocabulary="union")
    path = store.path / store.manifest.shards[0].cells.path
    raw = path.read_bytes()
    start = struct.unpack("<Q", raw[-88:][56:64])[0]
    assert struct.unpack("<H", raw[-88:][10:12])[0] == 16
    for at, value in ((start, b"\xff\xff\xff\xff"), (start + 4 * 4 + 2 * 7, b"\xff\xff")):
        path.write_bytes(raw[:at] + value + raw[at + len(value) :])
        with pytest.raises(CellmillError, match=r"00000\.cells"):
            open_store(store.path).read(np.arange(60))


def test_a_shard_of_format_1_says_what_to_do(tmp_path):
    path, entry, _ = written(tmp_path, [5], n_genes=100)
    raw = path.read_bytes()
    footer = raw[-88:-80] + b"\1\0" + raw[-78:-8]
    path.write_bytes(b"CELLMILL\1\0" + raw[10:-88] + footer + struct.pack("<Q", xxhash.xxh3_64_intdigest(footer)))
    with pytest.raises(CorruptStoreError, match=r"written in format 1.*never released.*Build the store again"):
        open_shard(path, entry, n_genes=100)
