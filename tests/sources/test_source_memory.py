"""Memory is bounded by the block and the budget, whatever the size of the file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from collections import namedtuple
from functools import partial

import h5py
import numpy as np
import pytest

from cellmill.errors import DiskSpaceError, FormatError
from cellmill.events import listening
from cellmill.sources import open_source
from cellmill.sources.spill import CellHistogram

N_CELLS, N_GENES, PER_CELL = 4000, 2000, 500
MIB = 1 << 20


def write_sparse(path, *, layout, n_cells=N_CELLS, per_cell=PER_CELL):
    """A file of n_cells * per_cell entries, 8 bytes each; value = cell % 7 + 1."""
    genes = (np.arange(per_cell, dtype=np.int32) * (N_GENES // per_cell))[None, :]
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"] = f"{layout}_matrix"
        group.attrs["shape"] = np.array([n_cells, N_GENES])
        values = np.repeat(np.arange(n_cells) % 7 + 1, per_cell).astype(np.float32)
        if layout == "csr":
            group["indices"] = np.broadcast_to(genes, (n_cells, per_cell)).reshape(-1)
            group["indptr"] = np.arange(n_cells + 1, dtype=np.int64) * per_cell
        else:
            group["indices"] = np.tile(np.arange(n_cells, dtype=np.int32), per_cell)
            lengths = np.zeros(N_GENES, np.int64)
            lengths[genes[0]] = n_cells
            group["indptr"] = np.concatenate(([0], np.cumsum(lengths)))
            values = np.tile(np.arange(n_cells) % 7 + 1, per_cell).astype(np.float32)
        group["data"] = values
        for axis, n in (("obs", n_cells), ("var", N_GENES)):
            file[f"{axis}/_index"] = np.array([f"{axis}{i}" for i in range(n)], "S")
            file[axis].attrs["_index"] = "_index"
    return n_cells * per_cell


def write_mex(folder, *, order):
    folder.mkdir()
    cells = np.repeat(np.arange(1, 2001), 200)
    genes = np.tile(np.arange(1, 2001, 10), 2000)
    if order == "gene":
        by_gene = np.lexsort((cells, genes))
        cells, genes = cells[by_gene], genes[by_gene]
    with (folder / "matrix.mtx").open("w") as file:
        file.write(f"%%MatrixMarket matrix coordinate integer general\n2000 2000 {cells.size}\n")
        file.writelines(f"{g} {c} {(c - 1) % 7 + 1}\n" for g, c in zip(genes, cells, strict=True))
    for name in ("barcodes.tsv", "features.tsv"):
        (folder / name).write_text("".join(f"x{i}\n" for i in range(2000)))
    return cells.size


def write_table(path, *, by_gene):
    """2000 cells x 2000 genes, every tenth gene counted; a line is longer than what is parsed at once."""
    X = np.zeros((2000, 2000), np.int64)
    X[:, ::10] = (np.arange(2000) % 7 + 1)[:, None]
    cells, genes = [f"c{i}" for i in range(2000)], [f"ENSG{i:011d}" for i in range(2000)]
    rows, columns, values = (genes, cells, X.T) if by_gene else (cells, genes, X)
    with path.open("w") as file:
        file.write(",".join(["", *columns]) + "\n")
        for name, numbers in zip(rows, values, strict=True):
            file.write(f"{name}," + ",".join(map(str, numbers.tolist())) + "\n")
    return 2000 * 200


@pytest.fixture(scope="module", autouse=True)
def _interned_strings_have_room():
    """The interpreter's table of interned strings takes megabytes when it grows, whoever's string was the last one."""
    _ = [sys.intern(f"room for strings {i}") for i in range(200_000)]


def peak_of_reading(path, **options):
    """(entries read, peak bytes that Python and NumPy took on the way); every value is checked."""
    with open_source(path, **options) as source:
        n = 0
        tracemalloc.start()
        try:
            for block in source.blocks(block_cells=64):
                expected = np.repeat(np.arange(block.start, block.stop) % 7 + 1, np.diff(block.indptr))
                assert np.array_equal(block.data, expected)
                n += block.data.size
                del block, expected
            return n, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_csr_takes_a_block_of_memory(tmp_path):
    stored = write_sparse(tmp_path / "a.h5ad", layout="csr")
    n, peak = peak_of_reading(tmp_path / "a.h5ad")
    assert n == stored and stored * 8 > 15 * MIB
    assert peak < 2 * MIB


def test_dense_takes_a_block_of_memory(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file.create_dataset("X", (6000, 800), "f4", chunks=(100, 800), fillvalue=0)
        for start in range(0, 6000, 1000):
            file["X"][start : start + 1000, ::5] = (np.arange(start, start + 1000) % 7 + 1)[:, None]
        for axis, n in (("obs", 6000), ("var", 800)):
            file[f"{axis}/_index"] = np.array([f"{axis}{i}" for i in range(n)], "S")
    n, peak = peak_of_reading(tmp_path / "a.h5ad")
    assert n == 6000 * 160 and peak < 2 * MIB < 6000 * 800 * 4 / 8


@pytest.mark.parametrize("layout", ["csc", "mex by gene", "table by gene"])
def test_sorting_by_cell_keeps_to_the_budget(layout, tmp_path):
    path = tmp_path / "input"
    write = {"csc": partial(write_sparse, layout="csc"), "mex by gene": partial(write_mex, order="gene")}
    stored = write.get(layout, partial(write_table, by_gene=True))(path)
    budget = 2 * MIB
    spill = tmp_path / "spill"
    spill.mkdir()
    n, peak = peak_of_reading(path, memory_budget=budget, spill_dir=spill)
    assert n == stored and stored * 16 > 3 * budget
    assert peak < 1.5 * budget + MIB
    assert list(spill.iterdir()) == []


def test_text_sorted_by_cell_is_streamed_without_spilling(tmp_path):
    stored = write_mex(tmp_path / "m", order="cell")
    spill = tmp_path / "spill"
    spill.mkdir()
    with open_source(tmp_path / "m", memory_budget=MIB, spill_dir=spill) as source:
        for _ in source.blocks():
            assert list(spill.iterdir()) == []
    n, peak = peak_of_reading(tmp_path / "m", memory_budget=MIB)
    assert n == stored and stored * 16 > 6 * MIB
    assert peak < 1.5 * MIB


@pytest.mark.parametrize("by_gene", [True, False])
def test_a_table_is_opened_and_read_in_bounded_memory(by_gene, tmp_path):
    """Opening scans the text: what it keeps meanwhile is bounded, too, and cells in rows need no files."""
    stored, spill = write_table(tmp_path / "a.csv", by_gene=by_gene), tmp_path / "spill"
    spill.mkdir()
    (tmp_path / "first.csv").write_text(",ACTB,CD3E\nc1,0,1\nc2,2,3\n")  # loads the gene tables
    with open_source(tmp_path / "first.csv") as source:
        list(source.blocks())
    tracemalloc.start()
    try:
        with open_source(tmp_path / "a.csv", memory_budget=2 * MIB, spill_dir=spill) as source:
            n = sum(block.indices.size for block in source.blocks(block_cells=64))
            assert bool(list(spill.iterdir())) == by_gene
            assert source.matrices()[0].stored == n == stored and stored * 16 > 6 * MIB
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert list(spill.iterdir()) == []


def test_a_whole_process_stays_far_below_its_file(tmp_path):
    """Peak resident memory of a process that reads a file of 160 MiB, HDF5 itself included."""
    write_sparse(tmp_path / "a.h5ad", layout="csr", n_cells=20_000, per_cell=1000)
    code = """
        import resource, sys
        from cellmill.sources import open_source
        with open_source(sys.argv[1]) as source:
            next(source.blocks(block_cells=256))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            n = sum(block.indices.size for block in source.blocks(block_cells=256))
        print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.h5ad")],
        capture_output=True,
        text=True,
        check=True,
    )
    n, grown = map(int, done.stdout.split())
    grown_bytes = grown * (1 if sys.platform == "darwin" else 1024)
    assert n == 20_000_000 and (tmp_path / "a.h5ad").stat().st_size > 150 * MIB
    assert grown_bytes < 16 * MIB


