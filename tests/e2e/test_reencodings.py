"""Real files written again in every container and orientation give the same cells: fingerprints, counts and labels.

To add a format, add a writer to ENCODINGS: it gets a Sample, and the path to write to without its ending; it returns
the input for `build`. Where the format has no room for labels, write them beside it as its readers expect them.
"""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import cellmill as cm
from cellmill.ingest import build

ad = pytest.importorskip("anndata")
h5py = pytest.importorskip("h5py")
pd = pytest.importorskip("pandas")
zarr = pytest.importorskip("zarr")

N_CELLS = 300


@dataclass(frozen=True, eq=False)
class Sample:
    """The first cells of a real file: X int64 [n_cells, n_genes], ids and symbols of genes, cells and their labels."""

    X: sp.csr_matrix
    ids: list[str]
    symbols: list[str]
    obs: pd.DataFrame

    def anndata(self, X: object) -> ad.AnnData:
        var = pd.DataFrame({"gene_name": self.symbols}, index=self.ids)
        return ad.AnnData(X, obs=self.obs.copy(), var=var)


def read_h5ad(path: Path) -> Sample:
    data = ad.read_h5ad(path)[:N_CELLS]
    symbols = list(data.var["symbol"]) if "symbol" in data.var else list(data.var_names)
    return Sample(sp.csr_matrix(data.X).astype(np.int64), list(data.var_names), symbols, data.obs)


def read_10x(path: Path) -> Sample:
    with h5py.File(path) as file:
        group = file["matrix"]
        parts = (group["data"][()], group["indices"][()], group["indptr"][()])
        X = sp.csc_matrix(parts, shape=group["shape"][()]).T.tocsr()[:N_CELLS].astype(np.int64)
        ids, names, cells = (
            [item.decode() for item in group[name][()]] for name in ("features/id", "features/name", "barcodes")
        )
    return Sample(X, ids, names, pd.DataFrame(index=cells[:N_CELLS]))


def read_loom(path: Path) -> Sample:
    with h5py.File(path) as file:
        X = sp.csr_matrix(file["matrix"][:, :N_CELLS].T.astype(np.int64))
        genes, cells, condition = (
            [item.decode() for item in file[name][()]]
            for name in ("row_attrs/Gene", "col_attrs/CellID", "col_attrs/condition")
        )
    return Sample(X, genes, genes, pd.DataFrame({"condition": condition[:N_CELLS]}, index=cells[:N_CELLS]))


def read_zarr(path: Path) -> Sample:
    group = zarr.open_group(path, mode="r")
    var, obs = group["var"][...], group["obs"][:N_CELLS]
    names = [[item.decode() for item in column] for column in (var["gene_ids"], var["index"], obs["index"])]
    return Sample(
        sp.csr_matrix(group["X"][:N_CELLS].astype(np.int64)), names[0], names[1], pd.DataFrame(index=names[2])
    )


def read_csv(path: Path) -> Sample:
    counts = pd.read_csv(path)  # the first column is the index: the header is one field short
    labels = pd.read_csv(path.with_name(path.name.replace(".count.", ".metadata."))).loc[counts.columns]
    genes = [str(gene) for gene in counts.index]
    return Sample(sp.csr_matrix(counts.to_numpy().T[:N_CELLS].astype(np.int64)), genes, genes, labels.iloc[:N_CELLS])


FILES: dict[str, Callable[[Path], Sample]] = {
    "pbmc_facs_zheng.h5ad": read_h5ad,
    "gut_scp1884.h5ad": read_h5ad,
    "pbmc_zheng68k_165.h5ad": read_h5ad,
    "perturb_papalexi_eccite.h5ad": read_h5ad,
    "mouse_dentategyrus_100.h5ad": read_h5ad,
    "pbmc_1k_v2_10x.h5": read_10x,
    "pbmc_ifnb_kang.loom": read_loom,
    "mouse_neurons_10k_1000genes.zarr": read_zarr,
    "celllines3_celseq2.count.csv.gz": read_csv,
}


@cache
def sample(path: Path) -> Sample:
    """The first cells of a file, without most of the genes that none of them has: they make text files long."""
    whole = FILES[path.name](path)
    kept = np.flatnonzero((np.asarray(whole.X.sum(axis=0)).ravel() > 0) | (np.arange(whole.X.shape[1]) % 50 == 0))
    return Sample(whole.X[:, kept].tocsr(), [whole.ids[i] for i in kept], [whole.symbols[i] for i in kept], whole.obs)


def h5ad(convert: Callable[[sp.csr_matrix], object], **options: object) -> Callable[[Sample, Path], Path]:
    def write(cells: Sample, stem: Path) -> Path:
        path = stem.with_suffix(".h5ad")
        cells.anndata(convert(cells.X)).write_h5ad(path, **options)
        return path

    return write


