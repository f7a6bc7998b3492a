"""A small atlas with the structure of real data (floor 3).

Knows distributions and gene names. Must not know of files, stores or training.

Model
-----
Expression of a gene in a cell is a product: base level (log-normal) x cell type (sparse log-normal changes, and known
marker genes) x tissue x study (sequencing chemistry) x batch x donor x two continuous programmes per cell (activation,
stress) that are not shared by all genes. A cell's library size is log-normal around a median of its assay, times
a quality of its donor. Counts are gamma-Poisson with one dispersion; they are drawn by inversion, so that only entries
that are not zero cost more than one comparison. The same arguments give the same atlas on the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from cellmill.errors import ConfigError
from cellmill.events import emit
from cellmill.genes import GeneTable

__all__ = ["CELL_TYPES", "Study", "simulate_atlas"]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

CELL_TYPES = ("T cell", "B cell", "natural killer cell", "monocyte", "plasma cell", "enterocyte")
_MARKERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "T cell": ("CD3D", "CD3E", "CD3G", "TRAC", "IL7R", "CD2", "LTB", "TCF7", "LEF1", "CD27"),
        "B cell": ("CD79A", "CD79B", "MS4A1", "CD19", "BANK1", "CD22", "TCL1A", "HLA-DRA", "CD74", "IGHM"),
        "natural killer cell": ("NKG7", "GNLY", "KLRD1", "NCAM1", "PRF1", "GZMB", "KLRF1", "FCGR3A", "CST7", "GZMA"),
        "monocyte": ("LYZ", "S100A8", "S100A9", "CD14", "FCN1", "VCAN", "CTSS", "CST3", "LST1", "AIF1"),
        "plasma cell": ("MZB1", "JCHAIN", "SDC1", "XBP1", "IGHG1", "IGHA1", "IGKC", "DERL3", "TNFRSF17", "PRDM1"),
        "enterocyte": ("EPCAM", "KRT20", "FABP1", "KRT8", "KRT18", "CA1", "SLC26A3", "VIL1", "CDH1", "PHGR1"),
    }
)
_TEMPLATES = (
    ("blood-a", "blood", "10x 3' v2", 2600.0, (0.44, 0.16, 0.15, 0.21, 0.03, 0.01)),
    ("blood-b", "blood", "10x 3' v3", 5200.0, (0.38, 0.20, 0.12, 0.26, 0.03, 0.01)),
    ("gut-c", "large intestine", "10x 3' v3", 4200.0, (0.24, 0.13, 0.04, 0.09, 0.16, 0.34)),
)
_DONORS_PER_STUDY = 10
_BATCHES_PER_STUDY = 2
_CHUNK_CELLS = 250
_FULL_GENES = 20_000
_GENE_SIGMA, _TYPE_SIGMA, _TYPE_SHARE, _SILENT_SHARE, _MARKER_FOLD = 1.9, 0.8, 0.2, 0.25, 12.0
_TISSUE_SIGMA, _STUDY_SIGMA, _BATCH_SIGMA, _DONOR_SIGMA, _PROGRAMME_SIGMA = 0.35, 0.30, 0.20, 0.18, 0.45
_LIBRARY_SIGMA, _DISPERSION = 0.42, 0.7


@dataclass(frozen=True)
class Study:
    """The cells of one simulated study.

    Attributes
    ----------
    name : str
        Such as ``blood-a``.
    counts : scipy.sparse.csr_array of uint32, shape (n_cells, n_genes)
        Raw counts, indices ascending within a cell, no stored zeros.
    obs : pyarrow.Table
        ``cell`` (barcodes, unique within the study), then cell_type, donor_id, tissue, assay, batch, study, all
        dictionary<int32, string>.
    gene_ids, symbols : tuple of str
        Human Ensembl ids and symbols of the columns; every symbol means exactly its id.
    """

    name: str
    counts: sparse.csr_array
    obs: pa.Table
    gene_ids: tuple[str, ...]
    symbols: tuple[str, ...]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.counts.shape[1])


@dataclass(frozen=True)
class _World:
    """What all studies share, as natural logarithms.

    Shapes: genes, types x genes, tissues x genes, programmes x genes.
    """

    log_base: Float32
    log_type: Float32
    log_tissue: Float32
    log_programme: Float32


def simulate_atlas(*, n_cells: int = 3000, n_genes: int = 20_000, n_studies: int = 3, seed: int = 0) -> list[Study]:
    """Return studies of simulated cells that share genes and cell types, and differ as real studies do.

    Parameters
    ----------
    n_cells : int
        Cells in all, divided evenly over the studies.
    n_genes : int
        Genes of each study: markers, mitochondrial and ribosomal genes first, then protein-coding ones, then others.
    n_studies : int
        Two of blood and one of gut; more repeat that pattern. Each has ten donors (fewer when it has fewer cells) in
        two batches.
    seed : int
        Everything that is random follows from it.

    Returns
    -------
    list of Study

    Raises
    ------
    ConfigError
        When there are fewer cells than studies, or more genes than the shipped table can name unambiguously.

    Notes
    -----
    3,000 x 20,000 take a few seconds and some 200 MB. Study s depends on (seed, s, cells of s, n_genes) only.

    Examples
    --------
    >>> studies = simulate_atlas(n_cells=30, n_genes=200)
    >>> [(study.name, study.n_cells, study.n_genes) for study in studies]
    [('blood-a', 10, 200), ('blood-b', 10, 200), ('gut-c', 10, 200)]
    """
    if n_studies < 1 or n_cells < n_studies:
        raise ConfigError(f"cannot divide {n_cells} cells over {n_studies} studies: at least one cell each is needed")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0")
    gene_ids, symbols = _choose_genes(n_genes)
    world = _make_world(symbols, np.random.default_rng([seed, 0]))
    studies = []
    for number in range(n_studies):
        cells = n_cells * (number + 1) // n_studies - n_cells * number // n_studies
        emit("simulating", done=number, total=n_studies, unit="studies")
        studies.append(
            _simulate_study(number, cells, world, gene_ids, symbols, np.random.default_rng([seed, 1, number]))
        )
    emit("simulating", done=n_studies, total=n_studies, unit="studies")
    return studies


def _choose_genes(n_genes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Take the `n_genes` most telling human genes whose symbol means only them; ordered by id."""
    table = GeneTable.load("human")
    markers = {symbol for names in _MARKERS.values() for symbol in names}
    columns = [table.arrow[name].to_pylist() for name in ("mitochondrial", "ribosomal", "biotype", "retired")]
    ranked = []
    for position, (mitochondrial, ribosomal, biotype, retired) in enumerate(zip(*columns, strict=True)):
        symbol = table.symbols[position]
        if retired or symbol == table.ids[position] or len(table.current[symbol]) > 1:
            continue
        coding = biotype == "protein_coding"
        rank = 0 if symbol in markers else 1 if coding and (mitochondrial or ribosomal) else 2 if coding else 3
        ranked.append((rank, position))
    if not 1 <= n_genes <= len(ranked):
        raise ConfigError(
            f"n_genes is {n_genes:,}; expected 1 to {len(ranked):,}, the genes with a symbol of their own"
        )
    chosen = sorted(position for _, position in sorted(ranked)[:n_genes])
    return tuple(table.ids[p] for p in chosen), tuple(table.symbols[p] for p in chosen)


