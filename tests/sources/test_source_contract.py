"""What holds for every source, whatever lies behind it."""

from __future__ import annotations

import gzip
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pytest

from cellmill.errors import FormatError, InputError
from cellmill.sources import open_source


@pytest.mark.parametrize("block_cells", [1, 3, 10, 37, 4096])
def test_blocks_together_are_the_matrix(written, whole, block_cells):
    truth, path, _ = written
    with open_source(path) as source:
        np.testing.assert_array_equal(whole(source, block_cells=block_cells).toarray(), truth.X)


def test_a_tiny_memory_budget_changes_nothing_and_leaves_nothing(written, whole, tmp_path):
    truth, path, kind = written
    spill = tmp_path / "spill"
    spill.mkdir()
    with open_source(path, memory_budget=512, spill_dir=spill) as source:
        for _ in range(2):
            np.testing.assert_array_equal(whole(source, block_cells=5).toarray(), truth.X)
        used = [file for folder in spill.iterdir() for file in folder.iterdir()]
    used = [file for file in used if file.suffix == ".bin"]
    assert (len(used) > 2) == ("csc" in kind or "genes-x-cells" in kind or kind == "mex-unsorted")
    assert list(spill.iterdir()) == []


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 5), (1, 36), (18, 19), (36, 37), (37, 37)])
@pytest.mark.parametrize("budget", [512, 1 << 20])
def test_any_range_of_cells_can_be_read_alone(written, whole, start, stop, budget):
    truth, path, _ = written
    with open_source(path, memory_budget=budget) as source:
        read = whole(source, block_cells=4, start=start, stop=stop)
        np.testing.assert_array_equal(read.toarray(), truth.X[start:stop])


def test_shape_names_and_matrices_agree(written):
    truth, path, kind = written
    with open_source(path) as source:
        assert (source.n_cells, source.n_genes) == truth.X.shape
        assert source.kind in kind or source.kind.startswith("10x")
        assert source.genes.index == truth.genes and source.genes.ids == truth.genes
        obs = source.obs()
        assert obs.column_names[0] == "cell" and obs.schema.field("cell").type == pa.string()
        unnamed = [str(i) for i in range(len(truth.cells))]
        assert obs["cell"].to_pylist() == (unnamed if kind == "scbank" else truth.cells)
        info = source.matrices()[0]
        assert (info.n_cells, info.n_genes) == truth.X.shape
        assert info.layout in kind or info.layout in ("csr", "coo")
        assert source.genes_of(info.name) is source.genes
        for block in source.blocks():
            assert block.data.dtype == info.dtype and block.n_genes == info.n_genes


def test_reading_twice_and_interleaved_gives_the_same(written):
    _, path, _ = written
    with open_source(path, memory_budget=512) as source:
        pairs = list(zip(source.blocks(block_cells=6), source.blocks(block_cells=6), strict=True))
    assert len(pairs) >= 7
    for a, b in pairs:
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.data, b.data)


def test_wrong_questions_are_refused_before_reading(written):
    _, path, _ = written
    source = open_source(path)
    name = source.matrices()[0].name
    with pytest.raises(InputError, match=f"no matrix '{name}x'.*Did you mean '{name}'"):
        source.blocks(f"{name}x")
    with pytest.raises(InputError, match="cells 0 to 99"):
        source.blocks(stop=99)
    with pytest.raises(InputError, match="block_cells"):
        source.blocks(block_cells=0)
    source.close()
    source.close()
    with pytest.raises(InputError, match="was closed"):
        source.blocks()


def test_notes_and_dropped_tell_what_was_left_out(written):
    _, path, kind = written
    with open_source(path) as source:
        list(source.blocks())
        expected = {"10x-v3": 3, "mex-v3-antibodies": 1}.get(kind)
        assert source.dropped == ({"features not Gene Expression": expected} if expected else {})
        telling = kind in (
            *("10x-v2-two-genomes", "mex-transposed", "mex-parse", "parquet-tahoe", "parquet-shards", "scbank"),
            "zarr-v2-dense",  # a chunk of zeros is not stored
        )
        telling = telling or "short-header" in kind
        assert bool(source.notes) == telling, source.notes


