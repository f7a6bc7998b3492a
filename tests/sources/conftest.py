"""A small matrix, and writers of every kind of input for it: what a source must give back."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import scipy.sparse as sp
import zarr


@dataclass(frozen=True)
class Truth:
    """What an input holds: X int64 [n_cells, n_genes], names of cells and genes."""

    X: np.ndarray
    cells: list[str]
    genes: list[str]


def make_truth(n_cells: int = 37, n_genes: int = 23, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    X = rng.poisson(2.0, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < 0.3)
    if n_cells:
        X[[0, n_cells // 2, n_cells - 1]] = 0  # empty cells at both ends and within
        X[3] = rng.integers(1, 90, n_genes)
    return Truth(
        X.astype(np.int64), [f"CELL{i:03d}-1" for i in range(n_cells)], [f"ENSG{i:011d}" for i in range(n_genes)]
    )


def frames(truth: Truth) -> dict[str, pd.DataFrame]:
    return {"obs": pd.DataFrame(index=truth.cells), "var": pd.DataFrame(index=truth.genes)}


def h5ad(convert: Callable[[np.ndarray], object], **options: object) -> Callable[[Truth, Path], Path]:
    def write(truth: Truth, folder: Path) -> Path:
        path = folder / "cells.h5ad"
        ad.AnnData(convert(truth.X), **frames(truth)).write_h5ad(path, **options)
        return path

    return write


def h5ad_cut(convert: Callable[[np.ndarray], object], **options: object) -> Callable[[Truth, Path], Path]:
    """A dense X in chunks of a given shape."""

    def write(truth: Truth, folder: Path) -> Path:
        path = h5ad(convert)(truth, folder)
        with h5py.File(path, "r+") as file:
            del file["X"]
            file.create_dataset("X", data=convert(truth.X), **options)
        return path

    return write


def shuffled_rows(X: np.ndarray) -> sp.csr_matrix:
    """CSR whose genes are in descending order within each cell."""
    csr = sp.csr_matrix(X.astype(np.float32))
    order = np.concatenate(
        [np.arange(a, b)[::-1] for a, b in zip(csr.indptr[:-1], csr.indptr[1:], strict=True)] or [[]]
    )
    order = order.astype(int)
    return sp.csr_matrix((csr.data[order], csr.indices[order], csr.indptr), shape=csr.shape)


def h5ad_int64_indices(truth: Truth, folder: Path) -> Path:
    path = h5ad(lambda X: sp.csr_matrix(X.astype(np.uint16)))(truth, folder)
    with h5py.File(path, "r+") as file:
        for part in ("indices", "indptr"):
            values = file["X"][part][()].astype(np.int64)
            del file["X"][part]
            file["X"][part] = values
    return path


def without_encoding(convert: Callable[[np.ndarray], object]) -> Callable[[Truth, Path], Path]:
    def write(truth: Truth, folder: Path) -> Path:
        path = h5ad(convert)(truth, folder)
        with h5py.File(path, "r+") as file:
            for node in (file, file["X"], file["obs"], file["var"], file["obs/_index"], file["var/_index"]):
                for name in [
                    n for n in node.attrs if n.startswith("encoding") or n in ("_index", "column-order", "shape")
                ]:
                    del node.attrs[name]
        return path

    return write


def h5ad_2017(truth: Truth, folder: Path) -> Path:
    """Compound obs and var, h5sparse attributes: what anndata 0.5 wrote."""
    path, csr = folder / "old.h5ad", sp.csr_matrix(truth.X.astype(np.float32))
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", np.array(csr.shape)
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(csr, part)
        file["obs"] = np.array([(c.encode(),) for c in truth.cells], [("index", "S20")])
        file["var"] = np.array([(g.encode(),) for g in truth.genes], [("index", "S20")])
    return path


def zarr_v(version: int, convert: Callable[[np.ndarray], object], **arrays: object) -> Callable[[Truth, Path], Path]:
    """AnnData's own writer; X again with the chunks or shards given."""

    def write(truth: Truth, folder: Path) -> Path:
        path = folder / "cells.zarr"
        X = convert(truth.X)
        with ad.settings.override(zarr_write_format=version):
            ad.AnnData(X, **frames(truth)).write_zarr(path)
        if arrays:
            stored = zarr.open_group(path, mode="r+")
            names = ["X"] if isinstance(X, np.ndarray) else ["X/data", "X/indices", "X/indptr"]
            for name in names:
                cut_again(stored, name, **arrays)
        return path

    return write