def _make_world(symbols: Sequence[str], rng: np.random.Generator) -> _World:
    genes, types = len(symbols), len(CELL_TYPES)
    base = rng.normal(0.0, _GENE_SIGMA, genes)
    base[rng.random(genes) < _SILENT_SHARE] -= 6.0
    housekeeping = np.array([name.startswith(("MT-", "RPL", "RPS")) for name in symbols])
    base[housekeeping] = rng.normal(4.2, 0.6, int(housekeeping.sum()))
    change = rng.normal(0.0, _TYPE_SIGMA, (types, genes)) * (rng.random((types, genes)) < _TYPE_SHARE)
    change[:, housekeeping] *= 0.2
    place = {symbol: position for position, symbol in enumerate(symbols)}
    for k, cell_type in enumerate(CELL_TYPES):
        for symbol in _MARKERS[cell_type]:
            if symbol in place:
                g = place[symbol]
                base[g] = 1.0
                change[:, g] = np.where(
                    np.arange(types) == k, np.log(_MARKER_FOLD), np.minimum(change[:, g], 0.0) - 1.0
                )
    tissue = rng.normal(0.0, _TISSUE_SIGMA, (2, genes))
    programme = rng.normal(0.0, _PROGRAMME_SIGMA, (2, genes)) * (rng.random((2, genes)) < 0.2)
    return _World(*(part.astype(np.float32) for part in (base, change, tissue, programme)))