def test_no_room_for_sorting_is_said_before_it_starts(tmp_path, monkeypatch):
    write_sparse(tmp_path / "a.h5ad", layout="csc", n_cells=200)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    said = r"needs 1\.1 MiB in .*, where 1000 B are free.*--scratch.*spill_dir"
    source = open_source(tmp_path / "a.h5ad", memory_budget=4096, spill_dir=tmp_path)
    with source, pytest.raises(DiskSpaceError, match=said):
        next(source.blocks())
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]


def test_a_failed_spill_leaves_nothing(tmp_path):
    write_mex(tmp_path / "m", order="gene")
    text = (tmp_path / "m/matrix.mtx").read_text().splitlines()
    text[-5] = "1 1 x"
    (tmp_path / "m/matrix.mtx").write_text("\n".join(text))
    spill = tmp_path / "spill"
    spill.mkdir()
    with open_source(tmp_path / "m", memory_budget=MIB, spill_dir=spill) as source:
        with pytest.raises(FormatError, match="line 399998: found '1 1 x'"):
            next(source.blocks())
        assert list(spill.iterdir()) == []


def test_a_spill_that_fails_half_way_leaves_nothing(tmp_path):
    """Indices are sound, so the damage in the values is met only when the bucket files are being written."""
    path = tmp_path / "a.h5ad"
    write_sparse(path, layout="csc", n_cells=400)
    with h5py.File(path, "r+") as file:
        values = file["X/data"][()]
        del file["X/data"]
        data = file["X"].create_dataset("data", data=values, chunks=(50_000,), compression="gzip")
        chunk = data.id.get_chunk_info(2)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + 2)
        file.write(b"\xff" * (chunk.size - 2))
    spill = tmp_path / "spill"
    spill.mkdir()
    with open_source(path, memory_budget=1 << 18, spill_dir=spill) as source:
        with pytest.raises(FormatError, match=r"matrix X, stored entries \d+ to \d+: cannot be read"):
            next(source.blocks())
        assert list(spill.iterdir()) == []


def test_sorting_tells_its_progress(tmp_path):
    stored = write_sparse(tmp_path / "a.h5ad", layout="csc", n_cells=200)
    seen = []
    with listening(seen.append), open_source(tmp_path / "a.h5ad", memory_budget=1 << 16) as source:
        next(source.blocks())
    assert seen[-1].done == seen[-1].total == stored and "a.h5ad X" in seen[-1].stage


def test_buckets_hold_equal_shares_of_entries_not_of_cells():
    histogram = CellHistogram(1000)
    histogram.add(np.repeat([0, 1, 2, 500, 999], [100, 100, 100, 50, 1]))
    bounds = histogram.bounds(120)
    assert bounds[0] == 0 and bounds[-1] == 1000 and np.all(np.diff(bounds) > 0)
    assert np.add.reduceat(histogram.counts, bounds[:-1]).max() <= 120