def h5ad_cut(**options: object) -> Callable[[Sample, Path], Path]:
    """Dense, in chunks of a given shape."""

    def write(cells: Sample, stem: Path) -> Path:
        path = h5ad(lambda X: X.astype(np.float32))(cells, stem)
        with h5py.File(path, "r+") as file:
            del file["X"]
            file.create_dataset("X", data=cells.X.toarray().astype(np.uint16), **options)
        return path

    return write


def normalised(X: sp.csr_matrix) -> sp.csr_matrix:
    return sp.csr_matrix(X.multiply(1e4 / np.maximum(1, X.sum(axis=1)))).log1p().astype(np.float32)


def layer_only(cells: Sample, stem: Path) -> Path:
    data = cells.anndata(normalised(cells.X))
    data.layers["counts"] = sp.csc_matrix(cells.X.astype(np.float64))
    data.write_h5ad(stem.with_suffix(".h5ad"))
    return stem.with_suffix(".h5ad")


def raw_only(cells: Sample, stem: Path) -> Path:
    """Counts of all genes in raw, some genes normalised in X."""
    full = cells.anndata(cells.X.astype(np.float32))
    data = full[:, ::3].copy()
    data.raw, data.X = full, normalised(full.X)[:, ::3]
    data.write_h5ad(stem.with_suffix(".h5ad"))
    return stem.with_suffix(".h5ad")


def zarr_store(version: int, convert: Callable[[sp.csr_matrix], object]) -> Callable[[Sample, Path], Path]:
    def write(cells: Sample, stem: Path) -> Path:
        path = stem.with_suffix(".zarr")
        with ad.settings.override(zarr_write_format=version):
            cells.anndata(convert(cells.X)).write_zarr(path)
        return path

    return write


def zarr_sharded(cells: Sample, stem: Path) -> Path:
    path = zarr_store(3, lambda X: X.astype(np.float32))(cells, stem)
    matrix = zarr.open_group(path, mode="r+", use_consolidated=False)["X"]
    for name in ("data", "indices", "indptr"):
        values, attributes = matrix[name][...], dict(matrix[name].attrs)
        del matrix[name]
        matrix.create_array(name, data=values, attributes=attributes, chunks=(1000,), shards=(20_000,))
    return path