def _simulate_study(
    number: int,
    n_cells: int,
    world: _World,
    gene_ids: tuple[str, ...],
    symbols: tuple[str, ...],
    rng: np.random.Generator,
) -> Study:
    stem, tissue, assay, median_library, shares = _TEMPLATES[number % len(_TEMPLATES)]
    name = stem if number < len(_TEMPLATES) else f"{stem}{number // len(_TEMPLATES) + 1}"
    n_donors = min(_DONORS_PER_STUDY, n_cells)
    donor = _shuffled_evenly(n_cells, n_donors, rng)
    batch = donor % _BATCHES_PER_STUDY
    cell_type = _draw_types(donor, n_donors, np.array(shares), rng)
    genes = len(gene_ids)
    study_G = world.log_tissue[0 if tissue == "blood" else 1] + _effects(rng, _STUDY_SIGMA, 1, genes)[0]
    batch_BG = _effects(rng, _BATCH_SIGMA, _BATCHES_PER_STUDY, genes)
    donor_DG = _effects(rng, _DONOR_SIGMA, n_donors, genes) + batch_BG[np.arange(n_donors) % _BATCHES_PER_STUDY]
    quality_D = rng.normal(0.0, 0.15, n_donors)
    scale = median_library * np.sqrt(min(1.0, genes / _FULL_GENES))
    library_N = scale * np.exp(rng.normal(0.0, _LIBRARY_SIGMA, n_cells) + quality_D[donor])
    state_NP = rng.normal(0.0, 1.0, (n_cells, len(world.log_programme))).astype(np.float32)
    group_G = world.log_base + study_G
    parts = []
    for start in range(0, n_cells, _CHUNK_CELLS):
        rows = slice(start, min(start + _CHUNK_CELLS, n_cells))
        level_NG = world.log_type[cell_type[rows]] + donor_DG[donor[rows]]
        level_NG += state_NP[rows] @ world.log_programme
        level_NG += group_G
        np.exp(level_NG, out=level_NG)
        level_NG *= (library_N[rows] / level_NG.sum(axis=1, dtype=np.float64)).astype(np.float32)[:, None]
        parts.append(_draw_counts(level_NG, rng))
    labels = {
        "cell_type": (cell_type, CELL_TYPES),
        "donor_id": (donor, tuple(f"{name}-donor{d + 1:02d}" for d in range(n_donors))),
        "tissue": (np.zeros(n_cells, np.int64), (tissue,)),
        "assay": (np.zeros(n_cells, np.int64), (assay,)),
        "batch": (batch, tuple(f"{name}-batch{b + 1}" for b in range(_BATCHES_PER_STUDY))),
        "study": (np.zeros(n_cells, np.int64), (name,)),
    }
    obs = pa.table({"cell": _barcodes(n_cells, rng), **{key: _dictionary(*value) for key, value in labels.items()}})
    return Study(name=name, counts=_stack(parts, genes), obs=obs, gene_ids=gene_ids, symbols=symbols)


def _effects(rng: np.random.Generator, sigma: float, levels: int, genes: int) -> Float32:
    return rng.standard_normal((levels, genes), dtype=np.float32) * np.float32(sigma)