def cut_again(group: zarr.Group, name: str, **arrays: object) -> None:
    """Store an array again in other chunks or shards; attributes stay."""
    old = group[name]
    values, attributes = old[...], dict(old.attrs)
    del group[name]
    group.create_array(name, data=values, attributes=attributes, **arrays)


def zarr_zip(truth: Truth, folder: Path) -> Path:
    """A zipped store within a folder of the zip, as people make them by hand."""
    store = zarr_v(2, lambda X: sp.csr_matrix(X.astype(np.float32)))(truth, folder)
    path = folder / "cells.zarr.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(store.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    shutil.rmtree(store)
    return path


def zarr_2018(truth: Truth, folder: Path) -> Path:
    """Arrays of records for obs and var, dense X, no attributes at all: what anndata 0.6 wrote."""
    path = folder / "old-dense.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("X", data=truth.X.astype(np.float32), chunks=(10, len(truth.genes)))
    for axis, names in (("obs", truth.cells), ("var", truth.genes)):
        group.create_array(axis, data=np.array([(name.encode(),) for name in names], [("index", "S20")]))
    return path


def loom(*, old: bool = False, **matrix: object) -> Callable[[Truth, Path], Path]:
    """Version 3 with strings of any length, or version 2 with fixed ones and attributes at the root."""

    def write(truth: Truth, folder: Path) -> Path:
        path = folder / "cells.loom"
        text = "S" if old else h5py.string_dtype()
        with h5py.File(path, "w") as file:
            file.create_dataset("matrix", data=truth.X.T.astype(np.float32 if old else np.int32), **matrix)
            file["row_attrs/Gene"] = np.array(truth.genes, text)
            file["row_attrs/Name"] = np.array([f"n{gene}" for gene in truth.genes], text)
            file["col_attrs/CellID"] = np.array(truth.cells, text)
            for name in ("layers", "row_graphs", "col_graphs"):
                file.create_group(name)
            if old:
                file.attrs["LOOM_SPEC_VERSION"] = "2.0.1"
            else:
                file["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
        return path

    return write


def write_group(group: h5py.Group, X: np.ndarray, cells: Sequence[str]) -> None:
    csr = sp.csr_matrix(X.astype(np.int32))
    group["barcodes"] = np.array(cells, "S")
    for part, kind in (("data", np.int32), ("indices", np.int64), ("indptr", np.int64)):
        group[part] = getattr(csr, part).astype(kind)
    group["shape"] = np.array(X.shape[::-1], np.int32)


def tenx_v3(truth: Truth, folder: Path) -> Path:
    """With antibodies between the genes: they must vanish."""
    path, n_genes = folder / "run_a.h5", len(truth.genes)
    at = [0, n_genes // 2, n_genes]
    X = np.insert(truth.X, at, 7, axis=1)
    ids = np.insert(np.array(truth.genes, object), at, ["CD3", "CD4", "CD8"])
    types = np.insert(np.array(["Gene Expression"] * n_genes, object), at, "Antibody Capture")
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        write_group(group, X, truth.cells)
        for name, values in (
            ("id", ids),
            ("name", [f"n{i}" for i in ids]),
            ("feature_type", types),
            ("genome", ["g"] * len(ids)),
        ):
            group[f"features/{name}"] = np.array(list(values), "S")
    return path


def tenx_v2(truth: Truth, folder: Path) -> Path:
    path = folder / "run_b.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38")
        write_group(group, truth.X, truth.cells)
        group["genes"] = np.array(truth.genes, "S")
        group["gene_names"] = np.array([f"n{i}" for i in truth.genes], "S")
    return path


def tenx_v2_two_genomes(truth: Truth, folder: Path) -> Path:
    """Genes of two genomes; the second group lacks the cells that have none of its genes."""
    path, half = folder / "barnyard.h5", len(truth.genes) // 2
    with h5py.File(path, "w") as file:
        for name, genes in (("hg19", slice(0, half)), ("mm10", slice(half, None))):
            X = truth.X[:, genes]
            kept = np.ones(len(X), bool) if name == "hg19" else X.sum(1) > 0
            group = file.create_group(name)
            write_group(group, X[kept], [c for c, k in zip(truth.cells, kept, strict=True) if k])
            group["genes"] = np.array(truth.genes[genes], "S")
            group["gene_names"] = np.array([f"n{i}" for i in truth.genes[genes]], "S")
    return path


def mex(
    *, zipped: bool, transposed: bool = False, field: str = "integer", order: str = "cell", antibodies: bool = False
) -> Callable[[Truth, Path], Path]:
    def write(truth: Truth, folder: Path) -> Path:
        folder = folder / "sample_1"
        folder.mkdir()
        X, ids = truth.X, truth.genes
        types = ["Gene Expression"] * len(ids)
        if antibodies:
            X, ids, types = np.insert(X, 0, 5, axis=1), ["CD3", *ids], ["Antibody Capture", *types]
        cells, genes = np.nonzero(X)
        if order == "random":
            shuffle = np.random.default_rng(1).permutation(cells.size)
            cells, genes = cells[shuffle], genes[shuffle]
        left, right = (cells, genes) if transposed else (genes, cells)
        sizes = X.shape if transposed else X.shape[::-1]
        lines = [f"%%MatrixMarket matrix coordinate {field} general", '%metadata_json: {"format_version": 2}']
        lines.append(f"{sizes[0]} {sizes[1]} {cells.size}")
        lines += [f"{a + 1} {b + 1} {v}" for a, b, v in zip(left, right, X[cells, genes], strict=True)]
        put(folder, "matrix.mtx", lines, zipped)
        put(folder, "barcodes.tsv", truth.cells, zipped)
        if zipped:
            put(folder, "features.tsv", [f"{g}\tn{g}\t{t}" for g, t in zip(ids, types, strict=True)], zipped)
        else:
            put(folder, "genes.tsv", [f"{g}\tn{g}" for g in ids], zipped)
        return folder

    return write


def put(folder: Path, name: str, lines: Sequence[str], zipped: bool) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)