def zarr_zip(cells: Sample, stem: Path) -> Path:
    store = zarr_store(2, sp.csc_matrix)(cells, stem)
    path = stem.with_suffix(".zarr.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in store.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(store))
    shutil.rmtree(store)
    return path


def loom(*, layer: bool = False, **options: object) -> Callable[[Sample, Path], Path]:
    def write(cells: Sample, stem: Path) -> Path:
        path, X = stem.with_suffix(".loom"), cells.X.toarray().T
        text = h5py.string_dtype()
        with h5py.File(path, "w") as file:
            file.create_dataset("matrix", data=X * 0.5 if layer else X.astype(np.int32), **options)
            if layer:
                file.create_dataset("layers/counts", data=X.astype(np.uint16), **options)
            file["row_attrs/Accession"] = np.array(cells.ids, text)
            file["row_attrs/Gene"] = np.array(cells.symbols, text)
            file["col_attrs/CellID"] = np.array(cells.obs.index, text)
            for name, column in cells.obs.items():
                numbers = pd.api.types.is_numeric_dtype(column)
                file[f"col_attrs/{name}"] = column.to_numpy() if numbers else np.array(column.astype(str), text)
        return path

    return write


def labels_beside(cells: Sample, path: Path) -> None:
    if len(cells.obs.columns):
        cells.obs.to_csv(path, index_label="cell")


def tenx(version: int) -> Callable[[Sample, Path], Path]:
    def write(cells: Sample, stem: Path) -> Path:
        path = stem.with_suffix(".h5")
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix" if version == 3 else "GRCh38")
            group["barcodes"] = np.array(cells.obs.index, "S")
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(cells.X, part).astype(np.int32)
            group["shape"] = np.array(cells.X.shape[::-1], np.int32)
            ids, names = np.array(cells.ids, "S"), np.array(cells.symbols, "S")
            if version == 3:
                group["features/id"], group["features/name"] = ids, names
                group["features/feature_type"] = np.array(["Gene Expression"] * len(ids), "S")
            else:
                group["genes"], group["gene_names"] = ids, names
        labels_beside(cells, stem.with_suffix(".obs.csv"))
        return path

    return write


def mex(*, zipped: bool, cells_in_rows: bool = False) -> Callable[[Sample, Path], Path]:
    def write(cells: Sample, stem: Path) -> Path:
        stem.mkdir()
        scipy.io.mmwrite(stem / "matrix.mtx", sp.coo_matrix(cells.X if cells_in_rows else cells.X.T), field="integer")
        (stem / "barcodes.tsv").write_text("".join(f"{cell}\n" for cell in cells.obs.index))
        kinds = "\tGene Expression" if zipped else ""
        features = "".join(f"{a}\t{b}{kinds}\n" for a, b in zip(cells.ids, cells.symbols, strict=True))
        (stem / ("features.tsv" if zipped else "genes.tsv")).write_text(features)
        for file in list(stem.iterdir()) if zipped else []:
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
            file.unlink()
        labels_beside(cells, stem / "obs.csv")
        return stem

    return write


def table(*, ending: str, genes_in_rows: bool, short_header: bool = False) -> Callable[[Sample, Path], Path]:
    def write(cells: Sample, stem: Path) -> Path:
        path = stem.with_name(f"{stem.name}{ending}")
        X = cells.X.toarray()
        frame = pd.DataFrame(X, index=cells.obs.index, columns=cells.ids)
        frame = frame.T if genes_in_rows else frame
        how = {"sep": "\t" if ".tsv" in ending else ",", "index_label": False if short_header else "name"}
        if ending.endswith(".gz"):
            how["compression"] = {"method": "gzip", "compresslevel": 1}  # the usual level takes most of the test's time
        frame.to_csv(path, chunksize=len(frame), **how)
        labels_beside(cells, stem.with_name(f"{stem.name}.obs.csv"))
        return path

    return write


REFERENCE = h5ad(lambda X: X.astype(np.float32))
ENCODINGS: dict[str, Callable[[Sample, Path], Path]] = {
    "h5ad csr int64 gzip": h5ad(lambda X: X, compression="gzip"),
    "h5ad csr uint16 lzf": h5ad(lambda X: X.astype(np.uint16), compression="lzf"),
    "h5ad csc float32": h5ad(lambda X: sp.csc_matrix(X.astype(np.float32))),
    "h5ad csc int32 gzip": h5ad(lambda X: sp.csc_matrix(X.astype(np.int32)), compression="gzip"),
    "h5ad dense float32": h5ad(lambda X: X.toarray().astype(np.float32)),
    "h5ad dense float64 gzip": h5ad(lambda X: X.toarray().astype(np.float64), compression="gzip"),
    "h5ad dense uint16 in tall chunks": h5ad_cut(chunks=(100, 40), compression="lzf"),
    "h5ad layer only": layer_only,
    "h5ad raw only": raw_only,
    "zarr v2 csr": zarr_store(2, lambda X: X.astype(np.float32)),
    "zarr v2 dense": zarr_store(2, lambda X: X.toarray().astype(np.int32)),
    "zarr v3 csc": zarr_store(3, lambda X: sp.csc_matrix(X.astype(np.float64))),
    "zarr v3 csr sharded": zarr_sharded,
    "zarr v2 csc zipped": zarr_zip,
    "loom": loom(chunks=(64, 64), compression="gzip"),
    "loom contiguous": loom(),
    "loom counts in a layer": loom(layer=True, chunks=(64, 64), compression="lzf"),
    "10x v2": tenx(2),
    "10x v3": tenx(3),
    "mex plain": mex(zipped=False),
    "mex gz": mex(zipped=True),
    "mex gz transposed": mex(zipped=True, cells_in_rows=True),
    "csv genes in rows": table(ending=".csv", genes_in_rows=True, short_header=True),
    "csv.gz cells in rows": table(ending=".csv.gz", genes_in_rows=False),
    "tsv.gz genes in rows": table(ending=".tsv.gz", genes_in_rows=True),
}


# all encodings of all files take a quarter of an hour
QUICK = ("pbmc_zheng68k_165.h5ad",)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FILES]
)
def original(request, shared_data, tmp_path_factory) -> tuple[Sample, cm.Store]:
    """(cells of a real file, the store built of them as h5ad)."""
    cells = sample(shared_data / request.param)
    folder = tmp_path_factory.mktemp("reference")
    return cells, build(folder / "s.mill", [REFERENCE(cells, folder / "cells")], vocabulary="union")


def labels(store: cm.Store, names: list[str]) -> dict[str, list[object]]:
    """Labels as they compare across formats: what a text file holds has no other types than number and text."""

    def plain(value: object) -> object:
        return value if value is None or isinstance(value, str) else float(value)

    return {name: [plain(value) for value in store.column(name).to_pylist()] for name in names}


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_a_file_written_again_gives_the_same_cells(encoding, original, tmp_path):
    cells, reference = original
    path = ENCODINGS[encoding](cells, tmp_path / "cells")
    store = build(tmp_path / "s.mill", [path], vocabulary="union", counts="auto")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert store.gene_ids == reference.gene_ids
    for name in ("cell", "uid", "fingerprint"):
        assert store.column(name).to_pylist() == reference.column(name).to_pylist(), name
    rows = np.arange(len(cells.obs))
    assert store.n_cells == reference.n_cells == rows.size
    got, expected = sp.csr_matrix(store.read(rows)), sp.csr_matrix(reference.read(rows))
    assert (got != expected).nnz == 0
    where = {gene: i for i, gene in enumerate(cells.ids)}
    assert (got != cells.X[:, [where[gene] for gene in store.gene_ids]]).nnz == 0
    columns = dict(reference.manifest.obs_schema)
    named = [name if name in columns else f"source_{name}" for name in cells.obs.columns]
    assert labels(store, named) == labels(reference, named)