def _shuffled_evenly(n_cells: int, levels: int, rng: np.random.Generator) -> Int64:
    """Return each level about equally often, in random order, each at least once."""
    return rng.permutation(np.arange(n_cells, dtype=np.int64) % levels)


def _draw_types(donor: Int64, n_donors: int, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Int64:
    """Return a cell type for each cell; donors differ in their composition (Dirichlet around the study's)."""
    shares_DK = rng.dirichlet(40.0 * shares, n_donors)
    edges_DK = np.cumsum(shares_DK, axis=1)
    edges_DK[:, -1] = 1.0
    above: Int64 = (rng.random(donor.size)[:, None] >= edges_DK[donor]).sum(axis=1)
    return above


def _draw_counts(
    mean_NG: Float32, rng: np.random.Generator
) -> tuple[Int64, npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """Return gamma-Poisson counts of a block of cells as (counts per cell, columns, values).

    By inversion: with u uniform, the count is the number of x with u >= P(X <= x). Large means go by gamma-Poisson.
    """
    theta = np.float32(_DISPERSION)
    ratio = mean_NG / theta
    u = rng.random(mean_NG.shape, dtype=np.float32)
    none_NG = np.log1p(ratio)
    none_NG *= -theta
    np.exp(none_NG, out=none_NG)
    found = np.flatnonzero(u >= none_NG)
    mean, p_zero = mean_NG.ravel()[found].astype(np.float64), none_NG.ravel()[found].astype(np.float64)
    values = _invert(mean, p_zero, u.ravel()[found].astype(np.float64), rng)
    keep = values > 0
    found, values = found[keep], values[keep]
    cells, columns = np.divmod(found, mean_NG.shape[1])
    return np.bincount(cells, minlength=mean_NG.shape[0]), columns.astype(np.int32), values.astype(np.uint32)


def _invert(
    mean: npt.NDArray[np.float64],
    p_zero: npt.NDArray[np.float64],
    u: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> Int64:
    """Return the counts of the entries that are known not to be zero."""
    values = np.zeros(mean.size, dtype=np.int64)
    large = np.flatnonzero(mean > 4.0)
    left = np.flatnonzero(mean <= 4.0)
    values[large] = _positive_gamma_poisson(mean[large], rng)
    odds, cumulated, mass = mean / (mean + _DISPERSION), p_zero.copy(), p_zero.copy()
    count = 0
    while left.size and count < 200:
        count += 1
        mass[left] *= odds[left] * ((count - 1 + _DISPERSION) / count)
        cumulated[left] += mass[left]
        inside = u[left] < cumulated[left]
        values[left[inside]] = count
        left = left[~inside]
    values[left] = count
    return values


def _positive_gamma_poisson(mean: npt.NDArray[np.float64], rng: np.random.Generator) -> Int64:
    """Return gamma-Poisson counts on condition that they are not zero, by drawing again."""
    values = np.zeros(mean.size, dtype=np.int64)
    left = np.arange(mean.size)
    while left.size:
        values[left] = rng.poisson(rng.standard_gamma(_DISPERSION, left.size) * (mean[left] / _DISPERSION))
        left = left[values[left] == 0]
    return values


def _stack(
    parts: Sequence[tuple[Int64, npt.NDArray[np.int32], npt.NDArray[np.uint32]]], genes: int
) -> sparse.csr_array:
    sizes, columns, values = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return sparse.csr_array((values, columns, indptr), shape=(sizes.size, genes))


def _dictionary(codes: Int64, categories: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(categories), pa.string()))


def _barcodes(n_cells: int, rng: np.random.Generator) -> pa.Array:
    """Return barcodes of 16 bases and ``-1``, each once."""
    letters = np.array(list("ACGT"))
    names: dict[str, None] = {}
    while len(names) < n_cells:
        for row in letters[rng.integers(0, 4, (n_cells - len(names), 16))]:
            names["".join(row) + "-1"] = None
    return pa.array(list(names), pa.string())