def token_lists(truth: Truth, *, marker: bool, first_token: int = 3, gap: int = 2) -> dict[str, list]:
    """Lists as Tahoe-100M and scGPT write them: tokens that leave gaps, genes in any order, a marker before each."""
    rng, lists = np.random.default_rng(2), {"genes": [], "expressions": []}
    for row in truth.X:
        at = rng.permutation(np.flatnonzero(row))
        lists["genes"].append([1] * marker + (first_token + gap * at).tolist())
        lists["expressions"].append([-2.0] * marker + row[at].astype(float).tolist())
    return lists


def write_gene_metadata(truth: Truth, path: Path, *, first_token: int = 3, gap: int = 2) -> None:
    tokens = pa.array([first_token + gap * i for i in range(len(truth.genes))], pa.int64())
    pq.write_table(
        pa.table({"gene_symbol": [f"n{g}" for g in truth.genes], "ensembl_id": truth.genes, "token_id": tokens}), path
    )


def token_table(truth: Truth, lists: dict[str, list], values: str = "float") -> pa.Table:
    columns = {
        "genes": pa.array(lists["genes"], pa.list_(pa.int64())),
        "expressions": pa.array(lists["expressions"], pa.list_(pa.type_for_alias(values))),
    }
    return pa.table(columns)


