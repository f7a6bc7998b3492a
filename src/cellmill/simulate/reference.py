"""The reference sample: cells with the statistics of a large public atlas, for measuring stores (floor 3).

Knows distributions. Must not know of files, stores or benchmarks.

Model
-----
A gene's share of a cell's molecules is a log-normal base level, a quarter of the genes almost silent, times log-normal
fold changes of the cell's type. A cell's depth is log-normal. Counts are gamma-Poisson with one shape for all. At
36,000 genes a cell has about 1,760 nonzero counts, of which 59 % are 1.

How it is drawn
---------------
Genes that a cell of median depth is likely to show are drawn one by one: a gamma, then a Poisson variate. The many
others are drawn as the compound Poisson variate that a gamma-Poisson count is: events at rate
``shape * log1p(mean / shape)``, each worth a logarithmic variate with ``p = mean / (mean + shape)``. The events of all
these genes of a cell together are one Poisson number at the larger rate ``sum of means``, spread over genes by their
shares and thinned to the true rate. That is exact, and costs as many draws as there are events, not as there are genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import ndtri

from cellmill.errors import ConfigError

__all__ = ["ReferenceBlock", "ReferenceModel", "reference_blocks", "reference_model"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

BLOCK_CELLS = 1024
_TYPES = 20
_GENE_SIGMA, _SILENT_SHARE, _SILENT_LEVEL = 2.35, 0.25, 1e-4
_TYPE_SIGMA, _TYPE_SHARE = 1.0, 0.3
_MEDIAN_UMI, _DEPTH_SIGMA, _SHAPE = 6000.0, 0.55, 0.45
_LIKELY_MEAN = 0.35  # from here on one variate per gene is cheaper than its events
_MOST = 2**32 - 1


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    """What all cells of a reference sample share.

    Attributes
    ----------
    n_genes : int
    share : list of float64, one per cell type, shape (n_genes,)
        Each gene's share of the molecules of a cell of this type; the sum is 1.
    likely : list of int64, one per cell type
        Genes that are drawn one by one, ascending.
    others : list of int64, one per cell type
        The remaining genes, ascending.
    other_edges : list of float64, one per cell type
        Cumulated shares of `others`.
    """

    n_genes: int
    share: list[Float64]
    likely: list[Int64]
    others: list[Int64]
    other_edges: list[Float64]

    @property
    def n_types(self) -> int:
        """Number of cell types."""
        return len(self.share)


@dataclass(frozen=True, eq=False)
class ReferenceBlock:
    """Consecutive simulated cells.

    Attributes
    ----------
    counts : csr_array of uint32, shape (n_cells, n_genes)
        Indices and indptr int32, ascending in each cell, no stored zeros.
    cell_type : int64, shape (n_cells,)
        Number of each cell's type.
    """

    counts: sparse.csr_array
    cell_type: Int64


def reference_model(*, n_genes: int = 36_000, seed: int = 0) -> ReferenceModel:
    """Return the genes and cell types of a reference sample; they depend on (n_genes, seed) alone.

    Raises
    ------
    ConfigError
        When there is no gene, or the seed is negative.

    Notes
    -----
    Base levels are the quantiles of their distribution in random order, not draws from it: with tails this long, a
    few lucky genes would otherwise change the number of nonzeros from seed to seed.
    """
    if n_genes < 1 or seed < 0:
        raise ConfigError(f"expected at least one gene and a seed from 0, found n_genes={n_genes}, seed={seed}")
    rng = np.random.default_rng([seed, 0])
    quantiles = (np.arange(n_genes) + 0.5) / n_genes
    base = np.exp(_GENE_SIGMA * rng.permutation(ndtri(quantiles)))
    base[rng.permutation(n_genes)[: int(n_genes * _SILENT_SHARE)]] *= _SILENT_LEVEL
    share, likely, others, edges = [], [], [], []
    for _ in range(_TYPES):
        changes = rng.normal(0.0, _TYPE_SIGMA, n_genes) * (rng.random(n_genes) < _TYPE_SHARE)
        level = base * np.exp(changes)
        level /= level.sum()
        is_likely = level * _MEDIAN_UMI >= _LIKELY_MEAN
        share.append(level)
        likely.append(np.flatnonzero(is_likely))
        others.append(np.flatnonzero(~is_likely))
        edges.append(np.cumsum(level[others[-1]]))
    return ReferenceModel(n_genes=n_genes, share=share, likely=likely, others=others, other_edges=edges)


def reference_blocks(
    model: ReferenceModel, *, n_cells: int, shard: int = 0, seed: int = 0, block_cells: int = BLOCK_CELLS
) -> Iterator[ReferenceBlock]:
    """Yield the cells of one shard, block by block, in bounded memory.

    Parameters
    ----------
    model : ReferenceModel
        As `reference_model` returns it.
    n_cells : int
        Cells of this shard.
    shard : int
        Its number; shards of the same seed differ.
    seed : int
        With `shard` it names the random numbers, whoever draws them and in which order.
    block_cells : int
        Cells of a block. Another size, other cells.

    Yields
    ------
    ReferenceBlock
    """
    for number, start in enumerate(range(0, n_cells, block_cells)):
        rng = np.random.default_rng([seed, 1, shard, number])
        yield _draw_block(model, min(block_cells, n_cells - start), rng)


def _draw_block(model: ReferenceModel, n_cells: int, rng: np.random.Generator) -> ReferenceBlock:
    cell_type = rng.integers(0, model.n_types, n_cells)
    depth = np.exp(rng.normal(np.log(_MEDIAN_UMI), _DEPTH_SIGMA, n_cells))
    parts = []
    for kind in range(model.n_types):
        cells = np.flatnonzero(cell_type == kind)
        for genes, draw in ((model.likely[kind], _draw_likely), (model.others[kind], _draw_others)):
            if cells.size and genes.size:
                local, column, value = draw(model, kind, depth[cells], rng)
                parts.append((cells[local].astype(np.int32), genes[column].astype(np.int32), value))
    row, column, value = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    counts = sparse.coo_array((value, (row, column)), shape=(n_cells, model.n_genes)).tocsr()
    counts.sum_duplicates()  # several events of one gene; genes ascend afterwards
    kept = np.minimum(counts.data, _MOST).astype(np.uint32)
    # scipy widens both index arrays when one is int64; a block's nonzeros are counted in int32
    places = counts.indices.astype(np.int32, copy=False), counts.indptr.astype(np.int32, copy=False)
    block = sparse.csr_array((kept, *places), shape=counts.shape)
    return ReferenceBlock(counts=block, cell_type=cell_type)


def _draw_likely(
    model: ReferenceModel, kind: int, depth: Float64, rng: np.random.Generator
) -> tuple[Int64, Int64, Int64]:
    """Return (cell, position in `likely`, count) of the nonzero counts of likely genes, by gamma and Poisson."""
    share = model.share[kind][model.likely[kind]]
    rate = rng.standard_gamma(_SHAPE, (depth.size, share.size), dtype=np.float32)
    rate *= (depth / _SHAPE).astype(np.float32)[:, None]
    rate *= share.astype(np.float32)
    drawn = rng.poisson(rate)
    cell, column = np.nonzero(drawn)
    return cell, column, drawn[cell, column]


def _draw_others(
    model: ReferenceModel, kind: int, depth: Float64, rng: np.random.Generator
) -> tuple[Int64, Int64, Int64]:
    """Return (cell, position in `others`, count) of events of the other genes; a pair may come more than once."""
    edges = model.other_edges[kind]
    events = rng.poisson(depth * edges[-1])
    cell = np.repeat(np.arange(depth.size), events)
    column = np.searchsorted(edges, rng.random(cell.size) * edges[-1], side="right")
    np.minimum(column, edges.size - 1, out=column)  # a product may round up to the last edge
    mean = depth[cell] * model.share[kind][model.others[kind]][column]
    true = rng.random(cell.size) * mean < _SHAPE * np.log1p(mean / _SHAPE)
    cell, column, mean = cell[true], column[true], mean[true]
    return cell, column, rng.logseries(mean / (mean + _SHAPE))