WITHOUT_CELLS = [
    "h5ad-csr", "h5ad-csc", "h5ad-dense", "h5ad-2017", "10x-v3", "10x-v2", "mex-v3", "mex-v2", "zarr-v2-csr",
    "zarr-v3-csc", "zarr-2018-dense", "zarr-zip", "loom-contiguous-dense", "parquet-tahoe", "parquet-shards", "scbank",
    "csv-cells-x-genes",
]  # fmt: skip


@pytest.mark.parametrize("kind", WITHOUT_CELLS)
def test_no_cells_is_no_error(kind, write, whole, tmp_path, truth):
    none = type(truth)(truth.X[:0], [], truth.genes)
    with open_source(write(kind, none, tmp_path)) as source:
        assert source.n_cells == 0 and source.obs().num_rows == 0 and source.n_genes == len(truth.genes)
        assert list(source.blocks()) == []


def test_every_truncation_is_a_format_error_that_names_the_file(written, matrix_file):
    """Whatever prefix of the matrix file is left: an error, never fewer cells."""
    _, path, kind = written
    file = matrix_file(path)
    good = file.read_bytes()
    end = len(good.rstrip(b"\x00")) if kind == "mex-in-tar" else len(good)  # tar pads its end with zeros
    for size in sorted({0, 1, 7, 100, end // 3, end * 2 // 3, end - 60}):
        file.write_bytes(good[:size])
        if kind.startswith("csv") and is_whole_table(good[:size], good):
            continue
        with pytest.raises(FormatError, match=f"{file.name}|{path.name}"), open_source(path) as source:
            list(source.blocks())


def is_whole_table(prefix, text):
    """Whether a table of plain text was cut behind the last field of a line, which nothing in the text can tell."""
    lines = prefix.splitlines()
    mark = max((b"\t", b",", b";", b" "), key=text.count)
    return len(lines) > 1 and lines[-1].count(mark) == text.splitlines()[-1].count(mark)


def stored_bytes(path):
    """Positions of the bytes that hold numbers or compressed text, all of them in a text file.

    HDF5's own structures are left alone: some damage to them sends the HDF5 library itself into an endless loop.
    """
    if not h5py.is_hdf5(path):
        return np.arange(path.stat().st_size)
    spans = []

    def collect(_, node):
        if isinstance(node, h5py.Dataset) and node.size and node.dtype.kind != "O":
            if node.chunks is None:
                spans.append((node.id.get_offset(), node.id.get_storage_size()))
            else:
                chunks = (node.id.get_chunk_info(i) for i in range(node.id.get_num_chunks()))
                spans.extend((chunk.byte_offset, chunk.size) for chunk in chunks)

    with h5py.File(path) as file:
        file.visititems(collect)
    return np.concatenate([np.arange(start, start + size) for start, size in spans])


def test_flipped_bytes_give_a_format_error_or_a_matrix(written, matrix_file):
    """Damage is either noticed, as FormatError, or lies in values and names; nothing else is ever raised."""
    _, path, _ = written
    file = matrix_file(path)
    good, rng = file.read_bytes(), np.random.default_rng(5)
    for at in rng.choice(stored_bytes(file), 60):
        file.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.integers(8))]) + good[at + 1 :])
        try:
            with open_source(path, memory_budget=1 << 16) as source:
                source.obs()
                for block in source.blocks():
                    assert block.indices.size == 0 or 0 <= block.indices.min() <= block.indices.max() < source.n_genes
        except FormatError as damage:
            named = file.name in str(damage) or path.name in str(damage)
            assert named


def test_gzip_is_told_by_content_not_by_name(truth, write, whole, tmp_path):
    folder = write("mex-v2", truth, tmp_path)
    for name in ("matrix.mtx", "barcodes.tsv"):
        (folder / name).write_bytes(gzip.compress((folder / name).read_bytes()))
    with open_source(folder) as source:
        np.testing.assert_array_equal(whole(source).toarray(), truth.X)
    shutil.rmtree(folder)