def parquet_tahoe(truth: Truth, folder: Path) -> Path:
    """One shard of several row groups, its gene table beside it."""
    write_gene_metadata(truth, folder / "gene_metadata.parquet")
    table = token_table(truth, token_lists(truth, marker=True))
    table = table.append_column("drug", pa.array([["DMSO_TF", "Trametinib"][i % 2] for i in range(len(truth.cells))]))
    path = folder / "train-00000-of-00001.parquet"
    pq.write_table(
        table.append_column("BARCODE_SUB_LIB_ID", pa.array(truth.cells, pa.string())),
        path,
        row_group_size=11,
        write_page_checksum=True,
    )
    return path


def parquet_shards(truth: Truth, folder: Path) -> Path:
    """A copy of a whole data set: shards in data, tables in metadata; one of the shards is empty."""
    root = folder / "tahoe"
    (root / "data").mkdir(parents=True)
    (root / "metadata").mkdir()
    write_gene_metadata(truth, root / "metadata" / "gene_metadata.parquet")
    whole = token_table(truth, token_lists(truth, marker=True), "double")
    whole = whole.append_column("BARCODE_SUB_LIB_ID", pa.array(truth.cells, pa.large_string()))
    bounds = [0, 9, 9, len(truth.cells)] if truth.cells else [0, 0]
    for i, (a, b) in enumerate(pairwise(bounds)):
        name = f"train-{i + 8}.parquet"  # 10 comes after 9 by number only
        pq.write_table(whole.slice(a, b - a), root / "data" / name, row_group_size=7)
    return root / "data"


def scbank(truth: Truth, folder: Path) -> Path:
    bank = folder / "study.scb"
    bank.mkdir()
    (bank / "manifest.json").write_text('{"on_disk_format": "parquet", "main_data": "counts", "gene_vocab_md5": null}')
    (bank / "studytable.json").write_text('{"study_ids": null}')
    vocabulary = {"<pad>": 0, "<cls>": 1, "<eoc>": 2} | {gene: 3 + 2 * i for i, gene in enumerate(truth.genes)}
    (bank / "gene_vocab.json").write_text(json.dumps(vocabulary))
    table = token_table(truth, token_lists(truth, marker=False), "int32")
    table = table.add_column(0, "id", pa.array([int(c[4:7]) for c in truth.cells], pa.int64()))
    pq.write_table(table, bank / "counts.datatable.parquet", row_group_size=10)
    return bank


def table(
    *, by_gene: bool, delimiter: str = ",", quoted: bool = False, short: bool = False, zipped: bool = False,
    number: Callable[[int], str] = str, corner: str = "", newline: str = "\n", extra: Sequence[str] = (),
) -> Callable[[Truth, Path], Path]:  # fmt: skip
    """Counts as text; `extra` names columns of text between the names of rows and the counts."""

    def write(truth: Truth, folder: Path) -> Path:
        path = folder / ("study.counts." + ("tsv" if delimiter == "\t" else "csv") + ".gz" * zipped)
        X, rows, columns = (truth.X.T, truth.genes, truth.cells) if by_gene else (truth.X, truth.cells, truth.genes)

        def name(text: str) -> str:
            return f'"{text}"' if quoted else text

        header = [name(text) for text in ([] if short else [corner]) + [*extra, *columns]]
        lines = [delimiter.join(header)]
        for row, values in zip(rows, X, strict=True):
            beside = [name(f"{row} of {text}") for text in extra]
            lines.append(delimiter.join([name(row), *beside, *map(number, values.tolist())]))
        data = "".join(f"{line}{newline}" for line in lines).encode()
        path.write_bytes(gzip.compress(data) if zipped else data)
        return path

    return write


def parse(truth: Truth, folder: Path) -> Path:
    """As split-pipe of Parse Biosciences writes it: cells in rows, tables with headers, cells by their wells."""
    made = folder / "sample" / "DGE_filtered"
    made.mkdir(parents=True)
    scipy.io.mmwrite(made / "count_matrix.mtx", sp.coo_matrix(truth.X), field="integer")
    cells = "".join(f"{cell},s{i % 2},{i}\n" for i, cell in enumerate(truth.cells))
    (made / "cell_metadata.csv").write_text(f"bc_wells,sample,gene_count\n{cells}")
    (made / "all_genes.csv").write_text("gene_id,gene_name,genome\n" + "".join(f"{g},S{g},hg38\n" for g in truth.genes))
    return made


def three_ca(truth: Truth, folder: Path) -> Path:
    """A study of 3CA: the matrix of Matrix Market, cells in a table, genes in a list."""
    made = mex(zipped=False)(truth, folder)
    study = made.rename(folder / "Data_Study2020_Blood")
    (study / "matrix.mtx").rename(study / "Exp_data_UMIcounts.mtx")
    (study / "barcodes.tsv").unlink()
    (study / "genes.tsv").unlink()
    put(study, "Genes.txt", truth.genes, False)
    lines = [f"{cell},S{i % 2},T,{100 + i}" for i, cell in enumerate(truth.cells)]
    put(study, "Cells.csv", ["cell_name,sample,cell_type,complexity", *lines], False)
    return study


def tar_of(write: Callable[[Truth, Path], Path], name: str) -> Callable[[Truth, Path], Path]:
    """An archive with one input, in which the files of a folder lie in a folder."""

    def pack(truth: Truth, folder: Path) -> Path:
        (folder / "made").mkdir()
        made = write(truth, folder / "made")
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(made, made.name)
        return folder / name

    return pack


WRITERS: dict[str, Callable[[Truth, Path], Path]] = {
    "h5ad-csr": h5ad(lambda X: sp.csr_matrix(X.astype(np.float32))),
    "h5ad-csr-gzip": h5ad(lambda X: sp.csr_matrix(X.astype(np.float64)), compression="gzip"),
    "h5ad-csr-int64-indices": h5ad_int64_indices,
    "h5ad-csr-unsorted": h5ad(shuffled_rows),
    "h5ad-csr-no-encoding": without_encoding(lambda X: sp.csr_matrix(X.astype(np.int32))),
    "h5ad-csc": h5ad(lambda X: sp.csc_matrix(X.astype(np.float32))),
    "h5ad-csc-no-encoding": without_encoding(lambda X: sp.csc_matrix(X.astype(np.int64))),
    "h5ad-dense": h5ad(lambda X: X.astype(np.float32)),
    "h5ad-dense-gzip": h5ad(lambda X: X.astype(np.uint8), compression="gzip"),
    "h5ad-2017": h5ad_2017,
    "h5ad-dense-chunked": h5ad_cut(lambda X: X.astype(np.int16), compression="lzf", chunks=(8, 5)),
    "zarr-v2-csr": zarr_v(2, lambda X: sp.csr_matrix(X.astype(np.float32))),
    "zarr-v2-csc": zarr_v(2, lambda X: sp.csc_matrix(X.astype(np.float64)), chunks=(50,)),
    "zarr-v2-dense": zarr_v(2, lambda X: X.astype(np.float32), chunks=(7, 9)),
    "zarr-v3-csr": zarr_v(3, lambda X: sp.csr_matrix(X.astype(np.int64)), chunks=(16,)),
    "zarr-v3-csr-sharded": zarr_v(3, lambda X: sp.csr_matrix(X.astype(np.float32)), chunks=(16,), shards=(64,)),
    "zarr-v3-csc": zarr_v(3, lambda X: sp.csc_matrix(X.astype(np.float32))),
    "zarr-v3-dense-sharded": zarr_v(3, lambda X: X.astype(np.uint16), chunks=(10, 5), shards=(20, 25)),
    "zarr-2018-dense": zarr_2018,
    "zarr-zip": zarr_zip,
    "loom-v3-dense": loom(chunks=(8, 5), compression="gzip"),
    "loom-v2-dense": loom(old=True, chunks=(23, 2), compression="gzip"),
    "loom-contiguous-dense": loom(old=True),
    "10x-v3": tenx_v3,
    "10x-v2": tenx_v2,
    "10x-v2-two-genomes": tenx_v2_two_genomes,
    "mex-v3": mex(zipped=True),
    "mex-v3-antibodies": mex(zipped=True, antibodies=True),
    "mex-v2": mex(zipped=False),
    "mex-real": mex(zipped=False, field="real"),
    "mex-transposed": mex(zipped=True, transposed=True),
    "mex-unsorted": mex(zipped=True, order="random"),
    "parquet-tahoe": parquet_tahoe,
    "parquet-shards": parquet_shards,
    "scbank": scbank,
    "3ca": three_ca,
    "mex-parse": parse,
    "mex-in-tar": tar_of(mex(zipped=True), "GSE1_RAW.tar"),
    "csv-in-tar-gz": tar_of(table(by_gene=False, corner="cell"), "GSE1_RAW.tar.gz"),
    "csv-genes-x-cells": table(by_gene=True, quoted=True),
    "csv-genes-x-cells-short-header": table(by_gene=True, delimiter=" ", quoted=True, short=True, zipped=True),
    "csv-genes-x-cells-two-names": table(by_gene=True, delimiter="\t", corner="gene", extra=["gene_name"]),
    "csv-genes-x-cells-semicolon": table(by_gene=True, delimiter=";", newline="\r\n", corner="Gene"),
    "csv-cells-x-genes": table(by_gene=False, corner="cell"),
    "csv-cells-x-genes-float": table(by_gene=False, number=lambda x: f"{x}.0" if x % 2 else f"{x}e0", zipped=True),
    "csv-cells-x-genes-short-header": table(by_gene=False, delimiter="\t", short=True),
    "csv-cells-x-genes-labelled": table(by_gene=False, delimiter="\t", quoted=True, extra=["cell_type"]),
}


def counts_file(path: Path) -> Path:
    """Return the file of an input in which its counts lie, or one of them."""
    if path.is_file():
        return path
    if path.suffix == ".zarr":  # the largest chunk or shard
        return max((file for file in path.glob("X/**/*") if file.is_file()), key=lambda file: file.stat().st_size)
    return next(file for pattern in ("*.mtx*", "*.datatable.parquet", "*-10.parquet") for file in path.glob(pattern))


@pytest.fixture
def matrix_file() -> Callable[[Path], Path]:
    return counts_file


@pytest.fixture(params=list(WRITERS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Truth, Path, str]:
    """(what it holds, where it lies, which kind) for every kind of input."""
    truth = make_truth()
    return truth, WRITERS[request.param](truth, tmp_path), request.param


@pytest.fixture
def truth() -> Truth:
    return make_truth()


@pytest.fixture
def write() -> Callable[[str, Truth, Path], Path]:
    return lambda kind, truth, folder: WRITERS[kind](truth, folder)


@pytest.fixture
def whole() -> Callable[..., sp.csr_array]:
    """Blocks of a matrix put together; each block is checked for the promises of CountBlock."""

    def read(source, matrix=None, **how):
        start, pieces = how.get("start", 0), []
        for block in source.blocks(matrix, **how):
            assert block.start == start
            assert 0 < block.n_cells <= how.get("block_cells", 4096)
            assert block.indptr.dtype == np.int64 and block.indices.dtype == np.int32
            assert block.indptr[0] == 0 and block.indptr[-1] == block.indices.size == block.data.size
            assert block.data.dtype.isnative
            for a, b in zip(block.indptr[:-1], block.indptr[1:], strict=True):
                assert np.all(np.diff(block.indices[a:b]) > 0)
            pieces.append(sp.csr_array((block.data, block.indices, block.indptr), shape=(block.n_cells, block.n_genes)))
            start = block.stop
        assert start == how.get("stop", source.n_cells)
        return sp.vstack(pieces).tocsr() if pieces else sp.csr_array((0, source.n_genes))

    return read
